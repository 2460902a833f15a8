package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/policy"
)

// holdWrites puts everybody in mode hold.
func (g *guard) holdWrites(hold time.Duration) policy.Containment {
	return g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit, MaxHold: policy.Duration(hold)})[0]
}

// writesThatWait are pipelines that write, with what their client sees when the
// mode is lifted in time, and when it is not.
var writesThatWait = map[string]struct{ send, lifted, over string }{
	"simple":                 {"Q " + insert, "C INSERT 0 1, Z I", "E 23G02, Z I"},
	"several in one text":    {"Q begin; " + insert + "; commit", "C BEGIN, C INSERT 0 1, C COMMIT, Z I", "E 23G02, Z I"},
	"a block":                {"Q begin ; Q " + insert + " ; Q commit", "C BEGIN, Z T, C INSERT 0 1, Z T, C COMMIT, Z I", "C BEGIN, Z T, E 23G02, Z E, C ROLLBACK, Z I"},
	"a block of Odoo 18's":   {"Q begin isolation level repeatable read read write ; Q select 1 ; Q commit", "C BEGIN, Z T, T, D 1, C SELECT 1, Z T, C COMMIT, Z I", "C BEGIN, Z T, T, D 1, C SELECT 1, Z T, C COMMIT, Z I"},
	"extended":               {"P - " + insert + " ; B - - ; E - ; S", "1, 2, C INSERT 0 1, Z I", "E 23G02, Z I"},
	"prepared":               {"B - ready ; E - ; S", "2, C INSERT 0 1, Z I", "E 23G02, Z I"},
	"a pipeline":             {"P - begin ; B - - ; E - ; P - " + insert + " ; B - - ; E - ; P - commit ; B - - ; E - ; S", "1, 2, C BEGIN, 1, 2, C INSERT 0 1, 1, 2, C COMMIT, Z I", "1, 2, C BEGIN, E 23G02, Z E"},
	"a function that writes": {"Q select archive_partners()", "T, D 500, C SELECT 1, Z I", "T, E 23G02, Z I"},
	"a procedure":            {"Q call purge_messages()", "C CALL, Z I", "E 23G02, Z I"},
	"DDL":                    {"Q alter table bus_bus add column if not exists held int", "C ALTER TABLE, Z I", "E 23G02, Z I"},
}

func TestModeHoldHoldsWritesUntilItIsLifted(t *testing.T) {
	g := newGuard(t)
	for name, h := range writesThatWait {
		p, reader := g.peer(), g.peer()
		p.run("P ready " + insert + " ; S")
		reader.ok("begin read only")
		c := g.holdWrites(time.Hour)
		p.send(pipeline(h.send)...)
		g.awaitHeld(1)
		g.barrier(c) // what is held has not reached the server
		if got := reader.run("Q select 1 ; Q commit ; Q select 2 ; P - select 3 ; B - - ; E - ; S ; Q begin read only ; Q select 4 ; Q end"); strings.Contains(got, "E ") {
			t.Errorf("%s: a reader meanwhile: %s", name, got)
		}
		g.contain()
		if got := p.answers(h.lifted); !alike(got, h.lifted) {
			t.Errorf("%s: got %s, want %s", name, got, h.lifted)
		}
		g.awaitHeld(0)
	}
}

// alike compares what a client saw, but for how many rows archive_partners
// found to archive.
func alike(got, want string) bool {
	return got == want || strings.Contains(want, "D 500") && strings.HasPrefix(got, "T, D ") && strings.HasSuffix(got, ", C SELECT 1, Z I")
}

// answers reads as many exchanges as want has.
func (p *peer) answers(want string) string {
	p.t.Helper()
	var got []string
	for range strings.Count(want, "Z ") {
		got = append(got, p.until('Z')...)
	}
	return strings.Join(got, ", ")
}

func TestModeHoldEndsInReadOnly(t *testing.T) {
	g := newGuard(t)
	before := g.value()
	for name, h := range writesThatWait {
		p := g.peer()
		p.run("P ready " + insert + " ; S")
		g.holdWrites(30 * time.Millisecond)
		p.send(pipeline(h.send)...)
		if got := p.answers(h.over); got != h.over {
			t.Errorf("%s: got %s, want %s", name, got, h.over)
		}
		p.end()
		g.contain()
	}
	if after := g.value(); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
}

// value is what the tests of mode hold might change.
func (g *guard) value() string {
	return g.pg.Value(g.t, g.db, "select concat((select count(*) from bus_bus), ' ', (select count(*) from res_partner where active), ' ', (select count(*) from mail_message), ' ', (select count(*) from pg_attribute))")
}

// Whoever is held is decided about again by what is in force then.
func TestWhatIsHeldIsDecidedAgain(t *testing.T) {
	g := newGuard(t)
	before := g.value()
	for what, next := range map[string]struct {
		in   func()
		want string
	}{
		"read-only":     {func() { g.readOnly(policy.RefuseCommit, 0) }, "E 23G02, Z I"},
		"a freeze":      {func() { g.contain(policy.Containment{Kind: policy.FreezeDDL}) }, "E 23G01, Z I"},
		"a pause":       {func() { g.pause(0, true) }, "E 57P03, Z I"},
		"a longer hold": {func() { g.holdWrites(2 * time.Hour) }, ""},
	} {
		p := g.peer()
		g.holdWrites(time.Hour)
		p.send(&pgproto3.Query{String: "create table held_by_" + strings.ReplaceAll(strings.ReplaceAll(what, "-", "_"), " ", "_") + " (n int)"})
		g.awaitHeld(1)
		next.in()
		if next.want == "" {
			g.awaitHeld(1)
			g.cancel(p)
			p.until('Z')
		} else if got := strings.Join(p.until('Z'), ", "); got != next.want {
			t.Errorf("%s: %s, want %s", what, got, next.want)
		}
		g.contain()
		p.end()
	}
	if after := g.value(); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
}

func TestACancelEndsModeHold(t *testing.T) {
	g := newGuard(t)
	before := g.value()
	for name, h := range writesThatWait {
		p := g.peer()
		p.run("P ready " + insert + " ; S")
		g.holdWrites(time.Hour)
		first, _, _ := strings.Cut(h.send, " ; Q")
		p.send(pipeline(first)...)
		g.awaitHeld(1)
		g.cancel(p)
		if got := strings.Join(p.until('Z'), ", "); got != "E 57014, Z I" {
			t.Errorf("%s: %s", name, got)
		}
		g.contain()
		p.end()
	}
	if after := g.value(); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
}

// A client that goes away while it is held has done nothing; and one that is
// held when lockkeeper is shut down is told.
func TestWhatIsHeldAndNeverGoesOn(t *testing.T) {
	g := newGuard(t)
	before := g.value()
	for _, h := range writesThatWait {
		p := g.peer()
		p.run("P ready " + insert + " ; S")
		g.holdWrites(time.Hour)
		p.send(pipeline(h.send)...)
		g.awaitHeld(1)
		p.reset()
		eventually(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
		g.awaitHeld(0)
		g.contain()
	}
	p := g.peer()
	g.holdWrites(time.Hour)
	p.send(&pgproto3.Query{String: insert})
	g.awaitHeld(1)
	ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
	defer cancel()
	if err := g.srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got, err := p.read('Z'); err == nil || strings.Join(got, ", ") != "E 57P01" {
		t.Errorf("shut down: %s, %v", got, err)
	}
	if after := g.value(); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
}

func TestHeldSessionsAreBounded(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.cfg.Limits.HeldSessions = 3 })
	g.holdWrites(time.Hour)
	var held []*peer
	for i := range 3 {
		p := g.peer()
		p.send(&pgproto3.Query{String: insert})
		g.awaitHeld(i + 1)
		held = append(held, p)
	}
	more := g.peer()
	for _, send := range []string{"Q " + insert, "P - " + insert + " ; B - - ; E - ; S", "Q begin"} {
		if got := more.run(send); got != "E 53300, Z I" {
			t.Errorf("%s, one more: %s", send, got)
		}
	}
	if got := more.run("Q select 1"); got != "T, D 1, C SELECT 1, Z I" {
		t.Errorf("a reader: %s", got)
	}
	if n := g.metric(t, "lockkeeper_sessions_held"); n != 3 {
		t.Errorf("%v sessions are held, says the metric", n)
	}
	held[0].reset()
	g.awaitHeld(2)
	eventually(t, "there is a place again", func() bool { return g.metric(t, "lockkeeper_sessions_held") == 2 })
	more.send(&pgproto3.Query{String: insert})
	g.awaitHeld(3)
	g.contain()
	for i, p := range append(held[1:], more) {
		if got := strings.Join(p.until('Z'), ", "); got != "C INSERT 0 1, Z I" {
			t.Errorf("%d: %s", i, got)
		}
	}
	eventually(t, "nobody is held", func() bool { return g.metric(t, "lockkeeper_sessions_held") == 0 })
}

// In a pipeline that has begun nothing can wait: what came before it would be
// held, too.
func TestModeHoldDoesNotHoldTheMiddleOfAPipeline(t *testing.T) {
	g := newGuard(t)
	c := g.holdWrites(time.Hour)
	p := g.peer()
	if got := p.run("P - select 1 ; B - - ; E - ; P - " + insert + " ; B - - ; E - ; S"); got != "1, 2, D 1, C SELECT 1, E 23G02, Z I" {
		t.Error(got)
	}
	if got := p.run("Q begin read only ; Q " + insert + " ; Q commit"); got != "C BEGIN, Z T, E 23G02, Z E, C ROLLBACK, Z I" {
		t.Error(got)
	}
	if got := p.run("P - select 1 ; B - - ; E - ; Q " + insert + " ; S"); !strings.Contains(got, "E 23G02") { // PostgreSQL 18 goes on with the implicit transaction
		t.Error(got)
	}
	g.barrier(c)
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// What is in flight when mode hold begins is treated as by read-only.
func TestTransactionsInFlightUnderModeHold(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.ok("begin")
	p.ok(insert)
	g.barrier(g.holdWrites(time.Hour))
	if got := p.run("Q commit"); got != "E 23G02, Z I" {
		t.Error(got)
	}
	p.send(&pgproto3.Query{String: insert})
	g.awaitHeld(1)
	g.contain()
	if got := strings.Join(p.until('Z'), ", "); got != "C INSERT 0 1, Z I" {
		t.Errorf("the next one: %s", got)
	}
}

// An Execute of a portal that SQL has made waits, too, with no Bind before it.
func TestModeHoldHoldsAnExecuteAlone(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.ok("declare c cursor with hold for select 7")
	g.holdWrites(time.Hour)
	p.send(pipeline("E c ; S")...)
	g.awaitHeld(1)
	g.contain()
	if got := strings.Join(p.until('Z'), ", "); got != "D 7, C SELECT 1, Z I" && got != "D 7, C FETCH 1, Z I" {
		t.Error(got)
	}
	p.end()
}
