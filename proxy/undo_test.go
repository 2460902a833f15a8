package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

// waysOut are what a client may try to undo read-only with, before it writes:
// on the same session before read-only began, and since. "=ready" is a Bind and
// an Execute of what was prepared before.
var waysOut = []struct {
	name   string
	before []string // sent one by one in the simple protocol
	ready  string   // prepared by the protocol before, as "ready"
	since  []string
}{
	{name: "nothing"},
	{name: "BEGIN", since: []string{"begin"}},
	{name: "BEGIN … READ WRITE", since: []string{"begin read write"}},
	{name: "BEGIN with every mode", since: []string{"begin isolation level serializable, read write, not deferrable"}},
	{name: "START TRANSACTION READ WRITE", since: []string{"start transaction read write"}},
	{name: "BEGIN prepared before", ready: "begin read write", since: []string{"=ready"}},
	{name: "SET TRANSACTION", since: []string{"begin", "set transaction read write"}},
	{name: "SET TRANSACTION READ ONLY, then READ WRITE", since: []string{"begin read only", "set transaction read write"}},
	{name: "SET SESSION CHARACTERISTICS", since: []string{"set session characteristics as transaction read write"}},
	{name: "SET SESSION CHARACTERISTICS before", before: []string{"set session characteristics as transaction read write"}},
	{name: "SET transaction_read_only", since: []string{"begin", "set transaction_read_only = off"}},
	{name: "SET transaction_read_only by its number", since: []string{"begin", "set transaction_read_only = 0"}},
	{name: "SET LOCAL transaction_read_only TO DEFAULT", since: []string{"begin", "set local transaction_read_only to default"}},
	{name: "RESET transaction_read_only", since: []string{"begin", "reset transaction_read_only"}},
	{name: "SET prepared before", ready: "set transaction_read_only = off", since: []string{"begin", "=ready"}},
	{name: "SET default_transaction_read_only", since: []string{"set default_transaction_read_only = off", "begin"}},
	{name: "SET default_transaction_read_only before", before: []string{"set default_transaction_read_only = off"}, since: []string{"begin"}},
	{name: "RESET default_transaction_read_only", since: []string{"reset default_transaction_read_only", "begin"}},
	{name: "RESET ALL", since: []string{"reset all", "begin"}},
	{name: "RESET ALL in a transaction", since: []string{"begin", "reset all"}},
	{name: "DISCARD ALL", since: []string{"discard all"}},
	{name: "DISCARD ALL, then BEGIN", since: []string{"discard all", "begin"}},
	{name: "set_config", since: []string{"select set_config('default_transaction_read_only', 'off', false)"}},
	{name: "set_config in a transaction", since: []string{"begin", "select set_config('transaction_read_only', 'off', false)"}},
	{name: "set_config, local", since: []string{"begin", "select set_config('transaction_read_only', 'off', true)"}},
	{name: "set_config of a computed name", since: []string{"begin", "select set_config('transaction' || '_read_only', 'o' || 'ff', false)"}},
	{name: "set_config of names that a query finds", since: []string{"begin", "select set_config(name, 'off', true) from pg_settings where name like '%transaction_read%'"}},
	{name: "set_config in an argument", since: []string{"begin", "select length(set_config('transaction_read_only', 'off', false))"}},
	{name: "UPDATE pg_settings", since: []string{"begin", "update pg_settings set setting = 'off' where name = 'transaction_read_only'"}},
	{name: "a function that sets the default", since: []string{"select opens()", "begin"}},
	{name: "a function that sets the transaction", since: []string{"begin", "select opens_now()"}},
	{name: "a function with a SET clause", since: []string{"begin", "select opens_inside()"}},
	{name: "DO", since: []string{"do $$begin set transaction_read_only = off; insert into bus_bus (channel) values (null); end$$"}},
	{name: "DO that commits", since: []string{"do $$begin commit; set transaction read write; insert into bus_bus (channel) values (null); end$$"}},
	{name: "CALL", since: []string{"call opens_and_writes()"}},
	{name: "COMMIT AND CHAIN", since: []string{"begin", "commit and chain"}},
	{name: "ROLLBACK AND CHAIN", since: []string{"begin", "rollback and chain"}},
	{name: "END AND CHAIN of a read-write transaction", since: []string{"begin read write", "end and chain"}},
	{name: "ROLLBACK AND CHAIN after an error", since: []string{"begin", "selec", "rollback and chain"}},
	{name: "COMMIT AND CHAIN after an error", since: []string{"begin", "select 1/0", "commit and chain"}},
	{name: "COMMIT AND CHAIN, twice", since: []string{"begin", "commit and chain", "commit and chain"}},
	{name: "a block before, COMMIT AND CHAIN", before: []string{"begin"}, since: []string{"commit and chain"}},
	{name: "ROLLBACK TO", since: []string{"begin", "savepoint a", "rollback to a"}},
	{name: "RELEASE", since: []string{"begin", "savepoint a", "release a"}},
	{name: "SET TRANSACTION in a savepoint", since: []string{"begin", "savepoint a", "set transaction read write"}},
	{name: "a savepoint before, ROLLBACK TO", before: []string{"begin", "savepoint a"}, since: []string{"select 1", "rollback to a"}},
	{name: "a savepoint before, RELEASE", before: []string{"begin", "savepoint a"}, since: []string{"select 1", "release a"}},
	{name: "a savepoint before, in another one", before: []string{"begin", "savepoint a", "savepoint b"}, since: []string{"select 1", "rollback to b", "release b", "rollback to a"}},
	{name: "COMMIT, then BEGIN", before: []string{"begin"}, since: []string{"commit", "begin"}},
	{name: "a transaction that is open", before: []string{"begin"}},
	{name: "a READ WRITE transaction that is open", before: []string{"begin read write", "select 1"}},
	{name: "a transaction that has written", before: []string{"begin", "insert into bus_bus (channel) values (null)"}},
	{name: "a transaction that has failed", before: []string{"begin", "select 1/0"}, since: []string{"rollback"}},
	{name: "a prepared write", before: []string{"prepare w as insert into bus_bus (channel) values (null)"}, since: []string{"execute w"}},
	{name: "a prepared function", before: []string{"prepare w as select writes()"}, since: []string{"execute w"}},
	{name: "a write prepared by the protocol", ready: "insert into bus_bus (channel) values (null)", since: []string{"=ready"}},
	{name: "a function prepared by the protocol", ready: "select writes()", since: []string{"=ready"}},
	{name: "EXECUTE of what the protocol prepared", ready: "insert into bus_bus (channel) values (null)", since: []string{"execute ready"}},
	{name: "EXPLAIN ANALYZE of a prepared write", before: []string{"prepare w as insert into bus_bus (channel) values (null)"}, since: []string{"explain analyze execute w"}},
	{name: "a cursor that is open", before: []string{"begin", "declare c cursor for select writes() from generate_series(1, 3)"}, since: []string{"fetch all from c"}},
	{name: "a cursor that has begun", before: []string{"begin", "declare c cursor for select writes() from generate_series(1, 3)", "fetch c"}, since: []string{"fetch all from c"}},
	{name: "a cursor WITH HOLD", before: []string{"begin", "declare c cursor with hold for select id from res_partner order by id", "commit"}, since: []string{"fetch c", "update res_partner set name = 'x' where current of c"}},
	{name: "a cursor WITH HOLD that is not materialized", before: []string{"begin", "declare c cursor with hold for select writes() from generate_series(1, 3)"}, since: []string{"commit", "fetch all from c"}},
	{name: "two-phase commit", before: []string{"begin", "insert into bus_bus (channel) values (null)"}, since: []string{"prepare transaction 'out'", "commit prepared 'out'"}},
	{name: "ALTER ROLE", since: []string{"alter role postgres set default_transaction_read_only = off"}},
	{name: "ALTER DATABASE", since: []string{"do $$begin execute format('alter database %I set default_transaction_read_only = off', current_database()); end$$"}},
	{name: "SET SESSION AUTHORIZATION", since: []string{"set session authorization default", "reset session authorization"}},
	{name: "LISTEN and settings", since: []string{"listen x", "set work_mem = '1MB'", "begin"}},
}

const undoSchema = `create function writes() returns bigint volatile language sql as 'insert into public.bus_bus (channel) values (null) returning id';
create function opens() returns text language sql as $$select set_config('default_transaction_read_only', 'off', false)$$;
create function opens_now() returns text language plpgsql as $$begin set transaction_read_only = off; return 'done'; end$$;
create function opens_inside() returns bigint language plpgsql set default_transaction_read_only = off as $$declare n bigint; begin insert into public.bus_bus (channel) values (null) returning id into n; return n; end$$;
create procedure opens_and_writes() language plpgsql as $$begin commit; set transaction read write; insert into public.bus_bus (channel) values (null); end$$;`

// The same way out is tried in each protocol.
var wireProtocols = map[string]func(p *peer, texts []string) string{
	"simple": func(p *peer, texts []string) string {
		var out []string
		for _, sql := range texts {
			if _, named := strings.CutPrefix(sql, "="); named {
				out = append(out, p.run("B - ready ; E - ; S"))
				continue
			}
			out = append(out, p.run("Q "+sql))
		}
		return strings.Join(out, ", ")
	},
	"extended": func(p *peer, texts []string) string {
		var out []string
		for _, sql := range texts {
			out = append(out, p.run(extended(sql)+" ; S"))
		}
		return strings.Join(out, ", ")
	},
	"pipelined": func(p *peer, texts []string) string {
		var all []string
		for _, sql := range texts {
			all = append(all, extended(sql))
		}
		return p.run(strings.Join(all, " ; ") + " ; S")
	},
}

func extended(sql string) string {
	if name, named := strings.CutPrefix(sql, "="); named {
		return "B - " + name + " ; E -"
	}
	return "P - " + sql + " ; B - - ; E -"
}

// Nothing undoes read-only, in any protocol: each way out ends with an attempt
// to write, and a COMMIT, and the tables are what they were. That is so, too,
// where another table may be written and was: then the block is READ WRITE.
func TestNothingUndoesReadOnly(t *testing.T) {
	g := undoGuard(t)
	attempts{where: "directly", addr: g.addr, protocols: allProtocols}.tryOn(g)
	g.pg.MustExec(t, g.db, "create table res_users_log (create_uid int)")
	writable := []string{"res_users_log"}
	attempts{where: "with a table", addr: g.addr, protocols: allProtocols, writable: writable}.tryOn(g)
	attempts{where: "behind a change of it", addr: g.addr, protocols: allProtocols, writable: writable, first: "insert into res_users_log (create_uid) values (1)"}.tryOn(g)
}

// Nor does it through PgBouncer, whose connections were opened before read-only
// began, with what earlier clients have left in them: the pool has one, and
// whoever may come is a stranger to whom it belonged before.
func TestNothingUndoesReadOnlyThroughPgBouncer(t *testing.T) {
	g := undoGuard(t)
	for mode, protocols := range map[string][]string{"transaction": allProtocols, "session": {"simple"}} {
		settings := map[string]string{"pool_mode": mode, "default_pool_size": "1", "server_reset_query": ""} // what a client has set stays
		if pgtest.BouncerVersion(t.Context()) >= "1.21" {
			settings["max_prepared_statements"] = "0" // statements of the protocol stay, too
		}
		b := pgtest.StartBouncer(t, pgtest.BouncerConfig{Server: g.addr, Settings: settings})
		attempts{where: "PgBouncer, " + mode + " mode", addr: b.Addr(), protocols: protocols, next: func(p *peer) *peer {
			if p.status != 'I' {
				return p
			}
			pid := p.value(whoAnswers)
			if mode == "session" { // the connection is its own until it goes
				p.end()
			} else {
				defer p.end()
			}
			stranger := newPeer(t, b.Addr(), "postgres", g.db)
			if got := stranger.value(whoAnswers); got != pid {
				t.Errorf("%s mode: process %s answered before read-only, and %s does now", mode, pid, got)
			}
			return stranger
		}}.tryOn(g)
	}
}

const whoAnswers = "select pg_backend_pid()"

var allProtocols = []string{"simple", "extended", "pipelined"}

// attempts are how the ways out are tried.
type attempts struct {
	where, addr string
	protocols   []string
	next        func(*peer) *peer // who goes on once read-only is in force; nil: who was there before
	writable    []string          // tables that may be written
	first       string            // a statement before the attempt to write; "" is none
}

// tryOn tries each way out in each protocol.
func (a attempts) tryOn(g *guard) {
	g.t.Helper()
	const state = "select (select count(*) from bus_bus) || ' messages, ' || (select count(*) from res_partner where name = 'x') || ' partners, ' || (select count(*) from pg_db_role_setting) || ' settings'"
	d := g.directPeer()
	n := 0
	for i, way := range waysOut {
		for j, protocol := range a.protocols {
			write := []string{insert, "select writes()"}[(i+j)%2]
			p := newPeer(g.t, a.addr, "postgres", g.db)
			p.ok("discard all") // of a pooled connection
			if way.ready != "" {
				p.run("P ready " + way.ready + " ; S")
			}
			for _, sql := range way.before {
				p.run("Q " + sql)
			}
			before := d.value(state)
			g.readOnlyBut(a.writable...)
			if a.next != nil {
				p = a.next(p)
			}
			texts := slices.Clone(way.since)
			if a.first != "" {
				texts = append(texts, a.first)
			}
			got := wireProtocols[protocol](p, append(texts, write, "commit"))
			if !strings.Contains(got, "E ") {
				g.t.Errorf("%s: %s, %s: %s: %s", a.where, way.name, protocol, write, got)
			}
			if after := d.value(state); after != before {
				g.t.Errorf("%s: %s, %s: %s: the server had %s, and has %s: %s", a.where, way.name, protocol, write, before, after, got)
			}
			p.end()
			g.contain()
			n++
		}
	}
	g.t.Logf("%s: %d ways, %d attempts", a.where, len(waysOut), n)
	if got := d.value("select count(*) from pg_prepared_xacts"); got != "0" {
		g.t.Errorf("%s: %s prepared transactions", a.where, got)
	}
}

func undoGuard(t *testing.T) *guard {
	t.Helper()
	pg := undoServer(t)
	g := newGuard(t, func(s *setup) { s.pg = pg })
	g.pg.MustExec(t, g.db, undoSchema)
	return g
}

// undoServer is a server on which two-phase commit works.
func undoServer(t *testing.T) *pgtest.Server {
	return pgtest.Start(t, pgtest.Setting("max_prepared_transactions", "5"))
}

// The startup packet cannot undo it either.
func TestNothingInTheStartupPacketUndoesReadOnly(t *testing.T) {
	g := newGuard(t)
	g.readOnly(policy.RefuseCommit, 0)
	for _, parameters := range [][]string{
		{"options", "-c default_transaction_read_only=off"},
		{"default_transaction_read_only", "off"},
		{"options", "-c transaction_read_only=off"},
		{"options", "-c default_transaction_isolation=serializable -c default_transaction_deferrable=on"},
	} {
		p, err := dialPeer(t, g.addr, "postgres", g.db, parameters...)
		if err != nil {
			continue // the server does not take it
		}
		for _, send := range []string{"Q " + insert, "P - " + insert + " ; B - - ; E - ; S", "Q begin ; Q " + insert + " ; Q commit", "Q " + writes} {
			if got := p.run(send); !strings.Contains(got, "E 23G02") {
				t.Errorf("%q: %s: %s", parameters, send, got)
			}
		}
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// What PgBouncer itself sends, before a connection is given out and after it was
// given back, is a client's as any other.
func TestNothingThatPgBouncerSendsUndoesReadOnly(t *testing.T) {
	g := undoGuard(t)
	b := pgtest.StartBouncer(t, pgtest.BouncerConfig{Server: g.addr, Settings: map[string]string{
		"pool_mode": "transaction", "server_reset_query_always": "1", "server_check_delay": "0", "query_wait_timeout": "1",
		"server_check_query": "set default_transaction_read_only = off", "server_reset_query": "set session characteristics as transaction read write",
	}})
	write := func() error {
		conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", b.Addr(), g.db))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(t.Context()) }()
		return conn.Exec(t.Context(), insert).Close()
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	g.readOnly(policy.RefuseCommit, 0)
	if err := write(); err == nil {
		t.Error("a write went through")
	}
	if n := g.pg.Value(t, g.db, "select count(*) from bus_bus"); n != "1" {
		t.Errorf("%s rows", n)
	}
}
