// Package console answers psql on a database of lockkeeper's own, with the commands that PgBouncer's administrators know.
package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/internal/peercred"
	"lockkeeper/internal/sqlstate"
	"lockkeeper/proxy"
	"lockkeeper/proxy/wire"
)

// The limits of the console.
const (
	MaxClients   = 64 // at a time, logged in or not; then 53300. Local administrators are not counted
	writeTimeout = 30 * time.Second
	pollEvery    = 20 * time.Millisecond // while a command waits
)

// localUser is the name under which whoever owns lockkeeper logs in over a unix
// socket.
const localUser = "lockkeeper"

// Setting is a row of SHOW CONFIG.
type Setting struct {
	Key, Value, Default string
	Changeable          bool
}

// How says what a shutdown waits for.
type How int

// The ways to shut down; each can be changed to a later one.
const (
	WaitForClients How = iota // nobody is ended: clients leave by themselves
	WaitForServers            // sessions end as soon as they are outside a transaction
	AtOnce
)

// Proxy is what the console asks of the proxy.
type Proxy interface {
	// EndQuietSession ends a session outside a transaction, and reports
	// whether it was busy instead.
	EndQuietSession(id uint64) (busy bool)
	// Stats returns what sessions have done, by database, and the sum of all
	// under no name.
	Stats() []proxy.DatabaseStats
}

// Deps are what the console works with; all of them but Registerer.
type Deps struct {
	Database   string // the name that leads to the console; "" when there is none
	Control    *control.Control
	Locks      []*locks.Server
	Keys       *api.Keyring
	Servers    map[string]proxy.Target
	Settings   []Setting
	Limits     proxy.Limits
	Version    string
	Reload     func(ctx context.Context, by control.By) error
	Stop       func(How)             // begins a shutdown, and does not wait for it
	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger
	Now        func() time.Time
}

// Console serves its clients. Its methods are safe for concurrent use.
type Console struct {
	deps    Deps
	metrics *metrics

	mu      sync.Mutex // guards what follows
	proxy   Proxy
	clients map[*client]bool
	counted int
	lastPID uint32
	closing map[uint64]bool // sessions that RECONNECT waits for
}

// New returns a console.
func New(deps Deps) *Console {
	c := &Console{deps: deps, clients: map[*client]bool{}, closing: map[uint64]bool{}}
	c.metrics = newMetrics(deps.Registerer, c)
	return c
}

// Attach names the proxy, which is made after the console.
func (c *Console) Attach(p Proxy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proxy = p
}

func (c *Console) attached() Proxy {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxy
}

// Database is the name that leads to the console.
func (c *Console) Database() string { return c.deps.Database }

// client is one connection to the console.
type client struct {
	c       *Console
	conn    net.Conn
	out     *pgproto3.Backend
	user    string
	role    api.Role
	secure  bool // a password may be asked for
	pid     uint32
	key     [4]byte
	counted bool

	mu     sync.Mutex
	cancel context.CancelFunc // ends the command that runs; nil between commands
}

// Cancel ends what the client of that key waits for.
func (c *Console) Cancel(pid uint32, key []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.clients {
		if k.pid == pid && subtle.ConstantTimeCompare(k.key[:], key) == 1 {
			k.interrupt()
			return true
		}
	}
	return false
}

func (k *client) interrupt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cancel != nil {
		k.cancel()
	}
}

// ServeConsole serves one client until it leaves or ctx ends.
func (c *Console) ServeConsole(ctx context.Context, conn net.Conn, startup *wire.Startup, tls bool) error {
	k := &client{c: c, conn: conn, out: pgproto3.NewBackend(conn, conn), user: startup.Get("user"), secure: tls || near(conn)}
	k.out.SetMaxBodyLen(maxCommandBytes + 1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	negotiate(k.out, startup)
	peer, known := peercred.Of(conn)
	local := k.user == localUser && known && peer.Trusted()
	if err := c.enter(k, local); err != nil {
		return k.end(ctx, err)
	}
	defer c.leave(k)
	if err := k.login(local); err != nil {
		c.metrics.logins.WithLabelValues("refused").Inc()
		return k.end(ctx, err)
	}
	c.metrics.logins.WithLabelValues("ok").Inc()
	c.deps.Logger.LogAttrs(ctx, slog.LevelInfo, "console login", slog.String("author", k.user), slog.String("role", k.role.String()))
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return k.serve(ctx)
}

// near reports whether nobody can listen in between.
func near(conn net.Conn) bool {
	if conn.LocalAddr().Network() == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// negotiate answers newer minor versions and unknown protocol options. Source:
// manual, 55.2.1.
func negotiate(out *pgproto3.Backend, startup *wire.Startup) {
	var unknown []string
	for _, p := range startup.Parameters {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	if startup.Code != wire.Version3 || len(unknown) > 0 {
		out.Send(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: wire.Version3, UnrecognizedOptions: unknown})
	}
}

// enter counts the client. Whoever owns lockkeeper always gets in.
func (c *Console) enter(k *client, local bool) error {
	if _, err := rand.Read(k.key[:]); err != nil {
		return &failure{sqlstate: "XX000", message: "no random bytes"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !local && c.counted >= MaxClients {
		return &failure{sqlstate: sqlstate.TooManyConnections, message: "the console has as many clients as it takes", hint: "Close some, or use the command line."}
	}
	if !local {
		k.counted = true
		c.counted++
	}
	c.lastPID++
	k.pid = c.lastPID
	c.clients[k] = true
	return nil
}

func (c *Console) leave(k *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.clients, k)
	if k.counted {
		c.counted--
	}
}

// failure is an error that the client is told.
type failure struct{ sqlstate, message, detail, hint string }

func (f *failure) Error() string { return f.message }

// login asks for the password and completes the startup.
func (k *client) login(local bool) error {
	if local {
		k.role = api.Admin
	} else if err := k.password(); err != nil {
		return err
	}
	k.out.Send(&pgproto3.AuthenticationOk{})
	for _, p := range k.parameters() {
		k.out.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	k.out.Send(&pgproto3.BackendKeyData{ProcessID: k.pid, SecretKey: k.key[:]})
	return k.ready()
}

// parameters are what drivers want to know. The version's number is one that
// every driver can read; the rest says who answers.
func (k *client) parameters() [][2]string {
	return [][2]string{
		{"server_version", "14.0 (lockkeeper " + k.c.deps.Version + ")"},
		{"server_encoding", "UTF8"},
		{"client_encoding", "UTF8"},
		{"DateStyle", "ISO, MDY"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"integer_datetimes", "on"},
		{"standard_conforming_strings", "on"},
		{"is_superuser", "off"},
		{"session_authorization", k.user},
	}
}

func (k *client) password() error {
	if !k.secure {
		return &failure{
			sqlstate: sqlstate.InvalidAuthorization, message: "the console takes no password in the clear",
			hint: "Connect with sslmode=require, over the unix socket, or from lockkeeper's own machine.",
		}
	}
	if err := k.out.SetAuthType(pgproto3.AuthTypeCleartextPassword); err != nil {
		return fmt.Errorf("ask for the password: %w", err)
	}
	k.out.Send(&pgproto3.AuthenticationCleartextPassword{})
	if err := k.flush(); err != nil {
		return err
	}
	m, err := k.out.Receive()
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	p, ok := m.(*pgproto3.PasswordMessage)
	if !ok {
		return &failure{sqlstate: sqlstate.ProtocolViolation, message: "expected a password"}
	}
	if k.role = k.c.deps.Keys.Login(k.user, p.Password); k.role == api.NoRole {
		return &failure{
			sqlstate: "28P01", message: fmt.Sprintf("password authentication failed for user %q", k.user),
			hint: "The user is the name of an admin token, and the password is the token.",
		}
	}
	return nil
}

// end tells a client that did not get in why. Other errors are connections
// that ended.
func (k *client) end(ctx context.Context, err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return err
	}
	k.c.deps.Logger.LogAttrs(ctx, slog.LevelInfo, "console login refused", slog.String("cause", f.message))
	k.send("FATAL", f)
	return k.flush()
}

func (k *client) send(severity string, f *failure) {
	k.out.Send(&pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: f.sqlstate, Message: f.message, Detail: f.detail, Hint: f.hint,
	})
}

func (k *client) flush() error {
	if err := k.conn.SetWriteDeadline(k.c.deps.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return k.out.Flush()
}

func (k *client) ready() error {
	k.out.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return k.flush()
}

// request is a message of the client, copied.
type request struct {
	kind byte // 'Q', 'S', 'X', or 'E' for anything of the extended protocol
	text string
}

// serve answers queries until the client leaves. A goroutine reads ahead by
// one message, so that a client that leaves ends what it waits for.
func (k *client) serve(ctx context.Context) error {
	ctx, gone := context.WithCancel(ctx)
	requests, done := make(chan request), make(chan struct{})
	go k.readLoop(ctx, gone, requests, done)
	defer func() {
		gone()
		_ = k.conn.Close() // ends the reader
		<-done
	}()
	for skipping := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if err := k.answer(ctx, r, &skipping); err != nil {
				return err
			}
		}
	}
}

func (k *client) readLoop(ctx context.Context, gone context.CancelFunc, requests chan<- request, done chan<- struct{}) {
	defer close(done)
	defer gone()
	for {
		m, err := k.out.Receive()
		if err != nil {
			return
		}
		r := request{kind: 'E'}
		switch m := m.(type) {
		case *pgproto3.Terminate:
			return
		case *pgproto3.Query:
			r = request{'Q', m.String}
		case *pgproto3.Sync:
			r.kind = 'S'
		case *pgproto3.Flush:
			continue
		}
		select {
		case requests <- r:
		case <-ctx.Done():
			return
		}
	}
}

// answer answers one message; after an error in the extended protocol it skips
// what comes before the next Sync.
func (k *client) answer(ctx context.Context, r request, skipping *bool) error {
	switch r.kind {
	case 'Q':
		k.query(ctx, r.text)
		return k.ready()
	case 'S':
		*skipping = false
		return k.ready()
	}
	if *skipping {
		return nil
	}
	*skipping = true
	k.send("ERROR", &failure{
		sqlstate: sqlstate.ProtocolViolation, message: "the console does not know the extended query protocol",
		hint: "Let the driver use the simple one: psql does, in pgx it is default_query_exec_mode=simple_protocol.",
	})
	return k.flush()
}

// query runs the commands of one query up to the first that fails.
func (k *client) query(ctx context.Context, text string) {
	all, err := parse(text)
	if err != nil {
		k.c.metrics.commands.WithLabelValues("unknown", "error").Inc()
		k.send("ERROR", &failure{sqlstate: "42601", message: err.Error(), hint: "SHOW HELP lists the commands."})
		return
	}
	if len(all) == 0 {
		k.out.Send(&pgproto3.EmptyQueryResponse{})
	}
	for i := range all {
		if err := k.runCommand(ctx, &all[i]); err != nil {
			k.send("ERROR", asFailure(err))
			return
		}
	}
}

// runCommand runs one command; a cancel request or the client's end ends it.
func (k *client) runCommand(ctx context.Context, c *command) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mu.Lock()
	k.cancel = cancel
	k.mu.Unlock()
	err := k.run(ctx, c)
	k.mu.Lock()
	k.cancel = nil
	k.mu.Unlock()
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	k.c.metrics.commands.WithLabelValues(strings.ToLower(c.verb), outcome).Inc()
	return err
}

// asFailure says an error in PostgreSQL's words.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{sqlstate: "XX000", message: err.Error()}
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		return f
	}
	f.hint = e.Hint
	switch e.Kind {
	case control.Invalid:
		f.sqlstate = "22023"
	case control.NotFound:
		f.sqlstate = "42704"
	case control.Unavailable:
		f.sqlstate = sqlstate.CannotConnectNow
	case control.Incomplete:
		f.sqlstate = sqlstate.QueryCanceled
	case control.Unsaved:
		f.sqlstate = "58030" // io_error
	case control.Failed:
	}
	return f
}
