package proxy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
)

func catalogued(s *setup) { s.catalog = true }

// knowingPeer connects, and waits until lockkeeper knows what is in the database.
func (g *guard) knowingPeer() *peer {
	g.t.Helper()
	p := g.peer()
	if err := g.catalogs.Refresh(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	return p
}

// indirect are statements that change account_move by another name.
const indirect = `
CREATE VIEW moves AS SELECT * FROM account_move;
CREATE VIEW drafts AS SELECT id, state FROM moves;
CREATE TABLE parent (LIKE account_move);
ALTER TABLE account_move INHERIT parent;
CREATE TABLE noted (id int PRIMARY KEY);
CREATE RULE wipe AS ON UPDATE TO noted DO ALSO DELETE FROM account_move;
CREATE TABLE owner (id int PRIMARY KEY);
ALTER TABLE account_move ADD owner_id int REFERENCES owner ON DELETE CASCADE;
CREATE INDEX moves_idx ON account_move (state)`

// A statement that comes right behind the login is not judged before the
// catalog is there, however long that takes.
func TestTheFirstStatementWaitsForTheCatalog(t *testing.T) {
	g := newGuard(t, catalogued, func(s *setup) {
		s.catalogNow = func() time.Time { time.Sleep(100 * time.Millisecond); return time.Now() } // several times in a load
	})
	g.pg.MustExec(t, g.db, "CREATE VIEW moves AS SELECT * FROM account_move")
	conn, err := rawDial(t, g.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
	p.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": pgtest.Superuser, "database": g.db}},
		&pgproto3.Query{String: "DELETE FROM moves"})
	p.until('Z')
	if got := strings.Join(p.until('Z'), " "); !strings.Contains(got, "23G01") {
		t.Errorf("the first statement: %s", got)
	}
}

func TestOtherNamesOfACriticalTable(t *testing.T) {
	g := newGuard(t, catalogued)
	g.pg.MustExec(t, g.db, indirect)
	p := g.knowingPeer()
	refused := func(sql string) {
		t.Helper()
		got := strings.Join(p.query(sql), " ")
		if !strings.Contains(got, "23G01") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	for _, sql := range []string{
		"DELETE FROM moves", "UPDATE drafts SET state = ''", "DELETE FROM parent", "UPDATE noted SET id = 1 WHERE id = 1", "DELETE FROM owner", "TRUNCATE owner CASCADE",
		"UPDATE account_move SET state = '' WHERE state IN (SELECT state FROM noted)",
		"WITH gone AS (DELETE FROM moves RETURNING 1) SELECT * FROM gone", "PREPARE p AS DELETE FROM moves", "DO $$ BEGIN DELETE FROM drafts; END $$",
	} {
		refused(sql)
	}
	for _, sql := range []string{"DELETE FROM owner WHERE id = 1", "UPDATE moves SET state = 'x' WHERE id = 1", "SELECT count(*) FROM drafts", "DELETE FROM ONLY parent"} {
		p.ok(sql)
	}
	_, err := g.connect("").Exec(t.Context(), "DELETE FROM moves")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || !strings.Contains(e.Message, `"public.account_move" (through view moves)`) {
		t.Errorf("the refusal says: %v", err)
	}
}

// A view that the transaction itself has made is as good as one that is in the
// catalog, and so is a statement that was prepared before it.
func TestViewsThatTheSessionMakes(t *testing.T) {
	g := newGuard(t, catalogued)
	p := g.knowingPeer()
	for _, sql := range []string{"BEGIN", "CREATE VIEW fresh AS SELECT * FROM account_move"} {
		p.ok(sql)
	}
	if got := strings.Join(p.query("DELETE FROM fresh"), " "); !strings.Contains(got, "23G01") {
		t.Errorf("in the transaction: %s", got)
	}
	p.query("ROLLBACK")
	p.ok("CREATE TABLE plain (id int)")
	p.send(&pgproto3.Parse{Name: "wipe", Query: "DELETE FROM plain"}, &pgproto3.Sync{})
	p.until('Z')
	p.ok("DROP TABLE plain; CREATE VIEW plain AS SELECT * FROM account_move")
	p.send(&pgproto3.Bind{PreparedStatement: "wipe"}, &pgproto3.Execute{}, &pgproto3.Sync{})
	if got := strings.Join(p.until('Z'), " "); !strings.Contains(got, "23G01") {
		t.Errorf("prepared before: %s", got)
	}
	if n := g.pg.Value(t, g.db, "SELECT count(*) FROM account_move"); n != "500" {
		t.Errorf("%s rows left", n)
	}
}

// Nothing is refused because of names that nobody has to know.
func TestTablesThatTheSessionMakes(t *testing.T) {
	g := newGuard(t, catalogued)
	p := g.knowingPeer()
	for _, sql := range []string{
		"BEGIN", "CREATE TEMP TABLE work AS SELECT id FROM account_move", "UPDATE work SET id = 1", "DELETE FROM work",
		"CREATE TABLE kept (id int, move_id int REFERENCES account_move ON DELETE CASCADE)", "INSERT INTO kept VALUES (1, 1)", "UPDATE kept SET id = 2",
		"ALTER TABLE kept ADD partner_id int REFERENCES res_partner", "UPDATE kept SET partner_id = NULL", "ALTER TABLE kept RENAME TO renamed", "UPDATE renamed SET id = 3",
		"DO $$ BEGIN CREATE TEMP TABLE other (id int); END $$", "INSERT INTO other VALUES (1)", "COMMIT", "TRUNCATE work",
	} {
		p.ok(sql)
	}
}

// DDL that locks a critical table which its text does not name gives up like
// any other.
func TestLocksThatTheTextDoesNotName(t *testing.T) {
	g := newGuard(t, catalogued, func(s *setup) { s.policy = impatient(t) })
	g.pg.MustExec(t, g.db, indirect+"; CREATE TABLE refers (id int REFERENCES account_move)")
	blocker := newPeer(t, g.pg.Addr(), "postgres", g.db)
	blocker.ok("BEGIN; LOCK TABLE account_move IN ROW EXCLUSIVE MODE")
	p := g.knowingPeer()
	for _, sql := range []string{"DROP INDEX moves_idx", "REINDEX INDEX moves_idx", "DROP TABLE refers", "LOCK TABLE moves"} {
		if strings.HasPrefix(sql, "LOCK") {
			p.ok("BEGIN")
		}
		if got := strings.Join(p.query(sql), " "); !strings.Contains(got, "55P03") {
			t.Errorf("%s: %s", sql, got)
		}
	}
}

// unseenWrites are what changes account_move where no text says so.
const unseenWrites = `
CREATE TABLE audit (n int);
CREATE FUNCTION wipe() RETURNS bool LANGUAGE plpgsql AS 'BEGIN DELETE FROM account_move; RETURN true; END';
CREATE FUNCTION close_one(which int) RETURNS void LANGUAGE sql AS 'UPDATE account_move SET state = ''closed'' WHERE id = which';
CREATE FUNCTION clock() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN clock_timestamp(); END';
CREATE FUNCTION steady() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN TRUNCATE account_move; RETURN NEW; END';
CREATE TRIGGER t AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION fire();
CREATE VIEW moves AS SELECT * FROM account_move;`

// What functions change is refused as if the text said so, and is in the
// journal like any other write, with the tables behind other names.
func TestWhatFunctionsHide(t *testing.T) {
	g := newGuard(t, catalogued)
	g.pg.MustExec(t, g.db, unseenWrites)
	p := g.knowingPeer()
	for _, sql := range []string{"SELECT wipe()", "UPDATE other SET v = '' WHERE id = 1 AND wipe()", "INSERT INTO audit VALUES (1)", "COPY audit FROM STDIN"} {
		if got := strings.Join(p.query(sql), " "); !strings.Contains(got, "23G01") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	for _, sql := range []string{"SELECT close_one(1)", "SELECT clock()", "SELECT steady()", "UPDATE moves SET state = 'x' WHERE id = 2"} {
		p.ok(sql)
	}
	p.send(&pgproto3.Parse{Query: "SELECT clock()"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	p.until('Z')
	var got []string
	for _, e := range g.journal(journal.StatementEntry) {
		got = append(got, strings.Join([]string{e.Class, e.Statement, strings.Join(e.Tables, "+"), e.Detail}, " "))
	}
	want := []string{
		"write SELECT public.account_move calls close_one", "read SELECT  calls clock", "write UPDATE moves+public.account_move ", "read SELECT  calls clock",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the journal has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, e := range g.journal(journal.RefusalEntry) {
		if !slices.Contains(e.Tables, "public.account_move") {
			t.Errorf("a refusal of %s is journalled with %v", e.Statement, e.Tables)
		}
	}
}

// A rule can be about statements that call functions which may write.
func TestRulesAboutCalls(t *testing.T) {
	g := newGuard(t, catalogued, func(s *setup) {
		s.policy = "profile: odoo\nrules: [{name: no-volatile, match: {calls: volatile, classes: [read]}, action: refuse}]"
	})
	g.pg.MustExec(t, g.db, unseenWrites)
	p := g.knowingPeer()
	for _, sql := range []string{"SELECT clock()", "SELECT * FROM nobody()"} {
		if got := strings.Join(p.query(sql), " "); !strings.Contains(got, "23G01") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	for _, sql := range []string{"SELECT steady(), now()", "SELECT pg_advisory_lock(1)", "SELECT close_one(1)"} {
		p.ok(sql)
	}
}
