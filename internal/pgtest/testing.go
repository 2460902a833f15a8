package pgtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Option changes the Config of a server for tests.
type Option func(*Config)

// Setting sets a parameter of postgresql.conf, such as wal_level.
func Setting(name, value string) Option {
	return func(c *Config) {
		if c.Settings == nil {
			c.Settings = map[string]string{}
		}
		c.Settings[name] = value
	}
}

// HBA replaces pg_hba.conf's lines; see Config.HBA.
func HBA(lines ...string) Option {
	return func(c *Config) { c.HBA = append(c.HBA, lines...) }
}

// InitDB adds arguments of initdb.
func InitDB(args ...string) Option {
	return func(c *Config) { c.InitDB = append(c.InitDB, args...) }
}

// TLS turns ssl on; see Server.Certificates.
func TLS() Option { return func(c *Config) { c.TLS = true } }

// Durable keeps fsync on.
func Durable() Option { return func(c *Config) { c.Durable = true } }

// LogStatements makes the server log every statement, for tests that look at
// what reached it.
func LogStatements() Option { return Setting("log_statement", "all") }

// Start starts a server for one test, which ends it. Without PostgreSQL
// binaries the test fails, and says how to install them.
func Start(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	var config Config
	for _, opt := range opts {
		opt(&config)
	}
	s, err := Run(context.Background(), config)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() && testing.Verbose() {
			tb.Logf("the server's log:\n%s", s.Log())
		}
		if err := s.Close(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return s
}

// sharedServer starts the one server of this test binary. It is ended by the
// kernel and the janitor when the binary ends: there is no hook that runs
// after the last test, whatever that test did.
var sharedServer = sync.OnceValues(func() (*Server, error) {
	if s, err := useExternal(); s != nil || err != nil {
		return s, err
	}
	return Run(context.Background(), Config{})
})

// Shared returns a server that all tests of this binary use: the one that
// $LOCKKEEPER_TEST_SERVER names, or one that is started. Tests make databases of their own in it, and leave roles and settings as they were.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	s, err := sharedServer()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s
}

// Program returns the path of one of PostgreSQL's client programs. A test for
// which there is none is skipped: some packages of binaries have the server
// alone.
func (s *Server) Program(tb testing.TB, name string) string {
	tb.Helper()
	path := clientProgram(name, s.binDir, s.Major(tb))
	if path == "" {
		tb.Skipf("there is no %s for PostgreSQL %d: not in %s, and none of /usr/lib/postgresql/*/bin will do", name, s.Major(tb), s.binDir)
	}
	return path
}

// Major returns the server's major version.
func (s *Server) Major(tb testing.TB) int {
	tb.Helper()
	n, err := strconv.Atoi(s.Value(tb, Superuser, "SHOW server_version_num"))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return n / 10000
}

// NewDatabase makes an empty database for one test and returns its name; it is
// dropped, with its connections, when the test ends.
func (s *Server) NewDatabase(tb testing.TB) string {
	tb.Helper()
	return s.copyDatabase(tb, "template1")
}

// OdooDatabase makes a database like Odoo's (OdooSchema) for one test, with
// rows rows in account_move, and returns its name. It is copied from a template
// that the first caller waits for.
func (s *Server) OdooDatabase(tb testing.TB, rows int) string {
	tb.Helper()
	template := fmt.Sprintf("odoo_template_%d_%d", os.Getpid(), rows)
	if err := s.odooTemplate(tb.Context(), template, rows); err != nil {
		tb.Fatalf("pgtest: make the template database: %v", err)
	}
	return s.copyDatabase(tb, template)
}

func (s *Server) odooTemplate(ctx context.Context, name string, rows int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.templates[name] {
		return nil
	}
	if err := s.Exec(ctx, Superuser, "CREATE DATABASE "+name); err != nil {
		return err
	}
	conn, err := s.Connect(ctx, name)
	if err != nil {
		return err
	}
	if err := OdooSchema(ctx, conn, rows); err != nil {
		_ = conn.Close(ctx)
		return err
	}
	s.templates[name] = true
	return conn.Close(ctx)
}

func (s *Server) copyDatabase(tb testing.TB, template string) string {
	tb.Helper()
	s.mu.Lock()
	s.databases++
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), s.databases) // test binaries may share a server
	s.mu.Unlock()
	s.MustExec(tb, Superuser, "CREATE DATABASE "+name+" TEMPLATE "+template)
	tb.Cleanup(func() {
		if s.external == nil && s.PID() == 0 {
			return // stopped by the test: the data goes with it
		}
		if err := s.Exec(context.Background(), Superuser, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("pgtest: drop database %s: %v", name, err)
		}
	})
	return name
}

// MustExec is Exec for tests.
func (s *Server) MustExec(tb testing.TB, database, sql string, args ...any) {
	tb.Helper()
	if err := s.Exec(tb.Context(), database, sql, args...); err != nil {
		tb.Fatalf("pgtest: %s: %v", firstLine(sql), err)
	}
}

// MustQuery is Query for tests.
func (s *Server) MustQuery(tb testing.TB, database, sql string) [][]string {
	tb.Helper()
	rows, err := s.Query(tb.Context(), database, sql)
	if err != nil {
		tb.Fatalf("pgtest: %s: %v", firstLine(sql), err)
	}
	return rows
}

// Value returns the one value that a query returns.
func (s *Server) Value(tb testing.TB, database, sql string) string {
	tb.Helper()
	rows := s.MustQuery(tb, database, sql)
	if len(rows) != 1 || len(rows[0]) != 1 {
		tb.Fatalf("pgtest: %s: %d rows, want one value", firstLine(sql), len(rows))
	}
	return rows[0][0]
}

func firstLine(sql string) string {
	line, _, _ := strings.Cut(sql, "\n")
	return line
}
