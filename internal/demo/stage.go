package main

import (
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
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
)

const (
	database     = "odoo"
	password     = "odoo" // of a database that lives for minutes and listens on 127.0.0.1
	readyTimeout = 20 * time.Second
	stopTimeout  = 40 * time.Second
	lockTimeout  = 3 * time.Second // of DDL, in the demo's policy
)

// stage is what the tour is played on: PostgreSQL, and lockkeeper in front.
type stage struct {
	dir  string // of everything that is written
	bin  string // of the program
	rows int
	out  io.Writer

	postgres  *pgtest.Server
	serve     *exec.Cmd
	served    chan error // what lockkeeper's end was
	port      int
	adminPort int
}

func (s *stage) open(ctx context.Context) (err error) {
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	for _, step := range []struct {
		say string
		do  func(context.Context) error
	}{
		{"Building " + s.program() + " (the parser is C: the first time takes a minute or two)", s.build},
		{"Starting a throwaway PostgreSQL", s.startPostgres},
		{fmt.Sprintf("Making an Odoo-like database with %d rows in account_move", s.rows), s.fill},
		{"Starting lockkeeper in front of it", s.startLockkeeper},
	} {
		fmt.Fprintf(s.out, "%s ...\n", step.say)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(step.say[:1])+step.say[1:], err)
		}
	}
	return nil
}

func (s *stage) build(ctx context.Context) error {
	return s.command(ctx, "go", "build", "-trimpath", "-o", s.program(), "./cmd/lockkeeper")
}

func (s *stage) command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (s *stage) startPostgres(ctx context.Context) (err error) {
	if err := s.clear(); err != nil {
		return err
	}
	config := pgtest.Config{
		Dir: filepath.Join(s.dir, "postgres"),
		HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"},
	}
	if s.postgres, err = pgtest.Run(ctx, config); err != nil && !errors.Is(err, pgtest.ErrNoBinaries) && os.Geteuid() == 0 {
		config.Dir = "" // whom PostgreSQL runs as may not enter ours
		s.postgres, err = pgtest.Run(ctx, config)
	}
	return err
}

// clear removes what an earlier demo left, unless it still runs.
func (s *stage) clear() error {
	if b, err := os.ReadFile(filepath.Join(s.dir, "postgres", "data", "postmaster.pid")); err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		if pid, err := strconv.Atoi(line); err == nil && syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("another demo runs in %s: PostgreSQL is process %d", s.dir, pid)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	return os.Mkdir(s.dir, 0o755)
}

func (s *stage) fill(ctx context.Context) error {
	err := s.postgres.Exec(ctx, pgtest.Superuser, `
		SET password_encryption = 'scram-sha-256';
		CREATE ROLE odoo LOGIN CREATEDB PASSWORD '`+password+`';
		CREATE ROLE lockkeeper LOGIN PASSWORD '`+password+`';
		GRANT pg_monitor, pg_signal_backend TO lockkeeper`)
	if err != nil {
		return err
	}
	if err := s.postgres.Exec(ctx, pgtest.Superuser, "CREATE DATABASE "+database+" OWNER odoo"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.direct())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return pgtest.OdooSchema(ctx, conn, s.rows)
}

// direct is the connection string past lockkeeper, guarded the one through it.
func (s *stage) direct() string  { return s.connString(s.postgres.Port(), "direct") }
func (s *stage) guarded() string { return s.connString(s.port, "tour") }

func (s *stage) connString(port int, application string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=odoo password=%s dbname=%s sslmode=disable application_name=%s",
		port, password, database, application)
}

func (s *stage) startLockkeeper(ctx context.Context) (err error) {
	if s.port, err = freePort(ctx, 6433); err != nil {
		return err
	}
	if s.adminPort, err = freePort(ctx, 6434); err != nil {
		return err
	}
	if err := s.writeConfig(); err != nil {
		return err
	}
	if err := s.command(ctx, s.program(), "check", "-c", s.config()); err != nil {
		return err
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	s.serve = exec.CommandContext(context.WithoutCancel(ctx), s.program(), "serve", "-c", s.config())
	s.serve.Stdout, s.serve.Stderr = log, log
	s.serve.SysProcAttr = childAttributes()
	if err := s.serve.Start(); err != nil {
		return err
	}
	s.served = make(chan error, 1)
	go s.await()
	return s.waitReady(ctx)
}

// await reaps lockkeeper; close waits for what it says.
func (s *stage) await() { s.served <- s.serve.Wait() }

func (s *stage) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !s.ready(ctx) {
		select {
		case err := <-s.served:
			s.serve = nil
			return fmt.Errorf("it ended (%w); its log:\n%s", err, s.readLog())
		case <-ctx.Done():
			return fmt.Errorf("it is not ready after %v; its log:\n%s", readyTimeout, s.readLog())
		case <-tick.C:
		}
	}
	return nil
}

func (s *stage) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.adminURL()+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// freePort returns the port that readers of the documents expect, or any other
// when it is taken.
func freePort(ctx context.Context, wanted int) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wanted)))
	if err != nil {
		l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return 0, err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		wanted = addr.Port
	}
	return wanted, l.Close()
}

func (s *stage) program() string  { return filepath.Join(s.bin, "lockkeeper") }
func (s *stage) config() string   { return filepath.Join(s.dir, "lockkeeper.yaml") }
func (s *stage) state() string    { return filepath.Join(s.dir, "state") }
func (s *stage) log() string      { return filepath.Join(s.dir, "lockkeeper.log") }
func (s *stage) adminURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.adminPort) }

func (s *stage) readLog() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *stage) printConnections() {
	fmt.Fprintf(s.out, `
Through lockkeeper:   psql "%s"
Past it:              psql "%s"
Command line:         %s -c %s status
Log:                  %s
`, s.guarded(), s.direct(), s.program(), s.config(), s.log())
}

// waitForEnd returns when the user wants to end, or lockkeeper has.
func (s *stage) waitForEnd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.out, "\nStopping.")
		return nil
	case err := <-s.served:
		s.serve = nil
		return fmt.Errorf("lockkeeper ended (%w); its log:\n%s", err, s.readLog())
	}
}

// close ends lockkeeper, then PostgreSQL, and removes what they wrote.
func (s *stage) close() error {
	var errs []error
	if s.serve != nil && s.serve.Process != nil {
		errs = append(errs, s.stopLockkeeper())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func (s *stage) stopLockkeeper() error {
	if err := s.serve.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case err := <-s.served:
		if err != nil {
			return fmt.Errorf("lockkeeper ended with %w; its log:\n%s", err, s.readLog())
		}
		return nil
	case <-timeout.C:
		return errors.Join(fmt.Errorf("lockkeeper still ran %v after SIGTERM", stopTimeout), s.serve.Process.Kill(), <-s.served)
	}
}
