package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy/wire"
)

func open(t *testing.T) *guard {
	t.Helper()
	return newGuard(t, func(s *setup) { s.policy = transparent })
}

// settle waits until a condition holds.
func settle(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(rawPatience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, rawPatience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// goroutines returns how many there are once the guard serves: it has answered
// a client that says nothing.
func goroutines(t *testing.T, address string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c) // up to the guard's close
	return runtime.NumGoroutine()
}

// Messages that end just before, at and behind the borders of the buffers on
// both sides pass unchanged.
func TestMessagesAtTheBordersOfBuffers(t *testing.T) {
	g := open(t)
	direct, through := loginRaw(t, g.pg.Addr(), g.db), loginRaw(t, g.addr, g.db)
	for _, border := range []int{8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		for d := -12; d <= 12; d++ {
			n := border + d
			for _, sql := range []string{
				"select '" + strings.Repeat("x", n-wire.HeaderLen-10) + "'", // the Query has n bytes
				fmt.Sprintf("select repeat('y', %d)", n-11),                 // the DataRow has n bytes
				fmt.Sprintf("do $$ begin raise notice '%%', repeat('z', %d); end $$", n),
				fmt.Sprintf("do $$ begin raise '%%', repeat('z', %d); end $$", n),
			} {
				a, b := direct.exec(sql), through.exec(sql)
				if len(a) != len(b) {
					t.Fatalf("%d bytes: %s and %s", n, types(a), types(b))
				}
				for i := range a {
					if same(a[i]) != same(b[i]) {
						t.Fatalf("%d bytes: message %d differs", n, i)
					}
				}
			}
			through.send('P', "\x00select $1::text\x00\x00\x00")
			value := strings.Repeat("v", n-28)
			through.send('B', "\x00\x00\x00\x00\x00\x01", string([]byte{0, byte(len(value) >> 16), byte(len(value) >> 8), byte(len(value))}), value, "\x00\x00")
			through.send('E', "\x00\x00\x00\x00\x00")
			through.send('S')
			through.flush()
			if ms := through.until('Z', 1); types(ms) != "12DCZ" || values(ms[2].Body()) != fmt.Sprintf(" %q", value) {
				t.Fatalf("Bind of %d bytes: %s", n, types(ms))
			}
		}
	}
}

func TestAStatementOf64Megabytes(t *testing.T) {
	g := open(t)
	c := loginRaw(t, g.addr, g.db)
	const n = 64<<20 + 5
	if ms := c.exec("select length('" + strings.Repeat("x", n) + "')"); types(ms) != "TDCZ" || values(ms[1].Body()) != fmt.Sprintf(" %q", fmt.Sprint(n)) {
		t.Fatalf("got %s", types(ms))
	}
	if ms := c.exec("select 1"); types(ms) != "TDCZ" {
		t.Fatalf("then %s", types(ms))
	}
	var used float64
	settle(t, "what was collected is given back", func() bool {
		used = g.metric(t, "lockkeeper_collected_bytes")
		return used == 0
	})
}

// metric reads one metric without labels.
func (g *guard) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A pipeline of 100 MB neither deadlocks nor is kept: read while it is written,
// and written to its end before the first reply is read.
func TestAPipelineOf100Megabytes(t *testing.T) {
	g := open(t)
	value := strings.Repeat("v", 100_000)
	size := string([]byte{0, byte(len(value) >> 16), byte(len(value) >> 8 & 0xff), byte(len(value) & 0xff)})
	for _, reading := range []bool{true, false} {
		c := loginRaw(t, g.addr, g.db)
		c.send('P', "s\x00select length($1::text)\x00\x00\x00")
		c.send('S')
		c.flush()
		c.until('Z', 1)
		write := func() {
			for range 1000 {
				c.send('B', "\x00s\x00\x00\x00\x00\x01", size, value, "\x00\x00")
				c.send('E', "\x00\x00\x00\x00\x00")
				c.flush()
			}
			c.send('S')
			c.flush()
		}
		var ms []wire.Message
		if reading {
			var wg sync.WaitGroup
			wg.Go(write)
			ms = c.until('Z', 1)
			wg.Wait()
		} else {
			write()
			ms = c.until('Z', 1)
		}
		if got := types(ms); got != strings.Repeat("2DC", 1000)+"Z" {
			t.Errorf("reading %v: %d messages", reading, len(ms))
		}
	}
}

func TestCopyOf10MegabytesEachWay(t *testing.T) {
	g := open(t)
	c := g.connect("")
	rows := bytes.Repeat([]byte("some text of a row that is copied\n"), 10<<20/34)
	if _, err := c.Exec(t.Context(), "create table copied(t text)"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PgConn().CopyFrom(t.Context(), bytes.NewReader(rows), "copy copied from stdin"); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if _, err := c.PgConn().CopyTo(t.Context(), &back, "copy copied to stdout"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rows, back.Bytes()) {
		t.Errorf("%d bytes became %d", len(rows), back.Len())
	}
}

// A client that does not read costs buffers and not the result.
func TestASlowReaderCostsNoMemory(t *testing.T) {
	g := open(t)
	c := loginRaw(t, g.addr, g.db)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.query("select repeat('x', 1000) from generate_series(1, 200000)")
	c.flush()
	var sent int64
	settle(t, "the server waits for the client", func() bool {
		last := sent
		sent = g.srv.Sessions()[0].BytesOut
		time.Sleep(50 * time.Millisecond)
		return sent > 1<<20 && sent == last
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes more in use", grown)
	}
	var n int
	for m := c.read(); m != nil && m.Type() != 'Z'; m = c.read() {
		n++
	}
	if n != 200_002 {
		t.Errorf("%d messages", n)
	}
}

// Cancel requests, followed by the immediate end of the connection, cancel
// their own session's statement and leave nothing behind.
func TestAStormOfCancels(t *testing.T) {
	g := open(t)
	victim := g.connect("")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 5 {
				c := loginRaw(t, g.addr, g.db)
				c.query("do $$ begin raise notice 'it runs'; perform pg_sleep(60); end $$")
				c.flush()
				c.until('N', 1)
				other, err := net.Dial("tcp", g.addr)
				if err != nil {
					t.Error(err)
					return
				}
				other.Write(wire.AppendCancel(nil, c.pid, c.key))
				if rand.IntN(2) == 0 {
					other.Close()
				} else {
					defer other.Close()
				}
				c.conn.Close()
			}
		})
	}
	wg.Wait()
	if _, err := victim.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("a session that nobody cancelled: %v", err)
	}
	settle(t, "every session ends", func() bool { return len(g.srv.Sessions()) == 1 })
	settle(t, "every server process ends", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where datname = current_database() and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()") == "0"
	})
}

func TestAThousandConnections(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Setting("max_connections", "1050"))
	g := newGuard(t, func(s *setup) { s.pg, s.policy = pg, transparent })
	before := goroutines(t, g.addr)
	clients := make([]*rawClient, 1000)
	var wg sync.WaitGroup
	places := make(chan struct{}, 50)
	for i := range clients {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			clients[i] = loginRaw(t, g.addr, g.db)
		})
	}
	wg.Wait()
	if n := len(g.srv.Sessions()); n != 1000 {
		t.Errorf("%d sessions", n)
	}
	for _, c := range clients {
		c.query("select 1")
		c.flush()
	}
	for i, c := range clients {
		if got := types(c.until('Z', 1)); got != "TDCZ" {
			t.Fatalf("client %d: %s", i, got)
		}
	}
	for i, c := range clients {
		if i%2 == 0 {
			c.send('X')
			c.flush()
		}
		c.conn.Close()
	}
	settle(t, "every session ends", func() bool { return len(g.srv.Sessions()) == 0 })
	settle(t, "every goroutine ends", func() bool { return runtime.NumGoroutine() <= before+5 })
}

// A server process that dies in the middle of a result is the client's news, as
// much of it as there is; so is a server that goes down.
func TestAServerThatDiesInTheMiddleOfAResult(t *testing.T) {
	pg := pgtest.Start(t)
	g := newGuard(t, func(s *setup) { s.pg, s.policy = pg, transparent })
	c := loginRaw(t, g.addr, g.db)
	// Slowly: a server that is stuck in writing dies without a word.
	c.query("select repeat('x', 1000), pg_sleep(0.005) from generate_series(1, 100000)")
	c.flush()
	c.until('D', 5)
	pg.MustExec(t, g.db, fmt.Sprintf("select pg_terminate_backend(%d)", c.pid))
	ms := c.until('E', 1)
	if e := ms[len(ms)-1]; e == nil || string(wire.Field(e.Body(), 'C')) != "57P01" {
		t.Errorf("terminated: %s at the end", show(e))
	}
	if m := c.read(); m != nil {
		t.Errorf("then %s", show(m))
	}
	c = loginRaw(t, g.addr, g.db)
	c.query("select 1, pg_sleep(60)")
	c.flush()
	if err := pg.Kill9(); err != nil {
		t.Fatal(err)
	}
	if m := c.read(); m != nil && m.Type() != 'E' && m.Type() != 'N' {
		t.Errorf("killed: %s", show(m))
	}
	settle(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
}

// A client that dies in the middle of a statement ends its session; what it
// had open is rolled back.
func TestAClientThatDiesInTheMiddleOfAStatement(t *testing.T) {
	g := open(t)
	before := goroutines(t, g.addr)
	setup := g.connect("")
	if _, err := setup.Exec(t.Context(), "create table died(a int)"); err != nil {
		t.Fatal(err)
	}
	setup.Close(context.Background())
	for _, how := range []func(c *rawClient){
		func(c *rawClient) { c.conn.Close() },
		func(c *rawClient) { c.conn.(*net.TCPConn).SetLinger(0); c.conn.Close() }, // a reset
		func(c *rawClient) { c.conn.Write([]byte("Q\x00\x00\x00\x20ins")); c.conn.Close() },
	} {
		c := loginRaw(t, g.addr, g.db)
		c.exec("begin; insert into died values (1)")
		c.query("select repeat('x', 1000) from generate_series(1, 20000)")
		c.flush()
		c.until('D', 3)
		how(c)
	}
	settle(t, "every session ends", func() bool { return len(g.srv.Sessions()) == 0 })
	settle(t, "every server process ends", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()") == "0"
	})
	if n := g.pg.Value(t, g.db, "select count(*) from died"); n != "0" {
		t.Errorf("%s rows stayed", n)
	}
	settle(t, "every goroutine ends", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// An operator can end the session of a client that does not read.
func TestAClientThatDoesNotReadCanBeTerminated(t *testing.T) {
	g := open(t)
	c := loginRaw(t, g.addr, g.db)
	c.query("select repeat('x', 1000) from generate_series(1, 1000000)")
	c.flush()
	var sent int64
	settle(t, "the server waits for the client", func() bool {
		last := sent
		sent = g.srv.Sessions()[0].BytesOut
		time.Sleep(50 * time.Millisecond)
		return sent > 1<<20 && sent == last
	})
	if err := g.srv.TerminateSession(t.Context(), g.srv.Sessions()[0].ID); err != nil {
		t.Fatal(err)
	}
	settle(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
}

// A result that nobody reads any more is not produced for long, whatever the
// statement may change.
func TestAnEndlessResultForAClientThatIsGone(t *testing.T) {
	g := open(t)
	g.pg.MustExec(t, g.db, "create function may_write() returns int language plpgsql as 'begin return 1; end'")
	c := loginRaw(t, g.addr, g.db)
	c.query("select may_write(), repeat('x', 1000), generate_series(1, 100000000)") // in FROM it would be kept whole first
	c.flush()
	c.until('D', 3)
	c.conn.Close()
	settle(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
	settle(t, "the server process ends", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where query like '%may_write%' and pid <> pg_backend_pid()") == "0"
	})
}

// Prepared statements follow what SQL does to them.
func TestPreparedStatementsThroughDiscardAndDeallocate(t *testing.T) {
	g := open(t)
	c := g.connect("default_query_exec_mode=cache_statement")
	for i := range 3 {
		var n int
		if err := c.QueryRow(t.Context(), "select $1::int + 1", i).Scan(&n); err != nil || n != i+1 {
			t.Fatalf("%d, %v", n, err)
		}
		if err := c.DeallocateAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Prepare(t.Context(), "kept", "select 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PgConn().Exec(t.Context(), "discard all").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "kept"); sqlstate(err) != "26000" {
		t.Errorf("a statement that was discarded: %v", err)
	}
	if _, err := c.Exec(t.Context(), "select 1", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Error(err)
	}
}

// Half-open clients and health checks take nothing from the server.
func TestClientsThatSayNothingReachNoServer(t *testing.T) {
	g := open(t)
	for range 50 {
		dialRaw(t, g.addr)
	}
	for _, hello := range []string{"", "\x00", "\x00\x00\x00\x07", "\x00\x00\x00\x00", "\x00\x00\x27\x15\x00\x03\x00\x00", "GET / HTTP/1.1\r\n\r\n"} {
		c := dialRaw(t, g.addr)
		c.conn.Write([]byte(hello))
		if len(hello) > 3 {
			if m, err := io.ReadAll(c.conn); len(m) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("%q: %q, %v", hello, m, err)
			}
		}
	}
	if n := len(g.srv.Sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
}
