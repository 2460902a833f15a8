package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// meanwhile counts the round trips of the bystander while something large is
// under way.
func (g *guard) meanwhile(do func()) int {
	g.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for n := 0; ; n++ {
		if got := g.bystander.ok("select 1"); got != "1" { // always the same text: others would fill the cache
			g.t.Fatalf("the bystander gets %q", got)
		}
		select {
		case <-done:
			return n // the last one may have ended after it
		default:
		}
	}
}

// atLeast is how many round trips another session must have had.
const atLeast = 3

// A client that reads nothing, and then slowly, of a result of 1 GB.
func TestASlowReaderOfAGigabyte(t *testing.T) {
	slow(t)
	const rows, size = 1_000_000, 1000
	g := start(t, setup{})
	c := g.login(g.addr, g.db, "victim")
	c.query(fmt.Sprintf("select repeat('x', %d) from generate_series(1, %d)", size, rows))
	settle(t, "the server waits for the client", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where application_name = 'victim' and wait_event = 'ClientWrite'") == "1"
	})
	g.undisturbed()
	standing := g.memory("VmRSS")
	var n int
	trips := g.meanwhile(func() {
		for {
			m, err := c.fe.Receive()
			if err != nil {
				return
			}
			switch m.(type) {
			case *pgproto3.DataRow:
				n++
			case *pgproto3.ReadyForQuery:
				return
			}
		}
	})
	if n != rows {
		t.Errorf("%d rows of %d", n, rows)
	}
	if trips < atLeast {
		t.Errorf("another session had %d round trips meanwhile", trips)
	}
	c.bye()
	server, recovery := g.left(), g.recovers()
	g.grown(32)
	g.fill(row{
		fault: "a client that does not read a result of 1 GB, and then reads it", client: fmt.Sprintf("%d rows", n), server: server,
		recovery: fmt.Sprintf("%s; %.0f MiB while nothing was read; another session had %d round trips while it was read", recovery, standing, trips),
	})
}

// What tcp.user_timeout costs: Linux counts a peer that does not read among
// those that do not acknowledge.
func TestAClientThatReadsNothingForTooLong(t *testing.T) {
	g := start(t, setup{config: "tcp: {user_timeout: 1s}"})
	c := g.login(g.addr, g.db, "victim")
	c.query("select repeat('x', 1000) from generate_series(1, 100000)")
	g.undisturbed()
	g.alone()
	if lost := g.metric(`lockkeeper_connections_lost_total{side="client"}`); lost != 1 {
		t.Errorf("%.0f lost connections are counted", lost)
	}
	g.fill(row{
		fault: "a client that does not read a result of 100 MB for longer than tcp.user_timeout (1 s; it is off by default)", client: "a part of it, " + c.fate(),
		server: g.left(), recovery: g.recovers(),
	})
}

// What is large does not keep other sessions waiting.
func TestLargeThingsStallNobody(t *testing.T) {
	size := 8 << 20
	if pageWanted() {
		size = 64 << 20
	}
	for _, w := range []struct {
		name  string
		bytes int
		do    func(c *client, bytes int)
		most  float64 // MiB of memory
	}{
		{"a statement of %d MB", size, func(c *client, bytes int) {
			c.query("select length('" + strings.Repeat("x", bytes-100) + "')")
			c.until('Z')
		}, 5 * float64(size>>20)},
		{"a statement of %d MB of short constants", size / 2, func(c *client, bytes int) {
			c.query("select 1 where 7 in (" + strings.Repeat("1000000, ", bytes/9) + "7)")
			c.until('Z')
		}, 8 * float64(size>>20)},
		{"a result of %d MB", 2 * size, func(c *client, bytes int) {
			c.query(fmt.Sprintf("select repeat('x', 100000) from generate_series(1, %d)", bytes/100_000))
			c.until('Z')
		}, 40},
		{"a pipeline of %d MB", 2 * size, func(c *client, bytes int) {
			value := [][]byte{[]byte(strings.Repeat("v", 100_000))}
			c.send(&pgproto3.Parse{Name: "s", Query: "select length($1::text)"})
			for range bytes / 100_000 {
				c.send(&pgproto3.Bind{PreparedStatement: "s", Parameters: value}, &pgproto3.Execute{})
			}
			c.send(&pgproto3.Sync{})
			c.until('Z')
		}, 40},
		{"a COPY of %d MB", 2 * size, func(c *client, bytes int) {
			c.query("create temporary table copied(t text); copy copied from stdin")
			c.until('G')
			row := []byte(strings.Repeat("c", 9999) + "\n")
			for range bytes / len(row) {
				c.send(&pgproto3.CopyData{Data: row})
			}
			c.send(&pgproto3.CopyDone{})
			c.until('Z')
		}, 40},
	} {
		name := fmt.Sprintf(w.name, w.bytes>>20)
		t.Run(name, func(t *testing.T) {
			g := start(t, setup{})
			c := g.login(g.addr, g.db, "victim")
			trips := g.meanwhile(func() { w.do(c, w.bytes) })
			if trips < atLeast {
				t.Errorf("another session had %d round trips meanwhile", trips)
			}
			c.ok("select 1")
			c.bye()
			server, recovery := g.left(), g.recovers()
			g.grown(w.most)
			g.fill(row{
				fault: name, client: "its answer", server: server,
				recovery: fmt.Sprintf("%s; another session had %d round trips meanwhile", recovery, trips),
			})
		})
	}
}
