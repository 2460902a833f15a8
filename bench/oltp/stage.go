package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"lockkeeper/internal/pgtest"
)

// The targets.
const (
	direct     = "direct"
	pgbouncer  = "pgbouncer"
	haproxy    = "haproxy"
	poll       = "lockkeeper-poll"
	goroutines = "lockkeeper-goroutines"
)

// engineOf names the engine of a target.
var engineOf = map[string]string{poll: "poll", goroutines: "goroutines"}

func targetNames() []string { return []string{direct, pgbouncer, haproxy, poll, goroutines} }

// target is what clients connect to: PostgreSQL itself or a proxy in front.
type target struct {
	name string
	port int
	pid  int          // 0 for PostgreSQL
	stop func() error // nil for PostgreSQL
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
	s.pg, err = pgtest.Run(ctx, pgtest.Config{Settings: map[string]string{"max_connections": "200", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}})
	if err != nil {
		return nil, err
	}
	s.targets[direct] = &target{name: direct, port: s.pg.Port()}
	if out, err := s.command(ctx, "pgbench", s.targets[direct], "-i", "-q", "-s", strconv.Itoa(scale), "postgres").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	start := map[string]func(context.Context) (*target, error){
		pgbouncer:  s.startBouncer,
		haproxy:    s.startHAProxy,
		poll:       func(ctx context.Context) (*target, error) { return s.startGuard(ctx, o.program, engineOf[poll]) },
		goroutines: func(ctx context.Context) (*target, error) { return s.startGuard(ctx, o.program, engineOf[goroutines]) },
	}
	for _, name := range o.targets {
		if start[name] == nil {
			continue
		}
		t, err := start[name](ctx)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		t.name, s.targets[name] = name, t
		if err := s.answers(ctx, t); err != nil {
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

// startBouncer starts PgBouncer in session mode, without logging.
func (s *stage) startBouncer(ctx context.Context) (*target, error) {
	b, err := pgtest.RunBouncer(ctx, pgtest.BouncerConfig{Server: s.pg.Addr(), Settings: map[string]string{
		"default_pool_size": "150", "max_client_conn": "500", "log_connections": "0", "log_disconnections": "0", "log_stats": "0",
	}})
	if err != nil {
		return nil, err
	}
	return &target{port: b.Port(), pid: b.PID(), stop: b.Close}, nil
}

func (s *stage) startHAProxy(ctx context.Context) (*target, error) {
	port, err := free(ctx)
	if err != nil {
		return nil, err
	}
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
	return s.start(port, "haproxy", "-q", "-db", "-f", config)
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

func (s *stage) startGuard(ctx context.Context, program, engine string) (*target, error) {
	port, err := free(ctx)
	if err != nil {
		return nil, err
	}
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
	return s.start(port, program, "serve", "-c", config)
}

// start runs a program until tearDown, or our own end; what it says goes to a
// file.
func (s *stage) start(port int, program string, args ...string) (*target, error) {
	log, err := os.CreateTemp(s.dir, filepath.Base(program)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, args...) //nolint:noctx // ended by tearDown
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, processAttributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		return nil
	}
	return &target{port: port, pid: cmd.Process.Pid, stop: stop}, nil
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
	var errs []error
	for _, t := range s.targets {
		if t.stop != nil {
			errs = append(errs, t.stop())
		}
	}
	if s.pg != nil {
		errs = append(errs, s.pg.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
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
