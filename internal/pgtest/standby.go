package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// RunStandby sets up a hot standby of a server that this package started, and
// starts it. Settings and pg_hba.conf are the primary's, which is stopped for
// the copy: some packages of binaries have no pg_basebackup. Callers must Close
// it. Source: manual, 25.2 "File System Level Backup" and 26.2.4 "Setting Up a
// Standby Server".
func RunStandby(ctx context.Context, primary *Server) (*Server, error) {
	if primary.external != nil {
		return nil, errExternal
	}
	config := primary.config
	config.Dir, config.Port, config.TLS = "", 0, false
	s := &Server{config: config, binDir: primary.binDir, account: primary.account, templates: map[string]bool{}}
	err := s.makeDir()
	if err == nil {
		s.janitor, err = startJanitor(ctx, s.dir)
	}
	if err == nil {
		err = s.copyOf(ctx, primary)
	}
	if err == nil {
		err = s.startOnPort(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// copyOf makes the data directory of a standby.
func (s *Server) copyOf(ctx context.Context, primary *Server) error {
	if err := primary.Stop(Fast); err != nil {
		return err
	}
	if err := copyTree(primary.dataDir(), s.dataDir()); err != nil {
		return fmt.Errorf("copy the primary's data directory: %w", err)
	}
	if err := primary.Start(ctx); err != nil {
		return err
	}
	conninfo := fmt.Sprintf("host=%s port=%d user=%s", primary.dir, primary.port, Superuser)
	if err := s.writeData("postgresql.auto.conf", "primary_conninfo = '"+conninfo+"'\n"); err != nil {
		return err
	}
	if err := s.writeData("standby.signal", ""); err != nil {
		return err
	}
	return s.account.ownAll(s.dataDir())
}

// StartStandby is RunStandby for one test, which ends it.
func StartStandby(tb testing.TB, primary *Server) *Server {
	tb.Helper()
	s, err := RunStandby(context.Background(), primary)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return s
}

// Promote makes a primary of a standby, and returns when it is one.
func (s *Server) Promote(ctx context.Context) error {
	return s.run(ctx, "pg_ctl", "promote", "--wait", "--pgdata="+s.dataDir())
}

// run runs one of PostgreSQL's programs as the server's account.
func (s *Server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, program), args...)
	cmd.Dir = s.dir
	cmd.Env = s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}
