package proxy_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/proxy"
)

// sum returns what is counted for a database; "" is all.
func (g *guard) sum(database string) proxy.Tally {
	for _, one := range g.srv.Stats() {
		if one.Database == database {
			return one.Total
		}
	}
	return proxy.Tally{}
}

// TestWorkIsCounted compares the sums before and after each exchange.
func TestWorkIsCounted(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	for _, tt := range []struct {
		send                                string
		queries, transactions, parses, bind int64
	}{
		{"Q select 1", 1, 1, 0, 0},
		{"Q select 1; select 2", 1, 1, 0, 0},
		{"Q begin ; Q select 1 ; Q select 2 ; Q commit", 4, 1, 0, 0},
		{"Q select 1/0", 1, 1, 0, 0},
		{"P - select 1 ; B - - ; E - ; S", 1, 1, 0, 0},
		{"P named select 1 ; S ; B - named ; E - ; S ; B - named ; E - ; S", 3, 3, 1, 2},
		{"S", 1, 1, 0, 0},
		// refused: it fails in the server
		{"Q " + unbounded, 1, 1, 0, 0},
		// with settings of ours around it
		{"Q create index concurrently on bus_bus (create_date)", 1, 1, 0, 0},
		// with statements of ours in it
		{"P - create index on bus_bus (write_date) ; B - - ; E - ; S", 1, 1, 0, 0},
		// and an error in it
		{"Q begin ; Q alter table bus_bus add x int ; P - select 1/0 ; S ; Q rollback", 4, 1, 0, 0},
		// answered before its end
		{"P - select 1 ; B - - ; E - ; H ; E - ; S", 1, 1, 0, 0},
		// a pipeline
		{"P - select 1/0 ; B - - ; E - ; S ; P - select 1 ; B - - ; E - ; S ; Q select 3", 3, 3, 0, 0},
	} {
		before := g.sum(g.db)
		p.run(tt.send)
		after := g.sum(g.db)
		if q, x := after.Queries-before.Queries, after.Transactions-before.Transactions; q != tt.queries || x != tt.transactions {
			t.Errorf("%s: %d queries in %d transactions, want %d in %d", tt.send, q, x, tt.queries, tt.transactions)
		}
		if n, b := after.Parses-before.Parses, after.Binds-before.Binds; n != tt.parses || b != tt.bind {
			t.Errorf("%s: %d statements prepared, %d bound, want %d, %d", tt.send, n, b, tt.parses, tt.bind)
		}
		if after.QueryTime <= before.QueryTime || after.TransactionTime <= before.TransactionTime || after.BytesIn <= before.BytesIn || after.BytesOut <= before.BytesOut {
			t.Errorf("%s: before %+v, after %+v", tt.send, before, after)
		}
	}
}

// What has ended stays in the sums, and nothing is counted twice or forgotten
// while sessions come and go.
func TestSumsOutliveSessions(t *testing.T) {
	g := newGuard(t)
	const n, each = 8, 20
	done := make(chan error, n)
	for range n {
		go func() {
			p, err := dialPeer(t, g.addr, "postgres", g.db)
			for i := 0; err == nil && i < each; i++ {
				p.fe.Send(&pgproto3.Query{String: insert})
				if err = p.fe.Flush(); err == nil {
					_, err = p.read('Z')
				}
			}
			if err == nil {
				err = p.conn.Close()
			}
			done <- err
		}()
	}
	last := proxy.Tally{}
	for ended := 0; ended < n; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			ended++
		default:
			now := g.sum("")
			if now.Queries < last.Queries || now.Sessions < last.Sessions || now.BytesOut < last.BytesOut || now.QueryTime < last.QueryTime {
				t.Fatalf("%+v, and before %+v", now, last)
			}
			last = now
		}
	}
	eventually(t, "the sessions have ended", func() bool { return len(g.srv.Sessions()) == 0 })
	if s := g.sum(g.db); s.Sessions != n || s.Queries != n*each || s.Transactions != n*each || s.RowsWritten != n*each || s != g.sum("") {
		t.Errorf("%+v; in all %+v", s, g.sum(""))
	}
}

// A name that nobody has logged in to is not counted: anybody can make one up.
func TestFailedLoginsAreNotCounted(t *testing.T) {
	g := newGuard(t)
	if code := g.refusedWith("there-is-no-such-database"); code != "3D000" {
		t.Fatal(code)
	}
	eventually(t, "the session has ended", func() bool { return len(g.srv.Sessions()) == 0 })
	if all := g.srv.Stats(); len(all) != 1 || all[0].Total.Sessions != 0 {
		t.Errorf("%+v", all)
	}
}

func TestHoldsAreWaiting(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	before := g.sum(g.db)
	g.pause(time.Hour, false)
	p.send(&pgproto3.Query{String: insert})
	g.awaitHeld(1)
	g.contain()
	p.until('Z')
	if after := g.sum(g.db); after.WaitTime <= before.WaitTime {
		t.Errorf("waited %s before, %s after", before.WaitTime, after.WaitTime)
	}
}

// TestSessionsSayWhereTheyAreConnected is about what SHOW CLIENTS and SHOW
// SERVERS tell.
func TestSessionsSayWhereTheyAreConnected(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.ok("prepare a as select 1") // SQL's and the protocol's share their names
	p.run("P b select 1 ; S")
	server := p.value("select inet_client_addr() || ':' || inet_client_port()")
	s := g.srv.Sessions()[0]
	if _, port, _ := strings.Cut(p.conn.LocalAddr().String(), ":"); port != strconv.Itoa(s.ClientPort) {
		t.Errorf("the client's port is %d, it has %s", s.ClientPort, port)
	}
	if s.LocalAddress != g.addr || !strings.HasPrefix(server, "127.0.0.1/32:") || s.ServerLocalAddress != strings.Replace(server, "/32", "", 1) {
		t.Errorf("local address %s, want %s; towards the server %s, want %s", s.LocalAddress, g.addr, s.ServerLocalAddress, server)
	}
	if s.Prepared != 2 || s.Cipher != "" || s.Replication != "" {
		t.Errorf("%d prepared statements, cipher %q, replication %q", s.Prepared, s.Cipher, s.Replication)
	}
	asked := s.Requested
	p.ok("select 1")
	if now := g.srv.Sessions()[0].Requested; !now.After(asked) {
		t.Errorf("the last request was at %v, and at %v before", now, asked)
	}
}

// TestDrainWaitsForClients is SHUTDOWN WAIT_FOR_CLIENTS: nobody is ended,
// nobody new comes in, and the end comes with the last client's.
func TestDrainWaitsForClients(t *testing.T) {
	g := newGuard(t)
	first, second := g.peer(), g.peer()
	second.ok("begin")
	g.srv.Drain()
	g.srv.Drain() // asked for twice
	if _, err := dialPeer(t, g.addr, "postgres", g.db); err == nil {
		t.Error("a new client got in")
	}
	for range 3 {
		if v := first.value("select 1"); v != "1" {
			t.Errorf("select 1 is %s", v)
		}
	}
	second.ok("commit")
	first.end()
	if v := second.value("select 2"); v != "2" {
		t.Errorf("select 2 is %s", v)
	}
	second.end()
	select {
	case err := <-g.served:
		if !errors.Is(err, proxy.ErrServerClosed) {
			t.Error(err)
		}
		g.served <- err
	case <-time.After(rawPatience):
		t.Error("Serve goes on without clients")
	}
}

// A drain that takes too long is cut short by a shutdown.
func TestShutdownEndsADrain(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.ok("begin")
	g.srv.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.srv.Shutdown(ctx); err == nil {
		t.Error("the transaction was not there")
	}
	if _, err := p.read(0); err == nil {
		t.Error("the session goes on")
	}
}
