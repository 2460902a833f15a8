package proxy_test

import (
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// stalled writes with write, which counts what it has written, and returns when
// that is done or gets no further: everybody in between waits for the client to
// read. The write goes on meanwhile; done ends it.
func stalled(t *testing.T, write func(written *atomic.Int64)) (finish func()) {
	t.Helper()
	var written atomic.Int64
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		write(&written)
		done.Store(true)
	})
	last, same := int64(-1), 0
	settle(t, "the writer stops", func() bool {
		now := written.Load()
		if now != last {
			last, same = now, 0
		}
		same++
		return done.Load() || same > 40
	})
	return wg.Wait
}

// Whoever does not read is not waited for by whoever has to be read: 100 MB of
// statements whose results are 100 MB, written by a client that begins to read
// when nobody takes its bytes any more.
func TestAPipelineOf100MegabytesEachWay(t *testing.T) {
	g := open(t)
	value := strings.Repeat("v", 100_000)
	size := string([]byte{0, byte(len(value) >> 16), byte(len(value) >> 8 & 0xff), byte(len(value) & 0xff)})
	for _, sync := range []int{0, 7} { // statements to a Sync
		c := loginRaw(t, g.addr, g.db)
		c.send('P', "s\x00select $1::text\x00\x00\x00")
		c.send('S')
		c.flush()
		c.until('Z', 1)
		syncs := 1
		finish := stalled(t, func(written *atomic.Int64) {
			for i := range 1000 {
				c.send('B', "\x00s\x00\x00\x00\x00\x01", size, value, "\x00\x00")
				c.send('E', "\x00\x00\x00\x00\x00")
				if sync > 0 && i%sync == 0 {
					c.send('S')
				}
				c.flush()
				written.Add(1)
			}
			c.send('S')
			c.flush()
		})
		if sync > 0 {
			syncs += (1000 + sync - 1) / sync
		}
		rows, ready := 0, 0
		for ready < syncs {
			m := c.read()
			if m == nil {
				t.Fatal("the connection ends")
			}
			switch m.Type() {
			case 'D':
				rows++
			case 'Z':
				ready++
			case 'E':
				t.Fatal(show(m))
			}
		}
		finish()
		if rows != 1000 {
			t.Errorf("%d rows", rows)
		}
	}
}

// A pipeline of twenty thousand statements, without a Sync and with many.
func TestAPipelineOfTwentyThousandStatements(t *testing.T) {
	g := open(t)
	const statements = 20_000
	for name, tail := range map[string]string{"one Sync": "", "a Flush each": "H", "a Sync each": "S"} {
		c := loginRaw(t, g.addr, g.db)
		finish := stalled(t, func(written *atomic.Int64) {
			for i := range statements {
				c.send('P', "\x00select 1\x00\x00\x00")
				c.send('B', "\x00\x00\x00\x00\x00\x00\x00\x00")
				c.send('E', "\x00\x00\x00\x00\x00")
				if tail != "" {
					c.send(tail[0])
				}
				if i%100 == 0 {
					c.flush()
					written.Add(1)
				}
			}
			c.send('S')
			c.query("select 'the end'")
			c.flush()
		})
		counts := map[byte]int{}
		var last wire.Message
		for {
			m := c.read()
			if m == nil || m.Type() == 'E' {
				t.Fatalf("%s: %s after %v", name, show(m), counts)
			}
			counts[m.Type()]++
			if m.Type() == 'Z' && last.Type() == 'C' && counts['T'] == 1 {
				break
			}
			last = m
		}
		finish()
		ready := 2
		if tail == "S" {
			ready += statements
		}
		if counts['1'] != statements || counts['2'] != statements || counts['D'] != statements+1 || counts['Z'] != ready {
			t.Errorf("%s: %v", name, counts)
		}
	}
}

// Messages that no rule needs to read are streamed and never collected: a
// parameter, a row, and COPY data, each one message. PostgreSQL ends at 1 GB;
// LOCKKEEPER_TEST_ALL=1 sends 300 MB.
func TestGreatMessagesAreStreamed(t *testing.T) {
	g := open(t)
	size := 24 << 20
	if os.Getenv("LOCKKEEPER_TEST_ALL") != "" {
		size = 300 << 20
	}
	c := loginRaw(t, g.addr, g.db)
	chunk := make([]byte, 64<<10)
	for i := range chunk {
		chunk[i] = 'x'
	}
	stream := func(kind byte, before, after string) {
		c.flush()
		m := wire.Append(nil, kind, before, after)
		length := len(m) - 1 + size
		m[1], m[2], m[3], m[4] = byte(length>>24), byte(length>>16), byte(length>>8), byte(length)
		c.out.Write(m[:len(m)-len(after)])
		c.flush()
		for left := size; left > 0; left -= len(chunk) {
			if _, err := c.conn.Write(chunk[:min(left, len(chunk))]); err != nil {
				t.Fatal(err)
			}
		}
		c.out.WriteString(after)
	}
	c.exec("create temp table great (t text)")
	length := string([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)})
	for name, send := range map[string]func(){
		"a parameter": func() {
			c.send('P', "\x00select length($1::bytea)\x00\x00\x00")
			stream('B', "\x00\x00\x00\x01\x00\x01\x00\x01"+length, "\x00\x00")
			c.send('E', "\x00\x00\x00\x00\x00")
			c.send('S')
		},
		"COPY data": func() {
			c.query("copy great from stdin")
			c.flush()
			c.until('G', 1)
			stream('d', "", "")
			c.send('c')
		},
		"a row": func() { c.query("select repeat('x', length(repeat('y', " + strconv.Itoa(size) + ")))") },
	} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		send()
		c.flush()
		got := ""
		for got == "" || got[len(got)-1] != 'Z' {
			kind, n := c.skim()
			got += string(kind)
			if kind == 'D' && name == "a row" && n < size {
				t.Errorf("%s: %d bytes", name, n)
			}
		}
		runtime.ReadMemStats(&after)
		if got != map[string]string{"a parameter": "12DCZ", "COPY data": "CZ", "a row": "TDCZ"}[name] {
			t.Errorf("%s: %s", name, got)
		}
		if used := int64(after.TotalAlloc - before.TotalAlloc); used > 8<<20 {
			t.Errorf("%s: %d bytes were allocated", name, used)
		}
	}
}

// skim reads a message and keeps nothing of it but its type and size.
func (c *rawClient) skim() (kind byte, size int) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(3 * rawPatience))
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(c.conn, header[:]); err != nil {
		c.t.Fatal(err)
	}
	if size = wire.Size(header[:]); size < 0 {
		c.t.Fatalf("bad message %x", header)
	}
	buf := make([]byte, 32<<10)
	for left := size - len(header); left > 0; {
		n, err := c.conn.Read(buf[:min(left, len(buf))])
		if err != nil {
			c.t.Fatal(err)
		}
		left -= n
	}
	return header[0], size
}

// A server that is shut down says so to its clients, and lockkeeper passes it
// on: also to one that is idle.
func TestAFastShutdownIsToldToIdleClients(t *testing.T) {
	pg := pgtest.Start(t)
	g := newGuard(t, func(s *setup) { s.pg, s.policy = pg, transparent })
	told := func(c *rawClient) []string {
		var out []string
		for _, m := range c.until(0, 1) {
			out = append(out, show(m))
		}
		return out
	}
	var clients []*rawClient
	for _, addr := range []string{g.pg.Addr(), g.addr} {
		idle, busy := loginRaw(t, addr, g.db), loginRaw(t, addr, g.db)
		busy.exec("begin; select 1")
		clients = append(clients, idle, busy)
	}
	if err := pg.Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if got := strings.Join(told(c), ", "); got != "ErrorResponse V=FATAL C=57P01, EOF" {
			t.Errorf("got %s", got)
		}
	}
	settle(t, "the sessions end", func() bool { return len(g.srv.Sessions()) == 0 })
}

// Large objects are written by FunctionCall, as libpq does it. Read-only
// transactions do not stop that before PostgreSQL 16; lockkeeper does.
func TestLargeObjectsAreReadOnly(t *testing.T) {
	g := newGuard(t)
	object := g.pg.Value(t, g.db, "select lo_from_bytea(0, 'large')")
	count := func() string {
		return g.pg.Value(t, g.db, "select count(*) || ' ' || (select sum(length(data)) from pg_largeobject) from pg_largeobject_metadata")
	}
	call := func(c *rawClient, name string, args ...string) string {
		c.send('F', oid(g.pg.Value(t, g.db, "select min(oid) from pg_proc where proname = '"+name+"'")), "\x00\x00", parameters(args), "\x00\x00")
		c.flush()
		ms := c.until('Z', 1)
		if ms[0].Type() == 'E' {
			return string(wire.Field(ms[0].Body(), 'C')) + string(c.status)
		}
		return types(ms) + string(c.status)
	}
	c := loginRaw(t, g.addr, g.db)
	if got := call(c, "lo_creat", "-1"); got != "VZI" {
		t.Fatalf("before: %s", got)
	}
	before := count()
	g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit})
	for _, args := range [][]string{{"lo_creat", "-1"}, {"lo_create", "0"}, {"lo_unlink", object}, {"lo_truncate", "0", "1"}, {"lowrite", "0", "more"}} {
		if got := call(c, args[0], args[1:]...); got != "23G02I" {
			t.Errorf("%s: %s", args[0], got)
		}
		c.exec("begin")
		if got := call(c, args[0], args[1:]...); got != "23G02E" {
			t.Errorf("%s in a transaction: %s", args[0], got)
		}
		c.exec("rollback")
	}
	if after := count(); after != before {
		t.Errorf("large objects: %s, then %s", before, after)
	}
}
