package proxy_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// withPeers names the lockkeepers that a guard passes cancel requests on to.
func withPeers(addresses ...string) func(*setup) {
	return func(s *setup) { s.cfg.Peers = addresses }
}

// onSocket lets a guard listen on a unix socket too.
func onSocket(path string) func(*setup) {
	return func(s *setup) { s.cfg.Listen.Unix = []string{path} }
}

// asked returns how often a guard has asked peers, by outcome.
func (g *guard) asked(outcome string) float64 {
	g.t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "lockkeeper_peer_cancels_total" && m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestACancelReachesAStatementThatAnotherLockkeeperHolds(t *testing.T) {
	certs, err := pgtest.WriteCertificates(t.TempDir(), pgtest.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "a")
	for name, c := range map[string]struct {
		holder func(*setup)
		unix   bool
	}{
		"TCP":         {holder: func(*setup) {}},
		"unix socket": {holder: onSocket(socket), unix: true},
		"TLS only": {holder: func(s *setup) {
			s.cfg.TLS = proxy.ClientTLS{Mode: "require", Cert: certs.ServerCert, Key: certs.ServerKey}
		}},
		"client certificates only": {holder: func(s *setup) {
			s.cfg.TLS = proxy.ClientTLS{Mode: "verify-ca", Cert: certs.ServerCert, Key: certs.ServerKey, CA: certs.CA}
		}},
		"behind a balancer, by socket": {holder: func(s *setup) {
			s.cfg.Listen.ProxyProtocolFrom = []string{"127.0.0.1"}
			onSocket(socket)(s)
		}, unix: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newGuard(t, onSocket(socket), c.holder)
			peer := a.addr
			if c.unix {
				peer = socket
			}
			b := newGuard(t, withPeers(peer))
			p := socketPeer(t, socket, a.db)
			a.pause(time.Hour, false)
			p.send(&pgproto3.Query{String: insert})
			a.awaitHeld(1)
			b.cancel(p)
			if got := strings.Join(p.until('Z'), ", "); got != "E 57014, Z I" {
				t.Errorf("got %s", got)
			}
			if n := b.asked("known"); n != 1 {
				t.Errorf("%v peers knew the key, want 1", n)
			}
		})
	}
}

// socketPeer logs in by unix socket, where neither TLS nor a PROXY header is
// asked for.
func socketPeer(t *testing.T, path, database string) *peer {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &peer{t: t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
	p.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "postgres", "database": database}})
	p.until('Z')
	return p
}

// What runs in the server is cancelled by the lockkeeper whose session it is,
// and by nobody else: a second cancel could hit the next statement.
func TestACancelOfWhatRunsIsSentOnce(t *testing.T) {
	a := newGuard(t)
	b := newGuard(t, withPeers(a.addr))
	p := a.peer()
	for range 20 {
		p.send(&pgproto3.Query{String: "select pg_sleep(600)"})
		a.awaitSleeper(1)
		b.cancel(p)
		if got := strings.Join(p.until('Z'), ", "); !strings.Contains(got, "E 57014, Z I") {
			t.Fatalf("got %s", got)
		}
		if got := p.run("Q select 1 from pg_sleep(0.01)"); got != "T, D 1, C SELECT 1, Z I" {
			t.Fatalf("the next statement: %s", got)
		}
	}
}

// A key that nobody knows is asked for once at each peer, which ask no further.
func TestCancelsDoNotGoRound(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")}
	var ring []*guard
	for _, path := range paths {
		ring = append(ring, newGuard(t, onSocket(path), withPeers(paths...))) // itself included
	}
	d := ring[0].directPeer()
	const requests = 100
	for range requests {
		ring[0].cancel(d)
	}
	for i, want := range []float64{requests * 2, requests, requests} { // the first from the client and from itself
		if n := ring[i].reading("lockkeeper_cancel_requests_total"); n != want {
			t.Errorf("%d received %v requests, want %v", i, n, want)
		}
	}
	if n := ring[0].asked("unknown"); n != 3*requests {
		t.Errorf("%v answers of peers, want %d", n, 3*requests)
	}
	for _, g := range ring[1:] {
		if n := g.asked("unknown") + g.asked("known") + g.asked("failed"); n != 0 {
			t.Errorf("a request was passed on %v times", n)
		}
	}
}

// A peer that does not answer keeps a cancel from the servers for a bounded
// time only.
func TestAPeerThatDoesNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	b := newGuard(t, withPeers(silent.Addr().String(), filepath.Join(t.TempDir(), "nobody")))
	d := newPeer(t, b.pg.Addr(), "postgres", b.db)
	d.send(&pgproto3.Query{String: "select pg_sleep(600)"})
	b.awaitSleeper(1)
	b.cancel(d)
	if got := strings.Join(d.until('Z'), ", "); !strings.Contains(got, "E 57014, Z I") {
		t.Errorf("got %s", got)
	}
	if n := b.asked("failed"); n != 2 {
		t.Errorf("%v peers failed, want 2", n)
	}
}

// Somebody who is no lockkeeper may listen where a peer is expected.
func TestAPeerThatIsNone(t *testing.T) {
	b := newGuard(t)
	c := newGuard(t, withPeers(b.pg.Addr())) // PostgreSQL answers with an error
	d := newPeer(t, c.pg.Addr(), "postgres", c.db)
	d.send(&pgproto3.Query{String: "select pg_sleep(600)"})
	c.awaitSleeper(1)
	c.cancel(d)
	if got := strings.Join(d.until('Z'), ", "); !strings.Contains(got, "E 57014, Z I") {
		t.Errorf("got %s", got)
	}
	if n := c.asked("failed"); n != 1 {
		t.Errorf("%v peers failed, want 1", n)
	}
}

func TestPeersAreChecked(t *testing.T) {
	cfg := proxy.Default()
	cfg.Servers = map[string]proxy.Target{"*": {Host: "127.0.0.1"}}
	for _, bad := range [][]string{{"host"}, {"relative/path"}, make([]string, 17)} {
		cfg.Peers = bad
		if err := cfg.Validate(); err == nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
