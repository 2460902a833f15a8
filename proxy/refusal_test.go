package proxy_test

import (
	"strings"
	"testing"

	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

const (
	unbounded = "delete from account_move_line"
	countRows = "select count(*) from account_move_line"
)

// rowsLeft counts what the refused statement would have deleted.
func (g *guard) rowsLeft() string { return g.pg.Value(g.t, g.db, countRows) }

func TestARefusalFailsAtItsPlaceInAPipeline(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	const one = "P - select 1 ; B - - ; E -"
	const del = "P - " + unbounded + " ; B - - ; E -"
	for name, c := range map[string]struct{ send, want string }{
		"alone":                 {del + " ; S", "E 23G01, Z I"},
		"first":                 {del + " ; " + one + " ; S", "E 23G01, Z I"},
		"middle":                {one + " ; " + del + " ; " + one + " ; S", "1, 2, D 1, C SELECT 1, E 23G01, Z I"},
		"last":                  {one + " ; " + one + " ; " + del + " ; S", "1, 2, D 1, C SELECT 1, 1, 2, D 1, C SELECT 1, E 23G01, Z I"},
		"before another Sync":   {del + " ; S ; " + one + " ; S", "E 23G01, Z I, 1, 2, D 1, C SELECT 1, Z I"},
		"behind a Sync":         {one + " ; S ; " + del + " ; S ; " + one + " ; S", "1, 2, D 1, C SELECT 1, Z I, E 23G01, Z I, 1, 2, D 1, C SELECT 1, Z I"},
		"behind an error":       {"P - select 1/0 ; B - - ; E - ; " + del + " ; S", "1, E 22012, Z I"},
		"behind a syntax error": {"P - selec ; " + del + " ; S", "E 42601, Z I"},
		"twice":                 {del + " ; " + del + " ; S ; " + del + " ; S", "E 23G01, Z I, E 23G01, Z I"},
		"a Query in a pipeline": {one + " ; Q " + unbounded, "1, 2, D 1, C SELECT 1, E 23G01, Z I"},
		"Queries in a row":      {"Q select 1 ; Q " + unbounded + " ; Q select 2", "T, D 1, C SELECT 1, Z I, E 23G01, Z I, T, D 2, C SELECT 1, Z I"},
		"several statements":    {"Q select 1; " + unbounded + "; select 2", "E 23G01, Z I"},
		"named":                 {"P a " + unbounded + " ; S ; B - a ; E - ; S", "E 23G01, Z I, E 26000, Z I"},
		"Describe and Flush":    {"P - " + unbounded + " ; D - ; H ; S", "E 23G01, Z I"},
		"cursor of a write":     {"Q begin ; Q declare c cursor for " + unbounded + " returning id ; Q rollback", "C BEGIN, Z T, E 23G01, Z E, C ROLLBACK, Z I"},
		"in a CTE":              {"P - with d as (" + unbounded + " returning 1) select count(*) from d ; B - - ; E - ; S", "E 23G01, Z I"},
		"EXPLAIN ANALYZE":       {"Q explain analyze " + unbounded, "E 23G01, Z I"},
	} {
		p := g.peer()
		if got := p.run(c.send); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if got := p.run("Q select 3"); got != "T, D 3, C SELECT 1, Z I" {
			t.Errorf("%s: then %s", name, got)
		}
		if left := p.value("select count(*) from pg_prepared_statements where name like 'lockkeeper%'"); left != "0" {
			t.Errorf("%s: %s statements of ours stay", name, left)
		}
		p.end()
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

func TestARefusalFailsTheServersTransaction(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	for name, del := range map[string]string{"simple": "Q " + unbounded, "extended": "P - " + unbounded + " ; B - - ; E - ; S"} {
		p := g.peer()
		p.ok("create temp table seen (n int)")
		p.ok("begin; insert into seen values (1)")
		if got := p.run(del); got != "E 23G01, Z E" {
			t.Errorf("%s: in a transaction: %s", name, got)
		}
		if got := p.run("Q select 1 ; " + del + " ; Q commit ; Q select count(*) from seen"); got !=
			"E 25P02, Z E, E 25P02, Z E, C ROLLBACK, Z I, T, D 0, C SELECT 1, Z I" {
			t.Errorf("%s: afterwards: %s", name, got)
		}
		p.ok("begin; insert into seen values (2); savepoint a; insert into seen values (3)")
		if got := p.run(del); got != "E 23G01, Z E" {
			t.Errorf("%s: in a savepoint: %s", name, got)
		}
		if got := p.run("Q rollback to a ; Q insert into seen values (4) ; Q commit ; Q select sum(n) from seen"); got !=
			"C ROLLBACK, Z T, C INSERT 0 1, Z T, C COMMIT, Z I, T, D 6, C SELECT 1, Z I" {
			t.Errorf("%s: back in the savepoint: %s", name, got)
		}
		p.ok("begin; insert into seen values (100)")
		if got := p.run("Q commit; " + unbounded); got != "E 23G01, Z E" {
			t.Errorf("%s: behind a COMMIT in one text: %s", name, got)
		}
		p.ok("rollback")
		if sum := p.value("select sum(n) from seen"); sum != "6" {
			t.Errorf("%s: a refused text has committed: %s", name, sum)
		}
		p.end()
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

func TestARefusalLeavesTheClientsStatementsAndPortals(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	observing(g)
	p.run("P del " + unbounded + " ; P save savepoint a ; P back rollback to a ; S")
	g.contain()
	p.ok("begin")
	if got := p.run("P - select generate_series(1, 3) ; B save save ; E save ; B open - ; E1 open ; S"); got !=
		"1, 2, C SAVEPOINT, 2, D 1, s, Z T" {
		t.Fatal(got)
	}
	for range 2 { // the second time it must not be forgotten what it is
		if got := p.run("B x del ; E x ; S"); got != "E 23G01, Z E" {
			t.Fatal("at Bind: ", got)
		}
		if got := p.run("B back back ; E back ; B - - ; E1 - ; S"); got != "2, C ROLLBACK, 2, D 1, s, Z T" {
			t.Errorf("the unnamed statement: %s", got)
		}
	}
	if got := p.run("Q execute del"); got != "E 23G01, Z E" {
		t.Errorf("by SQL: %s", got)
	}
	p.ok("rollback")
	if got := p.run("C del ; B - del ; S"); got != "3, E 26000, Z I" {
		t.Errorf("closed: %s", got)
	}
}

// observing puts everybody under observe mode and returns that.
func observing(g *guard) []policy.Containment {
	return g.contain(policy.Containment{Kind: policy.ObserveMode})
}

func TestAnUnnamedStatementRefusedAtExecuteStaysRefused(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	p := g.peer()
	observing(g)
	if got := p.run("P - " + unbounded + " ; S"); got != "1, Z I" {
		t.Fatal(got)
	}
	g.contain()
	for range 3 {
		if got := p.run("B - - ; E - ; S"); got != "E 23G01, Z I" {
			t.Errorf("bound again: %s", got)
		}
	}
	// Refused at Execute: the portal is older than the rule.
	observing(g)
	p.ok("begin")
	if got := p.run("B x - ; S"); got != "E 26000, Z E" { // the Query has destroyed the unnamed statement
		t.Fatal(got)
	}
	p.ok("rollback")
	p.send(pipeline("P - " + unbounded + " ; B x - ; H")...)
	p.until('2')
	g.contain()
	if got := p.run("E x ; E x ; S"); got != "E 23G01, Z I" {
		t.Errorf("at Execute: %s", got)
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

func TestNamesAreSharedBySQLAndProtocol(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	const keyed = "delete from account_move_line where id = -1"
	for name, c := range map[string]struct{ send, want string }{
		"PREPARE is refused":          {"Q prepare d as " + unbounded + " ; B - d ; E - ; S", "E 23G01, Z I, E 26000, Z I"},
		"PREPARE, then Bind":          {"Q prepare d as " + keyed + " ; B - d ; E - ; S", "C PREPARE, Z I, 2, C DELETE 0, Z I"},
		"Parse, then EXECUTE":         {"P d " + keyed + " ; S ; Q execute d", "1, Z I, C DELETE 0, Z I"},
		"a failed PREPARE in between": {"Q prepare d as " + keyed + " ; Q prepare d as select 1 ; Q execute d", "C PREPARE, Z I, E 42P05, Z I, C DELETE 0, Z I"},
		"a failed Parse in between":   {"Q prepare d as " + keyed + " ; P d select 1 ; S ; Q execute d", "C PREPARE, Z I, E 42P05, Z I, C DELETE 0, Z I"},
		"DEALLOCATE":                  {"Q prepare d as " + keyed + " ; Q deallocate d ; Q execute d", "C PREPARE, Z I, C DEALLOCATE, Z I, E 26000, Z I"},
		"DEALLOCATE ALL":              {"P d " + keyed + " ; S ; Q deallocate all ; Q execute d", "1, Z I, C DEALLOCATE ALL, Z I, E 26000, Z I"},
		"a name used again":           {"P d select 1 ; S ; C d ; P d " + unbounded + " ; S ; B - d ; E - ; S", "1, Z I, 3, E 23G01, Z I, E 26000, Z I"},
		"a Close that was skipped":    {"P d select 7 ; S ; P - selec ; C d ; S ; B - d ; E - ; S", "1, Z I, E 42601, Z I, 2, D 7, C SELECT 1, Z I"},
	} {
		p := g.peer()
		if got := p.run(c.send); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		p.end()
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

// What was prepared while a rule only watched is known under every name it
// has, whatever fails around it.
func TestWhatWasPreparedIsNeverForgotten(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	for name, c := range map[string]struct{ prepare, send, want string }{
		"Parse, then EXECUTE":           {"P d " + unbounded + " ; S", "Q execute d", "E 23G01, Z I"},
		"PREPARE, then Bind":            {"Q prepare d as " + unbounded, "B - d ; E - ; S", "E 23G01, Z I"},
		"a Close that an error skipped": {"P d " + unbounded + " ; S", "P - selec ; C d ; S ; B - d ; E - ; S", "E 42601, Z I, E 23G01, Z I"},
		"a Parse that an error skipped": {
			"P d " + unbounded + " ; S", "P - selec ; C d ; P d select 1 ; S ; B - d ; E - ; S", "E 42601, Z I, E 23G01, Z I",
		},
		"a failing Parse of the same name": {"P d " + unbounded + " ; S", "P d select 1 ; S ; B - d ; E - ; S", "E 42P05, Z I, E 23G01, Z I"},
		"a failing Bind before it":         {"P d " + unbounded + " ; S", "B - nothing ; E - ; S ; B - d ; E - ; S", "E 26000, Z I, E 23G01, Z I"},
		"in EXPLAIN ANALYZE":               {"P d " + unbounded + " ; S", "Q explain analyze execute d", "E 23G01, Z I"},
		"what never was":                   {"Q execute nothing", "B - nothing ; S ; Q execute nothing", "E 26000, Z I, E 26000, Z I"},
		"in CREATE TABLE AS":               {"P d with x as (" + unbounded + " returning id) select * from x ; S", "Q create table e as execute d", "E 23G01, Z I"},
		"inside DO": {
			"Q do $$begin execute 'prepare d as " + unbounded + "'; end$$", "B - d ; E - ; S", "E 23G01, Z I",
		},
	} {
		p := g.peer()
		observing(g)
		p.run(c.prepare)
		g.contain()
		if got := p.run(c.send); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		p.end()
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

func TestARefusalSaysWhy(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.pg = pgtest.Start(t) })
	p := g.peer()
	for _, send := range []string{"Q " + unbounded, "P - " + unbounded + " ; S"} {
		p.run(send)
		if len(p.errs) != 1 {
			t.Fatalf("%s: %d errors", send, len(p.errs))
		}
		e := p.errs[0]
		if e.Severity != "ERROR" || e.Code != "23G01" || !strings.Contains(e.Message, "unbounded-write") ||
			!strings.Contains(e.Detail, `"account_move_line"`) || e.Hint == "" || e.Position != 0 {
			t.Errorf("%s: %+v", send, e)
		}
	}
	eventually(t, "the server's log names the rule", func() bool {
		return strings.Count(g.pg.Log(), "lockkeeper: refused by rule unbounded-write") >= 2
	})
	refusals := g.journal(journal.RefusalEntry)
	if len(refusals) != 2 {
		t.Fatalf("%d refusals in the journal", len(refusals))
	}
	for _, e := range refusals {
		if e.Rule != "unbounded-write" || e.SQLSTATE != "23G01" || e.Statement != "DELETE" || e.Outcome != "refused" ||
			len(e.Tables) != 1 || e.Tables[0] != "account_move_line" || e.User != "postgres" || e.Text.Value() == 0 {
			t.Errorf("%+v", e)
		}
	}
}

func TestAUserWithoutPrivilegesIsRefusedAlike(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.pg = pgtest.Start(t) })
	g.pg.MustExec(t, "postgres", "CREATE ROLE nobody_much LOGIN")
	g.pg.MustExec(t, g.db, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
	p := newPeer(t, g.addr, "nobody_much", g.db)
	if got := p.run("Q " + unbounded + " ; P - " + unbounded + " ; S"); got != "E 23G01, Z I, E 23G01, Z I" {
		t.Error(got)
	}
}

func TestAFunctionCalledByNumber(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	purge := p.value("select 'archive_partners'::regproc::oid")
	before := g.pg.Value(t, g.db, "select count(*) from res_partner where active")
	if got := p.call(purge); got != "E 23G01, Z I" {
		t.Errorf("a user's function: %s", got)
	}
	if after := g.pg.Value(t, g.db, "select count(*) from res_partner where active"); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
	if got := p.call("950950"); got != "E 23G01, Z I" {
		t.Errorf("a function that does not exist: %s", got)
	}
	if got := p.call(p.value("select 'pg_backend_pid'::regproc::oid")); !strings.HasPrefix(got, "V ") {
		t.Errorf("a built-in function: %s", got)
	}
}

func TestARuleMayEndTheSession(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.policy = `
profile: odoo
critical_tables: [account_move_line]
rules:
  - {name: out, match: {kinds: [delete], tables: critical}, action: disconnect}
`
	})
	before := g.rowsLeft()
	for _, send := range []string{"Q " + unbounded, "P - " + unbounded + " ; B - - ; E - ; S"} {
		p := g.peer()
		p.ok("begin")
		p.ok(insert)
		p.send(pipeline("P - select 1 ; B - - ; E - ; S ; " + send)...)
		if got := strings.Join(p.until('Z'), ", "); got != "1, 2, D 1, C SELECT 1, Z T" {
			t.Errorf("%s: what is owed: %s", send, got)
		}
		got, err := p.read('Z')
		if err == nil || len(got) != 1 || got[0] != "E 23G01" || p.errs[0].Severity != "FATAL" || !strings.Contains(p.errs[0].Message, `"out"`) {
			t.Errorf("%s: %q, %v", send, got, err)
		}
	}
	eventually(t, "the sessions end", func() bool { return len(g.srv.Sessions()) == 0 })
	refusals := g.journal(journal.RefusalEntry)
	if len(refusals) != 2 || refusals[0].Verdict != "disconnect" {
		t.Errorf("%+v", refusals)
	}
	if after := g.rowsLeft(); after != before || g.pg.Value(t, g.db, "select count(*) from bus_bus") != "0" {
		t.Errorf("%s rows before, %s after", before, after)
	}
}
