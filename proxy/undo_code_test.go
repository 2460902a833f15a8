package proxy_test

import (
	"strings"
	"testing"

	"lockkeeper/policy"
)

// vouched lets everybody run DO and CALL in read-only.
const vouched = "profile: odoo\nunknown: allow\nrules: [{name: reports, match: {kinds: [do, call]}, action: allow, in_read_only: true}]"

// waysOutOfCode are what a DO or CALL that a rule lets run in read-only may try,
// and what follows it.
var waysOutOfCode = []struct {
	name   string
	before []string // before read-only
	since  []string
}{
	{name: "it writes", since: []string{"begin", "do $$begin insert into bus_bus (channel) values (null); end$$"}},
	{name: "it calls what writes", since: []string{"begin", "do $$begin perform writes(); end$$"}},
	{name: "it commits", since: []string{"begin", "do $$begin commit; insert into bus_bus (channel) values (null); end$$"}},
	{name: "it commits and asks for READ WRITE", since: []string{"begin", "do $$begin commit; set transaction read write; insert into bus_bus (channel) values (null); end$$"}},
	{name: "it rolls back", since: []string{"begin", "do $$begin rollback; insert into bus_bus (channel) values (null); end$$"}},
	{name: "it commits and chains", since: []string{"begin", "do $$begin commit and chain; insert into bus_bus (channel) values (null); end$$"}},
	{name: "the procedure commits", since: []string{"begin", "call opens_and_writes()"}},
	{name: "the procedure of a procedure commits", since: []string{"begin", "do $$begin call opens_and_writes(); end$$"}},
	{name: "it catches what is refused", since: []string{"begin", "call tries_everything()", "do $$begin call tries_everything(); end$$"}},
	{name: "outside a block", since: []string{"call tries_everything()"}},
	{name: "outside a block, it commits", since: []string{"call opens_and_writes()"}},
	{name: "outside a block, DO", since: []string{"do $$begin commit; insert into bus_bus (channel) values (null); end$$"}},
	{name: "behind the block", since: []string{"begin", "select 1", "commit", "call opens_and_writes()"}},
	{name: "behind a block that was rolled back", since: []string{"begin", "do $$begin null; end$$", "rollback", "call opens_and_writes()"}},
	{name: "behind a block that failed", since: []string{"begin", "select 1/0", "commit", "call opens_and_writes()"}},
	{name: "in the next block of a chain", since: []string{"begin", "do $$begin null; end$$", "commit and chain", "call opens_and_writes()"}},
	{name: "it sets the transaction", since: []string{"begin read write", "do $$begin set transaction read write; insert into bus_bus (channel) values (null); end$$"}},
	{name: "it sets transaction_read_only", since: []string{"begin", "do $$begin set transaction_read_only = off; end$$"}},
	{name: "it sets transaction_read_only, local", since: []string{"begin", "do $$begin set local transaction_read_only = off; end$$"}},
	{name: "it resets transaction_read_only", since: []string{"begin", "do $$begin reset transaction_read_only; end$$"}},
	{name: "it resets everything", since: []string{"begin", "do $$begin reset all; end$$"}},
	{name: "set_config", since: []string{"begin", "do $$begin perform set_config('transaction_read_only', 'off', false); end$$"}},
	{name: "set_config of any name", since: []string{"begin", "do $$begin perform set_config(name, 'off', true) from pg_settings where name like '%transaction_read%'; end$$"}},
	{name: "a function with a SET clause", since: []string{"begin", "do $$begin perform opens_inside(); end$$"}},
	{name: "the default, for later", since: []string{"begin", "do $$begin set default_transaction_read_only = off; end$$", "commit", "begin"}},
	{name: "the default, for a statement", since: []string{"begin", "do $$begin set default_transaction_read_only = off; end$$", "commit"}},
	{name: "SET SESSION CHARACTERISTICS", since: []string{"begin", "do $$begin set session characteristics as transaction read write; end$$", "commit", "begin"}},
	{name: "ALTER ROLE", since: []string{"begin", "do $$begin alter role postgres set default_transaction_read_only = off; end$$"}},
	{name: "ALTER DATABASE", since: []string{"begin", "do $$begin execute format('alter database %I set default_transaction_read_only = off', current_database()); end$$"}},
	{name: "a savepoint", since: []string{"begin", "savepoint a", "do $$begin null; end$$", "rollback to a"}},
	{name: "a savepoint before read-only", before: []string{"begin", "savepoint a"}, since: []string{"do $$begin null; end$$", "rollback to a", "do $$begin insert into bus_bus (channel) values (null); end$$"}},
	{name: "a transaction that is open", before: []string{"begin read write"}, since: []string{"do $$begin insert into bus_bus (channel) values (null); end$$"}},
	{name: "a transaction that has written", before: []string{"begin", "insert into bus_bus (channel) values (null)"}, since: []string{"do $$begin null; end$$"}},
	{name: "a cursor WITH HOLD", since: []string{"begin", "do $$begin execute 'declare c cursor with hold for select writes()'; end$$", "commit", "fetch all from c"}},
	{name: "a cursor", since: []string{"begin", "do $$declare c refcursor := 'c'; begin open c for select writes(); end$$", "fetch all from c"}},
	{name: "a prepared statement", since: []string{"begin", "do $$begin execute 'prepare w as insert into bus_bus (channel) values (null)'; end$$", "commit", "execute w"}},
	{name: "EXPLAIN ANALYZE CREATE TABLE AS", since: []string{"begin", "do $$begin execute 'explain analyze create table made as select 1'; end$$"}},
	{name: "REINDEX", since: []string{"begin", "do $$begin reindex table bus_bus; end$$"}},
	{name: "CLUSTER", since: []string{"begin", "do $$begin cluster res_partner using res_partner_pkey; end$$"}},
	{name: "a large object", since: []string{"begin", "do $$begin perform lo_from_bytea(0, 'x'); end$$"}},
	{name: "a message in the WAL", since: []string{"begin", "do $$begin perform pg_logical_emit_message(true, 'x', 'x'); end$$"}},
	{name: "two-phase commit", before: []string{"begin", "insert into bus_bus (channel) values (null)"}, since: []string{"do $$begin null; end$$", "prepare transaction 'code'", "commit prepared 'code'"}},
	{name: "a large object in an argument", since: []string{"begin", "call takes(lo_create(0))"}},
	{name: "a write in an argument", since: []string{"begin", "call takes(writes()::oid)"}},
	{name: "LISTEN and settings", since: []string{"listen x", "set work_mem = '1MB'", "begin", "do $$begin set work_mem = '2MB'; end$$"}},
}

const codeSchema = `create procedure takes(o oid) language sql as 'select 1';
create procedure reads() language plpgsql as $$begin perform count(*) from public.res_partner; end$$;
create procedure tries_everything() language plpgsql as $$
declare sql text;
begin
	foreach sql in array array['set transaction read write', 'set transaction_read_only = off', 'set local transaction_read_only to default', 'reset transaction_read_only',
		'set default_transaction_read_only = off', 'insert into public.bus_bus (channel) values (null)', 'select public.opens_inside()', 'create table made (n int)', 'commit', 'prepare transaction ''x'''] loop
		begin execute sql; exception when others then null; end;
		begin insert into public.bus_bus (channel) values (null); exception when others then null; end;
	end loop;
	begin commit; exception when others then null; end;
	begin rollback; exception when others then null; end;
	begin set transaction read write; exception when others then null; end;
	insert into public.bus_bus (channel) values (null);
end$$;`

// What a rule lets run in read-only does not undo it either, in any protocol:
// what is left to it is in docs/read-only.md.
func TestNothingThatARuleLetsRunUndoesReadOnly(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.pg, s.policy = undoServer(t), vouched })
	g.pg.MustExec(t, g.db, undoSchema+codeSchema)
	const state = "select concat((select count(*) from bus_bus), ' ', (select count(*) from res_partner where name = 'x'), ' ', (select count(*) from pg_db_role_setting), ' ', (select string_agg(relname || relfilenode, ' ' order by relname) from pg_class where relkind = 'r' and oid > 16383), ' ', (select count(*) from pg_largeobject_metadata))"
	d := g.directPeer()
	for i, way := range waysOutOfCode {
		for j, protocol := range allProtocols {
			write := [][]string{{insert, "commit"}, {"commit", insert}}[(i+j)%2]
			p := g.peer()
			for _, sql := range way.before {
				p.run("Q " + sql)
			}
			before := d.value(state)
			g.readOnly(policy.RefuseCommit, 0)
			got := wireProtocols[protocol](p, append(append([]string(nil), way.since...), write...))
			if after := d.value(state); after != before {
				t.Errorf("%s, %s: %s: the server had %s, and has %s: %s", way.name, protocol, write, before, after, got)
			}
			p.end()
			g.contain()
		}
	}
	if got := d.value("select count(*) from pg_prepared_xacts"); got != "0" {
		t.Errorf("%s prepared transactions", got)
	}
}

// What a rule lets run does run, in a transaction block and nowhere else.
func TestARuleLetsCodeRunInReadOnly(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = vouched })
	g.pg.MustExec(t, g.db, codeSchema)
	for _, protocol := range allProtocols {
		for _, code := range []string{"do $$begin perform 1 from res_partner; end$$", "call reads()"} {
			p := g.peer()
			g.readOnly(policy.RefuseCommit, 0)
			if got := wireProtocols[protocol](p, []string{"begin", code, "commit"}); strings.Contains(got, "E ") || !strings.Contains(got, "C COMMIT") {
				t.Errorf("%s, %s: %s", code, protocol, got)
			}
			if got := wireProtocols[protocol](p, []string{code}); !strings.Contains(got, "E 23G02") || !strings.Contains(p.errs[0].Hint, "BEGIN") {
				t.Errorf("%s, %s, outside a block: %s %v", code, protocol, got, p.errs)
			}
			p.end()
			g.contain()
		}
	}
}

// A transaction that no BEGIN has begun is none: PostgreSQL 18 leaves one open
// behind a Query in a pipeline, and the next Sync commits it.
func TestARuleLetsNothingRunInAnImplicitTransaction(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = vouched })
	g.readOnly(policy.RefuseCommit, 0)
	for _, code := range []string{"Q call reads()", "P - call reads() ; B - - ; E - ; S"} {
		p := g.peer()
		p.send(pipeline("P - select 1 ; B - - ; E - ; Q select 2 ; " + code)...)
		p.until('Z')
		if got := strings.Join(p.until('Z'), ", "); !strings.Contains(got, "E 23G02") {
			t.Errorf("%s: %s", code, got)
		}
	}
}

// What went on in spite of READ ONLY is rolled back, and the client is told why.
func TestTheCommitOfCodeThatWroteIsRefused(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.policy = vouched })
	g.readOnly(policy.RefuseCommit, 0)
	p := g.peer()
	const block = "Q begin ; Q do $$begin execute 'explain analyze create table made as select 1'; end$$ ; Q commit"
	if got := p.run(block); got != "C BEGIN, Z T, C DO, Z T, E 23G02, Z I" || !strings.Contains(p.errs[0].Detail, "DO or CALL") {
		t.Errorf("%s %v", got, p.errs)
	}
	g.contain()
	if got := p.run(block); got != "C BEGIN, Z T, C DO, Z T, C COMMIT, Z I" {
		t.Errorf("lifted: %s", got)
	}
}
