package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
)

// supervisor starts lockkeeper as systemd would.
type supervisor struct {
	t      *testing.T
	dir    string
	socket *os.File
	notes  *net.UnixConn
}

func newSupervisor(t *testing.T) (s *supervisor, conninfo string) {
	t.Helper()
	pg := pgtest.Shared(t)
	dir := t.TempDir()
	config := fmt.Sprintf(testConfig, 1, pg.Host(), pg.Port(), pg.ConnString("postgres"), freePort(t)) // port 1: the socket takes its place
	for name, content := range map[string]string{"lockkeeper.yaml": config, "policy.yaml": testPolicy} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close() // the file is the socket now
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close(); notes.Close() })
	return &supervisor{t: t, dir: dir, socket: socket, notes: notes},
		fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable", addr.Port, pgtest.Superuser)
}

// start runs one lockkeeper; stop ends it as systemd does.
func (s *supervisor) start() (stop func()) {
	s.t.Helper()
	program, err := exec.LookPath("lockkeeper")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve -c lockkeeper.yaml --log-level warn`, program)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(s.dir, "n"))
	cmd.ExtraFiles = []*os.File{s.socket}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.told("READY=1")
	return func() {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			s.t.Fatal(err)
		}
		s.told("RELOADING=1")
		s.told("READY=1")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			s.t.Fatal(err)
		}
		s.told("STOPPING=1")
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("%v\n%s", err, log.String())
		}
	}
}

// told reads what lockkeeper tells.
func (s *supervisor) told(want string) {
	s.t.Helper()
	b := make([]byte, 100)
	s.notes.SetReadDeadline(time.Now().Add(30 * time.Second))
	n, err := s.notes.Read(b)
	if err != nil || string(b[:n]) != want {
		s.t.Fatalf("told %q, %v, want %q", b[:n], err, want)
	}
}

// TestRestartUnderSystemdRefusesNobody connects again and again while
// lockkeeper is restarted on a socket that is passed to it.
func TestRestartUnderSystemdRefusesNobody(t *testing.T) {
	s, conninfo := newSupervisor(t)
	stop := s.start()
	end, ended := make(chan struct{}), make(chan error, 1)
	served := 0
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			c, err := pgx.Connect(t.Context(), conninfo)
			if err == nil {
				served++
				_ = c.Close(t.Context())
				continue
			}
			// One that is being served when lockkeeper stops loses its session; none is refused.
			if errors.Is(err, syscall.ECONNREFUSED) {
				ended <- err
				return
			}
		}
	}()
	for range 3 {
		stop()
		stop = s.start()
	}
	close(end)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	stop()
	if served == 0 {
		t.Error("nobody was served")
	}
}

func TestSocketsOfAnotherProcessAreNotTaken(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	if all, err := passedListeners(); len(all) != 0 || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	t.Setenv("LISTEN_FDS", "many")
	if _, err := passedListeners(); err == nil {
		t.Error("a number that is none is taken")
	}
}
