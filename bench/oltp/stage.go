package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"lockkeeper/internal/pgtest"
)

// The targets.
const (
	direct     = "direct"
	pgbouncer  = "pgbouncer"
	haproxy    = "haproxy"
	poll       = "lockkeeper"
	goroutines = "lockkeeper-goroutines"
)

func targetNames() []string { return []string{direct, pgbouncer, haproxy, poll, goroutines} }

// target is what clients connect to: PostgreSQL itself or a proxy in front.
type target struct {
	name string
	port int
	cmd  *exec.Cmd // nil for PostgreSQL
}

// stage is a throwaway PostgreSQL with the targets in front of it.
type stage struct {
	dir     string
	pg      *pgtest.Server
	targets map[string]*target
}

// scale is pgbench's: 100,000 accounts each.
const scale = 5

func setUp(ctx context.Context, o *options) (_ *stage, err error) {
	s := &stage{targets: map[string]*target{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.tearDown())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "lockkeeper-bench-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil { //nolint:gosec // PgBouncer runs as somebody else
		return nil, err
	}
	s.pg, err = pgtest.Run(ctx, pgtest.Config{Settings: map[string]string{"max_connections": "200", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}})
	if err != nil {
		return nil, err
	}
	s.targets[direct] = &target{name: direct, port: s.pg.Port()}
	if out, err := s.command(ctx, "pgbench", s.targets[direct], "-i", "-q", "-s", strconv.Itoa(scale), "postgres").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	start := map[string]func(context.Context, int) (*exec.Cmd, error){
		pgbouncer: s.startBouncer,
		haproxy:   s.startHAProxy,
		poll: func(ctx context.Context, port int) (*exec.Cmd, error) {
			return s.startGuard(ctx, o.program, "poll", port)
		},
		goroutines: func(ctx context.Context, port int) (*exec.Cmd, error) {
			return s.startGuard(ctx, o.program, "goroutines", port)
		},
	}
	for _, name := range o.targets {
		if start[name] == nil {
			continue
		}
		port, err := free(ctx)
		if err != nil {
			return nil, err
		}
		cmd, err := start[name](ctx, port)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		s.targets[name] = &target{name: name, port: port, cmd: cmd}
		if err := s.answers(ctx, s.targets[name]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// command is one of PostgreSQL's client programs, connected to a target.
func (s *stage) command(ctx context.Context, program string, t *target, args ...string) *exec.Cmd {
	path := filepath.Join(s.pg.BinDir(), program)
	if _, err := os.Stat(path); err != nil {
		path = program
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(t.port), "PGUSER="+pgtest.Superuser, "PGSSLMODE=disable", "PGGSSENCMODE=disable", "PGDATABASE=postgres")
	return cmd
}

func (s *stage) startBouncer(_ context.Context, port int) (*exec.Cmd, error) {
	users, config := filepath.Join(s.dir, "users"), filepath.Join(s.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = session
default_pool_size = 150
max_client_conn = 500
log_connections = 0
log_disconnections = 0
log_stats = 0
`, s.pg.Port(), port, users)
	err := errors.Join(os.WriteFile(users, []byte(`"`+pgtest.Superuser+`" ""`+"\n"), 0o644), //nolint:gosec // nothing secret
		os.WriteFile(config, []byte(text), 0o644)) //nolint:gosec // read by another user
	if err != nil {
		return nil, err
	}
	args := []string{"-q", config}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "postgres"}, args...)
	}
	return s.start("pgbouncer", args...)
}

func (s *stage) startHAProxy(_ context.Context, port int) (*exec.Cmd, error) {
	config := filepath.Join(s.dir, "haproxy.cfg")
	text := fmt.Sprintf(`global
    nbthread 1
    maxconn 2000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend pg
    bind 127.0.0.1:%d
    default_backend pg
backend pg
    server pg 127.0.0.1:%d
`, port, s.pg.Port())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s.start("haproxy", "-q", "-db", "-f", config)
}

// guardConfig has the full default policy of profile odoo, about the tables
// that pgbench knows.
const guardConfig = `listen: {tcp: ["127.0.0.1:%d"]}
server:
  "*": {host: 127.0.0.1, port: %d, sslmode: disable, control: "host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable"}
admin: {listen: "127.0.0.1:%d", state: %q}
policy: {profile: odoo, critical_tables: [pgbench_accounts, sale_order, account_move]}
engine: %s
`

func (s *stage) startGuard(ctx context.Context, program, engine string, port int) (*exec.Cmd, error) {
	admin, err := free(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, engine)
	config := filepath.Join(s.dir, engine+".yaml")
	text := fmt.Sprintf(guardConfig, port, s.pg.Port(), s.pg.Port(), pgtest.Superuser, admin, dir, engine)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s.start(program, "serve", "-c", config)
}

// start runs a program until tearDown; what it says goes to a file.
func (s *stage) start(program string, args ...string) (*exec.Cmd, error) {
	log, err := os.CreateTemp(s.dir, filepath.Base(program)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, args...) //nolint:noctx // ended by tearDown
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// answers waits until a target logs clients in.
func (s *stage) answers(ctx context.Context, t *target) error {
	var out []byte
	var err error
	for range 100 {
		if out, err = s.command(ctx, "psql", t, "-XAtc", "SELECT 1").CombinedOutput(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer: %w\n%s", t.name, err, out)
}

func (s *stage) tearDown() error {
	for _, t := range s.targets {
		if t.cmd != nil {
			_ = t.cmd.Process.Kill()
			_ = t.cmd.Wait() // killed
		}
	}
	var errs []error
	if s.pg != nil {
		errs = append(errs, s.pg.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// versions says what was measured.
func (s *stage) versions(ctx context.Context) []string {
	var all []string
	number := regexp.MustCompile(`\d+(\.\d+)+`)
	for _, x := range []struct{ name, program, flag string }{
		{"PostgreSQL", filepath.Join(s.pg.BinDir(), "postgres"), "--version"}, {"PgBouncer", "pgbouncer", "--version"}, {"HAProxy", "haproxy", "-v"},
	} {
		if out, err := exec.CommandContext(ctx, x.program, x.flag).Output(); err == nil {
			all = append(all, x.name+" "+number.FindString(string(out)))
		}
	}
	return all
}

func free(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}
