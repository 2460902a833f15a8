// Package locks shows who waits for whom in PostgreSQL, and which session of lockkeeper that is.
package locks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/proxy"
)

// The limits of a snapshot.
const (
	connectTimeout   = 5 * time.Second
	statementTimeout = "5s"
	maxProcesses     = 2000
	maxLocks         = 5000
	maxDatabases     = 8 // asked for the names of their relations
)

// ErrNoControl is returned for a server without a control login.
var ErrNoControl = errors.New("no control login is configured for this server (server: control: in lockkeeper.yaml)")

// Server is one PostgreSQL server that can be asked.
type Server struct {
	Name    string   // shown to people
	Targets []string // the keys of lockkeeper.yaml's server map that mean it
	Control string   // connection string; empty where there is none

	mu   sync.Mutex // one snapshot at a time
	conn *pgx.Conn  // kept: in an incident there may be no room for a new one
}

// Servers groups the targets of a configuration by the server that they mean.
func Servers(targets map[string]proxy.Target) []*Server {
	byAddr := map[string]*Server{}
	names := make([]string, 0, len(targets))
	for name := range targets {
		names = append(names, name)
	}
	slices.Sort(names)
	var list []*Server
	for _, name := range names {
		t := targets[name]
		addr := fmt.Sprintf("%s:%d", t.Host, t.Port)
		s, ok := byAddr[addr]
		if !ok {
			s = &Server{Name: addr}
			byAddr[addr] = s
			list = append(list, s)
		}
		s.Targets = append(s.Targets, name)
		if s.Control == "" {
			s.Control = t.Control
		}
	}
	return list
}

// Snapshot is who held and wanted what at one moment.
type Snapshot struct {
	Server    string    `json:"server"`
	Time      time.Time `json:"time"` // the server's clock
	Processes []Process `json:"processes"`
	Locks     []Lock    `json:"locks"`
	Truncated bool      `json:"truncated"`         // there were more than are shown
	Lacking   []string  `json:"lacking,omitempty"` // what could not be seen, and what to do about it
}

// Process is a server process that waits for a lock, blocks one that does, or
// holds or wants ACCESS EXCLUSIVE. What it runs is shown for lockkeeper's own
// sessions only, as kind and fingerprint.
type Process struct {
	PID         int32     `json:"pid"` // 0: prepared transactions
	Database    string    `json:"database"`
	User        string    `json:"user"`
	Application string    `json:"application"`
	Address     string    `json:"address"`
	Type        string    `json:"type"`  // client backend, autovacuum worker …
	State       string    `json:"state"` // as in pg_stat_activity
	StateSince  time.Time `json:"state_since,omitzero"`
	TxSince     time.Time `json:"transaction_since,omitzero"`
	WaitEvent   string    `json:"wait_event,omitempty"`
	BlockedBy   []int32   `json:"blocked_by,omitempty"` // pg_blocking_pids()

	Session     uint64   `json:"session,omitempty"` // lockkeeper's session; 0 for a foreign one
	Tags        []string `json:"tags,omitempty"`
	Statement   string   `json:"statement,omitempty"`
	Fingerprint uint64   `json:"fingerprint,omitempty,string"`
	RowsWritten int64    `json:"transaction_rows_written,omitempty"`
}

// Lock is one entry of pg_locks that matters: one that is waited for, one
// that an involved process holds on a relation, and every ACCESS EXCLUSIVE.
type Lock struct {
	PID          int32     `json:"pid"`
	Type         string    `json:"type"` // relation, transactionid, tuple, advisory …
	Database     string    `json:"database,omitempty"`
	Relation     string    `json:"relation,omitempty"` // schema.name, or the OID where the name could not be read
	Mode         string    `json:"mode"`               // as in the manual: ACCESS EXCLUSIVE
	Granted      bool      `json:"granted"`
	WaitingSince time.Time `json:"waiting_since,omitzero"` // PostgreSQL 14 and later

	databaseOID, relationOID uint32
}

// Snapshot asks the server. sessions returns lockkeeper's own, to be
// recognised; it is called after the server was asked, so that nobody who
// waits is a stranger because they have just come.
func (s *Server) Snapshot(ctx context.Context, sessions func() []proxy.SessionInfo) (*Snapshot, error) {
	if s.Control == "" {
		return nil, fmt.Errorf("server %s: %w", s.Name, ErrNoControl)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.conn != nil
	snap, err := s.ask(ctx)
	if err != nil && kept && ctx.Err() == nil { // the kept connection may have died since
		snap, err = s.ask(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", s.Name, err)
	}
	s.join(snap, sessions())
	return snap, nil
}

// Close closes the connection that is kept.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(ctx)
}

// drop forgets the connection after a failure, for which ctx may be the
// cause.
func (s *Server) drop(ctx context.Context) {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // it is of no further use, whatever this says
	s.conn = nil
}

func (s *Server) ask(ctx context.Context) (*Snapshot, error) {
	if s.conn == nil {
		conn, err := Connect(ctx, s.Control, "")
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	snap, err := read(ctx, s.conn)
	if err != nil {
		s.drop(ctx)
		return nil, err
	}
	snap.Server = s.Name
	s.nameRelations(ctx, snap)
	return snap, nil
}

// Connect opens lockkeeper's own connection to a server. Where database is
// not empty it replaces the one in the connection string. Statements on it
// are short and cannot write.
func Connect(ctx context.Context, connString, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(connString)
	if err != nil {
		// The parser's error holds the string, with the password in it.
		return nil, errors.New("read the control login's connection string: it is not one that libpq would take")
	}
	if database != "" {
		cfg.Database = database
	}
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams["application_name"] = "lockkeeper control"
	cfg.RuntimeParams["statement_timeout"] = statementTimeout
	cfg.RuntimeParams["default_transaction_read_only"] = "on"
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect with the control login: %w", err)
	}
	return conn, nil
}

// join marks the processes that are sessions of lockkeeper.
func (s *Server) join(snap *Snapshot, sessions []proxy.SessionInfo) {
	byPID := make(map[int32]*proxy.SessionInfo, len(sessions))
	for i := range sessions {
		if slices.Contains(s.Targets, sessions[i].Target) {
			byPID[int32(sessions[i].ServerPID)] = &sessions[i]
		}
	}
	for i := range snap.Processes {
		p := &snap.Processes[i]
		if one, ok := byPID[p.PID]; ok && p.PID != 0 {
			p.Session, p.Tags, p.Statement, p.Fingerprint = one.ID, one.Tags, one.Statement, one.Fingerprint
			p.RowsWritten = one.TxRows
		}
	}
}

// modeName turns pg_locks' mode into the manual's: AccessExclusiveLock to
// ACCESS EXCLUSIVE.
func modeName(mode string) string {
	var b strings.Builder
	for i, r := range strings.TrimSuffix(mode, "Lock") {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
