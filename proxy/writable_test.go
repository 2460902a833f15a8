package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/policy"
)

// writableSchema is what Odoo writes to at a login, and what a plain change of
// it must not set off.
const writableSchema = `create table res_users_log (id serial primary key, create_uid int references res_users (id), create_date timestamp default now());
create function writes() returns int volatile language sql as 'insert into public.bus_bus (channel) values (null) returning id';
create function lies() returns int immutable language sql as 'select public.writes()';
create function fires() returns trigger language plpgsql as $$begin insert into public.bus_bus (channel) values ('fired'); return null; end$$;`

// readOnlyBut is read-only in which tables may be written.
func (g *guard) readOnlyBut(tables ...string) policy.Containment {
	g.t.Helper()
	return g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit, Writable: tables})[0]
}

func writableGuard(t *testing.T, change ...func(*setup)) *guard {
	t.Helper()
	g := newGuard(t, change...)
	g.pg.MustExec(t, g.db, writableSchema)
	g.readOnlyBut("res_users_log")
	return g
}

const logInsert = "INSERT INTO \"res_users_log\" (\"create_date\", \"create_uid\") VALUES ('2026-11-21 01:16:44', 1) RETURNING \"id\""

// One who logs in to Odoo while it is read-only gets in, in every protocol: as
// without lockkeeper, message for message.
func TestALoginUnderReadOnly(t *testing.T) {
	g := writableGuard(t)
	const later = "INSERT INTO res_users_log (create_date, create_uid) VALUES ((now() AT TIME ZONE 'UTC'), 1)"
	for name, lines := range map[string][]string{
		"simple": {
			"Q BEGIN ISOLATION LEVEL REPEATABLE READ", "Q SELECT id FROM res_users WHERE id = 1", "Q " + logInsert, "Q SELECT count(*) > 0 FROM res_users_log", "Q COMMIT",
		},
		"savepoints": {
			"Q BEGIN ISOLATION LEVEL REPEATABLE READ", `Q SAVEPOINT "u1"`, "Q SELECT 1", "Q " + logInsert, `Q RELEASE "u1"`, "Q SELECT 2", `Q SAVEPOINT "u2"`, "Q " + logInsert,
			"Q SELECT 1/0", `Q ROLLBACK TO "u2"`, "Q " + logInsert, `Q SAVEPOINT "u3"`, `Q ROLLBACK TO "u2"; SELECT 3`, "Q " + later, "Q COMMIT",
		},
		"extended": {
			"P - BEGIN ISOLATION LEVEL REPEATABLE READ ; B - - ; E - ; S", "P - SELECT 1 ; B - - ; D - ; E - ; S", "P - " + logInsert + " ; B - - ; D - ; E - ; S",
			"P - SELECT 2 ; B - - ; E - ; S", "P - SAVEPOINT a ; B - - ; E - ; S", "P - " + later + " ; B - - ; E - ; S", "P - ROLLBACK TO a ; B - - ; E - ; S",
			"P - " + later + " ; B - - ; E - ; S", "P - COMMIT ; B - - ; E - ; S",
		},
		"pipelined": {
			"P - BEGIN ; B - - ; E - ; P - SELECT 1 ; B - - ; E - ; P - " + later + " ; B - - ; E - ; P - SAVEPOINT a ; B - - ; E - ; P - " + logInsert +
				" ; B - - ; E - ; P - SELECT 1 ; B - - ; E - ; P - RELEASE a ; B - - ; E - ; P - " + later + " ; B - - ; E - ; P - COMMIT ; B - - ; E - ; S",
		},
		"in the server's order": {
			"Q BEGIN", "P r SELECT 1 ; P w " + later + " ; S", "B r r ; B w w ; E w ; E r ; B w w ; E w ; S", "Q COMMIT",
			"B w w ; E w ; S", "P - " + later + " ; B - - ; E - ; S", "Q " + later, "C r ; C w ; S",
		},
		"by itself":       {"Q " + logInsert, "Q " + later, "Q UPDATE res_users_log SET create_uid = 1 WHERE id IN (1, 2) AND create_uid = 1", "Q DELETE FROM res_users_log WHERE create_date < '1990-01-01'"},
		"chained":         {"Q BEGIN", "Q " + later, "Q COMMIT AND CHAIN", "Q SELECT 1", "Q COMMIT"},
		"rolled back":     {"Q BEGIN", "Q " + logInsert, "Q SELECT 1/0", "Q ROLLBACK", "Q BEGIN", "Q SELECT 1/0", "Q " + later, "Q COMMIT", "Q SELECT 1"},
		"isolation first": {"Q BEGIN", "Q SHOW work_mem", "Q SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "Q " + later, "Q SHOW transaction_isolation", "Q SHOW transaction_read_only", "Q COMMIT"},
		"cursors": {
			"Q BEGIN", "Q DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 5) g", "Q FETCH c", "Q " + later, "Q FETCH c", "Q SAVEPOINT a", "Q FETCH c", "Q ROLLBACK TO a", "Q FETCH c",
			"Q DECLARE h CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 5) g", "Q FETCH h", "Q COMMIT", "Q FETCH h", "Q CLOSE h",
		},
		"many rows": {"Q UPDATE \"res_users_log\" SET \"create_uid\" = \"__tmp\".\"create_uid\"::int4 FROM (VALUES (1, 1), (2, 1)) AS \"__tmp\"(\"id\", \"create_uid\") WHERE \"res_users_log\".\"id\" = \"__tmp\".\"id\""},
	} {
		t.Run(name, func(t *testing.T) {
			g.pg.MustExec(t, g.db, "truncate res_users_log restart identity")
			d := g.directPeer()
			d.t = t
			want := d.script(lines...)
			rows := d.value("select count(*) from res_users_log")
			d.end()
			g.pg.MustExec(t, g.db, "truncate res_users_log restart identity")
			p := g.peer()
			p.t = t
			got := strings.ReplaceAll(p.script(lines...), "D on", "D off") // SHOW transaction_read_only
			if got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			if written := p.value("select count(*) from res_users_log"); written != rows {
				t.Errorf("%s rows, directly %s", written, rows)
			}
			p.noneOfOurs(name)
			p.end()
		})
	}
	p := g.peer()
	if got := p.copyIn("copy res_users_log (create_uid) from stdin", "1\n1\n"); got != "G, C COPY 2, Z I" {
		t.Errorf("COPY: %s", got)
	}
	p.ok("begin")
	p.ok("select 1")
	if got := p.copyIn("copy public.res_users_log (create_uid) from stdin", "1\n"); got != "G, C COPY 1, Z T" {
		t.Errorf("COPY in a transaction: %s", got)
	}
	p.ok("commit")
}

// copyIn runs COPY FROM STDIN with data.
func (p *peer) copyIn(sql, data string) string {
	p.t.Helper()
	p.send(&pgproto3.Query{String: sql})
	out := p.until('G')
	p.send(&pgproto3.CopyData{Data: []byte(data)}, &pgproto3.CopyDone{})
	return strings.Join(append(out, p.until('Z')...), ", ")
}

// What is no plain change of a table that may be written is refused: by its
// text, by the server when it is asked, or by the server when it is run.
func TestOnlyPlainChangesPassReadOnly(t *testing.T) {
	g := writableGuard(t)
	const state = "select (select count(*) from bus_bus) || ' ' || (select count(*) from res_users_log)"
	before := g.pg.Value(t, g.db, state)
	for _, sql := range []string{
		insert, "select writes()", "insert into res_users_log (create_uid) select writes()", "insert into res_users_log (create_uid) values (writes())",
		"insert into res_users_log (create_uid) values (1) returning writes()", "insert into res_users_log (create_uid) values ((select 1))",
		"update res_users_log set create_uid = 1 where writes() = 1",
		"update res_users_log set create_uid = u.id from res_users u", "delete from res_users_log using res_users", "delete from res_users_log where id in (select writes())",
		"with w as (" + insert + ") insert into res_users_log (create_uid) values (1)", "with w as (insert into res_users_log (create_uid) values (1) returning id) select writes()",
		"insert into res_users_log (create_uid) values (1); select writes()", "insert into res_users_log (create_uid) values (1); " + insert,
		"merge into res_users_log l using (select 1) s on true when matched then delete", "truncate res_users_log", "alter table res_users_log add column x int",
		"insert into res_users_log (create_uid) values (nextval('bus_bus_id_seq'))", "explain analyze insert into res_users_log (create_uid) values (1)",
		"select * from res_users_log for update", "drop table res_users_log", "lock table res_users_log in exclusive mode", "copy res_users_log from '/dev/null'",
		"insert into other.res_users_log (create_uid) values (1)", "insert into pg_catalog.pg_class (relname) values ('x')", "savepoint lockkeeper_inner", "release lockkeeper_outer",
	} {
		for way, send := range map[string]string{"simple": "Q " + sql, "extended": "P - " + sql + " ; B - - ; E - ; S"} {
			for _, block := range []bool{false, true} {
				p := g.peer()
				if block {
					p.ok("begin")
					p.ok("select 1")
					p.ok(logInsert)
				}
				if got := p.run(send); !strings.Contains(got, "E 23G02") {
					t.Errorf("%s, in a block %t: %s: %s", way, block, sql, got)
				}
				if block {
					p.run("Q commit")
				}
				p.end()
			}
		}
	}
	if after := g.pg.Value(t, g.db, state); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
}

// What is attached to the table, or what its name or other names stand for, may
// make a plain text do more than it says: the server is asked, just before.
func TestATableMayBeWrittenOnlyIfNothingElseFollows(t *testing.T) {
	for name, c := range map[string]struct {
		schema  string // made by the superuser
		session string // run before read-only, in the session
		insert  string
		why     string
	}{
		"trigger":             {schema: "create trigger t after insert on res_users_log for each statement execute function fires()", why: "it has a trigger"},
		"disabled trigger":    {schema: "create trigger t after insert on res_users_log for each row execute function fires(); alter table res_users_log disable trigger t", why: "it has a trigger"},
		"deferred trigger":    {schema: "create constraint trigger t after insert on res_users_log deferrable initially deferred for each row execute function fires()", why: "it has a trigger"},
		"deferrable":          {schema: "alter table res_users_log add unique (create_date) deferrable", why: "it has a deferrable constraint"},
		"rule":                {schema: "create rule r as on insert to res_users_log do also insert into bus_bus (channel) values ('rule')", why: "it has a rule"},
		"policy":              {schema: "alter table res_users_log enable row level security", why: "it has row-level security"},
		"default":             {schema: "alter table res_users_log alter create_uid set default writes()", why: "not made of what is built in"},
		"default, built in":   {schema: "alter table res_users_log add n int default pg_backend_pid()", why: "not known to be harmless"},
		"check":               {schema: "alter table res_users_log add check (lies() > 0)", why: "not made of what is built in"},
		"index":               {schema: "create function lie(int) returns int immutable language sql as 'select $1'; create index on res_users_log (lie(create_uid))", why: "not made of what is built in"},
		"partial index":       {schema: "create function lie(int) returns bool immutable language sql as 'select true'; create index on res_users_log (id) where lie(create_uid)", why: "not made of what is built in"},
		"generated":           {schema: "create function lie(int) returns int immutable language sql as 'select $1'; alter table res_users_log add n int generated always as (lie(create_uid)) stored", why: "not made of what is built in"},
		"domain":              {schema: "create domain uid as int check (lies() > 0 or true); alter table res_users_log add n uid", why: "not made of what is built in"},
		"cascade":             {schema: "create table child (log int references res_users_log (id) on delete cascade)", why: "a foreign key cascades"},
		"child":               {schema: "create table child () inherits (res_users_log)", why: "other tables inherit"},
		"view":                {schema: "alter table res_users_log rename to real; create view res_users_log as select id as create_uid from bus_bus", why: "no ordinary table"},
		"partitioned":         {schema: "drop table res_users_log; create table res_users_log (create_uid int) partition by hash (create_uid)", why: "no ordinary table"},
		"temporary view":      {session: "create temp view res_users_log as select id as create_uid from bus_bus", why: "no ordinary table"},
		"temporary table":     {session: "create temp table res_users_log (create_uid int)", why: "in another schema"},
		"search_path":         {schema: "create schema evil; create table evil.res_users_log (create_uid int)", session: "set search_path = evil, public", why: "in another schema"},
		"view, unseen":        {schema: "create procedure hides() language plpgsql as $$begin execute 'create temp view res_users_log as select id as create_uid from bus_bus'; end$$", session: "call hides()", why: "no ordinary table"},
		"operator":            {schema: "create schema evil; create function evil.eq(int, int) returns bool language sql as 'select writes() > 0'; create operator evil.= (leftarg = int, rightarg = int, function = evil.eq)", session: "set search_path = evil, pg_catalog, public", insert: "update res_users_log set create_uid = 1 where id = 1", why: "an operator that compares"},
		"operator, half":      {schema: "create type mine as (a int); create function eq(int, mine) returns bool language sql as 'select true'; create operator = (leftarg = int, rightarg = mine, function = eq)", why: "an operator that compares"},
		"function":            {schema: "create schema evil; create function evil.now() returns timestamptz language sql as 'select writes(); select null::timestamptz'", session: "set search_path = evil, pg_catalog, public", insert: "insert into res_users_log (create_date) values (now())", why: "another function now()"},
		"type":                {schema: "create schema evil; create domain evil.text as varchar check (lies() > 0); alter table res_users_log add note varchar", session: "set search_path = evil, pg_catalog, public", insert: "insert into res_users_log (note) values ('1'::text)", why: "a type has the name"},
		"cast":                {schema: "create function cast_it(text) returns int language sql as 'select writes()'; create cast (text as int) with function cast_it(text) as assignment", why: "a cast between built-in types"},
		"partition":           {schema: "alter table res_users_log rename to parent; create table p (create_uid int) partition by hash (create_uid); create table res_users_log partition of p for values with (modulus 1, remainder 0)", why: "it is a partition"},
		"row cast":            {schema: "alter table res_users_log add note varchar; create function cast_it(res_users_log) returns varchar language plpgsql as 'begin return writes(); end'; create cast (res_users_log as varchar) with function cast_it(res_users_log) as implicit", insert: "update res_users_log set note = res_users_log", why: "it has no such column"},
		"column that is none": {schema: "create function evil(record) returns int language plpgsql as $$begin return writes(); end$$", insert: "insert into res_users_log (create_uid) values (1) returning res_users_log.evil", why: "it has no such column"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuard(t)
			g.pg.MustExec(t, g.db, writableSchema)
			if c.schema != "" {
				g.pg.MustExec(t, g.db, c.schema)
			}
			const state = "select count(*) from bus_bus"
			before := g.pg.Value(t, g.db, state)
			p := g.peer()
			if c.session != "" {
				p.ok(c.session)
			}
			g.readOnlyBut("res_users_log")
			if c.insert == "" {
				c.insert = "insert into res_users_log (create_uid) values (1)"
			}
			refused := func(send string) {
				t.Helper()
				if got := p.run(send); !strings.Contains(got, "E 23G02") {
					t.Errorf("%s: %s", send, got)
				} else if !strings.Contains(p.errs[0].Detail, c.why) {
					t.Errorf("%s: %s", send, p.errs[0].Detail)
				}
				if p.status != 'I' {
					p.ok("rollback")
				}
			}
			refused("Q " + c.insert)
			refused("P - " + c.insert + " ; B - - ; E - ; S")
			p.ok("begin")
			p.ok("select 1")
			refused("Q " + c.insert)
			p.ok("begin")
			refused("P - " + c.insert + " ; B - - ; E - ; S")
			if after := g.pg.Value(t, g.db, state); after != before {
				t.Errorf("rows were written elsewhere: %s before, %s after", before, after)
			}
		})
	}
}

// What a transaction has put off until its COMMIT runs READ ONLY.
func TestNothingIsWrittenAtCommitBehindAFence(t *testing.T) {
	g := writableGuard(t)
	g.contain()
	p := g.peer()
	p.ok("create temp table own (n int)")
	p.ok("create constraint trigger late after insert on own deferrable initially deferred for each row execute function fires()")
	g.readOnlyBut("res_users_log")
	for _, lines := range [][]string{
		{"begin", logInsert, "insert into pg_temp.own values (1)", "commit"},
		{"begin", "savepoint a", "insert into pg_temp.own values (1)", "release a", logInsert, "savepoint b", "commit"},
		{"begin", "declare c cursor with hold for select writes() from generate_series(1, 3)", logInsert, "commit"},
		{"begin", "savepoint a", "declare c cursor with hold for select writes() from generate_series(1, 3)", "savepoint b", "release b", logInsert, "commit and chain"},
		{"begin", logInsert, "insert into pg_temp.own values (1)", "set constraints all immediate"},
	} {
		for protocol, send := range wireProtocols {
			if got := send(p, lines); !strings.Contains(got, "E 23G02") {
				t.Errorf("%s: %q: %s", protocol, lines, got)
			}
			if p.status != 'I' {
				p.ok("rollback")
			}
		}
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// A block behind a fence is one in flight for the read-only that comes after
// it and does not let the table be written: nothing that it wrote is committed,
// nor may it write anything else because others are let finish.
func TestAFenceIsNoWayIntoALaterReadOnly(t *testing.T) {
	g := writableGuard(t)
	for name, then := range map[string]func(){
		"refuse-commit": func() { g.readOnly(policy.RefuseCommit, 0) },
		"finish":        func() { g.readOnly(policy.Finish, peerPatience) },
		"both": func() {
			now := g.decider.Current().Containments
			g.contain(append(now[:1:1], policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.Finish, DrainUntil: time.Now().Add(time.Hour)})...)
		},
	} {
		for _, way := range [][]string{{"commit"}, {insert}, {"savepoint a", "select 1", "release a", insert}, {"select writes()", "commit"}, {"select 1", "commit"}} {
			g.readOnlyBut("res_users_log")
			p := g.peer()
			p.ok("begin")
			p.ok("select 1")
			p.ok(logInsert)
			then()
			if got := wireProtocols["simple"](p, way); !strings.Contains(got, "E 23G02") {
				t.Errorf("%s: %q: %s", name, way, got)
			}
			p.end()
		}
	}
	if n := g.pg.Value(t, g.db, "select (select count(*) from bus_bus) + (select count(*) from res_users_log)"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// What a name stands for is settled at the Bind, and asked before the Execute:
// nothing of the client's may come between.
func TestAPortalIsNotProvenByAnotherTable(t *testing.T) {
	g := writableGuard(t)
	g.contain()
	g.pg.MustExec(t, g.db, "create schema evil; create table evil.res_users_log (create_uid int); create trigger t after insert on evil.res_users_log for each statement execute function fires()")
	p := g.peer()
	p.ok("set search_path = evil, public")
	g.readOnlyBut("res_users_log")
	p.run("P w insert into res_users_log (create_uid) values (1) ; P s set search_path = public ; P r set search_path = evil, public ; S")
	for _, line := range []string{
		"B s s ; B w w ; E s ; E w ; S", "B s s ; B w w ; E s ; H ; E w ; S", "P - begin ; B - - ; E - ; B w w ; B - s ; E - ; E w ; S",
		"P - begin ; B - - ; E - ; B w w ; S ; Q set search_path = public ; E w ; S", "P - begin ; B - - ; E - ; B w w ; B - s ; E - ; B - r ; E - ; B - s ; E - ; E w ; S",
	} {
		if got := p.run(line); !strings.Contains(got, "E 23G02") {
			t.Errorf("%s: %s", line, got)
		}
		if p.status != 'I' {
			p.ok("rollback")
		}
		p.ok("set search_path = evil, public")
	}
	if n := g.pg.Value(t, g.db, "select (select count(*) from bus_bus) + (select count(*) from evil.res_users_log)"); n != "0" {
		t.Errorf("%s rows", n)
	}
}
