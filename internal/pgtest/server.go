package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Superuser is the database superuser of every server that this package starts.
const Superuser = "postgres"

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
	pollInterval = 10 * time.Millisecond
	portAttempts = 5
	socketMax    = 90 // bytes of a socket's folder; the kernel allows 107 with the file's name
)

// Config says how a server is set up. Its zero value is a server that trusts
// everybody on 127.0.0.1 and on a unix socket, and forgets everything.
type Config struct {
	Dir      string            // made by Run, must not exist; "" is a temporary folder. Close removes it
	BinDir   string            // of initdb and postgres; "" is what BinDir() finds
	Port     int               // 0 is a free one
	Settings map[string]string // postgresql.conf
	HBA      []string          // lines of pg_hba.conf in place of "trust" for all; the superuser on the unix socket stays trusted
	InitDB   []string          // further arguments of initdb, such as --encoding=LATIN1
	TLS      bool              // ssl = on, with certificates made for the server (Server.Certificates)
	Durable  bool              // fsync as in production; off is several times faster
}

// Mode is how a server is stopped; the manual's words.
type Mode string

// The shutdown modes of pg_ctl.
const (
	Smart     Mode = "smart"     // when all clients have gone
	Fast      Mode = "fast"      // clients are disconnected, then a checkpoint
	Immediate Mode = "immediate" // no checkpoint: recovery at the next start
)

func (m Mode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Fast:
		return syscall.SIGINT
	case Immediate:
		return syscall.SIGQUIT
	}
	return syscall.SIGQUIT
}

// Server is a PostgreSQL server with a data directory of its own.
type Server struct {
	config  Config
	binDir  string
	dir     string
	port    int
	account account
	certs   Certificates
	janitor *janitor

	external *external // not started by us; nil for the others

	mu        sync.Mutex
	process   *process        // nil while stopped
	templates map[string]bool // databases that tests copy
	databases int             // made by NewDatabase
}

// process is one run of the postmaster.
type process struct {
	pid  int
	done chan struct{} // closed when it was waited for
	err  error         // valid after done
}

// Run sets a server up and starts it. ctx bounds the start, not the server's
// life: callers must Close it.
func Run(ctx context.Context, config Config) (*Server, error) {
	s := &Server{config: config, binDir: config.BinDir, templates: map[string]bool{}}
	if err := s.setUp(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.startOnPort(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) setUp(ctx context.Context) (err error) {
	if s.binDir == "" {
		if s.binDir, err = BinDir(ctx); err != nil {
			return err
		}
	}
	if s.account, err = unprivileged(); err != nil {
		return err
	}
	if err := s.makeDir(); err != nil {
		return fmt.Errorf("make the server's folder: %w", err)
	}
	if s.janitor, err = startJanitor(ctx, s.dir); err != nil {
		return err
	}
	if err := s.initData(ctx); err != nil {
		return err
	}
	if s.config.TLS {
		if s.certs, err = WriteCertificates(s.dir, Superuser); err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
	}
	return s.account.ownAll(s.dir)
}

func (s *Server) makeDir() (err error) {
	switch {
	case s.config.Dir != "":
		if s.dir, err = filepath.Abs(s.config.Dir); err != nil {
			return err
		}
		err = os.Mkdir(s.dir, 0o700)
	case len(os.TempDir()) > socketMax-len("/lockkeeper-pg-0123456789"):
		s.dir, err = os.MkdirTemp("/tmp", "lockkeeper-pg-")
	default:
		s.dir, err = os.MkdirTemp("", "lockkeeper-pg-")
	}
	if err != nil {
		return err
	}
	if len(s.dir) > socketMax {
		return fmt.Errorf("the path of %s is too long for a unix socket", s.dir)
	}
	if err := s.account.reaches(s.dir); err != nil {
		return err
	}
	return s.account.own(s.dir)
}

// startOnPort tries again when somebody took the free port before PostgreSQL
// could.
func (s *Server) startOnPort(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		if err := s.choosePort(ctx); err != nil {
			return err
		}
		if err := s.configure(); err != nil {
			return fmt.Errorf("write the server's configuration: %w", err)
		}
		err := s.Start(ctx)
		if err == nil || s.config.Port != 0 || attempt == portAttempts || !strings.Contains(s.Log(), "could not bind") {
			return err
		}
	}
}

func (s *Server) choosePort(ctx context.Context) (err error) {
	if s.port = s.config.Port; s.port == 0 {
		s.port, err = freePort(ctx)
	}
	return err
}

// freePort returns a port of 127.0.0.1 that nobody listens on.
func freePort(ctx context.Context) (port int, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("look for a free port: %w", err)
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		port = addr.Port
	}
	return port, l.Close()
}

func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"port":                       strconv.Itoa(s.port),
		"unix_socket_directories":    s.dir,
		"max_connections":            "200",
		"max_prepared_transactions":  "10",
		"shared_buffers":             "64MB",
		"dynamic_shared_memory_type": "mmap", // /dev/shm is small in containers
		"log_line_prefix":            "%m [%p] %q%u@%d ",
		"log_timezone":               "UTC",
		"timezone":                   "UTC",
	}
	if !s.config.Durable {
		maps.Copy(settings, map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	}
	if s.config.TLS {
		maps.Copy(settings, map[string]string{
			"ssl": "on", "ssl_cert_file": s.certs.ServerCert, "ssl_key_file": s.certs.ServerKey, "ssl_ca_file": s.certs.CA,
		})
	}
	maps.Copy(settings, s.config.Settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	if err := s.writeData("postgresql.conf", conf.String()); err != nil {
		return err
	}
	return s.writeHBA(s.config.HBA)
}

func (s *Server) writeHBA(lines []string) error {
	if len(lines) == 0 {
		lines = []string{
			"local all all trust", "host all all 127.0.0.1/32 trust", "host all all ::1/128 trust",
			"local replication all trust", "host replication all 127.0.0.1/32 trust",
		}
	}
	return s.writeData("pg_hba.conf", "local all "+Superuser+" trust\n"+strings.Join(lines, "\n")+"\n")
}

func (s *Server) writeData(name, content string) error {
	path := filepath.Join(s.dataDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return s.account.own(path)
}

// Start starts a stopped server again, on the same port, and returns when it
// accepts connections.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.external != nil {
		return errExternal
	}
	if s.process != nil {
		return errors.New("start PostgreSQL: it runs already")
	}
	p, err := s.launch(ctx)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.process = p
	s.janitor.watch(p.pid)
	if err := s.waitReady(ctx, p); err != nil {
		return fmt.Errorf("start PostgreSQL: %w\n%s", err, s.Log())
	}
	return nil
}

func (s *Server) launch(ctx context.Context) (*process, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(s.binDir, "postgres"), "-D", s.dataDir())
	cmd.Dir = s.dataDir()
	cmd.Env = s.environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes(s.account)
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go p.own(cmd, started)
	return p, <-started
}

// own starts the postmaster and waits for it on one thread, which it keeps:
// Pdeathsig is sent when the thread that started the child ends, not when the
// process does, and a thread may end with any goroutine that was locked to it.
func (p *process) own(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := cmd.Start()
	if err == nil {
		p.pid = cmd.Process.Pid
	}
	started <- err
	if err == nil {
		p.err = cmd.Wait()
	}
}

// waitReady waits until postmaster.pid says "ready", as pg_ctl does: it needs
// no login.
func (s *Server) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !s.ready(p.pid) {
		select {
		case <-p.done:
			s.process = nil
			s.janitor.watch(0)
			return fmt.Errorf("postgres ended: %w", p.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func (s *Server) ready(pid int) bool {
	b, err := os.ReadFile(filepath.Join(s.dataDir(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) > 7 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// Stop ends the server and keeps its data; Start brings it back. Stopping a
// stopped server does nothing.
func (s *Server) Stop(mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.external != nil {
		return errExternal
	}
	if s.process == nil {
		return nil
	}
	if err := syscall.Kill(s.process.pid, mode.signal()); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	return s.awaitEnd(mode)
}

func (s *Server) awaitEnd(mode Mode) error {
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.process.done:
		s.process = nil
		s.janitor.watch(0)
		return nil
	case <-timeout.C:
		return fmt.Errorf("stop PostgreSQL: it still runs %v after a %s shutdown was asked for", stopTimeout, mode)
	}
}

// Restart stops the server and starts it again, on the same port.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	if err := s.Stop(mode); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Kill9 ends the server and all its processes as a power failure would. Start
// then goes through crash recovery.
func (s *Server) Kill9() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.external != nil {
		return errExternal
	}
	if s.process == nil {
		return nil
	}
	family := append(childrenOf(s.process.pid), s.process.pid)
	for _, pid := range slices.Backward(family) { // the postmaster first: it would restart the others
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill PostgreSQL: %w", err)
		}
	}
	if err := s.awaitEnd(Immediate); err != nil {
		return err
	}
	for _, pid := range family { // an orphan that still ends would make the next start fail
		for waited := time.Duration(0); !gone(pid); waited += pollInterval {
			if waited > stopTimeout {
				return fmt.Errorf("kill PostgreSQL: process %d still runs", pid)
			}
			time.Sleep(pollInterval)
		}
	}
	return nil
}

// Close stops the server at once and removes its folder.
func (s *Server) Close() error {
	if s.external != nil {
		return nil
	}
	err := s.Stop(Immediate)
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	if s.janitor != nil {
		err = errors.Join(err, s.janitor.dismiss())
	}
	return err
}

// Host returns the address of the TCP listener.
func (s *Server) Host() string {
	if s.external != nil {
		return s.external.host
	}
	return "127.0.0.1"
}

// Port returns the port of the TCP listener and of the socket's name.
func (s *Server) Port() int { return s.port }

// Addr returns host:port of the TCP listener.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host(), strconv.Itoa(s.port)) }

// SocketDir returns the folder of the unix socket; "" for a server that
// somebody else runs.
func (s *Server) SocketDir() string { return s.dir }

// DataDir returns the data directory.
func (s *Server) DataDir() string { return s.dataDir() }

// BinDir returns the folder of the binaries in use, for psql, pgbench and the
// like; they run as anybody.
func (s *Server) BinDir() string { return s.binDir }

// Certificates returns the files that Config.TLS made.
func (s *Server) Certificates() Certificates { return s.certs }

// PID returns the postmaster's process id, 0 while it is stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.pid
}

// ConnString returns a connection string for the superuser over TCP, as
// lockkeeper and its clients would connect.
func (s *Server) ConnString(database string) string {
	return s.connString(s.Host(), database)
}

// SocketString returns a connection string for the superuser over the unix
// socket, where no password is ever asked for.
func (s *Server) SocketString(database string) string {
	return s.connString(s.dir, database)
}

func (s *Server) connString(host, database string) string {
	if s.external != nil {
		return s.external.connString(s.port, database)
	}
	mode := "disable"
	if s.config.TLS && host == s.Host() {
		mode = "require"
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=%s", host, s.port, Superuser, database, mode)
}

// Connect opens a connection as the superuser, on the unix socket.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.SocketString(database))
}

// Exec runs SQL as the superuser, on a connection of its own. Without
// arguments the text may hold several statements.
func (s *Server) Exec(ctx context.Context, database, sql string, args ...any) error {
	conn, err := s.Connect(ctx, database)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql, args...)
	return errors.Join(err, conn.Close(ctx))
}

// Query runs one query as the superuser, on a connection of its own, and
// returns every value as text; NULL is "".
func (s *Server) Query(ctx context.Context, database, sql string) ([][]string, error) {
	conn, err := s.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, err
	}
	var rows [][]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// Log returns what the server has written to its log so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *Server) dataDir() string { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// environment is small and fixed: PGDATA, PGPORT and locale of whoever runs
// the test do not reach the server.
func (s *Server) environment() []string {
	home := s.account.home
	if home == "" {
		home = s.dir
	}
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "TZ=UTC"}
}
