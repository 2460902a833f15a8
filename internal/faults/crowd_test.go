package faults

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// crowd is a number of clients that never say who they are.
type crowd struct {
	clients, logins int
	says            string
	what            string
	slow            bool
}

// Clients that never finish their startup cost lockkeeper little and the
// server nothing, and keep nobody out.
func TestClientsThatNeverFinishTheirStartup(t *testing.T) {
	half := "\x00\x00\x00\x50\x00\x03\x00\x00user\x00post"
	for _, w := range []crowd{
		{clients: 1500, logins: 500, says: half, what: "half a startup packet"},
		{clients: 10_000, logins: 1000, says: half, what: "half a startup packet", slow: true},
		{clients: 9000, logins: 9000, says: half, what: "half a startup packet", slow: true},
		{clients: 2000, logins: 2000, says: "", what: "nothing", slow: true},
	} {
		t.Run(fmt.Sprintf("%d that say %s, limits.logins %d", w.clients, w.what, w.logins), func(t *testing.T) {
			if w.slow {
				slow(t)
			}
			comes(t, w)
		})
	}
}

func comes(t *testing.T, w crowd) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(w.clients)+500 {
		t.Skipf("%d clients need more file descriptors than %d", w.clients, limit.Cur)
	}
	g := start(t, setup{config: fmt.Sprintf("limits: {logins: %d}", w.logins)})
	const slots = "select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name not in ('honest', 'bystander') and datname = current_database()"
	before := g.pg.Value(t, g.db, slots)
	var all []net.Conn
	honest := 0
	for i := range w.clients {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, w.says)
		all = append(all, c)
		if i%(w.clients/10) == 0 {
			h := g.login(g.front.Addr(), g.db, "honest")
			h.ok("select 1")
			h.bye()
			honest++
		}
	}
	settle(t, "they are all there, as far as they may be", func() bool {
		return int(g.metric("lockkeeper_greetings")) == min(w.clients, w.logins)
	})
	g.undisturbed()
	if after := g.pg.Value(t, g.db, slots); after != before {
		t.Errorf("the server had %s sessions, and has %s", before, after)
	}
	cut := g.metric("lockkeeper_logins_evicted_total")
	for _, c := range all {
		c.Close()
	}
	recovery := g.recovers()
	each := (g.highest - g.before) * 1024 / float64(min(w.clients, w.logins))
	g.grown(float64(min(w.clients, w.logins))*0.03 + 20)
	g.fill(row{
		fault:  fmt.Sprintf("%d connections that send %s and stay, limits.logins %d", w.clients, w.what, w.logins),
		client: fmt.Sprintf("%.0f were disconnected for newer ones; %d honest clients logged in meanwhile", cut, honest),
		server: g.left() + "; no slot was taken", recovery: fmt.Sprintf("%s; %.0f kB each", recovery, each),
	})
}

// Cancel requests whose senders disconnect at once, by a close or a reset, and
// sessions that do so while they are cancelled.
func TestAStormOfCancelsAndDisconnects(t *testing.T) {
	g := start(t, setup{})
	rounds := 10
	if pageWanted() {
		rounds = 100
	}
	var cancels atomic.Int64
	var storm sync.WaitGroup
	for range 20 {
		storm.Go(func() {
			for range rounds {
				c, refused := try(t, g.front.Addr(), g.db, "victim")
				if c == nil {
					t.Errorf("login: %s", refused)
					return
				}
				c.query("begin; insert into changed values (1); select pg_sleep(3)")
				for range 3 {
					cancels.Add(1)
					cancel(t, g.addr, c, rand.IntN(2) == 0)
				}
				if rand.IntN(2) == 0 {
					c.reset()
				} else {
					c.conn.Close()
				}
			}
		})
	}
	storm.Wait()
	g.undisturbed()
	if !strings.Contains(g.log(), "session ended") {
		t.Error("no session has ended")
	}
	g.fill(row{
		fault:  fmt.Sprintf("%d cancel requests in a storm, senders and sessions disconnect at once (close, reset)", cancels.Load()),
		client: "nothing: they are gone", server: g.left(), recovery: g.recovers(),
	})
}

// cancel asks for the end of a client's statement and does not wait.
func cancel(t *testing.T, addr string, c *client, reset bool) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	request := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.key)))
	request = binary.BigEndian.AppendUint32(request, 80877102)
	request = binary.BigEndian.AppendUint32(request, c.pid)
	_, _ = conn.Write(append(request, c.key...))
	if reset {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	conn.Close()
}

// halves is a message that is begun and not ended.
type halves struct {
	name, head string
	size       int
	config     string
	most       float64 // MiB that lockkeeper may collect
}

// Sessions that begin messages and never end them. A text is collected to be
// inspected, up to a limit for all sessions; other messages pass as they come.
func TestHalfMessagesForEver(t *testing.T) {
	const size, clients = 1 << 20, 20
	for _, w := range []halves{
		{"a Query of 32 MB", "Q\x02\x00\x00\x00", size, "", 2 * clients},
		{"a Parse of 32 MB", "P\x02\x00\x00\x00\x00", size, "", 2 * clients},
		{"a Query of 32 MB, limits.collected_bytes 4 MB", "Q\x02\x00\x00\x00", size, "limits: {collected_bytes: 4194304}", 4},
		{"a Bind of 32 MB", "B\x02\x00\x00\x00\x00\x00", size, "", 0},
		{"a header", "Q\x00\x00", 0, "", 0},
	} {
		t.Run(w.name, func(t *testing.T) {
			g := start(t, setup{config: w.config, policy: bracketed})
			var all []*client
			for range clients {
				c := g.open()
				_, _ = io.WriteString(c.conn, w.head+strings.Repeat("x", w.size))
				all = append(all, c)
			}
			var collected float64
			settle(t, "lockkeeper has what was sent", func() bool {
				collected = g.metric("lockkeeper_collected_bytes")
				return collected+g.relayed() >= 0.9*float64(clients*w.size)
			})
			if collected > w.most*(1<<20) {
				t.Errorf("%.0f bytes are collected, want at most %.0f MiB", collected, w.most)
			}
			g.undisturbed()
			for _, c := range all {
				c.reset()
			}
			server, recovery := g.left(), g.recovers()
			g.grown(3*w.most + 20)
			g.fill(row{
				fault:  fmt.Sprintf("%d sessions with a transaction open begin %s, send %d kB of it and stay; then they are reset", clients, w.name, w.size>>10),
				client: "nothing: as PostgreSQL, lockkeeper waits", server: server, recovery: fmt.Sprintf("%s; %.0f MiB were collected", recovery, collected/(1<<20)),
			})
		})
	}
}

// relayed is how many bytes of clients the server was sent.
func (g *guard) relayed() float64 {
	g.t.Helper()
	out, err := g.command("sessions", "--json")
	if err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	var list struct {
		Sessions []struct {
			Bytes float64 `json:"bytes_in"`
		} `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	sum := 0.0
	for _, s := range list.Sessions {
		sum += s.Bytes
	}
	return sum
}

// open is a victim without the lock that only one can have.
func (g *guard) open() *client {
	g.t.Helper()
	c := g.login(g.front.Addr(), g.db, "victim")
	c.ok("begin; insert into changed values (1)")
	return c
}

// Clients that end their sending side and go on reading.
func TestHalfClosedConnections(t *testing.T) {
	g := start(t, setup{})
	for _, w := range []struct {
		name string
		do   func(c *client)
	}{
		{"after Terminate", func(c *client) { c.send(&pgproto3.Terminate{}) }},
		{"behind a Query that runs", func(c *client) { c.query("select pg_sleep(0.2), 'answer'; rollback") }},
		{"in the middle of a Query", func(c *client) { _, _ = io.WriteString(c.conn, "Q\x00\x00\x00\x40select") }},
		{"in the middle of COPY", func(c *client) {
			c.query("copy changed from stdin")
			c.until('G')
			c.send(&pgproto3.CopyData{Data: []byte("1\n")})
		}},
		{"in a transaction", func(*client) {}},
	} {
		t.Run(w.name, func(t *testing.T) {
			g.in(t)
			saw := halfClosed(g.victim(), w.do)
			direct := halfClosed(g.beside(), w.do)
			if saw != direct {
				t.Errorf("a client sees %s, and %s without lockkeeper", saw, direct)
			}
			g.undisturbed()
			g.fill(row{fault: "the client shuts down its writing side " + w.name, client: saw + "; the same as directly", server: g.left(), recovery: g.recovers()})
		})
	}
}

func halfClosed(c *client, do func(*client)) string {
	do(c)
	_ = c.conn.(*net.TCPConn).CloseWrite()
	return c.fate()
}

// beside is a victim that does not come through lockkeeper.
func (g *guard) beside() *client {
	g.t.Helper()
	c, refused := try(g.t, g.pg.Addr(), g.db, "victim")
	if c == nil {
		g.t.Fatal(refused)
	}
	c.ok("begin; insert into changed values (1)")
	return c
}
