package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

// risky is a statement that writes, blocks writers or acts on the server, and
// that a READ ONLY transaction of PostgreSQL may let through.
type risky struct {
	sql    string
	before string // run directly, on the same session where it is begun
	passes bool   // through lockkeeper, too: it changes no relation and blocks nobody
}

// riskyStatements is the list of DESIGN §7 and more, with what is plainly
// refused beside it.
var riskyStatements = []risky{
	{sql: "INSERT INTO listed VALUES (2)"},
	{sql: "UPDATE listed SET n = 2"},
	{sql: "DELETE FROM listed"},
	{sql: "MERGE INTO listed USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE"},
	{sql: "TRUNCATE listed"},
	{sql: "WITH w AS (DELETE FROM listed RETURNING n) SELECT * FROM w"},
	{sql: "SELECT writes()"},
	{sql: "SELECT n INTO copied FROM listed"},
	{sql: "CREATE TABLE created (n int)"},
	{sql: "CREATE TABLE created AS SELECT 1"},
	{sql: "CREATE TEMP TABLE created (n int)"},
	{sql: "EXPLAIN ANALYZE INSERT INTO listed VALUES (2)"},
	{sql: "EXPLAIN ANALYZE CREATE TABLE explained AS SELECT 1"},
	{sql: "EXPLAIN ANALYZE SELECT 1 INTO explained_into"},
	{sql: "INSERT INTO temporary VALUES (1)", before: "CREATE TEMP TABLE temporary (n int)"},
	{sql: "TRUNCATE temporary", before: "CREATE TEMP TABLE temporary (n int)"},
	{sql: "COPY listed FROM '/dev/null'"},
	{sql: "COPY listed FROM PROGRAM 'true'"},
	{sql: "COPY listed TO '/dev/null'"},
	{sql: "COPY listed TO PROGRAM 'cat >/dev/null'"},
	{sql: "COPY (SELECT writes()) TO STDOUT"},
	{sql: "SELECT * FROM listed FOR UPDATE"},
	{sql: "SELECT * FROM listed FOR KEY SHARE SKIP LOCKED"},
	{sql: "SELECT nextval('counted')"},
	{sql: "SELECT setval('counted', 7)"},
	{sql: "CREATE INDEX ON listed (n)"},
	{sql: "CREATE INDEX CONCURRENTLY ON listed (n)"},
	{sql: "ALTER TABLE listed ADD COLUMN x int"},
	{sql: "DROP TABLE listed"},
	{sql: "COMMENT ON TABLE listed IS 'x'"},
	{sql: "GRANT SELECT ON listed TO public"},
	{sql: "REFRESH MATERIALIZED VIEW stored"},
	{sql: "REINDEX TABLE listed"},
	{sql: "REINDEX TABLE CONCURRENTLY listed"},
	{sql: "CLUSTER listed USING listed_pkey"},
	{sql: "VACUUM listed"},
	{sql: "VACUUM FULL listed"},
	{sql: "ANALYZE listed"},
	{sql: "CHECKPOINT"},
	{sql: "LOCK TABLE listed IN ACCESS EXCLUSIVE MODE"},
	{sql: "LOCK TABLE listed IN SHARE MODE"},
	{sql: "ALTER SYSTEM SET deadlock_timeout = '2s'"},
	{sql: "ALTER ROLE listed_role SET work_mem = '5MB'"},
	{sql: "CREATE DATABASE listed_created"},
	{sql: "DROP DATABASE listed_dropped", before: "CREATE DATABASE listed_dropped"},
	{sql: "LOAD 'plpgsql'"},
	{sql: "SECURITY LABEL ON TABLE listed IS 'x'"},
	{sql: "DO $$BEGIN INSERT INTO public.listed VALUES (3); END$$"},
	{sql: "DO $$BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO public.listed VALUES (4); END$$"},
	{sql: "CALL commits_and_writes()"},
	{sql: "PREPARE TRANSACTION 'listed'"},
	{sql: "COMMIT PREPARED 'listed_before'", before: "two-phase"},
	{sql: "SELECT lo_create(0)"},
	{sql: "SELECT lo_creat(-1)"},
	{sql: "SELECT lo_from_bytea(0, 'x')"},
	{sql: "SELECT lo_import('/dev/null')"},
	{sql: "SELECT lo_put(4711, 0, 'x')"},
	{sql: "SELECT lo_unlink(4711)"},
	{sql: "SELECT lowrite(lo_open(4711, 131072), 'x')"},
	{sql: "SELECT lo_export(4711, '/dev/null')"},
	{sql: "SELECT dblink_exec(format('host=127.0.0.1 user=postgres port=%s dbname=%s', current_setting('port'), current_database()), 'INSERT INTO listed VALUES (5)')"},
	{sql: "SELECT pg_logical_emit_message(true, 'listed', 'x')"},
	{sql: "SELECT pg_logical_emit_message(false, 'listed', 'x')"},
	{sql: "SELECT pg_create_physical_replication_slot('listed')"},
	{sql: "SELECT pg_create_logical_replication_slot('listed_logical', 'pgoutput')"},
	{sql: "SELECT pg_drop_replication_slot('listed')"},
	{sql: "SELECT pg_replication_origin_create('listed')"},
	{sql: "SELECT pg_switch_wal()"},
	{sql: "SELECT pg_create_restore_point('listed')"},
	{sql: "SELECT pg_reload_conf()"},
	{sql: "SELECT pg_rotate_logfile()"},
	{sql: "SELECT pg_stat_reset()"},
	{sql: "SELECT pg_import_system_collations('pg_catalog')"},
	{sql: "SELECT brin_summarize_new_values('listed_brin')"},
	{sql: "SELECT gin_clean_pending_list('listed_gin')"},
	{sql: "SELECT pg_clear_relation_stats('public', 'listed')"},
	{sql: "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 'listed')"},
	{sql: "SELECT pg_log_standby_snapshot()"},
	{sql: "SELECT txid_current()", passes: true},
	{sql: "SELECT pg_advisory_xact_lock(1)", passes: true},
	{sql: "SELECT pg_notify('listed', 'x')", passes: true},
	{sql: "NOTIFY listed", passes: true},
	{sql: "LISTEN listed", passes: true},
	{sql: "SET work_mem = '5MB'", passes: true},
	{sql: "INSERT INTO pg_temp.temporary VALUES (1)", before: "CREATE TEMP TABLE temporary (n int)", passes: true},
	{sql: "UPDATE pg_temp.temporary SET n = 2", before: "CREATE TEMP TABLE temporary (n int)", passes: true},
	{sql: "DELETE FROM pg_temp.temporary", before: "CREATE TEMP TABLE temporary (n int)", passes: true},
	{sql: "INSERT INTO pg_temp.seen VALUES (1)", before: "CREATE TEMP VIEW seen AS SELECT * FROM listed"},
	{sql: "DELETE FROM pg_temp.temporary USING (SELECT writes()) s", before: "CREATE TEMP TABLE temporary (n int)"},
}

const listSchema = `CREATE TABLE listed (n int PRIMARY KEY, a int[]); INSERT INTO listed VALUES (1);
CREATE INDEX listed_brin ON listed USING brin (n); CREATE INDEX listed_gin ON listed USING gin (a);
CREATE SEQUENCE counted; CREATE MATERIALIZED VIEW stored AS SELECT * FROM listed; CREATE ROLE listed_role;
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO public.listed VALUES ((random() * 1e9)::int) RETURNING n';
CREATE PROCEDURE commits_and_writes() LANGUAGE plpgsql AS $$BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO public.listed VALUES (6); END$$;
SELECT lo_from_bytea(4711, 'x')`

// listPage is the page with the list, written by UPDATE_GOLDEN=1 for the server
// that the tests run on: each has a column.
var listPage = filepath.Join("..", "docs", "read-only-list.md")

// What PostgreSQL itself lets through in a READ ONLY transaction, on each major
// version, and what becomes of it through lockkeeper. Whatever changes something
// or blocks writers is refused.
func TestWhatPostgreSQLLetsThroughInReadOnly(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Setting("max_prepared_transactions", "5"), pgtest.Setting("wal_level", "logical"))
	g := newGuard(t, func(s *setup) { s.pg = pg })
	pg.MustExec(t, g.db, listSchema)
	_ = pg.Exec(t.Context(), g.db, "CREATE EXTENSION dblink") // not every package of binaries has it
	g.readOnly(policy.RefuseCommit, 0)
	major := pg.Major(t)
	page := readList(t)
	p, d := g.peer(), g.directPeer()
	for i := range riskyStatements {
		r := &riskyStatements[i]
		const state = "SELECT concat((SELECT count(*) FROM listed), ' ', (SELECT sum(n) FROM listed), ' ', (SELECT count(*) FROM pg_class), ' ', (SELECT count(*) FROM pg_largeobject_metadata))"
		before := d.value(state)
		through, refused := g.throughReadOnly(p, r)
		if refused == r.passes {
			t.Errorf("%s: %s through lockkeeper", r.sql, through)
		}
		if after := d.value(state); after != before && !strings.Contains(r.before, "TEMP") {
			t.Errorf("%s: the database was %s, and is %s: %s", r.sql, before, after, through)
		}
		page.set(r.sql, strconv.Itoa(major), g.alone(d, r)+" → "+through)
	}
	page.compare(t, major)
}

// throughReadOnly says what lockkeeper does with a statement, in both protocols
// alike, and whether it refuses it.
func (g *guard) throughReadOnly(p *peer, r *risky) (what string, refused bool) {
	g.t.Helper()
	var said [2]string
	for i, send := range []string{"Q " + r.sql, "P - " + r.sql + " ; B - - ; E - ; S"} {
		if strings.Contains(r.before, "TEMP") {
			g.contain()
			p.ok("DISCARD ALL")
			p.ok(r.before)
			g.readOnly(policy.RefuseCommit, 0)
		}
		got := p.run(send)
		switch {
		case strings.Contains(got, "E 23G02") && strings.Contains(p.errs[0].Message, "the server refused"):
			said[i] = "refused, by the server"
		case strings.Contains(got, "E 23G02"):
			said[i] = "refused"
		case len(p.errs) > 0:
			said[i] = "fails: " + p.errs[0].Code
		default:
			said[i] = "passes"
		}
	}
	if said[0] != said[1] {
		g.t.Errorf("%s: %s in the simple protocol, %s in the extended one", r.sql, said[0], said[1])
	}
	return said[0], strings.HasPrefix(said[0], "refused")
}

// alone says what PostgreSQL does with a statement in a READ ONLY transaction.
func (g *guard) alone(d *peer, r *risky) string {
	g.t.Helper()
	switch {
	case r.before == "two-phase":
		d.ok("BEGIN")
		d.ok("INSERT INTO listed VALUES ((random() * 1e9)::int)")
		d.ok("PREPARE TRANSACTION 'listed_before'")
	case r.before != "":
		d.ok(r.before)
	}
	said := d.run("Q BEGIN READ ONLY ; Q " + r.sql)
	if strings.Contains(said, "E 25001") || strings.Contains(said, "E 2D000") { // not in a block
		d.run("Q ROLLBACK ; Q SET default_transaction_read_only = on")
		d.run("Q " + r.sql)
	}
	verdict := "lets through"
	if len(d.errs) > 0 {
		code := d.errs[len(d.errs)-1].Code
		verdict = "fails: " + code
		switch code {
		case "25006":
			verdict = "refuses"
		case "42883", "42601", "0A000": // no such function, no such syntax
			verdict = "–"
		}
	}
	if r.sql == "COMMIT PREPARED 'listed_before'" || strings.HasPrefix(r.sql, "PREPARE TRANSACTION") {
		d.run("Q ROLLBACK ; Q SET default_transaction_read_only = off ; Q ROLLBACK PREPARED 'listed'")
		d.run("Q ROLLBACK PREPARED 'listed_before'")
		return verdict
	}
	d.run("Q ROLLBACK ; Q RESET default_transaction_read_only ; Q DISCARD ALL")
	return verdict
}

// list is the page's table: statement, one column for each version.
type list struct {
	rows map[string]map[string]string
}

var listColumns = []string{"14", "15", "16", "17", "18"}

func readList(t *testing.T) *list {
	t.Helper()
	l := &list{rows: map[string]map[string]string{}}
	b, err := os.ReadFile(listPage)
	if err != nil && os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "| `")
		sql, rest, ok2 := strings.Cut(rest, "` |")
		if !ok || !ok2 {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(rest), "|"), "|")
		for i, column := range listColumns {
			l.set(sql, column, strings.TrimSpace(cells[i]))
		}
	}
	return l
}

func (l *list) set(sql, column, value string) {
	row := l.rows[sql]
	if row == nil {
		row = map[string]string{}
		l.rows[sql] = row
	}
	row[column] = value
}

const listHead = `<!-- Written by TestWhatPostgreSQLLetsThroughInReadOnly with UPDATE_GOLDEN=1, a column on each server; do not edit. -->

# What a READ ONLY transaction lets through

A READ ONLY transaction of PostgreSQL is no promise that nothing is written ([manual](https://www.postgresql.org/docs/current/sql-set-transaction.html)).
Each column is of one version. Before the arrow stands what that server does with a statement in ` + "`BEGIN READ ONLY`" + `, sent to it directly; what cannot run in a
block is sent with default_transaction_read_only on. Behind it stands what becomes of the statement in lockkeeper's read-only, in front of the same server, in both
protocols alike. "–" is what the version does not have.

| statement | 14 | 15 | 16 | 17 | 18 |
|---|---|---|---|---|---|
`

func (l *list) text() string {
	var b strings.Builder
	b.WriteString(listHead)
	for i := range riskyStatements {
		sql := riskyStatements[i].sql
		fmt.Fprintf(&b, "| `%s` |", sql)
		for _, c := range listColumns {
			fmt.Fprintf(&b, " %s |", l.rows[sql][c])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (l *list) compare(t *testing.T, major int) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(listPage, []byte(l.text()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(listPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != l.text() {
		t.Errorf("%s is not what PostgreSQL %d does; run the test with UPDATE_GOLDEN=1, on each version", listPage, major)
	}
}
