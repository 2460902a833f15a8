package faults

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
)

// side is where the fault proxy stands.
type side struct {
	name  string
	proxy func(*guard) *Proxy
}

func sides() []side {
	return []side{
		{"between client and lockkeeper", func(g *guard) *Proxy { return g.front }},
		{"between lockkeeper and server", func(g *guard) *Proxy { return g.behind }},
	}
}

// moment is a point in the middle of something, at which a connection is cut.
type moment struct {
	name string
	// reach begins with a client that has logged in and has a transaction open,
	// and says how many more bytes pass which way.
	reach func(c *client, p *Proxy)
}

func moments() []moment {
	cut := func(p *Proxy, way Way, after int) { p.Set(way, Fault{Cut: true, After: after}) }
	big := strings.Repeat("x", 100_000)
	return []moment{
		{"a Query", func(c *client, p *Proxy) {
			cut(p, Up, 50_000)
			c.query("select '" + big + "'")
		}},
		{"a Bind", func(c *client, p *Proxy) {
			cut(p, Up, 50_000)
			c.send(&pgproto3.Parse{Query: "select $1::text"}, &pgproto3.Bind{Parameters: [][]byte{[]byte(big)}}, &pgproto3.Execute{}, &pgproto3.Sync{})
		}},
		{"a DataRow", func(c *client, p *Proxy) {
			cut(p, Down, 50_000)
			c.query("select repeat('x', 100000)")
		}},
		{"a CopyData to the server", func(c *client, p *Proxy) {
			c.query("copy changed from stdin")
			c.until('G')
			cut(p, Up, 50_000)
			c.send(&pgproto3.CopyData{Data: bytes.Repeat([]byte("1\n"), 50_000)}, &pgproto3.CopyDone{})
		}},
		{"a CopyData to the client", func(c *client, p *Proxy) {
			cut(p, Down, 50_000)
			c.query("copy (select repeat('x', 100000)) to stdout")
		}},
	}
}

// withTLS is a setup with TLS on both sides.
func withTLS(t *testing.T) setup {
	t.Helper()
	certs, err := pgtest.WriteCertificates(t.TempDir(), pgtest.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	return setup{
		pg: pgtest.Start(t, pgtest.TLS()), sslmode: "require",
		config: fmt.Sprintf("tls: {sslmode: allow, cert: %q, key: %q}", certs.ServerCert, certs.ServerKey),
	}
}

// A reset in the middle of a message ends that session alone, and what it had
// open is rolled back.
func TestResetsInTheMiddleOfMessages(t *testing.T) {
	resetMessages(t, start(t, setup{}), "", func(g *guard) *client { return g.victim() })
}

// So it does in the middle of an encrypted one.
func TestResetsInTheMiddleOfEncryptedMessages(t *testing.T) {
	resetMessages(t, start(t, withTLS(t)), ", with TLS on both sides", func(g *guard) *client {
		c, saw := secureLogin(g)
		if c == nil {
			g.t.Fatalf("login: %s", saw)
		}
		c.ok("begin; insert into changed values (1)")
		return c
	})
}

func resetMessages(t *testing.T, g *guard, how string, victim func(*guard) *client) {
	t.Helper()
	for _, s := range sides() {
		for _, m := range moments() {
			t.Run(m.name+" "+s.name, func(t *testing.T) {
				g.in(t)
				p := s.proxy(g)
				c := victim(g)
				m.reach(c, p)
				saw := c.fate()
				p.Set(Up, Fault{})
				p.Set(Down, Fault{})
				g.fill(row{fault: "reset in the middle of " + m.name + ", " + s.name + how, client: saw, server: g.left(), recovery: g.recovers()})
			})
		}
	}
}

// A reset before there is a session.
func TestResetsInTheMiddleOfTheStartup(t *testing.T) {
	g := start(t, setup{})
	for _, s := range sides() {
		for _, w := range []struct {
			name  string
			way   Way
			after int
		}{{"the startup packet", Up, 20}, {"the answer to the startup packet", Down, 30}} {
			t.Run(w.name+" "+s.name, func(t *testing.T) {
				g.in(t)
				p := s.proxy(g)
				p.Set(w.way, Fault{Cut: true, After: w.after})
				c, saw := try(t, g.front.Addr(), g.db, "victim")
				if c != nil {
					t.Fatal("it logged in")
				}
				p.Set(w.way, Fault{})
				g.fill(row{fault: "reset in the middle of " + w.name + ", " + s.name, client: saw, server: g.left(), recovery: g.recovers()})
			})
		}
	}
}

// A reset in the middle of a TLS handshake, with the client and with the
// server.
func TestResetsInTheMiddleOfTheTLSHandshake(t *testing.T) {
	g := start(t, withTLS(t))
	for _, s := range sides() {
		for _, w := range []struct {
			name  string
			way   Way
			after int
		}{{"ClientHello", Up, 8 + 60}, {"ServerHello", Down, 1 + 40}} {
			t.Run(w.name+" "+s.name, func(t *testing.T) {
				g.in(t)
				p := s.proxy(g)
				p.Set(w.way, Fault{Cut: true, After: w.after})
				c, saw := secureLogin(g)
				if c != nil {
					t.Fatal("it logged in")
				}
				p.Set(w.way, Fault{})
				server, recovery := g.left(), g.recovers()
				again, refused := secureLogin(g)
				if again == nil {
					t.Fatalf("TLS afterwards: %s", refused)
				}
				again.bye()
				g.fill(row{fault: "reset in the middle of the TLS handshake (" + w.name + "), " + s.name, client: saw, server: server, recovery: recovery})
			})
		}
	}
}

// secureLogin logs in with TLS, and says what a client sees that cannot.
func secureLogin(g *guard) (c *client, refused string) {
	g.t.Helper()
	c = raw(g.t, g.front.Addr())
	c.send(&pgproto3.SSLRequest{})
	answer := make([]byte, 1)
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := c.conn.Read(answer); err != nil {
		return nil, c.ending(err)
	}
	secured := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is not what is tested
	if err := secured.Handshake(); err != nil {
		return nil, c.ending(err)
	}
	c = wrap(g.t, secured)
	c.startup(g.db, "victim")
	if told, end := c.until('Z'); end != "" {
		return nil, seen(told, end)
	}
	return c, ""
}

// Latency and jitter change nothing but the time.
func TestLatencyOnBothSides(t *testing.T) {
	g := start(t, setup{})
	for _, p := range []*Proxy{g.front, g.behind} {
		for _, way := range []Way{Up, Down} {
			p.Set(way, Fault{Latency: 5 * time.Millisecond, Jitter: 10 * time.Millisecond})
		}
	}
	c := g.victim()
	for i := range 5 {
		if got := c.ok(fmt.Sprintf("select %d", i)); got != fmt.Sprint(i) {
			t.Errorf("got %q", got)
		}
	}
	c.query("copy changed from stdin")
	c.until('G')
	c.send(&pgproto3.CopyData{Data: bytes.Repeat([]byte("1\n"), 100_000)}, &pgproto3.CopyDone{})
	c.until('Z')
	if got := c.ok("select count(*) from changed"); got != "100001" {
		t.Errorf("%s rows", got)
	}
	c.ok("rollback")
	g.undisturbed()
	c.bye()
	g.fill(row{fault: "5–15 ms of latency each way on both sides", client: "every answer", server: g.left(), recovery: g.recovers()})
}

// One kilobyte per second, for a statement and its result.
func TestAKilobytePerSecond(t *testing.T) {
	size := 2000
	if pageWanted() {
		size = 20_000
	}
	for _, s := range sides() {
		t.Run(s.name, func(t *testing.T) {
			aside(t)
			g := start(t, setup{})
			c := g.victim()
			p := s.proxy(g)
			p.Set(Up, Fault{Rate: 1000})
			p.Set(Down, Fault{Rate: 1000})
			done := make(chan string, 1)
			go func() {
				c.query(fmt.Sprintf("select md5(repeat('x', %d) || '%s')", size/2, strings.Repeat("y", size/2)))
				told, end := c.until('Z')
				done <- strings.Join(told, ", ") + end
			}()
			trips := 0
			var got string
			for got == "" {
				g.undisturbed()
				trips++
				select {
				case got = <-done:
				default:
				}
			}
			want := "= " + g.pg.Value(t, g.db, fmt.Sprintf("select md5(repeat('x', %d) || repeat('y', %d))", size/2, size/2))
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if trips < 5 {
				t.Errorf("another session had %d round trips meanwhile", trips)
			}
			p.Set(Up, Fault{})
			p.Set(Down, Fault{})
			c.ok("rollback")
			c.bye()
			g.fill(row{
				fault: fmt.Sprintf("1 kB/s, %s, for a statement of %d kB", s.name, size/2000), client: "its answer, late", server: g.left(),
				recovery: fmt.Sprintf("%s; another session had %d round trips meanwhile", g.recovers(), tripsAtOnce*trips),
			})
		})
	}
}

// impatient finds silent peers within seconds, and leaves a busy machine time
// for a login.
const impatient = "tcp: {keepalive_idle: 1s, keepalive_interval: 1s, keepalive_count: 2, user_timeout: 3s}\nlimits: {connect_timeout: 4s}"

// impatientServer is a server process that does so, too: it is not
// lockkeeper's to end it when nothing reaches it any more.
const impatientServer = "-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2 -c tcp_user_timeout=3000"

// state is what a session does when everything it sends vanishes.
type state struct {
	name string
	do   func(c *client)
}

func states() []state {
	return []state{
		{"idle in a transaction", func(*client) {}},
		{"that runs a statement", func(c *client) {
			c.query("do $$ begin raise notice 'it runs'; perform pg_sleep(1.5); end $$; select repeat('x', 1000) from generate_series(1, 30000)")
			c.until('N')
		}},
		{"in COPY to the server", func(c *client) {
			c.query("copy changed from stdin")
			c.until('G')
			c.send(&pgproto3.CopyData{Data: []byte("1\n")})
		}},
	}
}

// Everything that is sent vanishes, and nobody says that a connection is over:
// lockkeeper finds out by itself.
func TestPacketsThatVanish(t *testing.T) {
	for _, s := range sides() {
		t.Run(s.name, func(t *testing.T) {
			aside(t)
			g := start(t, setup{config: impatient})
			var clients []*client
			for _, st := range states() {
				c := g.login(g.front.Addr(), g.db, "victim", "options", impatientServer)
				c.ok("begin; insert into changed values (1)")
				st.do(c)
				clients = append(clients, c)
			}
			p := s.proxy(g)
			if err := p.Vanish(); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			vanished(t, g, s, p, clients)
		})
	}
}

func vanished(t *testing.T, g *guard, s side, p *Proxy, clients []*client) {
	t.Helper()
	saw := "nothing: it is cut off"
	refused := ""
	if p == g.behind {
		clients[0].query("select 'to nobody'") // more than a probe is under way
		_, refused = try(t, g.front.Addr(), g.db, "new")
		if refused != "08001, connection closed" {
			t.Errorf("a new session meanwhile: %s", refused)
		}
		refused = "; a new session: " + refused
	}
	g.undisturbed()
	g.alone()
	if p == g.behind {
		saw = clients[0].fate()
		for _, c := range clients[1:] {
			if other := c.fate(); other != saw {
				t.Errorf("one client sees %s, another %s", saw, other)
			}
		}
	}
	server := g.left()
	if p == g.behind {
		server += ", by the server's own keepalive"
	}
	if err := p.Appear(); err != nil {
		t.Fatal(err)
	}
	p.Reset() // the connections that nobody has any more
	g.fill(row{
		fault: "packets vanish " + s.name + ", for sessions idle in a transaction, that run a statement and in COPY", client: saw + refused,
		server: server, recovery: g.recovers(),
	})
}
