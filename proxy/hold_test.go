package proxy_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/policy"
)

// pause holds or refuses new transactions of everybody.
func (g *guard) pause(hold time.Duration, refuse bool) {
	g.contain(policy.Containment{Kind: policy.Pause, MaxHold: policy.Duration(hold), Refuse: refuse})
}

// awaitHeld waits until the guard holds n sessions.
func (g *guard) awaitHeld(n int) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("%d sessions held", n), func() bool { return g.held() == n })
}

// held returns how many sessions the guard holds.
func (g *guard) held() int {
	n := 0
	for _, s := range g.srv.Sessions() {
		if s.State == "held" {
			n++
		}
	}
	return n
}

var holds = map[string][]string{
	"simple":   {"Q " + insert, "C INSERT 0 1, Z I"},
	"begin":    {"Q begin ; Q " + insert + " ; Q commit", "C BEGIN, Z T, C INSERT 0 1, Z T, C COMMIT, Z I"},
	"extended": {"P - " + insert + " ; B - - ; E - ; S", "1, 2, C INSERT 0 1, Z I"},
	"prepared": {"B - ready ; E - ; S", "2, C INSERT 0 1, Z I"},
	"call":     {"Q call purge_messages()", "C CALL, Z I"},
}

func TestAPauseHoldsNewTransactionsUntilItIsLifted(t *testing.T) {
	g := newGuard(t)
	for name, h := range holds {
		p, inside := g.peer(), g.peer()
		p.run("P ready " + insert + " ; S")
		inside.ok("begin")
		g.pause(time.Hour, false)
		p.send(pipeline(h[0])...)
		g.awaitHeld(1)
		if got := inside.run("Q " + insert + " ; Q commit ; Q rollback ; Q set work_mem = '1MB'"); got != "C INSERT 0 1, Z T, C COMMIT, Z I, N 25P01, C ROLLBACK, Z I, C SET, Z I" {
			t.Errorf("%s: a transaction that is open: %s", name, got)
		}
		g.contain()
		var got []string
		for range strings.Count(h[1], "Z ") {
			got = append(got, p.until('Z')...)
		}
		if all := strings.Join(got, ", "); all != h[1] {
			t.Errorf("%s: got %s, want %s", name, all, h[1])
		}
		g.awaitHeld(0)
	}
}

func TestAPauseEndsInARefusal(t *testing.T) {
	g := newGuard(t)
	for name, h := range holds {
		for want, set := range map[string]func(){
			"E 55P03": func() { g.pause(50*time.Millisecond, false) },
			"E 57P03": func() { g.pause(0, true) },
		} {
			p := g.peer()
			p.run("P ready " + insert + " ; S")
			set()
			send, _, _ := strings.Cut(h[0], " ; Q")
			if got := p.run(send); got != want+", Z I" {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
			g.contain()
			if got := p.run("B - ready ; E - ; S"); got != "2, C INSERT 0 1, Z I" {
				t.Errorf("%s: afterwards %s", name, got)
			}
		}
	}
}

func TestACancelEndsAHold(t *testing.T) {
	g := newGuard(t)
	for name, h := range holds {
		p := g.peer()
		p.run("P ready " + insert + " ; S")
		rows := g.pg.Value(t, g.db, "select count(*) from bus_bus")
		g.pause(time.Hour, false)
		send, _, _ := strings.Cut(h[0], " ; Q")
		p.send(pipeline(send)...)
		g.awaitHeld(1)
		g.cancel(p)
		if got := strings.Join(p.until('Z'), ", "); got != "E 57014, Z I" {
			t.Errorf("%s: %s", name, got)
		}
		g.contain()
		if got := p.run("Q select 1"); got != "T, D 1, C SELECT 1, Z I" {
			t.Errorf("%s: afterwards %s", name, got)
		}
		if now := g.pg.Value(t, g.db, "select count(*) from bus_bus"); now != rows {
			t.Errorf("%s: the statement was run", name)
		}
	}
}

func TestAHeldStatementOfAClientThatWentAwayIsNeverRun(t *testing.T) {
	g := newGuard(t)
	for name, h := range holds {
		for how, leave := range map[string]func(*peer){
			"reset": (*peer).reset, "terminated": (*peer).end, "closed": func(p *peer) { _ = p.conn.Close() },
		} {
			p := g.peer()
			p.run("P ready " + insert + " ; S")
			messages := g.pg.Value(t, g.db, "select count(*) from mail_message")
			g.pause(time.Hour, false)
			p.send(pipeline(h[0])...)
			g.awaitHeld(1)
			leave(p)
			eventually(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
			g.contain()
			if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
				t.Errorf("%s, %s: the statement was run", name, how)
			}
			if now := g.pg.Value(t, g.db, "select count(*) from mail_message"); now != messages {
				t.Errorf("%s, %s: the procedure was run", name, how)
			}
		}
	}
}

func TestWhoIsPausedIsChosenByScope(t *testing.T) {
	g := newGuard(t)
	g.contain(policy.Containment{Kind: policy.Pause, Refuse: true, Scope: policy.Scope{Tag: "cron"}})
	cron, worker := g.peer("application_name", "odoo-7"), g.peer("application_name", "odoo-8")
	cron.ok("begin")
	cron.ok("select * from ir_cron for no key update skip locked")
	cron.ok("commit")
	if got := cron.run("Q begin"); got != "E 57P03, Z I" {
		t.Errorf("cron: %s", got)
	}
	if got := worker.run("Q begin ; Q rollback"); got != "C BEGIN, Z T, C ROLLBACK, Z I" {
		t.Errorf("worker: %s", got)
	}
}

func TestDDLFreeze(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.run("P ddl create table frozen (n int) ; S")
	g.contain(policy.Containment{Kind: policy.FreezeDDL})
	for send, want := range map[string]string{
		"Q create table frozen (n int)":                     "E 23G01, Z I",
		"P - create table frozen (n int) ; B - - ; E - ; S": "E 23G01, Z I",
		"B - ddl ; E - ; S":                                 "E 23G01, Z I",
		"Q select 1; alter table bus_bus add column z int":  "E 23G01, Z I",
		"Q truncate bus_bus":                                "E 23G01, Z I",
		"Q do $$begin execute 'drop table bus_bus'; end$$":  "E 23G01, Z I",
		"Q " + insert:                                           "C INSERT 0 1, Z I",
		"P - " + insert + " ; B - - ; E - ; S":                  "1, 2, C INSERT 0 1, Z I",
		"Q begin ; Q drop table bus_bus ; Q rollback":           "C BEGIN, Z T, E 23G01, Z E, C ROLLBACK, Z I",
		"Q create temp table pg_temp.t (n int)":                 "C CREATE TABLE, Z I",
		"Q begin ; Q lock bus_bus in access share mode ; Q end": "C BEGIN, Z T, C LOCK TABLE, Z T, C COMMIT, Z I",
	} {
		if got := p.run(send); got != want {
			t.Errorf("%s: got %s, want %s", send, got, want)
		}
	}
	g.contain()
	if got := p.run("B - ddl ; E - ; S"); got != "2, C CREATE TABLE, Z I" {
		t.Errorf("lifted: %s", got)
	}
}

const throttlePolicy = `
profile: odoo
critical_tables: [bus_bus]
rules:
  - name: paced
    match: {apps: ["paced*"], tables: critical, kinds: [insert, update, delete]}
    throttle: {rows_per_second: 10, by: application, max_wait: 20s}
  - name: counted
    match: {apps: ["counted*"], tables: critical}
    throttle: {statements_per_second: 5, by: application, max_wait: 20s}
  - name: hurried
    match: {apps: ["hurried*"], tables: critical, kinds: [insert]}
    throttle: {rows_per_second: 1, by: application, max_wait: 50ms}
`

func TestThrottledWritersWait(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = throttlePolicy })
	const twenty = "insert into bus_bus (channel) select null from generate_series(1, 20)"
	for name, c := range map[string]struct {
		application string
		first, then []string
		least       time.Duration
	}{
		"rows, simple":        {"paced1", []string{"Q " + twenty}, []string{"Q " + insert}, time.Second},
		"rows, extended":      {"paced2", []string{"P - " + twenty + " ; B - - ; E - ; S"}, []string{"P - " + insert + " ; B - - ; E - ; S"}, time.Second},
		"rows, at BEGIN":      {"paced3", []string{"Q begin", "Q " + twenty, "Q commit"}, []string{"Q begin", "Q rollback"}, time.Second},
		"rows, pipeline":      {"paced4", []string{"P i " + twenty + " ; B - i ; E - ; S"}, []string{"B - i ; E - ; S"}, time.Second},
		"rows by a CTE's tag": {"paced5", []string{"Q with x as (select 1) " + twenty}, []string{"Q " + insert}, time.Second},
		"statements": {
			"counted1", []string{"Q " + insert, "Q " + insert, "Q " + insert, "Q " + insert, "Q " + insert}, []string{"Q " + insert, "Q " + insert}, 300 * time.Millisecond,
		},
	} {
		p := g.peer("application_name", c.application)
		begun := time.Now() // what is counted first has its time, too, on a machine that is slow
		if got := p.script(c.first...); strings.Contains(got, "E ") {
			t.Fatalf("%s: %s", name, got)
		}
		if got := p.script(c.then...); strings.Contains(got, "E ") {
			t.Errorf("%s: %s", name, got)
		}
		if waited := time.Since(begun); waited < c.least {
			t.Errorf("%s: waited %s only", name, waited)
		}
	}
}

func TestAThrottleNeverWaitsInsideATransaction(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = throttlePolicy })
	p := g.peer("application_name", "hurried-inside")
	p.ok("begin")
	for range 5 {
		p.ok("insert into bus_bus (channel) select null from generate_series(1, 100)")
	}
	p.ok("commit")
	if got := p.run("Q " + insert); got != "E 55P03, Z I" {
		t.Errorf("in debt, and no time to wait: %s", got)
	}
	if got := p.run("Q begin ; Q " + insert); got != "E 55P03, Z I, E 55P03, Z I" {
		t.Errorf("at BEGIN: %s", got)
	}
	if got := g.peer("application_name", "hurried-other").run("Q " + insert); got != "C INSERT 0 1, Z I" {
		t.Errorf("another application: %s", got)
	}
	if got := p.run("Q select count(*) from bus_bus where id <= 500"); got != "T, D 500, C SELECT 1, Z I" {
		t.Errorf("a read: %s", got)
	}
}

// A guard that was killed leaves a list of server processes that go on.
func TestTheBarrierCoversAGuardThatIsGone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "processes")
	first := newGuard(t, func(s *setup) { s.deps.Processes = file })
	p := first.peer()
	p.send(&pgproto3.Query{String: "insert into bus_bus (channel) select pg_sleep(600)::text"})
	first.awaitSleeper(1)
	second := newGuard(t, func(s *setup) { s.pg = first.pg; s.deps.Processes = file }) // while the first still has the file: as after kill -9
	second.barrier(second.readOnly(policy.RefuseCommit, 0))
	first.awaitSleeper(0)
	if n := first.pg.Value(t, first.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
}
