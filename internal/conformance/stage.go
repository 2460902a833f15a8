package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lockkeeper/internal/pgtest"
)

const (
	readyTimeout = 30 * time.Second
	suiteTimeout = 15 * time.Minute // of one run; a suite that hangs must not hang us
	debianBin    = "/usr/lib/postgresql/15/bin"
)

// The policies that the suites are run under.
const (
	allowsAll     = "{profile: postgres, unknown: allow, rules: []}"
	defaultPolicy = "{profile: postgres}"
)

// keeper is the role of lockkeeper's own connections, with the rights that
// docs/catalog.md asks for: catalogs are read, and waits watched, while the
// suites run.
const keeper = "lockkeeper"

// stage is what the suites are run on: a PostgreSQL server, and a lockkeeper
// for each policy in front of it.
type stage struct {
	out  io.Writer
	fast bool
	keep bool

	dir      string // of everything that is written
	bin      string // PostgreSQL's programs
	version  string // of the server
	day      string
	program  string // lockkeeper; "" until it was built
	source   string // PostgreSQL's, configured; "" until it was fetched
	postgres *pgtest.Server
	guards   []*guard
	bouncers []*pgtest.Bouncer
	chained  map[string][]target // by PgBouncer's mode
	last     []byte              // what the last program printed
	kept     int                 // files of it, where everything is kept
}

// guard is one running lockkeeper.
type guard struct {
	target target
	serve  *exec.Cmd
	served chan error
}

func newStage(fast, keep bool) *stage {
	return &stage{
		out: os.Stderr, fast: fast, keep: keep, chained: map[string][]target{},
		day: time.Now().UTC().Format(time.DateOnly), //nolint:forbidigo // a program's main: the day is printed, and decides nothing
	}
}

func (s *stage) open(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "lockkeeper-conformance-"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil { // PostgreSQL runs as another user, and reads files of the suites
		return err
	}
	if !s.fast {
		s.bin = debianBin
		if err := s.installPackages(ctx); err != nil {
			return err
		}
	}
	if err := s.build(ctx); err != nil {
		return err
	}
	if err := s.startPostgres(ctx); err != nil {
		return err
	}
	return s.startGuards(ctx)
}

// startGuards starts a lockkeeper for each policy; the fast run is content with
// the one that users get.
func (s *stage) startGuards(ctx context.Context) error {
	policies := []struct{ name, says, text string }{
		{"all", "through lockkeeper, allows all", allowsAll}, {"default", "through lockkeeper, default policy", defaultPolicy},
	}
	if s.fast {
		policies = policies[1:]
	}
	for _, policy := range policies {
		g, err := s.startGuard(ctx, target{name: policy.name, says: policy.says}, s.postgres.Port(), policy.text)
		if err != nil {
			return err
		}
		s.guards = append(s.guards, g)
	}
	return nil
}

// build makes lockkeeper, unless we were given one.
func (s *stage) build(ctx context.Context) error {
	if s.program != "" {
		return nil
	}
	s.program = s.path("lockkeeper")
	return s.command(ctx, "", nil, "go", "build", "-o", s.program, "./cmd/lockkeeper")
}

func (s *stage) path(name ...string) string {
	return filepath.Join(append([]string{s.dir}, name...)...)
}

func (s *stage) startPostgres(ctx context.Context) (err error) {
	config := pgtest.Config{
		BinDir: s.bin,
		// The roles that drivers' suites log in as with a password.
		HBA: []string{
			"host all pqgomd5,pgx_md5,all_md5 127.0.0.1/32 md5", "host all pqgopassword,pgx_pw 127.0.0.1/32 password",
			"host all pqgoscram,pgx_scram 127.0.0.1/32 scram-sha-256", "host all pqgossl,pqgosslcert 127.0.0.1/32 reject",
			"local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust",
		},
		Settings: map[string]string{"max_prepared_transactions": "2"}, // isolation's prepared-transactions tests count on few
	}
	if !s.fast {
		config.Settings["wal_level"] = "logical"
		config.Settings["shared_preload_libraries"] = "pg_stat_statements"
		config.Settings["compute_query_id"] = "regress" // or EXPLAIN shows it, and it is another one in each run
	}
	if s.postgres, err = pgtest.Run(ctx, config); err != nil {
		return err
	}
	s.bin = s.postgres.BinDir()
	if err := s.postgres.Exec(ctx, pgtest.Superuser, "CREATE ROLE "+keeper+" LOGIN; GRANT pg_monitor, pg_signal_backend TO "+keeper); err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, filepath.Join(s.bin, "postgres"), "--version").Output()
	if err != nil {
		return err
	}
	s.version = strings.Fields(string(version))[2]
	return nil
}

// targets are the server itself and each lockkeeper.
func (s *stage) targets() []target {
	list := []target{s.direct()}
	for _, g := range s.guards {
		list = append(list, g.target)
	}
	return list
}

func (s *stage) direct() target {
	return target{name: "direct", says: "directly", host: "127.0.0.1", port: s.postgres.Port()}
}

// startGuard starts lockkeeper in front of a port.
func (s *stage) startGuard(ctx context.Context, t target, server int, policy string) (*guard, error) {
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, err
	}
	t.host, t.port = "127.0.0.1", ports[0]
	state := s.path("state-" + t.name)
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, err
	}
	config := s.path(t.name + ".yaml")
	text := fmt.Sprintf(`listen: {tcp: ["127.0.0.1:%d"]}
server:
  "*": {host: 127.0.0.1, port: %d, sslmode: disable, control: "host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable"}
admin: {listen: "127.0.0.1:%d", state: %s}
policy: %s
`, t.port, server, s.postgres.Port(), keeper, ports[1], state, policy)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(s.path(t.name + ".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	g := &guard{target: t, served: make(chan error, 1)}
	g.serve = exec.CommandContext(context.WithoutCancel(ctx), s.program, "serve", "-c", config)
	g.serve.Stdout, g.serve.Stderr = log, log
	g.serve.SysProcAttr = childAttributes()
	if err := g.serve.Start(); err != nil {
		return nil, err
	}
	go g.await()
	if err := g.ready(ctx, ports[1]); err != nil {
		said, _ := os.ReadFile(log.Name()) // what it said is a help, no more
		return g, errors.Join(fmt.Errorf("lockkeeper (%s): %w\n%s", t.says, err, said), g.stop())
	}
	return g, nil
}

// await reaps lockkeeper; stop waits for what it says.
func (g *guard) await() { g.served <- g.serve.Wait() }

func (g *guard) ready(ctx context.Context, admin int) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", admin), http.NoBody)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			if resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-g.served:
			g.served <- err
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("it is not ready after %v", readyTimeout)
		case <-tick.C:
		}
	}
}

// stop kills lockkeeper: what the suites left open does not matter any more.
func (g *guard) stop() error {
	if err := g.serve.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-g.served //nolint:errcheck // it was killed
	return nil
}

// alive says whether every lockkeeper still runs.
func (s *stage) alive() error {
	for _, g := range s.guards {
		select {
		case err := <-g.served:
			g.served <- err
			return fmt.Errorf("lockkeeper (%s) ended: %w", g.target.says, err)
		default:
		}
	}
	return nil
}

func (s *stage) close() error {
	errs := []error{s.stopBouncers()}
	for _, g := range s.guards {
		errs = append(errs, g.stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if s.keep {
		fmt.Fprintf(s.out, "everything is in %s\n", s.dir)
	} else if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// command runs a program that has to succeed.
func (s *stage) command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	if err := s.try(ctx, dir, env, name, args...); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, s.lastOutput())
	}
	return nil
}

// try runs a program and keeps what it printed, whatever its end.
func (s *stage) try(ctx context.Context, dir string, env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, suiteTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = 10 * time.Second // a child of its own may hold its output open
	var err error
	s.last, err = cmd.CombinedOutput()
	if s.keep {
		s.kept++
		err = errors.Join(err, os.WriteFile(s.path(fmt.Sprintf("%03d-%s.log", s.kept, filepath.Base(name))), s.last, 0o600))
	}
	return err
}

// lastOutput is the end of what the last program printed.
func (s *stage) lastOutput() string {
	const most = 4000
	return string(bytes.TrimSpace(s.last[max(0, len(s.last)-most):]))
}

// psql runs SQL of a suite's setup on the server itself.
func (s *stage) psql(ctx context.Context, database string, args ...string) error {
	all := append([]string{"-qX", "-h", "127.0.0.1", "-p", strconv.Itoa(s.postgres.Port()), "-U", pgtest.Superuser, "-d", database, "-v", "ON_ERROR_STOP=1"}, args...)
	return s.command(ctx, "", nil, filepath.Join(s.bin, "psql"), all...)
}

// fresh empties a database by making it again.
func (s *stage) fresh(ctx context.Context, database string) error {
	for _, sql := range []string{`DROP DATABASE IF EXISTS "` + database + `" WITH (FORCE)`, `CREATE DATABASE "` + database + `"`} {
		if err := s.postgres.Exec(ctx, pgtest.Superuser, sql); err != nil {
			return err
		}
	}
	return nil
}

// libpqEnv points programs that use libpq's variables at a target.
func libpqEnv(t target, user, database string) []string {
	return []string{
		"PGHOST=" + t.host, "PGPORT=" + strconv.Itoa(t.port), "PGUSER=" + user, "PGDATABASE=" + database,
		"PGSSLMODE=disable", "PGCONNECT_TIMEOUT=30",
	}
}

func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		if addr, ok := l.Addr().(*net.TCPAddr); ok {
			ports = append(ports, addr.Port)
		}
	}
	return ports, nil
}
