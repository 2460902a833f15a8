package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/policy"
)

const (
	bracketPolicy = `
profile: odoo
critical_tables: [account_move, ir_attachment]
rules:
  - name: unbounded-write
    match: {kinds: [delete], tables: critical, bound: [none, vacuous]}
    action: refuse
  - name: ddl-on-hot-tables
    match: {classes: [define], tables: critical}
    ddl: {lock_timeout: 200ms, statement_timeout: 15min}
  - name: ddl-elsewhere
    match: {kinds: [alter table, reindex, cluster]}
    ddl: {lock_timeout: 200ms}
`
	timeoutsNow = "select current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')"
	sources     = "select string_agg(source, ' ' order by name) from pg_settings where name in ('lock_timeout', 'statement_timeout')"
	addColumn   = "alter table account_move add column c int"
)

func bracketGuard(t *testing.T) *guard {
	t.Helper()
	return newGuard(t, func(s *setup) { s.policy = bracketPolicy })
}

// block holds a lock on a table until the test or the returned function ends.
func (g *guard) block(table, mode string) (release func()) {
	g.t.Helper()
	p := g.directPeer()
	p.ok("begin; lock table " + table + " in " + mode + " mode")
	return func() { p.end() }
}

// script sends each line and joins what is received without rows' descriptions.
func (p *peer) script(lines ...string) string {
	p.t.Helper()
	var out []string
	for _, l := range lines {
		out = append(out, p.run(l))
	}
	return strings.Join(out, " / ")
}

// ways are the ways to send a statement that is alone.
var ways = map[string]func(sql string) string{
	"simple":   func(sql string) string { return "Q " + sql },
	"extended": func(sql string) string { return "P - " + sql + " ; B - - ; D - ; E - ; S" },
	"prepared": func(sql string) string { return "P n " + sql + " ; S ; B p n ; E p ; S ; C n ; S" },
}

func TestDDLGivesUpWhenItCannotHaveItsLock(t *testing.T) {
	g := bracketGuard(t)
	defer g.block("account_move", "row exclusive")()
	for way, send := range ways {
		p := g.peer()
		begun := time.Now()
		got := p.run(send(addColumn))
		if !strings.Contains(got, "E 55P03") || !strings.HasSuffix(got, "Z I") {
			t.Errorf("%s: %s", way, got)
		}
		if waited := time.Since(begun); waited < 200*time.Millisecond {
			t.Errorf("%s: gave up after %s", way, waited)
		}
		if got := p.value(timeoutsNow); got != "0 0" {
			t.Errorf("%s: afterwards %s", way, got)
		}
		p.ok("begin")
		if got := p.run(send(addColumn)); !strings.Contains(got, "E 55P03") || !strings.HasSuffix(got, "Z E") {
			t.Errorf("%s: in a transaction: %s", way, got)
		}
		p.ok("rollback")
		p.ok("begin; set local lock_timeout = '1h'; savepoint a")
		if got := p.run(send(addColumn)); !strings.Contains(got, "E 55P03") {
			t.Errorf("%s: in a savepoint: %s", way, got)
		}
		p.ok("rollback to a")
		if got := p.value(timeoutsNow); got != "1h 0" {
			t.Errorf("%s: back in the savepoint %s", way, got)
		}
		p.ok("rollback")
		p.noneOfOurs(way)
		p.end()
	}
	p := g.peer()
	for _, text := range []string{
		"select 1; " + addColumn + "; select 2", "begin; " + addColumn + "; commit", addColumn + "; comment on column account_move.c is 'x'",
		"set lock_timeout = '1h'; " + addColumn, "set local lock_timeout to '1h'; lock account_move in share mode",
		"/* a; */ " + addColumn + " -- ;", "select set_config('lock_timeout', '0', false); " + addColumn,
	} {
		if got := p.run("Q " + text); !strings.Contains(got, "E 55P03") {
			t.Errorf("%s: %s", text, got)
		}
		p.ok("rollback")
		p.ok("reset lock_timeout")
		if got := p.value(timeoutsNow); got != "0 0" {
			t.Errorf("%s: afterwards %s", text, got)
		}
	}
}

// noneOfOurs fails where statements of ours have stayed.
func (p *peer) noneOfOurs(when string) {
	p.t.Helper()
	if got := p.value("select count(*) from pg_prepared_statements where name like 'lockkeeper%'"); got != "0" {
		p.t.Errorf("%s: %s statements of ours stay", when, got)
	}
	if got := p.value("select count(*) from pg_cursors where name like 'lockkeeper%'"); got != "0" {
		p.t.Errorf("%s: %s portals of ours stay", when, got)
	}
}

// Every exchange with brackets in it reads as the direct one, and leaves the
// settings and where they come from as it does.
func TestBracketsLeaveNoTrace(t *testing.T) {
	g := bracketGuard(t)
	g.pg.MustExec(t, "postgres", "CREATE ROLE slow_role SUPERUSER LOGIN")
	t.Cleanup(func() { _ = g.pg.Exec(context.Background(), "postgres", "DROP ROLE slow_role") })
	g.pg.MustExec(t, "postgres", "ALTER ROLE slow_role SET lock_timeout = '7s'")
	scripts := map[string][]string{
		"alone":                   {"Q alter table account_move add column x1 int", "Q " + timeoutsNow, "Q " + sources},
		"failing":                 {"Q alter table account_move add column id int", "Q " + timeoutsNow, "Q " + sources},
		"odoo":                    {"Q ALTER TABLE account_move ADD COLUMN x2 int; COMMENT ON COLUMN account_move.x2 IS 'é; ''x'", "Q " + timeoutsNow},
		"many":                    {"Q select 1;; alter table account_move add column x3 int;\n-- c\n; select 2", "Q " + timeoutsNow},
		"transaction":             {"Q begin", "Q alter table account_move add column x4 int", "Q " + timeoutsNow, "Q commit", "Q " + timeoutsNow, "Q " + sources},
		"transaction in one text": {"Q begin; alter table account_move add column x5 int; commit", "Q " + timeoutsNow, "Q " + sources},
		"commit in the middle":    {"Q begin", "Q commit; alter table account_move add column x6 int", "Q " + timeoutsNow, "Q " + sources},
		"session value":           {"Q set lock_timeout = '3s'", "Q alter table account_move add column x7 int", "Q " + timeoutsNow, "Q " + sources},
		"lower session value":     {"Q set lock_timeout = '100ms'", "Q alter table account_move add column x8 int", "Q " + timeoutsNow, "Q " + sources},
		"set local":               {"Q begin; set local lock_timeout = '3s'", "Q alter table account_move add column x9 int", "Q " + timeoutsNow, "Q commit", "Q " + timeoutsNow, "Q " + sources},
		"set in a transaction": {
			"Q begin; set lock_timeout = '3s'; set statement_timeout = '2h'", "Q alter table account_move add column x10 int", "Q " + timeoutsNow,
			"Q commit", "Q " + timeoutsNow, "Q " + sources,
		},
		"set in a transaction, rolled back": {
			"Q set lock_timeout = '4s'", "Q begin; set lock_timeout = '3s'", "Q alter table account_move add column x11 int", "Q rollback", "Q " + timeoutsNow, "Q " + sources,
		},
		"savepoint": {
			"Q begin; set local lock_timeout = '3s'; savepoint a; set local lock_timeout = '2s'", "Q alter table account_move add column x12 int", "Q " + timeoutsNow,
			"Q rollback to a", "Q " + timeoutsNow, "Q release a; commit", "Q " + timeoutsNow,
		},
		"failing in a savepoint": {
			"Q begin; set local lock_timeout = '3s'; savepoint a", "Q alter table account_move add column id int", "Q rollback to a", "Q " + timeoutsNow, "Q commit",
			"Q " + timeoutsNow, "Q " + sources,
		},
		"value set in the text":      {"Q begin", "Q set local lock_timeout = '9s'; alter table account_move add column x13 int", "Q " + timeoutsNow, "Q commit", "Q " + timeoutsNow},
		"session value in the text":  {"Q set lock_timeout = '9s'; alter table account_move add column x14 int", "Q " + timeoutsNow, "Q " + sources},
		"odoo's lock":                {"Q SET LOCAL lock_timeout TO '10s'; LOCK ir_attachment IN SHARE MODE", "Q " + timeoutsNow},
		"odoo's lock in a block":     {"Q begin", "Q SET LOCAL lock_timeout TO '10s'; LOCK ir_attachment IN SHARE MODE", "Q " + timeoutsNow, "Q commit", "Q " + timeoutsNow},
		"lock outside a block":       {"Q lock account_move in share mode", "P - lock account_move in share mode ; B - - ; E - ; S"},
		"aborted":                    {"Q begin", "Q select 1/0", "Q " + addColumn, "P - " + addColumn + " ; B - - ; E - ; S", "Q rollback"},
		"extended":                   {"P - alter table account_move add column x15 int ; B - - ; D - ; E - ; S", "Q " + timeoutsNow, "Q " + sources},
		"extended, failing":          {"P - alter table account_move add column id int ; B - - ; E - ; S", "Q " + timeoutsNow, "Q " + sources},
		"extended in a transaction":  {"Q begin", "P - alter table account_move add column x16 int ; B - - ; E - ; S", "Q " + timeoutsNow, "Q commit", "Q " + timeoutsNow, "Q " + sources},
		"extended, all in one":       {"P - begin ; B - - ; E - ; P - alter table account_move add column x17 int ; B - - ; E - ; P - " + timeoutsNow + " ; B - - ; E - ; P - commit ; B - - ; E - ; S", "Q " + sources},
		"extended, implicit":         {"P - select 1 ; B - - ; E - ; P - alter table account_move add column x18 int ; B - - ; E - ; P - " + timeoutsNow + " ; B - - ; E - ; S"},
		"extended, error behind":     {"P - alter table account_move add column x19 int ; B - - ; E - ; P - select 1/0 ; B - - ; E - ; P - select 2 ; S", "Q " + timeoutsNow, "Q " + sources},
		"extended, error before":     {"P - select 1/0 ; B - - ; E - ; P - alter table account_move add column x20 int ; B - - ; E - ; S", "Q " + timeoutsNow, "Q " + sources},
		"extended, names kept":       {"P - select 5 ; B q - ; P a alter table account_move add column x21 int ; B - a ; E - ; E q ; S", "B - a ; E - ; S"},
		"prepared by SQL":            {"Q prepare p as select 1", "Q execute p", "Q deallocate p"},
		"not in a transaction block": {"Q vacuum full account_move", "Q " + timeoutsNow, "Q " + sources, "Q cluster account_move using account_move_pkey", "Q reindex table account_move"},
		"vacuum full, session value": {"Q set lock_timeout = '3s'; set statement_timeout = '2h'", "Q vacuum full account_move", "Q " + timeoutsNow, "Q " + sources},
		"vacuum full, extended":      {"P - vacuum full account_move ; B - - ; E - ; S", "Q " + timeoutsNow, "Q " + sources, "P v vacuum full account_move ; P - select 1 ; S", "B - v ; E - ; S", "B - v ; E - ; B - - ; E - ; S", "B - - ; E - ; S", "Q " + timeoutsNow},
		"vacuum full in a block":     {"Q begin", "Q vacuum full account_move", "Q rollback", "Q " + timeoutsNow, "Q " + sources},
		"vacuum full in a text":      {"Q select 1; vacuum full account_move", "Q " + timeoutsNow},
		"vacuum full of nothing":     {"Q vacuum full ir_attachment_nothing", "Q " + timeoutsNow, "P - vacuum full ir_attachment_nothing ; B - - ; E - ; S", "Q " + timeoutsNow, "Q " + sources},
		"concurrently":               {"Q create index concurrently ci on account_move (name)", "P - drop index concurrently ci ; B - - ; E - ; S", "Q reindex table concurrently account_move", "Q " + timeoutsNow},
		"several pipelines":          {"P - alter table account_move add column x22 int ; B - - ; E - ; S ; P - select 1 ; B - - ; E - ; S ; Q alter table account_move add column x23 int ; Q select 2", "Q " + timeoutsNow},
	}
	for _, user := range []string{"postgres", "slow_role"} {
		direct, through := g.pg.OdooDatabase(t, 500), g.pg.OdooDatabase(t, 500)
		for name, lines := range scripts {
			d, p := newPeer(t, g.pg.Addr(), user, direct), newPeer(t, g.addr, user, through)
			want, got := d.script(lines...), p.script(lines...)
			if got != want {
				t.Errorf("%s, %s:\n got %s\nwant %s", user, name, got, want)
			}
			p.noneOfOurs(name)
			d.end()
			p.end()
		}
	}
}

func TestPositionsOfErrorsAreThoseOfTheClientsText(t *testing.T) {
	g := bracketGuard(t)
	for _, text := range []string{
		"/* é😀 */ alter table account_move add column y1 int; select 'é', nothing",
		"alter table account_move add column y2 int; comment on column account_move.y2 is 'ééé'; alter table account_move add column y3 nothing",
		"select 'é'; alter table account_move add column y4 nothing",
	} {
		d, p := g.directPeer(), g.peer()
		if d.run("Q "+text) != p.run("Q "+text) || len(d.errs) != 1 || len(p.errs) != 1 {
			t.Fatalf("%s: %v, direct %v", text, p.errs, d.errs)
		}
		if d.errs[0].Position == 0 || d.errs[0].Position != p.errs[0].Position || d.errs[0].Message != p.errs[0].Message {
			t.Errorf("%s: position %d, direct %d", text, p.errs[0].Position, d.errs[0].Position)
		}
	}
}

// A snapshot that we took would be the client's: the first query of its
// REPEATABLE READ transaction must see what was committed after our bracket.
func TestBracketsTakeNoSnapshot(t *testing.T) {
	g := bracketGuard(t)
	for way, send := range map[string]func(string) string{"simple": ways["simple"], "extended": ways["extended"]} {
		p, other := g.peer(), g.directPeer()
		p.ok("begin isolation level repeatable read")
		if locked := p.run(send("lock table account_move in share row exclusive mode")); !strings.Contains(locked, "C LOCK TABLE, Z T") {
			t.Fatal(locked)
		}
		other.ok(fmt.Sprintf("insert into res_company (name) values ('%s')", way))
		if got := p.value(fmt.Sprintf("select count(*) from res_company where name = '%s'", way)); got != "1" {
			t.Errorf("%s: the snapshot is older than the first query", way)
		}
		p.ok("rollback")
		p.ok("begin")
		p.run(send("lock table account_move in share row exclusive mode"))
		if got := p.run("Q set transaction isolation level serializable"); got != "C SET, Z T" {
			t.Errorf("%s: SET TRANSACTION behind a bracket: %s", way, got)
		}
		p.ok("rollback")
	}
}

func TestCancelInABracket(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = strings.ReplaceAll(bracketPolicy, "200ms", "1h") })
	release := g.block("account_move", "access exclusive")
	defer release()
	for way, text := range map[string]string{
		"simple": "Q " + addColumn, "extended": ways["extended"](addColumn), "alone": "Q vacuum full account_move",
	} {
		p := g.peer()
		p.ok("set lock_timeout = '2h'")
		p.send(pipeline(text)...)
		eventually(t, "the DDL waits", func() bool {
			return g.pg.Value(t, g.db, fmt.Sprintf("select count(*) from pg_stat_activity where pid = %d and wait_event_type = 'Lock'", p.pid)) == "1"
		})
		g.cancel(p)
		if got := strings.Join(p.until('Z'), ", "); !strings.HasSuffix(got, "E 57014, Z I") {
			t.Errorf("%s: %s", way, got)
		}
		if got := p.value(timeoutsNow); got != "2h 0" {
			t.Errorf("%s: afterwards %s", way, got)
		}
		p.noneOfOurs(way)
	}
}

// cancel sends a CancelRequest for a peer, to the guard.
func (g *guard) cancel(p *peer) {
	g.t.Helper()
	q, err := rawDial(g.t, g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	b, err := (&pgproto3.CancelRequest{ProcessID: p.pid, SecretKey: p.key}).Encode(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := q.Write(b); err != nil {
		g.t.Fatal(err)
	}
	_ = q.SetReadDeadline(time.Now().Add(peerPatience))
	_, _ = q.Read(b) // up to its end
}

// Whatever the client puts before pg_catalog, our SQL means what it says.
func TestOurSQLCannotBeShadowed(t *testing.T) {
	g := bracketGuard(t)
	for name, shadow := range map[string]string{
		"type int4":              "create domain evil.int4 as text",
		"type text":              "create domain evil.text as pg_catalog.varchar check (false)",
		"type int8":              "create domain evil.int8 as pg_catalog.text",
		"operator =":             "create function evil.no(pg_catalog.text, pg_catalog.text) returns pg_catalog.bool language sql as 'select false'; create operator evil.= (leftarg = pg_catalog.text, rightarg = pg_catalog.text, function = evil.no)",
		"table pg_settings":      "create table evil.pg_settings as select name, 'default'::pg_catalog.text as source, '0'::pg_catalog.text as setting from pg_catalog.pg_settings",
		"function concat":        "create function evil.concat(pg_catalog.text, pg_catalog.text, pg_catalog.text) returns pg_catalog.text language sql as $$select 'default 0'$$",
		"function set_config":    "create function evil.set_config(pg_catalog.text, pg_catalog.text, pg_catalog.bool) returns pg_catalog.text language sql as $$select 'x'$$",
		"function txid":          "create function evil.txid_current_if_assigned() returns pg_catalog.int8 language sql as 'select null::pg_catalog.int8'",
		"function int4in":        "create function evil.int4in(pg_catalog.cstring) returns pg_catalog.int4 language internal as 'int4in'",
		"temporary type int4":    "create domain pg_temp.int4 as pg_catalog.text",
		"temporary pg_settings":  "create temp table pg_settings (name text, source text, setting text)",
		"temporary pg_locks":     "create temp table pg_locks (x text)",
		"temporary type text":    "create domain pg_temp.text as pg_catalog.varchar check (false)",
		"temporary type varchar": "create domain pg_temp.varchar as pg_catalog.text check (false)",
	} {
		p := g.peer()
		p.ok("create schema evil")
		p.ok(shadow)
		p.ok("set search_path = evil, pg_temp, pg_catalog, public")
		p.ok("set lock_timeout = '3s'")
		if got := p.run("Q delete from public.account_move"); got != "E 23G01, Z I" {
			t.Errorf("%s: refusal: %s", name, got)
		}
		if got := p.run("Q vacuum full public.ir_attachment"); got != "C VACUUM, Z I" {
			t.Errorf("%s: %s", name, got)
		}
		if got := p.value("show lock_timeout"); got != "3s" {
			t.Errorf("%s: lock_timeout is %s afterwards", name, got)
		}
		p.ok("begin; insert into public.bus_bus (channel) values (null)")
		g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit})
		if got := p.run("Q commit"); got != "E 23G02, Z I" {
			t.Errorf("%s: commit: %s", name, got)
		}
		g.contain()
		p.ok("set search_path = public")
		p.ok("drop schema evil cascade")
		p.end()
	}
}

// What cannot run in a transaction block gives up alike, and the session's own
// settings are in force afterwards.
func TestWhatNeedsItsOwnTransactionGivesUp(t *testing.T) {
	g := bracketGuard(t)
	defer g.block("account_move", "row exclusive")()
	for _, sql := range []string{
		"vacuum full account_move", "vacuum (full) account_move", "cluster account_move using account_move_pkey", "reindex table account_move",
		"reindex database " + g.db, "reindex schema public",
	} {
		for way, send := range ways {
			p := g.peer()
			p.ok("set lock_timeout = '1h'")
			p.ok("set statement_timeout = '10s'")
			if got := p.run(send(sql)); !strings.Contains(got, "E 55P03, Z I") {
				t.Errorf("%s: %s: %s", way, sql, got)
			}
			if got := p.value(timeoutsNow); got != "1h 10s" {
				t.Errorf("%s: %s: afterwards %s", way, sql, got)
			}
			p.noneOfOurs(way)
			p.end()
		}
	}
}

func TestDDLHasAStatementTimeout(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.policy = strings.ReplaceAll(strings.ReplaceAll(bracketPolicy, "lock_timeout: 200ms", "lock_timeout: 1h"), "15min", "200ms")
	})
	defer g.block("account_move", "row exclusive")()
	p := g.peer()
	for _, sql := range []string{addColumn, "vacuum full account_move"} {
		for way, send := range ways {
			if got := p.run(send(sql)); !strings.Contains(got, "E 57014, Z I") {
				t.Errorf("%s: %s: %s", way, sql, got)
			}
			if got := p.value(timeoutsNow); got != "0 0" {
				t.Errorf("%s: %s: afterwards %s", way, sql, got)
			}
		}
	}
	if got := p.run("Q select 1; " + addColumn); got != "T, D 1, C SELECT 1, E 57014, Z I" {
		t.Error(got)
	}
}

// CONCURRENTLY waits for transactions by design, and leaves an invalid index
// behind when it is stopped.
func TestConcurrentlyIsNeverHurried(t *testing.T) {
	g := bracketGuard(t)
	for way, send := range ways {
		release := g.block("account_move", "row exclusive")
		p := g.peer()
		p.send(pipeline(send("create index concurrently hurried_" + way + " on account_move (ref)"))...)
		waits := fmt.Sprintf("select coalesce(max(extract(epoch from clock_timestamp() - query_start)), 0) > 0.4 from pg_stat_activity where pid = %d and wait_event_type = 'Lock'", p.pid)
		eventually(t, "the index waits for longer than the lock_timeout", func() bool { return g.pg.Value(t, g.db, waits) == "t" })
		release()
		if got := strings.Join(p.until('C'), ", "); !strings.Contains(got, "C CREATE INDEX") {
			t.Errorf("%s: %s", way, got)
		}
		p.end()
	}
}

// A client that gives our names away harms itself only: nothing of ours stays.
func TestSettingsThatCannotBePutBackEndTheSession(t *testing.T) {
	g := bracketGuard(t)
	for taken, want := range map[string]string{
		"1":     "E 42P05, Z I",
		"3":     "E 42P05, Z I",
		"5":     "C VACUUM, Z I",
		"5 7":   "C VACUUM, Z I",
		"5 7 9": "C VACUUM, E 57P01",
	} {
		p := g.peer()
		for _, n := range strings.Fields(taken) {
			p.ok("prepare lockkeeper_" + n + " as select 1")
		}
		p.send(&pgproto3.Query{String: "vacuum full account_move"})
		got, err := p.read('Z')
		if all := strings.Join(got, ", "); all != want {
			t.Errorf("%s: got %s, want %s", taken, all, want)
		}
		if strings.HasSuffix(want, "57P01") {
			if err == nil {
				t.Errorf("%s: the session goes on", taken)
			}
			continue
		}
		if got := p.value(timeoutsNow); got != "0 0" {
			t.Errorf("%s: afterwards %s", taken, got)
		}
		p.end()
	}
}
