package catalog_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/internal/pgtest"
)

// base is a schema with one of everything that leads from one name to another.
const base = `
CREATE TABLE partner (id int PRIMARY KEY, name text NOT NULL, code text UNIQUE, note text, lower_code text);
CREATE UNIQUE INDEX ON partner (lower(lower_code));
CREATE TABLE move (id int PRIMARY KEY, partner_id int REFERENCES partner ON DELETE CASCADE ON UPDATE CASCADE, state text);
CREATE TABLE line (id int PRIMARY KEY, move_id int REFERENCES move ON DELETE CASCADE, next_id int REFERENCES line ON DELETE SET NULL);
CREATE TABLE tag (id int PRIMARY KEY, line_id int REFERENCES line ON DELETE SET DEFAULT);
CREATE TABLE kept (id int PRIMARY KEY, move_id int REFERENCES move);
CREATE TABLE ring_a (id int PRIMARY KEY, b int);
CREATE TABLE ring_b (id int PRIMARY KEY, a int REFERENCES ring_a ON DELETE CASCADE);
ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b ON DELETE CASCADE;

CREATE VIEW v AS SELECT * FROM move;
CREATE VIEW nested AS SELECT id, state FROM v WHERE state = 'draft';
CREATE VIEW joined AS SELECT m.id, p.name FROM move m JOIN partner p ON p.id = m.partner_id;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t INSTEAD OF UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION instead();
CREATE MATERIALIZED VIEW mat AS SELECT * FROM move;
CREATE VIEW partners AS SELECT id, name, note FROM partner;
CREATE VIEW "Mixed" AS SELECT * FROM move;

CREATE TABLE parted (id int, day int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part_a PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE part_aa PARTITION OF part_a FOR VALUES FROM (0) TO (5);
CREATE TABLE part_b PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (extra int) INHERITS (parent);

CREATE TABLE noted (id int PRIMARY KEY);
CREATE TABLE log (id int);
CREATE RULE log_all AS ON UPDATE TO noted DO ALSO INSERT INTO log SELECT id FROM move;
CREATE RULE wipe AS ON DELETE TO noted DO ALSO DELETE FROM move;
CREATE TABLE joins (id int PRIMARY KEY);
CREATE RULE one AS ON DELETE TO joins DO ALSO DELETE FROM move WHERE id = OLD.id;
CREATE TABLE off (id int);
CREATE RULE no AS ON UPDATE TO off DO INSTEAD DELETE FROM move;
ALTER TABLE off DISABLE RULE no;

CREATE TABLE fired (id int PRIMARY KEY);
CREATE TRIGGER t AFTER INSERT ON fired FOR EACH ROW EXECUTE FUNCTION instead();
CREATE INDEX state_idx ON move (state);
CREATE TABLE late (id int UNIQUE DEFERRABLE);
CREATE TABLE partial (id int, live bool);
CREATE UNIQUE INDEX ON partial (id) WHERE live;
CREATE TABLE pair (id int, other int, UNIQUE (id, other));

CREATE PROCEDURE wipe_all() LANGUAGE sql AS 'DELETE FROM v';
CREATE PROCEDURE outer_one() LANGUAGE plpgsql AS 'BEGIN CALL wipe_all(); END';
CREATE PROCEDURE standard() LANGUAGE sql BEGIN ATOMIC DELETE FROM move; END;
CREATE PROCEDURE harmless() LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE PROCEDURE opaque() LANGUAGE plpgsql AS 'BEGIN EXECUTE E''\\x44ELETE FROM move''; END';
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.v (id int);
`

// opened is a catalog of one database, as the role of least privilege sees it.
type opened struct {
	t        testing.TB
	pg       *pgtest.Server
	db       string
	role     string
	catalogs *catalog.Catalogs
	s        *catalog.Session
	log      *lines
}

func open(t testing.TB, schema string, change ...func(*catalog.Config)) *opened {
	t.Helper()
	return openOn(t, pgtest.Shared(t), schema, change...)
}

func openOn(t testing.TB, pg *pgtest.Server, schema string, change ...func(*catalog.Config)) *opened {
	t.Helper()
	o := &opened{t: t, pg: pg, db: pg.NewDatabase(t), log: &lines{}}
	o.role = "keeper_" + o.db // of least privilege, as docs/catalog.md has it
	pg.MustExec(t, "postgres", "CREATE ROLE "+o.role+" LOGIN PASSWORD 'keeper'; GRANT pg_monitor, pg_signal_backend TO "+o.role)
	t.Cleanup(func() {
		if err := pg.Exec(context.Background(), "postgres", "DROP ROLE "+o.role); err != nil {
			t.Error(err)
		}
	})
	o.exec(schema)
	cfg := catalog.Config{Databases: 2, Relations: 10_000, Poll: 100 * time.Millisecond, Parse: pgquery.Parse, Logger: slog.New(slog.NewTextHandler(o.log, nil)), Now: time.Now}
	for _, f := range change {
		f(&cfg)
	}
	o.catalogs = catalog.New(cfg)
	t.Cleanup(o.catalogs.Close)
	o.s = o.session()
	eventually(t, "the catalog was read", func() bool {
		s := o.catalogs.States()[0]
		return s.Fresh || s.Error != ""
	})
	return o
}

func (o *opened) exec(sql string) {
	o.t.Helper()
	if sql != "" {
		o.pg.MustExec(o.t, o.db, sql)
	}
}

func (o *opened) control() string {
	return o.pg.ConnString("postgres") + " user=" + o.role + " password=keeper"
}

func (o *opened) session() *catalog.Session {
	o.t.Helper()
	s := o.catalogs.Open(o.t.Context(), "test", o.db, o.control())
	o.t.Cleanup(s.Close)
	return s
}

func (o *opened) refresh() {
	o.t.Helper()
	if err := o.catalogs.Refresh(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

func (o *opened) resolve(sql string) *inspect.Batch { return o.s.Resolve(pgquery.Parse(sql)) }

// facts are what the statement does, the first relation as in its text.
func facts(b *inspect.Batch) []string {
	var out []string
	for _, st := range b.Statements {
		for _, r := range st.Relations {
			f := r.Name + ": " + r.Access.String()
			if r.Bound != inspect.NotApplicable {
				f += " " + r.Bound.String()
			}
			if r.Lock != inspect.NoLock {
				f += ", " + r.Lock.String()
			}
			out = append(out, f)
		}
	}
	if len(out) > 0 {
		slices.Sort(out[1:])
	}
	return out
}

func TestWhatRelationsLeadTo(t *testing.T) {
	o := open(t, base)
	for _, c := range leads {
		t.Run(c.sql, func(t *testing.T) {
			text, b := pgquery.Parse(c.sql), o.resolve(c.sql)
			notMilder(t, &text.Statements[0], &b.Statements[0])
			got := strings.Join(facts(b), "; ")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", strings.ReplaceAll(got, "; ", "\n"), strings.ReplaceAll(c.want, "; ", "\n"))
			}
		})
	}
}

// notMilder checks that what the text says stays said, but for a condition that
// is a key's.
func notMilder(t *testing.T, text, resolved *inspect.Statement) {
	t.Helper()
	for i, r := range text.Relations {
		now := resolved.Relations[i]
		if now.Name != r.Name || now.Access != r.Access || now.Lock != r.Lock || now.Via != "" {
			t.Errorf("the text says %+v, and now %+v", r, now)
		}
		if inspect.Wider(now.Bound, r.Bound) != now.Bound && now.Bound != inspect.BoundKeyed {
			t.Errorf("%s was bound by %v, and is by %v", r.Name, r.Bound, now.Bound)
		}
	}
	for _, r := range resolved.Relations[len(text.Relations):] {
		if r.Via == "" {
			t.Errorf("nothing says how %s is reached", r.Name)
		}
	}
}

var leads = []struct{ sql, want string }{
	{"SELECT * FROM partner", "partner: read"},
	{"SELECT * FROM v", "v: read; move: read"},
	{"SELECT * FROM nested FOR UPDATE", "nested: read, lock rows; move: read, lock rows; v: read, lock rows"},
	{"DELETE FROM elsewhere.v", "v: delete none"},
	{"INSERT INTO v(id) VALUES (1)", "v: insert; move: insert"},
	{"SELECT count(*) FROM pg_class", "pg_class: read"},
	{"INSERT INTO log VALUES (1)", "log: insert"},
	{"UPDATE v SET state = ''", "v: update none; move: update none"},
	{"UPDATE nested SET state = '' WHERE id = 5", "nested: update predicate; move: update predicate; v: update predicate"},
	{"UPDATE joined SET name = ''", "joined: update none; move: update none; partner: update none"},
	{"DELETE FROM v", "v: delete none; line: update, delete none; move: delete none; tag: update none"},
	{"DELETE FROM partner", "partner: delete none; line: update, delete none; move: delete none; tag: update none"},
	{"DELETE FROM partner WHERE id = 1", "partner: delete keyed; line: update, delete predicate; move: delete predicate; tag: update predicate"},
	{"UPDATE partner SET id = 5", "partner: update none; move: update none"},
	{"UPDATE partner SET name = 'x'", "partner: update none"},
	{"TRUNCATE partner CASCADE", "partner: truncate none, ACCESS EXCLUSIVE; kept: truncate none, ACCESS EXCLUSIVE; line: truncate none, ACCESS EXCLUSIVE; move: truncate none, ACCESS EXCLUSIVE; tag: truncate none, ACCESS EXCLUSIVE"},
	{"DELETE FROM ring_a", "ring_a: delete none; ring_b: delete none"},
	{"SELECT * FROM mat", "mat: read"},
	{"REFRESH MATERIALIZED VIEW mat", "mat: define, ACCESS EXCLUSIVE; move: read"},
	{"DELETE FROM \"Mixed\"", "Mixed: delete none; line: update, delete none; move: delete none; tag: update none"},
	{"DELETE FROM part_aa", "part_aa: delete none; part_a: delete none; parted: delete none"},
	{"DELETE FROM parted WHERE id = 1", "parted: delete keyed; part_a: delete keyed; part_aa: delete keyed; part_b: delete keyed"},
	{"DELETE FROM ONLY parent", "parent: delete none"},
	{"DELETE FROM parent WHERE id = 1", "parent: delete predicate; child: delete predicate"},
	{"DELETE FROM child", "child: delete none; parent: delete none"},
	{"UPDATE noted SET id = 1 WHERE id = 1", "noted: update keyed; log: read, insert; move: read, insert"},
	{"DELETE FROM noted WHERE id = 1", "noted: delete keyed; line: update, delete none; move: read, update, delete none; tag: update none"},
	{"DELETE FROM joins WHERE id = 1", "joins: delete keyed; line: update, delete predicate; move: read, update, delete predicate; tag: update predicate"},
	{"UPDATE off SET id = 1", "off: update none"},
	{"INSERT INTO fired VALUES (1)", "fired: insert"},
	{"DROP INDEX state_idx", "state_idx: define, ACCESS EXCLUSIVE; move: define, ACCESS EXCLUSIVE"},
	{"REINDEX INDEX state_idx", "state_idx: define, ACCESS EXCLUSIVE; move: define, SHARE"},
	{"DROP TABLE line", "line: define, ACCESS EXCLUSIVE; move: define, ACCESS EXCLUSIVE; tag: define, ACCESS EXCLUSIVE"},
	{"DROP VIEW v", "v: define, ACCESS EXCLUSIVE; move: define, ACCESS EXCLUSIVE"},
	{"ALTER TABLE part_aa ADD x int", "part_aa: define, ACCESS EXCLUSIVE; part_a: define, ACCESS EXCLUSIVE; parted: define, ACCESS EXCLUSIVE"},
	{"LOCK TABLE v", "v: define, ACCESS EXCLUSIVE; move: define, ACCESS EXCLUSIVE"},
	{"ALTER VIEW v RENAME TO w", "v: define, ACCESS EXCLUSIVE; move: define, ACCESS EXCLUSIVE"},
	{"UPDATE partner SET note = '' WHERE code = 'a'", "partner: update keyed"},
	{"UPDATE partner SET note = '' WHERE code IN ('a', 'b')", "partner: update keyed"},
	{"UPDATE partner SET note = '' WHERE note = 'a'", "partner: update predicate"},
	{"UPDATE partner SET note = '' WHERE lower_code = 'a'", "partner: update predicate"},
	{"UPDATE partner SET note = '' WHERE name IS NOT NULL", "partner: update vacuous"},
	{"UPDATE partner SET note = '' WHERE note IS NOT NULL", "partner: update predicate"},
	{"UPDATE partners SET note = '' WHERE name IS NOT NULL", "partners: update vacuous; move: update none; partner: update vacuous"},
	{"UPDATE partners SET note = '' WHERE note IS NOT NULL", "partners: update predicate; move: update predicate; partner: update predicate"},
	{"UPDATE late SET id = 1 WHERE id = 1", "late: update predicate"},
	{"UPDATE late SET id = 1 WHERE id IN (SELECT id FROM pair)", "late: update predicate; pair: read"},
	{"UPDATE partner SET note = '' WHERE code IN (SELECT code FROM pair)", "partner: update vacuous; pair: read"},
	{"UPDATE partner SET note = '' WHERE note = 'x' OR note IN (SELECT note FROM elsewhere.v WHERE id > 1)", "partner: update vacuous; v: read"},
	{"UPDATE partner SET note = '' WHERE partner_id IN (SELECT partner_id FROM v)", "partner: update predicate; move: read; v: read"},
	{"UPDATE partner SET name = '' WHERE name IN (SELECT name FROM joined)", "partner: update predicate; joined: read; move: read; partner: read"},
	{"UPDATE partial SET id = 1 WHERE id = 1", "partial: update predicate"},
	{"UPDATE pair SET id = 1 WHERE id = 1", "pair: update predicate"},
	{"DELETE FROM partner WHERE ctid = '(0,1)'", "partner: delete keyed; line: update, delete predicate; move: delete predicate; tag: update predicate"},
	{"DELETE FROM parted WHERE ctid = '(0,1)'", "parted: delete predicate; part_a: delete predicate; part_aa: delete predicate; part_b: delete predicate"},
}

// What nobody can classify may mean whatever its words lead to, procedures'
// sources included.
func TestWhatWordsLeadTo(t *testing.T) {
	o := open(t, base)
	for sql, want := range map[string]bool{
		"CALL wipe_all()": true, "CALL outer_one()": true, "CALL standard()": true, "CALL harmless()": false,
		"DO $$ BEGIN DELETE FROM nested; END $$": true, `DO $$ BEGIN DELETE FROM "Mixed"; END $$`: true,
		"DO $$ BEGIN DELETE FROM partner; END $$": false, "DO $$ BEGIN DELETE FROM noted; END $$": true,
	} {
		if got := o.resolve(sql).Mentions("move"); got != want {
			t.Errorf("%s mentions move: %v, want %v", sql, got, want)
		}
	}
}

func TestWhatATextItselfMakes(t *testing.T) {
	o := open(t, base, slowly)
	b := o.resolve("CREATE VIEW fresh AS SELECT * FROM move; DELETE FROM fresh; DROP VIEW fresh")
	if got := strings.Join(facts(b), "; "); !strings.Contains(got, "move: delete none") {
		t.Error(got)
	}
	b = o.resolve("CREATE RULE late AS ON DELETE TO log DO INSTEAD DELETE FROM move WHERE id >= OLD.id; DELETE FROM log")
	if got := strings.Join(facts(b), "; "); !strings.Contains(got, "move: delete none") {
		t.Error(got)
	}
	b = o.resolve("DO $$ BEGIN NULL; END $$; DELETE FROM fresh")
	if b.Statements[1].Class != inspect.Unknown {
		t.Error("a table that the block may have made is taken for a table")
	}
	if b := o.resolve("CALL opaque()"); b.Why == "" || b.Words != nil {
		t.Errorf("a source that cannot be read: why %q, words %v", b.Why, b.Words)
	}
}

func BenchmarkResolve(b *testing.B) {
	o := open(b, base, slowly)
	for _, sql := range []string{"SELECT * FROM partner", "DELETE FROM v"} {
		batch := pgquery.Parse(sql)
		b.Run(sql, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o.s.Resolve(batch)
			}
		})
	}
}

// lines is a log that a test can read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), words)
}
