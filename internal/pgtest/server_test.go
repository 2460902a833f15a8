package pgtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestServerAnswersOnBothListeners(t *testing.T) {
	s := Shared(t)
	for _, conn := range []string{s.ConnString(Superuser), s.SocketString(Superuser)} {
		c, err := pgx.Connect(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSharedIsOneServer(t *testing.T) {
	if first := Shared(t); first != Shared(t) {
		t.Fatal("Shared started two servers")
	}
}

func TestSettingsReachTheServer(t *testing.T) {
	s := Start(t, Setting("wal_level", "logical"), Setting("lockkeeper.quoted", "it's"), InitDB("--encoding=LATIN1"), LogStatements())
	for name, want := range map[string]string{
		"wal_level": "logical", "lockkeeper.quoted": "it's", "server_encoding": "LATIN1", "fsync": "off",
	} {
		if got := s.Value(t, Superuser, "SHOW "+name); got != want {
			t.Errorf("SHOW %s: %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(s.Log(), "statement: SHOW wal_level") {
		t.Errorf("the log lacks the statement:\n%s", s.Log())
	}
}

func TestTLSAndPasswords(t *testing.T) {
	s := Start(t, TLS(), HBA("hostssl all all 127.0.0.1/32 scram-sha-256"))
	s.MustExec(t, Superuser, "CREATE ROLE odoo LOGIN PASSWORD 'secret'")
	base := "host=127.0.0.1 dbname=postgres user=odoo port=" + strconv.Itoa(s.Port())
	for _, c := range []struct {
		name, conn string
		works      bool
	}{
		{"verified", base + " password=secret sslmode=verify-full sslrootcert=" + s.Certificates().CA, true},
		{"wrong password", base + " password=wrong sslmode=require", false},
		{"no TLS", base + " password=secret sslmode=disable", false},
	} {
		conn, err := pgx.Connect(t.Context(), c.conn)
		if (err == nil) != c.works {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			_ = conn.Close(t.Context())
		}
	}
}

func TestDataSurvivesStopRestartAndKill(t *testing.T) {
	s := Start(t, Setting("fsync", "on"), Setting("synchronous_commit", "on"))
	s.MustExec(t, Superuser, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
	port := s.Port()
	for name, end := range map[string]func() error{
		"fast":      func() error { return s.Stop(Fast) },
		"immediate": func() error { return s.Stop(Immediate) },
		"smart":     func() error { return s.Stop(Smart) },
		"kill -9":   s.Kill9,
	} {
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := s.Query(t.Context(), Superuser, "SELECT 1"); err == nil {
			t.Fatalf("%s: the server still answers", name)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := s.Value(t, Superuser, "SELECT count(*) FROM kept"); got != "1" || s.Port() != port {
			t.Errorf("%s: %s rows on port %d, want 1 on %d", name, got, s.Port(), port)
		}
	}
	if err := s.Restart(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
}

func TestStartTwiceIsRefused(t *testing.T) {
	if err := Shared(t).Start(t.Context()); err == nil {
		t.Fatal("a running server was started again")
	}
}

func TestBadSettingNamesTheCause(t *testing.T) {
	_, err := Run(t.Context(), Config{Settings: map[string]string{"work_mem": "much"}})
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Fatalf("got %v, want an error that names work_mem", err)
	}
}

func TestMissingBinariesTellHowToInstallThem(t *testing.T) {
	t.Setenv(BinDirVariable, t.TempDir())
	_, err := Run(t.Context(), Config{})
	if !errors.Is(err, ErrNoBinaries) || !strings.Contains(err.Error(), BinDirVariable) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseRemovesTheFolder(t *testing.T) {
	s, err := Run(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.SocketDir()); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	if !gone(pid) {
		t.Errorf("process %d still runs", pid)
	}
}

func TestServerOutlivesTheThreadThatStartedIt(t *testing.T) {
	started := make(chan *Server)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		s, err := Run(context.Background(), Config{})
		if err != nil {
			failed <- err
			return
		}
		started <- s
	}()
	select {
	case err := <-failed:
		t.Fatal(err)
	case s := <-started:
		defer func() { _ = s.Close() }()
		if got := s.Value(t, Superuser, "SELECT 1"); got != "1" {
			t.Errorf("got %q", got)
		}
	}
}

// TestServerEndsWithItsProcess runs this test binary again, as a process that
// starts a server and is killed.
func TestServerEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("LOCKKEEPER_PGTEST_VICTIM"); dir != "" {
		s, err := Run(t.Context(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		line := strconv.Itoa(s.PID()) + "\n" + s.SocketDir()
		if err := os.WriteFile(filepath.Join(dir, "partial"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "partial"), filepath.Join(dir, "server")); err != nil {
			t.Fatal(err)
		}
		select {} // until it is killed
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), self, "-test.run=^TestServerEndsWithItsProcess$")
	victim.Env = append(os.Environ(), "LOCKKEEPER_PGTEST_VICTIM="+dir)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var folder string
	eventually(t, "the server is started", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "server"))
		if err != nil {
			return false
		}
		first, rest, _ := strings.Cut(string(b), "\n")
		pid, err = strconv.Atoi(first)
		folder = rest
		return err == nil
	})
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	eventually(t, "the server ended", func() bool { return gone(pid) })
	eventually(t, "its folder is removed", func() bool {
		_, err := os.Stat(folder)
		return os.IsNotExist(err)
	})
}

func TestServerOfSomebodyElse(t *testing.T) {
	own := Start(t)
	own.MustExec(t, Superuser, `CREATE ROLE "o'dd" SUPERUSER LOGIN`)
	t.Setenv(ServerVariable, strings.Replace(own.ConnString(Superuser), "user=postgres", `user='o\'dd'`, 1))
	s, err := useExternal()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Value(t, s.NewDatabase(t), "SELECT session_user"); got != "o'dd" || s.Addr() != own.Addr() {
		t.Errorf("connected as %q to %s", got, s.Addr())
	}
	for name, err := range map[string]error{"start": s.Start(t.Context()), "stop": s.Stop(Fast), "kill": s.Kill9()} {
		if !errors.Is(err, errExternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(); err != nil || own.PID() == 0 {
		t.Errorf("Close touched it: %v", err)
	}
}

func TestDatabasesAreSeparate(t *testing.T) {
	s := Shared(t)
	a, b := s.NewDatabase(t), s.NewDatabase(t)
	s.MustExec(t, a, "CREATE TABLE only_here ()")
	if got := s.Value(t, b, "SELECT count(*) FROM pg_class WHERE relname = 'only_here'"); got != "0" {
		t.Errorf("the table of %s is in %s", a, b)
	}
}

func TestOdooDatabase(t *testing.T) {
	s := Shared(t)
	db := s.OdooDatabase(t, 1000)
	for sql, want := range map[string]string{
		"SELECT count(*) FROM account_move":                                         "1000",
		"SELECT count(*) FROM account_move_line":                                    "2000",
		"SELECT count(*) > 0 FROM account_invoice":                                  "t",
		"SELECT count(*) FROM pg_inherits WHERE inhparent = 'ir_logging'::regclass": "3",
	} {
		if got := s.Value(t, db, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	s.MustExec(t, db, "DELETE FROM account_invoice WHERE id = 1")
	if got := s.Value(t, db, "SELECT count(*) FROM account_move_line WHERE move_id = 1"); got != "0" {
		t.Errorf("%s lines left: the delete did not cascade", got)
	}
	if got := s.Value(t, db, "SELECT operation FROM account_move_audit WHERE move_id = 1"); got != "DELETE" {
		t.Errorf("the trigger recorded %q", got)
	}
}

func TestInstalledBinDirsAreOrdered(t *testing.T) {
	dirs := InstalledBinDirs()
	if !slices.IsSortedFunc(dirs, func(a, b string) int { return major(a) - major(b) }) {
		t.Errorf("not oldest first: %v", dirs)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s it is not so that %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
