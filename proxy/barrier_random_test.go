package proxy_test

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// texts are what the random clients send, alone in either protocol.
var texts = []string{
	"begin", "begin read write", "begin isolation level repeatable read", "commit", "commit", "commit and chain", "rollback", "rollback and chain",
	"savepoint a", "rollback to a", "release a", "insert into allowed values (1)", "insert into allowed values (1)", "insert into bus_bus (channel) values (null)", "insert into bus_bus (channel) values (null)",
	"select w()", "select w()", "select 1", "select 1/0", "set transaction read write", "set local work_mem = '1MB'", "execute byname", "explain analyze select w()",
}

// mixtures are for the simple protocol alone.
var mixtures = []string{
	"select 1; select w()", "begin; select w()", "select w(); commit", "commit; begin", "commit; select w()", "select w(); select 1/0", "begin; commit; select w()",
	"rollback; begin; set transaction isolation level serializable", "rollback to a; select w()", "release a; select w()", "savepoint a; select w()",
	"insert into allowed values (1); select w()",
}

// someMessages returns messages of a client that keeps to the protocol and to
// nothing else.
func someMessages(r *rand.Rand) []pgproto3.FrontendMessage {
	var out []pgproto3.FrontendMessage
	for range 1 + r.IntN(7) {
		text := texts[r.IntN(len(texts))]
		switch r.IntN(8) {
		case 0:
			out = append(out, pipeline("S")...)
		case 1:
			out = append(out, pipeline("H")...)
		case 2:
			out = append(out, &pgproto3.Query{String: text})
		case 3:
			out = append(out, &pgproto3.Query{String: mixtures[r.IntN(len(mixtures))]})
		case 4:
			out = append(out, pipeline("B - prepared ; E -")...)
		default:
			out = append(out, pipeline("P - "+text+" ; B - - ; E -")...)
		}
	}
	return out
}

// Whatever a client pipelines, before the barrier and after: when the barrier
// holds, nothing is committed any more.
func TestNothingIsCommittedBehindTheBarrierWhateverIsPipelined(t *testing.T) {
	g := newGuard(t)
	d := g.direct()
	if _, err := d.Exec(t.Context(), "create table allowed (n int); create function w() returns int volatile language sql as 'insert into bus_bus (channel) values (null) returning 1'"); err != nil {
		t.Fatal(err)
	}
	for name, writable := range map[string][]string{"nothing may be written": nil, "a table may be written": {"allowed"}} {
		committed := 0
		for seed := range uint64(playedSeeds()) {
			committed += g.playBehindTheBarrier(seed, d, writable)
			if t.Failed() {
				return
			}
		}
		if committed == 0 {
			t.Errorf("%s: nothing was ever committed, not even before the barrier", name)
		}
	}
	if n := g.pg.Value(t, g.db, "select count(*) from allowed"); n == "0" {
		t.Error("the table that may be written never was")
	}
}

// seedsVariable is how many random clients are played, of each kind.
const seedsVariable = "LOCKKEEPER_TEST_SEEDS"

func playedSeeds() int {
	if n, err := strconv.Atoi(os.Getenv(seedsVariable)); err == nil {
		return n
	}
	return 300
}

// playBehindTheBarrier plays one random client and returns how many rows it
// committed before the barrier held.
func (g *guard) playBehindTheBarrier(seed uint64, d *pgx.Conn, writable []string) int {
	g.t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	g.contain()
	p := g.peer()
	p.run("P prepared select w() ; S")
	p.ok("prepare byname as select w()")
	count := func() (n int) {
		if err := d.QueryRow(g.t.Context(), "select count(*) from bus_bus").Scan(&n); err != nil {
			g.t.Fatal(err)
		}
		return n
	}
	first, before, after := count(), someMessages(r), someMessages(r)
	heard, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := p.conn.Read(buf)
			if n > 0 {
				select {
				case heard <- struct{}{}:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	_ = p.conn.SetReadDeadline(time.Now().Add(peerPatience))
	p.send(slices.Concat(before, pipeline("H"))...)
	if r.IntN(3) > 0 {
		select {
		case <-heard:
		case <-time.After(20 * time.Millisecond): // it may have nothing to say
		}
	}
	c := g.readOnlyBut(writable...)
	ctx, stop := context.WithTimeout(g.t.Context(), peerPatience)
	defer stop()
	if _, err := g.srv.Barrier(ctx, c); err != nil {
		g.t.Fatalf("seed %d: %v", seed, err)
	}
	held := count()
	p.send(slices.Concat(after, pipeline("S"), []pgproto3.FrontendMessage{&pgproto3.Terminate{}})...)
	<-ended
	eventually(g.t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
	if now := count(); now != held {
		g.t.Errorf("seed %d: %d rows were committed behind the barrier; before it %s; behind it %s", seed, now-held, shown(before), shown(after))
	}
	return held - first
}

// shown writes messages as pipeline reads them.
func shown(messages []pgproto3.FrontendMessage) string {
	var out []string
	for _, m := range messages {
		switch m := m.(type) {
		case *pgproto3.Parse:
			out = append(out, "P - "+m.Query)
		case *pgproto3.Bind:
			out = append(out, "B - "+m.PreparedStatement)
		case *pgproto3.Execute:
			out = append(out, "E -")
		case *pgproto3.Query:
			out = append(out, "Q "+m.String)
		case *pgproto3.Sync:
			out = append(out, "S")
		case *pgproto3.Flush:
			out = append(out, "H")
		}
	}
	return strings.Join(out, " ; ")
}
