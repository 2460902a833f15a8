package proxy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bare is a server that listens and serves nobody.
func bare(t *testing.T, listen Listen, last uint64) *Server {
	t.Helper()
	cfg := Default()
	cfg.Listen = listen
	cfg.Servers = map[string]Target{"*": {Host: "127.0.0.1"}}
	s, err := New(cfg, Deps{Registerer: prometheus.NewRegistry(), Now: time.Now, LastSession: last})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.closeListeners(func(net.Addr) bool { return true }) })
	return s
}

func tcp(t *testing.T, configured string) Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return Listener{l, configured}
}

func TestWhatIsConfiguredIsInherited(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := bare(t, Listen{TCP: []string{"kept:1", "127.0.0.1:0"}, Unix: []string{socket}}, 0)
	kept, left := tcp(t, "kept:1"), tcp(t, "left:1")
	if err := s.Inherit(t.Context(), []Listener{left, kept}); err != nil {
		t.Fatal(err)
	}
	all := s.Listeners()
	if len(all) != 3 || all[0].Addr() != kept.Addr() || all[1].Configured != "127.0.0.1:0" || all[2].Configured != socket {
		t.Errorf("listeners %v", all)
	}
	if _, err := left.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("what is not configured any more is open: %v", err)
	}
}

func TestSocketsOfSystemdAreInherited(t *testing.T) {
	s := bare(t, Listen{TCP: []string{"127.0.0.1:0"}}, 0)
	passed := tcp(t, "")
	if err := s.Inherit(t.Context(), []Listener{passed}); err != nil {
		t.Fatal(err)
	}
	if all := s.Listeners(); len(all) != 1 || all[0].Addr() != passed.Addr() {
		t.Errorf("listeners %v", all)
	}
}

// The file of a unix socket is its owner's to remove: that of the process that
// accepts.
func TestTheFileOfASocketThatIsHandedOver(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	old := bare(t, Listen{Unix: []string{socket}}, 0)
	if err := old.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := old.Listeners()[0].Listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	next := bare(t, Listen{Unix: []string{socket}}, 0)
	if err := next.Inherit(t.Context(), []Listener{{l, socket}}); err != nil {
		t.Fatal(err)
	}
	old.HandOver()
	if c, err := net.Dial("unix", socket); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	next.OwnSockets()
	next.closeListeners(func(net.Addr) bool { return true })
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestSessionIDsOfTwoProcesses(t *testing.T) {
	for last, want := range map[uint64]uint64{0: 1_000_000, 499_999: 1_000_000, 500_000: 2_000_000, 1_000_001: 2_000_000, 1_700_000: 3_000_000} {
		t.Run(strconv.FormatUint(last, 10), func(t *testing.T) {
			if got := bare(t, Listen{TCP: []string{"127.0.0.1:0"}}, last).LastSessionOfBlock(); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}
