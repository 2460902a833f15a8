package catalog_test

import (
	"strings"
	"testing"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
)

// callers is a schema in which functions do what no text shows.
const callers = `
CREATE TABLE move (id int PRIMARY KEY, state text, total int);
CREATE TABLE audit (n int);
CREATE TABLE plain (n int);
CREATE TABLE guarded (n int);
CREATE FUNCTION wipe() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = 0 SET search_path = public AS
	$$BEGIN DELETE FROM move; RETURN true; END$$;
CREATE FUNCTION sql_wipe() RETURNS SETOF move LANGUAGE sql AS 'UPDATE move SET state = '''' WHERE true RETURNING *';
CREATE FUNCTION outer_wipe() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM wipe(); RETURN 1; END';
CREATE FUNCTION one(which int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record; gone int;
BEGIN
	-- DELETE FROM plain;
	FOR r IN DELETE FROM audit WHERE n = which RETURNING n LOOP NULL; END LOOP;
	IF which > 1 THEN UPDATE move SET total = total + 1 WHERE id = which RETURNING id INTO gone; END IF;
	INSERT INTO plain VALUES (which) ON CONFLICT DO NOTHING;
	PERFORM 'TRUNCATE guarded', 1 FROM move FOR UPDATE;
END$$;
CREATE FUNCTION dynamic() RETURNS void LANGUAGE plpgsql STABLE AS $$BEGIN EXECUTE 'SELECT 1'; END$$;
CREATE FUNCTION reads(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM move';
CREATE FUNCTION reads(text) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM plain';
CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION round(bool) RETURNS bool LANGUAGE plpgsql AS 'BEGIN DELETE FROM move; RETURN $1; END';
CREATE OPERATOR #### (RIGHTARG = int, FUNCTION = pure);
CREATE FUNCTION delete_both(int, int) RETURNS bool LANGUAGE sql AS 'DELETE FROM move; SELECT true';
CREATE OPERATOR #### (LEFTARG = int, RIGHTARG = int, FUNCTION = delete_both);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN TRUNCATE move; RETURN NEW; END';
CREATE TRIGGER t AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER off AFTER UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE audit DISABLE TRIGGER off;
ALTER TABLE plain ALTER n SET DEFAULT outer_wipe();
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (wipe());
CREATE VIEW v AS SELECT wipe() AS gone;
CREATE FUNCTION clock() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN clock_timestamp(); END';
CREATE VIEW clocks AS SELECT clock();
CREATE FUNCTION fills() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM work; END';
CREATE FUNCTION commented() RETURNS void LANGUAGE plpgsql STABLE AS 'BEGIN /*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/* */*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/ DELETE FROM move; END';
CREATE FUNCTION unread() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM move; SELECT 1; END;
`

// Functions are what their sources do, and so are the relations whose use runs
// them.
func TestWhatFunctionsChange(t *testing.T) {
	o := open(t, callers)
	conn, err := o.pg.Connect(t.Context(), o.db) // another session, with a temporary table
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE work (id int)"); err != nil {
		t.Fatal(err)
	}
	o.refresh()
	for _, c := range []struct{ sql, want, class string }{
		{"SELECT wipe()", "move: delete none", "write"},
		{"SELECT public.wipe()", "move: delete none", "write"},
		{"SELECT * FROM sql_wipe()", "move: update vacuous", "write"},
		{"COPY (SELECT * FROM sql_wipe()) TO STDOUT", "move: update vacuous", "write"},
		{"SELECT outer_wipe()", "move: delete none", "write"},
		{"UPDATE guarded SET n = 1 WHERE n = 2", "guarded: update predicate; move: delete none", "write"},
		{"SELECT one(5)", "audit: delete predicate; move: update, delete none; plain: insert", "write"},
		{"SELECT pure(1), reads(1), lower('x'), nextval('s')", "", "read"},
		{"SELECT round(true)", "move: delete none", "write"},
		{"SELECT pg_catalog.round(1)", "", "read"},
		{"SELECT 1 #### 2", "move: delete none", "write"},
		{"INSERT INTO audit VALUES (1)", "audit: insert; move: truncate none", "write"},
		{"COPY audit FROM STDIN", "audit: insert; move: truncate none", "write"},
		{"UPDATE audit SET n = 1 WHERE n = 2", "audit: update predicate", "write"},
		{"INSERT INTO plain DEFAULT VALUES", "plain: insert; move: delete none", "write"},
		{"DELETE FROM plain WHERE n = 1", "plain: delete predicate", "write"},
		{"SELECT * FROM guarded", "guarded: read; move: delete none", "write"},
		{"SELECT * FROM v", "v: read; move: delete none", "write"},
		{"SELECT unread()", "", "read"},
		{"SELECT commented()", "", "read"},
		{"SELECT fills()", "", "read"},
		{"CREATE VIEW w AS SELECT wipe()", "w: define", "define"},
		{"PREPARE p AS SELECT wipe()", "move: delete none", "write"},
		{"EXPLAIN SELECT wipe()", "", "read"},
		{"EXPLAIN SELECT * FROM v", "v: read", "read"},
		{"EXPLAIN ANALYZE SELECT * FROM v", "v: read; move: delete none", "write"},
		{"CREATE VIEW w AS SELECT * FROM v", "w: define; v: read", "define"},
	} {
		b := o.resolve(c.sql)
		if got := strings.Join(facts(b), "; "); got != c.want || b.Class.String() != c.class {
			t.Errorf("%s is %v and does\n%s, want %s:\n%s", c.sql, b.Class, got, c.class, c.want)
		}
	}
}

// What is known of a call is that of the most dangerous function of the name.
func TestWhatCallsAre(t *testing.T) {
	o := open(t, callers)
	for sql, want := range map[string]inspect.CallEffect{
		"SELECT wipe()": inspect.CallVolatile, "SELECT outer_wipe()": inspect.CallVolatile, "SELECT dynamic()": inspect.CallVolatile,
		"SELECT unread()": inspect.CallVolatile, "SELECT commented()": inspect.CallVolatile, "SELECT reads(1)": inspect.CallVolatile, "SELECT nobody()": inspect.CallMissing,
		"SELECT other.nextval('s')": inspect.CallMissing, "SELECT pg_catalog.wipe()": inspect.CallMissing,
		"SELECT pure(1)": inspect.CallStable, "SELECT nextval('s')": inspect.CallBuiltIn, "SELECT lower('x')": inspect.CallBuiltIn,
		"SELECT round(1)": inspect.CallVolatile, `SELECT "WIPE"()`: inspect.CallVolatile,
	} {
		st := o.resolve(sql).Statements[0]
		if got := st.Calls[0].Effect; got != want {
			t.Errorf("%s: effect %d, want %d", sql, got, want)
		}
		if may := want == inspect.CallVolatile || want == inspect.CallMissing; st.MayWrite() != may || st.CallsVolatile() != may {
			t.Errorf("%s: may write %v, calls volatile %v", sql, st.MayWrite(), st.CallsVolatile())
		}
	}
	if st := o.resolve("SELECT * FROM clocks").Statements[0]; !st.MayWrite() || st.Calls[0].Via != "the query of clocks" {
		t.Errorf("of a view that calls a VOLATILE function is known %+v", st.Calls)
	}
	if st := pgquery.Parse("SELECT wipe()").Statements[0]; st.MayWrite() || !st.CallsVolatile() {
		t.Error("without a catalog nobody knows, and a rule about it has to match")
	}
	if st := o.resolve("SELECT round(true)").Statements[0]; st.Hidden&inspect.HiddenFunction == 0 {
		t.Error("a user's function that has a built-in one's name is taken for that")
	}
	more := o.resolve("SELECT wipe()").Statements[0].Calls[0].More
	if more == nil || more.Language != "plpgsql" || !more.Definer || strings.Join(more.Settings, " ") != "lock_timeout search_path" {
		t.Errorf("of wipe() is known %+v", more)
	}
}

// A table's size is what VACUUM has noted, with the partitions'.
func TestSizes(t *testing.T) {
	o := open(t, `CREATE TABLE big (id int PRIMARY KEY, note text);
		INSERT INTO big SELECT n, repeat('x', 100) FROM generate_series(1, 1000) n;
		CREATE TABLE parted (id int) PARTITION BY RANGE (id);
		CREATE TABLE part_a PARTITION OF parted FOR VALUES FROM (0) TO (10);
		CREATE TABLE part_b PARTITION OF parted FOR VALUES FROM (10) TO (20);
		INSERT INTO parted SELECT n FROM generate_series(0, 19) n; CREATE TABLE fresh (id int)`)
	o.exec("ANALYZE")
	o.refresh()
	for sql, want := range map[string]inspect.Size{
		"DELETE FROM big": {Bytes: 18 * 8192, Rows: 1000}, "ALTER TABLE parted ADD x int": {Bytes: 2 * 8192, Rows: 20}, "DELETE FROM part_a": {Bytes: 8192, Rows: 10},
	} {
		if got := o.resolve(sql).Statements[0].Relations[0].Size; got == nil || *got != want {
			t.Errorf("%s: size %+v, want %+v", sql, got, want)
		}
	}
	for _, sql := range []string{"DELETE FROM fresh", "SELECT * FROM big"} {
		if got := o.resolve(sql).Statements[0].Relations[0].Size; got != nil {
			t.Errorf("%s: size %+v", sql, got)
		}
	}
}
