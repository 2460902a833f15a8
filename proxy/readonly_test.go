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

// readOnly puts everybody in read-only.
func (g *guard) readOnly(inFlight policy.InFlight, drain time.Duration) policy.Containment {
	c := policy.Containment{Kind: policy.ReadOnlyMode, InFlight: inFlight}
	if drain > 0 {
		c.DrainUntil = time.Now().Add(drain)
	}
	return g.contain(c)[0]
}

func (p *peer) wantAll(what string, cases map[string]string) {
	p.t.Helper()
	for send, want := range cases {
		if got := p.run(send); got != want {
			p.t.Errorf("%s: %s:\n got %s\nwant %s", what, send, got, want)
		}
		if p.status != 'I' {
			p.ok("rollback")
		}
	}
}

const (
	insert = "insert into bus_bus (channel) values (null)"
	writes = "select archive_partners()" // a function that writes, called as a read
)

func TestReadOnlyRefusesWhateverWrites(t *testing.T) {
	g := newGuard(t)
	state := func() string {
		return g.pg.Value(t, g.db, "select concat((select count(*) from bus_bus), ' ', (select count(*) from res_partner where active), ' ', (select count(*) from pg_class where relnamespace = 'public'::regnamespace))")
	}
	before := state()
	p := g.peer()
	p.run("P prepared " + insert + " ; P called " + writes + " ; P upd update res_partner set name = name where id = $1 ; S")
	p.ok("prepare byname as " + insert)
	g.readOnly(policy.RefuseCommit, 0)
	for _, sql := range []string{
		insert, "update res_partner set name = name where id = 1", "delete from res_partner where id = 1", "truncate bus_bus",
		"merge into bus_bus b using res_users u on b.id = u.id when matched then delete", "copy bus_bus from stdin",
		"create table x (n int)", "create temp table x (n int)", "create index on bus_bus (channel)", "alter table bus_bus add column x int",
		"drop table bus_bus", "comment on table bus_bus is 'x'", "grant select on bus_bus to public", "refresh materialized view nothing",
		"vacuum bus_bus", "analyze bus_bus", "reindex table bus_bus", "cluster bus_bus using bus_bus_pkey", "lock table bus_bus in exclusive mode",
		"select * from bus_bus for update", "select nextval('bus_bus_id_seq')", "select setval('bus_bus_id_seq', 5)", writes,
		"with w as (" + insert + " returning id) select * from w", "explain analyze " + insert, "explain (analyze) create table y as select 1",
		"select 1 into y", "create table y as select 1", "do $$begin perform archive_partners(); end$$", "call purge_messages()",
		"execute byname", "execute nothing", "prepare w as " + insert, "select lo_create(0)", "copy (select archive_partners()) to stdout",
		"copy bus_bus to '/dev/null'", "copy bus_bus to program 'true'", "alter system set work_mem = '1MB'", "checkpoint", "load 'plpgsql'",
		"prepare transaction 'x'", "commit prepared 'x'", "selec",
		"select pg_clear_relation_stats('public', 'bus_bus')", "select pg_restore_relation_stats('relname', 'bus_bus')", "select pg_log_standby_snapshot()",
		"select brin_summarize_new_values('bus_bus_pkey')", "select gin_clean_pending_list('bus_bus_pkey')", "set session characteristics as transaction read write",
		"set default_transaction_read_only = off", "set transaction_read_only = off", "set transaction read write", "alter role current_user set work_mem = '1MB'",
		"begin; " + insert + "; commit", "select 1; " + insert, "begin read write; " + writes, "notify_nothing",
	} {
		for way, send := range map[string]string{"simple": "Q " + sql, "extended": "P - " + sql + " ; B - - ; E - ; S"} {
			got := p.run(send)
			if !strings.Contains(got, "E 23G02") || strings.Contains(got, "C INSERT") {
				t.Errorf("%s: %s: %s", way, sql, got)
			}
			if p.status != 'I' {
				p.ok("rollback")
			}
		}
	}
	p.wantAll("prepared before", map[string]string{
		"B - prepared ; E - ; S": "E 23G02, Z I", "B - upd ; E - ; S": "E 23G02, Z I", "B - called ; E - ; S": "2, E 23G02, Z I",
	})
	if got := p.call(p.value("select 'archive_partners'::regproc::oid")); got != "E 23G02, Z I" {
		t.Errorf("a function by its number: %s", got)
	}
	if after := state(); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
}

func TestReadOnlyLetsReadersRead(t *testing.T) {
	g := newGuard(t)
	g.readOnly(policy.RefuseCommit, 0)
	scripts := [][]string{
		{"Q select 1", "P - select 2 ; B - - ; D - ; E - ; S", "Q select 1; select 2", "Q ", "Q ;"},
		{"Q begin", "Q select 1", "Q commit"},
		{"Q begin isolation level repeatable read", "Q savepoint a", "Q select 1/0", "Q rollback to a", "Q select 3", "Q release a", "Q commit"},
		{"Q begin transaction isolation level serializable, read only, deferrable", "Q select 1", "Q rollback"},
		{"Q start transaction", "Q set local work_mem = '1MB'", "Q show work_mem", "Q commit and chain", "Q select 1", "Q rollback"},
		{"P - begin ; B - - ; E - ; P - select 1 ; B - - ; E - ; P - commit ; B - - ; E - ; S"},
		{"P - select 1 ; B - - ; E - ; P - select 1/0 ; B - - ; E - ; S", "Q select 4"},
		{"Q set application_name = 'x'", "Q reset all", "Q discard all", "Q listen x", "Q unlisten *"},
		{"Q declare c cursor with hold for select 1", "Q begin", "Q declare c cursor for select 1", "Q fetch c", "Q commit"},
		{"Q prepare p as select 1", "Q execute p", "Q deallocate p", "P n select 2 ; S", "B - n ; E - ; S", "B - n ; E - ; S", "C n ; S"},
		{"Q explain (costs off) delete from bus_bus", "Q copy (select 1) to stdout", "Q show transaction_read_only", "Q rollback", "Q commit"},
		{"Q select 1/0", "Q begin", "Q begin", "Q commit"},
		{"Q begin; set transaction isolation level serializable", "Q select 1", "Q commit"},
		{"Q begin", "Q set transaction isolation level serializable", "Q select 1", "Q end"},
		{"P - begin ; B - - ; E - ; S", "P - set transaction isolation level repeatable read ; B - - ; E - ; S", "Q select 1", "P - commit ; B - - ; E - ; S"},
	}
	for _, lines := range scripts {
		d, p := g.directPeer("options", "-c default_transaction_read_only=on"), g.peer()
		want, got := d.script(lines...), p.script(lines...)
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", lines, got, want)
		}
		p.noneOfOurs(lines[0])
		d.end()
		p.end()
	}
}

func TestReadOnlyHoldsInTheServer(t *testing.T) {
	g := newGuard(t)
	before := g.pg.Value(t, g.db, "select count(*) from res_partner where active")
	g.readOnly(policy.RefuseCommit, 0)
	p := g.peer()
	for _, lines := range [][]string{
		{"Q begin read write", "Q " + writes},
		{"Q start transaction isolation level repeatable read, read write", "Q " + writes},
		{"Q begin", "Q commit and chain", "Q " + writes},
		{"Q begin", "Q select 1/0", "Q rollback and chain", "Q " + writes},
		{"Q begin", "Q select 1/0", "Q commit and chain", "Q " + writes},
		{"Q begin", "Q savepoint a", "Q rollback to a", "Q " + writes},
		{"Q begin", "Q savepoint a", "Q release a", "Q " + writes},
		{"Q begin; select set_config('transaction_read_only', 'off', false)"},
		{"Q begin", "Q select set_config('transaction_read_only', 'off', false)"},
		{"Q begin", "Q select 1", "Q set transaction read write"},
		{"Q begin", "Q reset transaction_read_only"},
		{"Q begin", "Q set local transaction_read_only to default"},
		{"Q discard all", "Q " + writes},
		{"Q select set_config('default_transaction_read_only', 'off', false)", "Q " + writes},
		{"P - begin ; B - - ; E - ; S", "P - " + writes + " ; B - - ; E - ; S"},
		{"P - begin read write ; B - - ; E - ; P - " + writes + " ; B - - ; E - ; P - commit ; B - - ; E - ; S"},
		{"P - begin ; B - - ; E - ; P - commit and chain ; B - - ; E - ; P - " + writes + " ; B - - ; E - ; S"},
		{"P - select 1 ; B - - ; E - ; P - commit ; B - - ; E - ; P - " + writes + " ; B - - ; E - ; S"},
		{"P - begin ; B - - ; E - ; P - savepoint a ; B - - ; E - ; P - rollback to a ; B - - ; E - ; P - " + writes + " ; B - - ; E - ; S"},
	} {
		got := p.script(lines...)
		if !strings.Contains(got, "E 23G02") && !strings.Contains(got, "E 25001") {
			t.Errorf("%q: %s", lines, got)
		}
		p.run("Q rollback")
	}
	if after := g.pg.Value(t, g.db, "select count(*) from res_partner where active"); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

func TestACommitThatReadOnlyRefuses(t *testing.T) {
	g := newGuard(t)
	count := "select count(*) from bus_bus"
	const refused = "E 23G02, Z I"
	for name, c := range map[string]struct{ before, after, want string }{
		"a write":               {"Q begin ; Q " + insert, "Q commit", refused},
		"a write, END":          {"Q begin ; Q " + insert, "Q end", refused},
		"a read":                {"Q begin ; Q select 1", "Q commit", "C COMMIT, Z I"},
		"nothing":               {"Q begin", "Q commit", "C COMMIT, Z I"},
		"rolled back":           {"Q begin ; Q " + insert, "Q rollback", "C ROLLBACK, Z I"},
		"aborted":               {"Q begin ; Q " + insert + " ; Q select 1/0", "Q commit", "C ROLLBACK, Z I"},
		"in a savepoint":        {"Q begin ; Q savepoint a ; Q " + insert, "Q release a ; Q commit", "C RELEASE, Z T, E 23G02, Z I"},
		"released":              {"Q begin ; Q savepoint a", "Q select 1 ; Q release a ; Q " + writes, "T, D 1, C SELECT 1, Z T, C RELEASE, Z T, T, E 23G02, Z E"},
		"by a function":         {"Q begin ; Q select cancel_order(1)", "Q commit", refused},
		"another write":         {"Q begin ; Q " + insert, "Q " + insert + " ; Q commit", "E 23G02, Z E, C ROLLBACK, Z I"},
		"chained":               {"Q begin ; Q " + insert, "Q commit and chain ; Q select 1", "E 23G02, Z I, T, D 1, C SELECT 1, Z I"},
		"a read, chained":       {"Q begin ; Q select 1", "Q commit and chain ; Q " + writes, "C COMMIT, Z T, T, E 23G02, Z E"},
		"extended":              {"P c commit ; S ; Q begin ; Q " + insert, "B - c ; E - ; S", "2, E 23G02, Z I"},
		"extended, a read":      {"P c commit ; S ; Q begin ; Q select 1", "B - c ; E - ; S", "2, C COMMIT, Z I"},
		"extended, aborted":     {"P c commit ; S ; Q begin ; Q select 1/0", "B - c ; E - ; S", "2, C ROLLBACK, Z I"},
		"extended, unnamed":     {"Q begin ; Q " + insert, "P - commit ; B - - ; E - ; S", "1, 2, E 23G02, Z I"},
		"two-phase":             {"Q begin ; Q " + insert, "Q prepare transaction 'x'", "E 23G02, Z E"},
		"commit and more":       {"Q begin ; Q " + insert, "Q commit; select 1", "E 23G02, Z E"},
		"commit and begin":      {"Q begin ; Q select 1", "Q commit; begin ; Q " + writes, "C COMMIT, C BEGIN, Z T, T, E 23G02, Z E"},
		"the pipeline's Sync":   {"P i " + insert + " ; S ; Q select 1", "B - i ; E - ; S", "E 23G02, Z I"},
		"a deferred constraint": {"Q begin ; Q update stock_move set product_uom_qty = 5 where id = 1", "Q commit", refused},
	} {
		p := g.peer()
		rows := g.pg.Value(t, g.db, count)
		p.run(c.before)
		g.readOnly(policy.RefuseCommit, 0)
		if got := p.run(c.after); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
		p.end()
		if now := g.pg.Value(t, g.db, count); now != rows {
			t.Errorf("%s: a row was committed", name)
		}
		g.contain()
	}
}

// A pipeline that has written when read-only begins must not commit by its Sync.
func TestAPipelineInFlightDoesNotCommit(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.send(pipeline("P - " + insert + " ; B - - ; E - ; H")...)
	if got := strings.Join(p.until('C'), ", "); got != "1, 2, C INSERT 0 1" {
		t.Fatal(got)
	}
	g.readOnly(policy.RefuseCommit, 0)
	if got := p.run("S"); got != "E 23G02, Z I" {
		t.Error(got)
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
	if got := p.run("P - select 1 ; B - - ; E - ; S"); got != "1, 2, D 1, C SELECT 1, Z I" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestCopyInFlightEndsByCopyFail(t *testing.T) {
	g := newGuard(t)
	for way, send := range map[string]string{"simple": "Q copy bus_bus (channel) from stdin", "extended": "P - copy bus_bus (channel) from stdin ; B - - ; E - ; H"} {
		p := g.peer()
		p.send(pipeline(send)...)
		p.until('G')
		p.send(&pgproto3.CopyData{Data: []byte("x\n")})
		c := g.readOnly(policy.RefuseCommit, 0)
		g.barrier(c)
		p.send(&pgproto3.CopyData{Data: []byte("y\n")}, &pgproto3.CopyDone{})
		if way == "extended" {
			p.send(&pgproto3.Sync{})
		}
		if got := strings.Join(p.until('Z'), ", "); got != "E 23G02, Z I" {
			t.Errorf("%s: %s", way, got)
		}
		g.contain()
		if got := p.run("Q select count(*) from bus_bus"); got != "T, D 0, C SELECT 1, Z I" {
			t.Errorf("%s: %s", way, got)
		}
	}
}

// barrier waits for the barrier of a containment.
func (g *guard) barrier(c policy.Containment) {
	g.t.Helper()
	ctx, stop := context.WithTimeout(g.t.Context(), peerPatience)
	defer stop()
	reports, err := g.srv.Barrier(ctx, c)
	if err != nil {
		g.t.Fatal(err)
	}
	if len(reports) != 1 || reports[0].LSN == "" || reports[0].Time.IsZero() || len(reports[0].Lacking) > 0 {
		g.t.Errorf("%+v", reports)
	}
}

func TestWhatIsInFlightMayFinish(t *testing.T) {
	g := newGuard(t)
	for _, inFlight := range []policy.InFlight{policy.Finish, policy.Drain} {
		p := g.peer()
		p.ok("begin")
		p.ok(insert)
		c := g.readOnly(inFlight, time.Hour)
		held := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { _, err := g.srv.Barrier(ctx, c); held <- err }()
		p.ok(insert)
		if got := g.peer().run("Q " + insert); got != "E 23G02, Z I" {
			t.Errorf("%s: somebody else: %s", inFlight, got)
		}
		select {
		case err := <-held:
			t.Errorf("%s: the barrier holds while a transaction is in flight: %v", inFlight, err)
		default:
		}
		if got := p.run("Q commit and chain ; Q " + writes + " ; Q rollback"); got != "C COMMIT, Z T, T, E 23G02, Z E, C ROLLBACK, Z I" {
			t.Errorf("%s: %s", inFlight, got)
		}
		if err := <-held; err != nil {
			t.Errorf("%s: %v", inFlight, err)
		}
		stop()
		g.contain()
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "4" {
		t.Errorf("%s rows were committed, want 4", n)
	}
}

func TestDrainEndsWithTheTime(t *testing.T) {
	g := newGuard(t)
	idle, running := g.peer(), g.peer()
	idle.ok("begin")
	idle.ok(insert)
	running.send(&pgproto3.Query{String: "insert into bus_bus (channel) select pg_sleep(600)::text"})
	g.awaitSleeper(1)
	c := g.readOnly(policy.Drain, 300*time.Millisecond)
	g.barrier(c)
	if got := strings.Join(running.until('Z'), ", "); got != "E 57014, Z I" {
		t.Errorf("autocommit write: %s", got)
	}
	if got := idle.run("Q commit"); got != "E 23G02, Z I" {
		t.Errorf("idle transaction: %s", got)
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
}

// awaitSleeper waits until n server processes sleep.
func (g *guard) awaitSleeper(n int) {
	g.t.Helper()
	eventually(g.t, "pg_sleep", func() bool {
		return g.pg.Value(g.t, g.db, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'") == fmt.Sprint(n)
	})
}

// A statement whose client reset the connection goes on in the server.
func TestTheBarrierCoversClientsThatAreGone(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.send(&pgproto3.Query{String: "insert into bus_bus (channel) select pg_sleep(600)::text"})
	g.awaitSleeper(1)
	p.reset()
	g.barrier(g.readOnly(policy.RefuseCommit, 0))
	g.awaitSleeper(0)
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
}

// PostgreSQL 18 leaves the implicit transaction open at a Query between an
// Execute and its Sync: read-only does not let the Sync commit it.
func TestReadOnlyAndASyncBehindAQuery(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.send(pipeline("P - select 1 ; B - - ; E - ; Q " + insert)...)
	p.until('Z')
	c := g.readOnly(policy.RefuseCommit, 0)
	ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
	defer cancel()
	if _, err := g.srv.Barrier(ctx, c); err != nil {
		t.Fatal(err)
	}
	rows := g.pg.Value(t, g.db, "select count(*) from bus_bus")
	p.send(pipeline("S")...)
	if _, err := p.read('Z'); (err == nil) != (p.status == 'I') {
		t.Errorf("the Sync: status %c, %v", p.status, err)
	}
	if now := g.pg.Value(t, g.db, "select count(*) from bus_bus"); now != rows {
		t.Errorf("%s rows when the barrier held, then %s", rows, now)
	}
}

// A trigger on login, which PostgreSQL 17 brought, commits before lockkeeper can
// make anything read-only: whoever begins read-only is told.
func TestReadOnlyNamesLoginTriggers(t *testing.T) {
	g := newGuard(t)
	lacking := func() []string {
		c := g.readOnly(policy.RefuseCommit, 0)
		defer g.contain()
		ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
		defer cancel()
		reports, err := g.srv.Barrier(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		return reports[0].Lacking
	}
	if got := lacking(); len(got) != 0 {
		t.Errorf("without a trigger: %q", got)
	}
	if g.pg.Major(t) < 17 {
		return
	}
	g.pg.MustExec(t, g.db, `create table logins (at timestamptz);
		create function note_login() returns event_trigger language plpgsql as 'begin insert into public.logins values (now()); end';
		create event trigger note_login on login execute function note_login()`)
	if got := lacking(); len(got) != 1 || !strings.Contains(got[0], g.db) {
		t.Errorf("with a trigger: %q", got)
	}
}

// What the parser's grammar lacks is refused where it might write to a critical
// table, in read-only wherever it is, and passes elsewhere. A server that lacks
// it, too, says so itself.
func TestGrammarNewerThanTheParser(t *testing.T) {
	g := newGuard(t)
	state := func() string {
		return g.pg.Value(t, g.db, "select concat((select count(*) from account_move where state = 'x'), ' ', (select count(*) from account_move), ' ', (select count(*) from bus_bus))")
	}
	before := state()
	p := g.peer()
	unbounded := []string{
		"merge into account_move t using (select 1) s on true when matched then update set state = 'x' returning 1",                       // 17
		"with m as (merge into account_move t using (select 1) s on true when matched then delete returning 1) select * from m",           // 17
		"merge into account_move t using (select -1 as id) s on t.id = s.id when not matched by source then delete",                       // 17
		"update account_move set state = 'x' from json_table('[1]', '$[*]' columns (a int path '$')) j where a = 1",                       // 17
		"update account_move set state = 'x' returning with (old as o, new as n) o.state, n.state",                                        // 18
		"delete from account_move returning with (old as gone) gone.id",                                                                   // 18
		"explain analyze update account_move set state = 'x' returning with (old as o) o.state",                                           // 18
		"do $$begin delete from account_move returning with (old as o) o.id; end$$; delete from account_move returning with (old as o) 1", // 18
	}
	for _, sql := range unbounded {
		for _, send := range []string{"Q " + sql, "P - " + sql + " ; B - - ; E - ; S"} {
			if got := p.run(send); !strings.Contains(got, "E 23G01") {
				t.Errorf("%s: %s", send, got)
			}
		}
	}
	d := g.directPeer()
	for _, sql := range []string{
		"select a from json_table('[1, 2]', '$[*]' columns (a int path '$')) j", "select merge_action()", "select json_scalar(1), json_serialize('{}')",
		"insert into bus_bus (channel) values (null) returning with (old as o, new as n) o.id is null and n.id > 0",
		"create temp table t (a int, b int generated always as (a) virtual)", "select 0x10, 1_000",
	} {
		if want, got := d.run("Q begin ; Q "+sql+" ; Q rollback"), p.run("Q begin ; Q "+sql+" ; Q rollback"); got != want {
			t.Errorf("%s: %s, directly %s", sql, got, want)
		}
	}
	g.readOnly(policy.RefuseCommit, 0)
	for _, sql := range append(unbounded, "insert into bus_bus (channel) values (null) returning with (new as n) n.id") {
		if got := p.run("Q " + sql); !strings.Contains(got, "E 23G02") {
			t.Errorf("in read-only: %s: %s", sql, got)
		}
	}
	if after := state(); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
}

func TestScopedReadOnly(t *testing.T) {
	g := newGuard(t)
	reports, other := g.peer("application_name", "reports"), g.peer("application_name", "odoo-1")
	moving := g.peer("application_name", "odoo-2")
	moving.ok("begin")
	moving.ok(insert)
	c := g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit, Scope: policy.Scope{Application: "reports"}})[0]
	g.barrier(c)
	if got := reports.run("Q " + insert); got != "E 23G02, Z I" {
		t.Errorf("in scope: %s", got)
	}
	if got := other.run("Q " + insert); got != "C INSERT 0 1, Z I" {
		t.Errorf("out of scope: %s", got)
	}
	moving.ok("set application_name = 'reports'")
	if got := moving.run("Q commit"); got != "E 23G02, Z I" {
		t.Errorf("come into scope: %s", got)
	}
}

// What comes behind a COMMIT in a pipeline is an implicit transaction, whatever
// the last ReadyForQuery said.
func TestAPipelineBehindACommitDoesNotCommit(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	p.ok("begin")
	p.ok(insert)
	p.send(pipeline("P - commit ; B - - ; E - ; P - " + insert + " ; B - - ; E - ; H")...)
	p.until('C')
	p.until('C')
	c := g.readOnly(policy.RefuseCommit, 0)
	g.barrier(c)
	if got := p.run("S"); got != "E 23G02, Z I" {
		t.Errorf("its Sync: %s", got)
	}
	g.contain()

	p.ok("begin")
	p.ok(insert)
	p.send(pipeline("P - commit ; B - - ; E - ; P - insert into bus_bus (channel) select pg_sleep(600)::text ; B - - ; E - ; S")...)
	g.awaitSleeper(1)
	g.barrier(g.readOnly(policy.RefuseCommit, 0))
	if got := strings.Join(p.until('Z'), ", "); got != "1, 2, C COMMIT, 1, 2, E 57014, Z I" {
		t.Errorf("sent whole: %s", got)
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "2" {
		t.Errorf("%s rows were committed, want 2", n)
	}
}

// A segment that has written when read-only begins is not committed by anything
// that ends it: a COMMIT, a Query, or a Sync; and what follows a COMMIT in a
// pipeline is READ ONLY again.
func TestNoWayOutOfAPipelineCommits(t *testing.T) {
	g := newGuard(t)
	for name, c := range map[string]struct{ before, after, want string }{
		"a COMMIT without a block": {"P - " + insert + " ; B - - ; E - ; H", "P - commit ; B - - ; E - ; S", "1, 2, E 23G02, Z I"},
		"a Query":                  {"P - " + insert + " ; B - - ; E - ; H", "Q select 1", "E 23G02, Z I"},
		"a Query of COMMIT":        {"P - " + insert + " ; B - - ; E - ; H", "Q commit", "E 23G02, Z I"},
		"a call":                   {"P - select archive_partners() ; B - - ; E - ; H", "S", "E 23G02, Z I"},
		"reads and a Query":        {"P - select 1 ; B - - ; E - ; H", "Q select 2", "T, D 2, C SELECT 1, Z I"},
	} {
		p := g.peer()
		p.send(pipeline(c.before)...)
		p.until('C')
		g.barrier(g.readOnly(policy.RefuseCommit, 0))
		if got := p.run(c.after); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		g.contain()
		p.end()
	}
	g.readOnly(policy.RefuseCommit, 0)
	p := g.peer()
	p.ok("begin")
	if got := p.run("P - commit ; B - - ; E - ; P - " + writes + " ; B - - ; E - ; S"); got != "1, 2, C COMMIT, 1, 2, E 23G02, Z I" {
		t.Errorf("a write behind a COMMIT: %s", got)
	}
	p.ok("begin")
	if got := p.run("P - select version() is null ; B - - ; E - ; P - commit ; B - - ; E - ; P - select cancel_order(-1) is null ; B - - ; E - ; S"); got !=
		"1, 2, D f, C SELECT 1, 1, 2, C COMMIT, 1, 2, E 23G02, Z I" {
		t.Errorf("reads around a COMMIT: %s", got)
	}
	if n := g.pg.Value(t, g.db, "select (select count(*) from bus_bus) + (select count(*) from res_partner where not active)"); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
}
