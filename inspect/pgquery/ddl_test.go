package pgquery

import (
	"testing"

	"lockkeeper/inspect"
)

func TestDDL(t *testing.T) {
	checkCases(t, []parseCase{
		{"CREATE TABLE t (id serial PRIMARY KEY, p int REFERENCES p, CHECK (f(id)))", "define CREATE TABLE | t: define | p: define; SHARE ROW EXCLUSIVE # function"},
		{"CREATE TEMP TABLE IF NOT EXISTS t (FOREIGN KEY (a) REFERENCES s.p (b))", "define CREATE TABLE | t: define | s.p: define; SHARE ROW EXCLUSIVE"},
		{"CREATE TABLE t PARTITION OF p FOR VALUES IN (1)", "define CREATE TABLE | t: define | p: define; ACCESS EXCLUSIVE"},
		{"CREATE TABLE t () INHERITS (a, b)", "define CREATE TABLE | t: define | a: define; SHARE UPDATE EXCLUSIVE | b: define; SHARE UPDATE EXCLUSIVE"},
		{"CREATE TABLE t (LIKE a INCLUDING ALL)", "define CREATE TABLE | t: define | a: read; ACCESS SHARE"},
		{"CREATE FOREIGN TABLE t (a int) SERVER s", "define CREATE FOREIGN TABLE | t: define"},
		{"ALTER TABLE a ADD COLUMN b int", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ADD b int DEFAULT 0, ADD c timestamp DEFAULT now()", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ADD b float DEFAULT random()", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a ADD b int DEFAULT my_function()", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite # function"},
		{"ALTER TABLE a ADD b serial", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a ADD b int GENERATED ALWAYS AS IDENTITY", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a ADD b int GENERATED ALWAYS AS (c + 1) STORED", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a ADD b int REFERENCES p", "define ALTER TABLE | p: define; SHARE ROW EXCLUSIVE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES p NOT VALID", "define ALTER TABLE | p: define; SHARE ROW EXCLUSIVE | a: define; SHARE ROW EXCLUSIVE"},
		{"ALTER TABLE a ADD CONSTRAINT c UNIQUE (b)", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES p, ALTER b SET NOT NULL", "define ALTER TABLE | p: define; SHARE ROW EXCLUSIVE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ALTER b TYPE text", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a SET UNLOGGED", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"ALTER TABLE a VALIDATE CONSTRAINT c", "define ALTER TABLE | a: define; SHARE UPDATE EXCLUSIVE"},
		{"ALTER TABLE a DISABLE TRIGGER ALL", "define ALTER TABLE | a: define; SHARE ROW EXCLUSIVE"},
		{"ALTER TABLE a SET (fillfactor = 70)", "define ALTER TABLE | a: define; SHARE UPDATE EXCLUSIVE"},
		{"ALTER TABLE a OWNER TO x", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a ATTACH PARTITION b DEFAULT", "define ALTER TABLE | b: define; ACCESS EXCLUSIVE | a: define; SHARE UPDATE EXCLUSIVE"},
		{"ALTER TABLE a DETACH PARTITION b", "define ALTER TABLE | b: define; ACCESS EXCLUSIVE | a: define; ACCESS EXCLUSIVE"},
		{
			"ALTER TABLE a DETACH PARTITION b CONCURRENTLY",
			"define ALTER TABLE | b: define; ACCESS EXCLUSIVE | a: define; SHARE UPDATE EXCLUSIVE # noblock, concurrently",
		},
		{"ALTER TABLE a INHERIT b", "define ALTER TABLE | b: define; SHARE UPDATE EXCLUSIVE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a RENAME TO b", "define ALTER TABLE | a: define, rename; ACCESS EXCLUSIVE # name=b"},
		{"ALTER TABLE a RENAME COLUMN b TO c", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a RENAME CONSTRAINT b TO c", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TABLE a SET SCHEMA s", "define ALTER TABLE | a: define; ACCESS EXCLUSIVE"},
		{"ALTER VIEW v RENAME TO w", "define ALTER VIEW | v: define; ACCESS EXCLUSIVE # name=w"},
		{"ALTER INDEX i RENAME TO j", "define ALTER INDEX | i: define, rename; SHARE UPDATE EXCLUSIVE # name=j"},
		{"ALTER INDEX i SET (fillfactor = 70)", "define ALTER INDEX | i: define; SHARE UPDATE EXCLUSIVE"},
		{"ALTER TRIGGER g ON a RENAME TO h", "define ALTER TRIGGER | a: define; ACCESS EXCLUSIVE"},
		{"ALTER TYPE y RENAME ATTRIBUTE a TO b", "define ALTER TYPE | y: define"},
		{"ALTER TYPE y ADD VALUE 'x'", "define ALTER TYPE"},
		{"ALTER SEQUENCE q RESTART", "define ALTER SEQUENCE | q: define; SHARE ROW EXCLUSIVE"},
		{"CREATE SEQUENCE q", "define CREATE SEQUENCE | q: define"},
		{"DROP TABLE IF EXISTS a, s.b CASCADE", "define DROP TABLE | a: define; ACCESS EXCLUSIVE | s.b: define; ACCESS EXCLUSIVE"},
		{"DROP VIEW v", "define DROP VIEW | v: define; ACCESS EXCLUSIVE"},
		{"DROP INDEX i", "define DROP INDEX | i: define; ACCESS EXCLUSIVE"},
		{"DROP INDEX CONCURRENTLY s.i", "define DROP INDEX | s.i: define; SHARE UPDATE EXCLUSIVE # noblock, concurrently"},
		{"DROP TRIGGER g ON s.a", "define DROP TRIGGER | s.a: define; ACCESS EXCLUSIVE"},
		{"DROP RULE r ON a", "define DROP RULE | a: define; ACCESS EXCLUSIVE"},
		{"DROP POLICY p ON a", "define DROP POLICY | a: define; ACCESS EXCLUSIVE"},
		{"DROP FUNCTION f(int), g", "define DROP FUNCTION"},
		{"DROP SCHEMA public CASCADE", "define DROP SCHEMA"},
		{"DROP EXTENSION x", "define DROP EXTENSION"},
		{"DROP TYPE y", "define DROP TYPE"},
		{"CREATE UNIQUE INDEX ON s.a (f(b)) WHERE c", "define CREATE INDEX | s.a: define; SHARE # function"},
		{"CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (b)", "define CREATE INDEX | a: define; SHARE UPDATE EXCLUSIVE # noblock, concurrently"},
		{"CREATE TRIGGER g AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()", "define CREATE TRIGGER | a: define; SHARE ROW EXCLUSIVE"},
		{"CREATE RULE r AS ON DELETE TO a DO INSTEAD DELETE FROM b", "define CREATE RULE | a: define; ACCESS EXCLUSIVE | b: delete; none"},
		{"CREATE POLICY p ON a USING (true)", "define CREATE POLICY | a: define; ACCESS EXCLUSIVE"},
		{"ALTER POLICY p ON a USING (true)", "define ALTER POLICY | a: define; ACCESS EXCLUSIVE"},
		{"CREATE STATISTICS x ON b, c FROM a", "define CREATE STATISTICS | a: define; SHARE UPDATE EXCLUSIVE"},
		{"CREATE VIEW v AS SELECT * FROM a", "define CREATE VIEW | v: define | a: read"},
		{"CREATE OR REPLACE VIEW v AS SELECT * FROM a", "define CREATE VIEW | v: define; ACCESS EXCLUSIVE | a: read"},
		{"COMMENT ON TABLE s.a IS 'x'", "define COMMENT | s.a: define; SHARE UPDATE EXCLUSIVE"},
		{"COMMENT ON COLUMN s.a.b IS 'x'", "define COMMENT | s.a: define; SHARE UPDATE EXCLUSIVE"},
		{"COMMENT ON CONSTRAINT c ON a IS 'x'", "define COMMENT | a: define; ACCESS SHARE"},
		{"COMMENT ON FUNCTION f() IS 'x'", "define COMMENT"},
		{"GRANT SELECT ON a, s.b TO x", "define GRANT | a: define; ACCESS SHARE | s.b: define; ACCESS SHARE"},
		{"REVOKE ALL ON ALL TABLES IN SCHEMA s FROM x", "define REVOKE"},
		{"GRANT x TO y", "define GRANT ROLE"},
		{"GRANT EXECUTE ON FUNCTION f() TO x", "define GRANT"},
		{"LOCK a", "define LOCK TABLE | a: define; ACCESS EXCLUSIVE"},
		{"LOCK TABLE a, s.b IN ACCESS SHARE MODE NOWAIT", "define LOCK TABLE | a: define; ACCESS SHARE | s.b: define; ACCESS SHARE"},
		{"LOCK a IN SHARE ROW EXCLUSIVE MODE", "define LOCK TABLE | a: define; SHARE ROW EXCLUSIVE"},
		{"VACUUM", "define VACUUM # noblock"},
		{"VACUUM (ANALYZE) a (b), c", "define VACUUM | a: define; SHARE UPDATE EXCLUSIVE | c: define; SHARE UPDATE EXCLUSIVE # noblock"},
		{"VACUUM FULL a", "define VACUUM | a: define; ACCESS EXCLUSIVE; rewrite # noblock"},
		{"VACUUM (FULL false) a", "define VACUUM | a: define; SHARE UPDATE EXCLUSIVE # noblock"},
		{"ANALYZE a", "define ANALYZE | a: define; SHARE UPDATE EXCLUSIVE"},
		{"CLUSTER", "define CLUSTER # noblock"},
		{"CLUSTER a USING i", "define CLUSTER | a: define; ACCESS EXCLUSIVE; rewrite"},
		{"REINDEX TABLE a", "define REINDEX | a: define; SHARE"},
		{"REINDEX INDEX i", "define REINDEX | i: define; ACCESS EXCLUSIVE"},
		{"REINDEX TABLE CONCURRENTLY a", "define REINDEX | a: define; SHARE UPDATE EXCLUSIVE # noblock, concurrently"},
		{"REINDEX (CONCURRENTLY) INDEX i", "define REINDEX | i: define; SHARE UPDATE EXCLUSIVE # noblock, concurrently"},
		{"REINDEX SCHEMA s", "define REINDEX # noblock"},
		{"REFRESH MATERIALIZED VIEW v", "define REFRESH MATERIALIZED VIEW | v: define; ACCESS EXCLUSIVE; rewrite"},
		{"REFRESH MATERIALIZED VIEW CONCURRENTLY v", "define REFRESH MATERIALIZED VIEW | v: define; EXCLUSIVE"},
		{
			"CREATE SCHEMA s CREATE TABLE t (a int REFERENCES p) CREATE VIEW v AS SELECT 1",
			"define CREATE SCHEMA | t: define | p: define; SHARE ROW EXCLUSIVE | v: define",
		},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "define CREATE FUNCTION"},
		{"CREATE PROCEDURE f() LANGUAGE sql SET lock_timeout = 0 AS 'SELECT 1'", "define CREATE PROCEDURE # settings"},
		{"CREATE AGGREGATE g (int) (SFUNC = f, STYPE = int)", "define CREATE AGGREGATE"},
		{"ALTER FUNCTION f() SET lock_timeout = 0", "define ALTER FUNCTION # settings"},
		{"CREATE EXTENSION hstore", "define CREATE EXTENSION"},
		{"CREATE DATABASE d", "define CREATE DATABASE # noblock"},
		{"DROP DATABASE d", "define DROP DATABASE # noblock"},
		{"ALTER DATABASE d SET TABLESPACE s", "define ALTER DATABASE # noblock"},
		{"ALTER DATABASE d CONNECTION LIMIT 1", "define ALTER DATABASE"},
		{"ALTER DATABASE d SET lock_timeout = 0", "define ALTER DATABASE"},
		{"CREATE TABLESPACE s LOCATION '/x'", "define CREATE TABLESPACE # noblock"},
		{"DROP TABLESPACE s", "define DROP TABLESPACE # noblock"},
		{"ALTER SYSTEM SET work_mem = 1", "define ALTER SYSTEM # noblock"},
		{"CREATE ROLE x", "define CREATE ROLE"},
		{"ALTER ROLE x SET lock_timeout = 0", "define ALTER ROLE"},
		{"DROP OWNED BY x", "define DROP OWNED"},
		{"CREATE PUBLICATION p FOR TABLE a, TABLES IN SCHEMA s", "define CREATE PUBLICATION | a: define; SHARE UPDATE EXCLUSIVE"},
		{"ALTER PUBLICATION p ADD TABLE a", "define ALTER PUBLICATION | a: define; SHARE UPDATE EXCLUSIVE"},
		{"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "define CREATE SUBSCRIPTION # noblock"},
		{"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (create_slot = false)", "define CREATE SUBSCRIPTION"},
		{"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false)", "define CREATE SUBSCRIPTION"},
		{"ALTER SUBSCRIPTION s REFRESH PUBLICATION", "define ALTER SUBSCRIPTION # noblock"},
		{"ALTER SUBSCRIPTION s SET PUBLICATION p WITH (refresh = false)", "define ALTER SUBSCRIPTION"},
		{"ALTER SUBSCRIPTION s DISABLE", "define ALTER SUBSCRIPTION"},
		{"DROP SUBSCRIPTION s", "define DROP SUBSCRIPTION # noblock"},
		{"CHECKPOINT", "define CHECKPOINT"},
		{"SECURITY LABEL ON TABLE a IS 'x'", "define SECURITY LABEL | a: define; SHARE UPDATE EXCLUSIVE"},
		{"IMPORT FOREIGN SCHEMA s FROM SERVER r INTO t", "define IMPORT FOREIGN SCHEMA"},
		{"CREATE DOMAIN d AS int", "define CREATE DOMAIN"},
		{"CREATE TYPE y AS ENUM ('a')", "define CREATE TYPE"},
		{"CREATE TYPE y AS (a int)", "define CREATE TYPE"},
		{"CREATE TYPE y", "define CREATE TYPE"},
	})
}

// TestEveryStatementOfTheGrammarHasAClass: no node of the grammar that can
// stand alone is left to chance.
func TestEveryStatementOfTheGrammarHasAClass(t *testing.T) {
	for name := range simpleKinds {
		if kind := simpleKinds[name]; kind == "" {
			t.Errorf("%s has no kind", name)
		}
	}
	if got := statementKind("ALTER OPERATOR FAMILY f USING btree RENAME TO g"); got != "ALTER OPERATOR FAMILY" {
		t.Errorf("%q", got)
	}
}

func statementKind(text string) inspect.Kind {
	b := Parse(text)
	if len(b.Statements) != 1 {
		return ""
	}
	return b.Statements[0].Kind
}
