package pgquery

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/inspect"
	"lockkeeper/internal/pgtest"
)

// lockSchema is what the statements of lockStatements work on.
const lockSchema = `
CREATE SCHEMA elsewhere;
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, parent_id int, name text DEFAULT 'x', amount numeric, CONSTRAINT positive CHECK (amount > 0) NOT VALID,
  CONSTRAINT child_fk FOREIGN KEY (parent_id) REFERENCES parent NOT VALID);
CREATE TABLE loose (id int PRIMARY KEY, parent_id int, name text);
CREATE INDEX loose_name ON loose (name);
CREATE TABLE base (id int);
CREATE TABLE parted (id int) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 (id int);
CREATE VIEW a_view AS SELECT * FROM loose;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM loose;
CREATE UNIQUE INDEX a_matview_id ON a_matview (id);
CREATE SEQUENCE a_sequence;
CREATE FUNCTION a_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER old_trigger BEFORE UPDATE ON loose FOR EACH ROW EXECUTE FUNCTION a_trigger();
CREATE RULE old_rule AS ON DELETE TO base DO INSTEAD NOTHING;
CREATE POLICY old_policy ON loose USING (true);
CREATE STATISTICS old_statistics ON id, name FROM loose;
INSERT INTO loose VALUES (1, 1, 'x');`

// lockStatements are run in a transaction that is rolled back.
var lockStatements = []string{
	"ALTER TABLE loose ADD COLUMN a int", "ALTER TABLE loose ADD COLUMN a int DEFAULT random()", "ALTER TABLE loose ADD COLUMN a int REFERENCES parent",
	"ALTER TABLE loose DROP COLUMN name CASCADE", "ALTER TABLE loose RENAME TO a", "ALTER TABLE loose RENAME COLUMN name TO a", "ALTER TABLE parent ALTER name TYPE varchar(5)",
	"ALTER TABLE loose ALTER name SET NOT NULL", "ALTER TABLE loose ALTER name SET DEFAULT 'a'", "ALTER TABLE loose ALTER name DROP DEFAULT",
	"ALTER TABLE loose ALTER name SET STORAGE MAIN", "ALTER TABLE loose ALTER name SET STATISTICS 10", "ALTER TABLE loose ALTER name SET (n_distinct = 1)",
	"ALTER TABLE loose ADD CHECK (id > 0)", "ALTER TABLE loose ADD CHECK (id > 0) NOT VALID", "ALTER TABLE loose ADD UNIQUE (name)",
	"ALTER TABLE loose ADD FOREIGN KEY (parent_id) REFERENCES parent NOT VALID", "ALTER TABLE child DROP CONSTRAINT positive",
	"ALTER TABLE child VALIDATE CONSTRAINT positive", "ALTER TABLE child VALIDATE CONSTRAINT child_fk", "ALTER TABLE loose SET UNLOGGED",
	"ALTER TABLE loose SET (fillfactor = 70)", "ALTER TABLE loose RESET (fillfactor)", "ALTER TABLE loose CLUSTER ON loose_name", "ALTER TABLE loose REPLICA IDENTITY FULL",
	"ALTER TABLE loose OWNER TO CURRENT_USER", "ALTER TABLE loose ENABLE ROW LEVEL SECURITY", "ALTER TABLE loose DISABLE TRIGGER ALL", "ALTER TABLE loose ENABLE TRIGGER USER",
	"ALTER TABLE base INHERIT parted_2", "ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2)", "ALTER TABLE parted DETACH PARTITION parted_1",
	"ALTER TABLE loose SET SCHEMA elsewhere", "ALTER TABLE child RENAME CONSTRAINT positive TO a", "ALTER TABLE child ALTER CONSTRAINT child_fk DEFERRABLE",
	"ALTER VIEW a_view RENAME TO a", "ALTER SEQUENCE a_sequence RESTART", "ALTER INDEX loose_name RENAME TO a", "ALTER INDEX loose_name SET (fillfactor = 70)",
	"ALTER TRIGGER old_trigger ON loose RENAME TO a", "ALTER POLICY old_policy ON loose USING (false)", "ALTER MATERIALIZED VIEW a_matview RENAME TO a",
	"CREATE TABLE a (b int REFERENCES parent)", "CREATE TABLE a PARTITION OF parted FOR VALUES IN (3)", "CREATE TABLE a () INHERITS (base)", "CREATE TABLE a (LIKE loose)",
	"CREATE TABLE a AS SELECT * FROM loose", "CREATE INDEX ON loose (parent_id)", "CREATE TRIGGER a AFTER INSERT ON loose FOR EACH ROW EXECUTE FUNCTION a_trigger()",
	"CREATE RULE a AS ON DELETE TO loose DO INSTEAD NOTHING", "CREATE POLICY a ON loose USING (true)", "CREATE STATISTICS a ON id, parent_id FROM loose",
	"CREATE OR REPLACE VIEW a_view AS SELECT * FROM loose", "CREATE VIEW a AS SELECT * FROM loose", "CREATE PUBLICATION a FOR TABLE loose", "CREATE SEQUENCE a OWNED BY loose.id",
	"DROP INDEX loose_name", "DROP TRIGGER old_trigger ON loose", "DROP RULE old_rule ON base", "DROP POLICY old_policy ON loose", "DROP VIEW a_view",
	"DROP TABLE base", "DROP STATISTICS old_statistics", "DROP SEQUENCE a_sequence", "DROP MATERIALIZED VIEW a_matview",
	"COMMENT ON TABLE loose IS 'a'", "COMMENT ON COLUMN loose.name IS 'a'", "COMMENT ON CONSTRAINT positive ON child IS 'a'", "COMMENT ON TRIGGER old_trigger ON loose IS 'a'",
	"COMMENT ON INDEX loose_name IS 'a'", "GRANT SELECT ON loose TO public", "REVOKE ALL ON loose FROM public",
	"LOCK TABLE loose", "LOCK TABLE loose IN SHARE MODE", "LOCK TABLE loose IN ROW SHARE MODE", "TRUNCATE loose", "ANALYZE loose",
	"CLUSTER loose USING loose_name", "REINDEX TABLE loose", "REINDEX INDEX loose_name", "REFRESH MATERIALIZED VIEW a_matview", "REFRESH MATERIALIZED VIEW CONCURRENTLY a_matview",
	"SELECT * INTO a FROM loose", "DROP TABLE child", "DROP FUNCTION a_trigger() CASCADE", "CREATE SCHEMA a CREATE TABLE b (c int)", "CREATE TYPE a AS ENUM ('b')",
	"CREATE DOMAIN a AS int", "CREATE FUNCTION a() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE ROLE a_role", "DO 'BEGIN END'", "DISCARD TEMP", "SET CONSTRAINTS ALL IMMEDIATE",
	"EXPLAIN SELECT 1", "PREPARE a_statement AS SELECT 1", "DECLARE a CURSOR FOR SELECT 1", "SHOW lock_timeout", "LISTEN a", "UNLISTEN a", "NOTIFY a", "SAVEPOINT a",
	"SET LOCAL lock_timeout = 0", "RESET lock_timeout", "SET TRANSACTION READ ONLY", "MERGE INTO loose USING base ON true WHEN MATCHED THEN DO NOTHING",
}

// beyondText are locks on tables that a statement's text does not name. A
// catalog would show them.
var beyondText = map[string][]string{
	"DROP INDEX loose_name":                                  {"loose"},
	"REINDEX INDEX loose_name":                               {"loose"},
	"DROP TABLE child":                                       {"parent"},
	"DROP FUNCTION a_trigger() CASCADE":                      {"loose"},
	"ALTER TABLE loose DROP COLUMN name CASCADE":             {"a_view", "a_matview"},
	"ALTER TABLE child VALIDATE CONSTRAINT child_fk":         {"parent"},
	"DROP STATISTICS old_statistics":                         {"loose"},
	"ALTER TABLE child ALTER CONSTRAINT child_fk DEFERRABLE": {"parent"},
}

// TestLocksAgainstServer runs statements on a real server and compares the
// locks that they took on tables with the facts: a lock may be weaker than the
// facts say, never stronger. It compares command tags, too.
func TestLocksAgainstServer(t *testing.T) {
	server := pgtest.Shared(t)
	database := server.NewDatabase(t)
	server.MustExec(t, database, lockSchema)
	conn, err := server.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	withoutMerge := server.Major(t) < 15
	for _, text := range lockStatements {
		if withoutMerge && strings.HasPrefix(text, "MERGE ") {
			continue
		}
		measured, commandTag, err := measureLocks(t.Context(), conn, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		s := Parse(text).Statements[0]
		if want := tagOf(s.Kind); commandTag != want {
			t.Errorf("%s: command tag %q, kind %q", text, commandTag, s.Kind)
		}
		if s.NoBlock {
			t.Errorf("%s: runs in a transaction block", text)
		}
		compareLocks(t, text, &s, measured)
	}
}

func compareLocks(t *testing.T, text string, s *inspect.Statement, measured map[string]inspect.LockMode) {
	t.Helper()
	for _, table := range slices.Sorted(maps.Keys(measured)) {
		mode := measured[table]
		i := slices.IndexFunc(s.Relations, func(r inspect.Relation) bool { return r.Name == table })
		switch {
		case i < 0 && (mode <= inspect.AccessShare || table == "loose_name" || slices.Contains(beyondText[text], table)):
		case i < 0:
			t.Errorf("%s: takes %s on %s, which the facts do not name", text, mode, table)
		case s.Relations[i].Lock == inspect.NoLock && mode <= inspect.RowExclusive:
		case mode > s.Relations[i].Lock:
			t.Errorf("%s: takes %s on %s, the facts say %q", text, mode, table, s.Relations[i].Lock)
		case mode < s.Relations[i].Lock:
			t.Logf("%s: takes %s on %s, the facts say %s", text, mode, table, s.Relations[i].Lock)
		}
	}
}

var lockModes = map[string]inspect.LockMode{
	"AccessShareLock": inspect.AccessShare, "RowShareLock": inspect.RowShare, "RowExclusiveLock": inspect.RowExclusive,
	"ShareUpdateExclusiveLock": inspect.ShareUpdateExclusive, "ShareLock": inspect.Share, "ShareRowExclusiveLock": inspect.ShareRowExclusive,
	"ExclusiveLock": inspect.Exclusive, "AccessExclusiveLock": inspect.AccessExclusive,
}

// measureLocks runs the text in a transaction and returns the strongest lock
// on each relation (indexes of tables aside) that was there before.
func measureLocks(ctx context.Context, conn *pgx.Conn, text string) (locks map[string]inspect.LockMode, commandTag string, err error) {
	defer func() {
		_, rollback := conn.Exec(ctx, "ROLLBACK")
		err = errors.Join(err, rollback)
	}()
	names, err := relationNames(ctx, conn)
	if err != nil {
		return nil, "", err
	}
	if _, err = conn.Exec(ctx, "BEGIN"); err != nil {
		return nil, "", err
	}
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, "", err
	}
	commandTag = strings.TrimRight(results[0].CommandTag.String(), " 0123456789")
	rows, err := conn.Query(ctx, "SELECT relation::bigint, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'",
		pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, "", err
	}
	locks = map[string]inspect.LockMode{}
	var oid int64
	var mode string
	_, err = pgx.ForEachRow(rows, []any{&oid, &mode}, func() error {
		if name, ok := names[oid]; ok {
			locks[name] = max(locks[name], lockModes[mode])
		}
		return nil
	})
	return locks, commandTag, err
}

// relationNames returns what is in the schema public, but for indexes that a
// statement does not name.
func relationNames(ctx context.Context, conn *pgx.Conn) (map[int64]string, error) {
	rows, err := conn.Query(ctx, `SELECT oid::bigint, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
		AND (relkind NOT IN ('i', 'I') OR relname = 'loose_name')`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, err
	}
	names := map[int64]string{}
	var oid int64
	var name string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		names[oid] = name
		return nil
	})
	return names, err
}

// TestStatementsThatCannotRunInABlock: the server refuses in a transaction
// block what the facts say it does, and for that reason.
func TestStatementsThatCannotRunInABlock(t *testing.T) {
	server := pgtest.Shared(t)
	database := server.NewDatabase(t)
	server.MustExec(t, database, lockSchema)
	conn, err := server.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, text := range []string{
		"VACUUM loose", "VACUUM", "VACUUM FULL loose", "CLUSTER", "REINDEX TABLE CONCURRENTLY loose", "REINDEX INDEX CONCURRENTLY loose_name",
		"REINDEX SCHEMA public", "REINDEX DATABASE " + database, "REINDEX SYSTEM " + database, "CREATE INDEX CONCURRENTLY ON loose (name)", "DROP INDEX CONCURRENTLY loose_name",
		"CREATE DATABASE a", "DROP DATABASE a", "ALTER DATABASE " + database + " SET TABLESPACE pg_default", "CREATE TABLESPACE a LOCATION '/a'", "DROP TABLESPACE a",
		"ALTER SYSTEM SET work_mem = '4MB'", "ALTER TABLE parted DETACH PARTITION parted_1 CONCURRENTLY", "DISCARD ALL", "COMMIT PREPARED 'a'", "ROLLBACK PREPARED 'a'",
		"CREATE SUBSCRIPTION a CONNECTION 'dbname=a' PUBLICATION b",
	} {
		s := Parse(text).Statements[0]
		if !s.NoBlock {
			t.Errorf("%s: the facts say that it can run in a block", text)
		}
		_, _, err := measureLocks(t.Context(), conn, text)
		if pe, ok := errors.AsType[*pgconn.PgError](err); !ok || pe.Code != "25001" {
			t.Errorf("%s: %v, want SQLSTATE 25001", text, err)
		}
	}
}

// tagOf returns the command tag for a kind: some kinds are more exact.
func tagOf(k inspect.Kind) string {
	switch k {
	case inspect.KindCopyFrom, inspect.KindCopyTo:
		return "COPY"
	case inspect.KindRollbackTo:
		return "ROLLBACK"
	case "CREATE TABLE AS", "SELECT INTO", "CREATE MATERIALIZED VIEW":
		return "SELECT" // with the number of rows
	case inspect.KindDiscard:
		return "DISCARD TEMP" // the only one that is tried
	default:
		return string(k)
	}
}

// boundSchema is a table for the conditions of TestConditions, without NULLs:
// a comparison of a column with itself passes over them.
const boundSchema = `
CREATE TABLE m (id int PRIMARY KEY, name text DEFAULT 'x', ref text DEFAULT 'y', active bool DEFAULT true, to_delete bool DEFAULT true, amount numeric DEFAULT 1,
  parent_id int DEFAULT 1, partner_id int DEFAULT 3, warehouse_id int DEFAULT 1, other_id int DEFAULT 1, move_id int DEFAULT 1, a int DEFAULT 6, other int DEFAULT 1,
  date timestamp DEFAULT '2020-01-01', create_date timestamp DEFAULT '2020-01-01', ids int[] DEFAULT '{1}');
INSERT INTO m (id) SELECT generate_series(1, 40);
UPDATE m SET name = 'a', active = false, to_delete = false, parent_id = 2, partner_id = 1, a = 3 WHERE id % 2 = 0;
CREATE TABLE other (id int PRIMARY KEY, v text, ids int[]);
INSERT INTO other VALUES (1, 'a', '{1,2}'), (2, 'x', '{3}'), (3, 'y', '{4}');`

// TestBoundsAgainstServer asks a real server how many rows conditions hold
// for: those that are vacuous for all or none, those that are keyed for no
// more than the list is long.
func TestBoundsAgainstServer(t *testing.T) {
	server := pgtest.Shared(t)
	database := server.NewDatabase(t)
	server.MustExec(t, database, boundSchema)
	conn, err := server.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	list := combinedConditions(1500)
	for want, more := range conditions() {
		if want != "cursor" {
			list = append(list, more...)
		}
	}
	// These hold for no row here, and may for all: an OR with one is vacuous.
	never := []string{"(SELECT count(*) FROM other) > 5", "current_user = 'odoo'", "NOT EXISTS (SELECT FROM other)"}
	list = slices.DeleteFunc(list, func(c string) bool {
		return slices.ContainsFunc(never, func(part string) bool { return strings.Contains(c, part) })
	})
	asked := 0
	for _, c := range list {
		var count int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM m WHERE "+c, pgx.QueryExecModeSimpleProtocol).Scan(&count)
		if err != nil {
			continue // parameters, types that do not fit
		}
		asked++
		r := Parse("DELETE FROM m WHERE " + c).Statements[0].Relations[0]
		if r.Bound == inspect.BoundVacuous && count != 0 && count != 40 {
			t.Errorf("vacuous, but holds for %d of 40 rows: %s", count, c)
		}
		if r.Bound == inspect.BoundKeyed && r.Rows > 0 && count > r.Rows {
			t.Errorf("keyed(%d), but holds for %d rows: %s", r.Rows, count, c)
		}
	}
	if asked < len(list)/2 {
		t.Errorf("only %d of %d conditions could be asked", asked, len(list))
	}
	t.Logf("%d of %d conditions asked", asked, len(list))
}

// TestNewerGrammarsAgainstServer asks a server whether newerGrammars says the
// truth: it takes the texts since that version, and not before.
func TestNewerGrammarsAgainstServer(t *testing.T) {
	pg := pgtest.Shared(t)
	major := pg.Major(t)
	conn, err := pg.Connect(t.Context(), pg.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, tt := range newerGrammars {
		_, err := conn.PgConn().Exec(t.Context(), "BEGIN; "+tt.text+"; ROLLBACK").ReadAll()
		failed, _ := errors.AsType[*pgconn.PgError](err)
		refused := failed != nil && failed.Code == "42601"
		if refused != (major < tt.since) {
			t.Errorf("PostgreSQL %d, since %d: %s: %v", major, tt.since, tt.text, err)
		}
		if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
}
