package proxy_test

import (
	"strings"
	"testing"
	"time"

	"lockkeeper/policy"
)

// A Query between an Execute and its Sync ends the implicit transaction up to
// PostgreSQL 17, and leaves it open from 18 on. These tests say what containments
// make of either.
const queryInPipeline = "P - " + insert + " ; B - - ; E - ; Q select 2"

// implicit sends it, and reports whether the transaction is still open.
func (p *peer) implicit() bool {
	p.t.Helper()
	p.send(pipeline(queryInPipeline)...)
	p.until('Z')
	return p.status == 'T'
}

// A transaction that is open goes on in a pause, and the next one is paused.
func TestAPauseOfAnImplicitTransaction(t *testing.T) {
	g := newGuard(t)
	for _, hold := range []time.Duration{time.Hour, 0} {
		p := g.peer()
		open := p.implicit()
		g.pause(hold, hold == 0)
		if open {
			if got := p.run("Q " + insert); got != "C INSERT 0 1, Z T" {
				t.Errorf("in the transaction: %s", got)
			}
		}
		if got := p.run("S"); got != "Z I" {
			t.Errorf("the Sync: %s", got)
		}
		p.run("Q set work_mem = '1MB'") // PostgreSQL 18 itself answers the first text behind such a Sync with XX000
		p.send(pipeline("Q " + insert)...)
		want := "E 57P03, Z I"
		if hold > 0 {
			want = "C INSERT 0 1, Z I"
			g.awaitHeld(1)
			g.contain()
		}
		if got := strings.Join(p.until('Z'), ", "); got != want {
			t.Errorf("the next one: %s, want %s", got, want)
		}
		g.contain()
		p.end()
	}
}

// DDL is refused wherever it stands in a pipeline, whichever began first: the
// implicit transaction or the freeze.
func TestAFreezeOfAnImplicitTransaction(t *testing.T) {
	g := newGuard(t)
	const ddl = "create table frozen_in_pipeline (n int)"
	for _, send := range []string{
		"Q " + ddl + " ; S", "P - " + ddl + " ; B - - ; E - ; S", "B - ddl ; E - ; S", "Q select 3 ; Q " + ddl + " ; S",
		"P - select 3 ; B - - ; E - ; Q " + ddl + " ; S", "P - select 3 ; B - - ; E - ; B - ddl ; E - ; S",
	} {
		for _, before := range []bool{true, false} {
			p := g.peer()
			p.run("P ddl " + ddl + " ; S")
			if before {
				g.contain(policy.Containment{Kind: policy.FreezeDDL})
			}
			p.implicit()
			g.contain(policy.Containment{Kind: policy.FreezeDDL})
			if got := p.run(send); !strings.Contains(got, "E 23G01") {
				t.Errorf("%s, frozen before: %v: %s", send, before, got)
			}
			if n := g.pg.Value(t, g.db, "select count(*) from pg_class where relname like 'frozen%'"); n != "0" {
				t.Errorf("%s: the table was made", send)
			}
			g.contain()
			p.end()
		}
	}
}

// A session that comes into the scope of read-only in the middle of an implicit
// transaction, by a name that it takes or by what it does, cannot commit what it
// has written before.
func TestComingIntoAScopeInAnImplicitTransaction(t *testing.T) {
	g := newGuard(t)
	count := func() string { return g.pg.Value(t, g.db, "select count(*) from bus_bus") }
	begin := "P - " + insert + " ; B - - ; E - ; "
	for name, tt := range map[string]struct {
		scope policy.Scope
		first string   // up to where the session is in the scope
		then  []string // what might commit
	}{
		"application": {policy.Scope{Application: "scoped"}, begin + "Q set application_name = 'scoped'", []string{"S", "Q " + insert, "P - select 1 ; B - - ; E - ; S", "Q commit"}},
		"tag":         {policy.Scope{Tag: "cron"}, begin + "Q select * from ir_cron for no key update skip locked", []string{"S", "Q " + insert, "Q commit"}},
	} {
		for _, then := range tt.then {
			c := g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit, Scope: tt.scope})[0]
			p := g.peer("application_name", "other")
			p.send(pipeline(tt.first)...)
			p.until('Z')
			rows := count() // what the Query has committed, up to 17, it could
			p.send(pipeline(then)...)
			if _, err := p.read('Z'); err == nil {
				p.send(pipeline("S")...)
				_, _ = p.read('Z') // it may have been closed
			}
			g.barrier(c)
			if now := count(); now != rows {
				t.Errorf("%s, %s: %s rows, then %s", name, then, rows, now)
			}
			_ = p.conn.Close()
			g.contain()
		}
	}
	// In a pipeline without a Query on every version.
	g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit, Scope: policy.Scope{Tag: "cron"}})
	rows := count()
	if got := g.peer().run(begin + "P - select * from ir_cron for no key update skip locked ; B - - ; E - ; S"); !strings.Contains(got, "E 23G02") {
		t.Errorf("a pipeline: %s", got)
	}
	if now := count(); now != rows {
		t.Errorf("a pipeline: %s rows, then %s", rows, now)
	}
}
