package proxy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

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
