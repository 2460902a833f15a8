package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/internal/pgtest"
)

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came to this: " + what)
		}
	}
}

// leads reports whether a statement leads to a relation.
func (o *opened) leads(sql, to string) bool {
	for _, f := range facts(o.resolve(sql)) {
		if strings.HasPrefix(f, to+": ") {
			return true
		}
	}
	return false
}

// ran is a text that passes through lockkeeper, in a transaction that ends.
func (o *opened) ran(sql string) {
	o.t.Helper()
	o.s.Ran(pgquery.Parse(sql))
	o.exec(sql)
	o.s.Ended()
}

func slowly(c *catalog.Config) { c.Poll = time.Hour }

func TestChangesThatPassNowhereAreFound(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int)")
	o.exec("CREATE VIEW v AS SELECT * FROM move")
	eventually(t, "the view is known", func() bool { return o.leads("DELETE FROM v", "move") })
	o.exec("DROP VIEW v; CREATE TABLE v (id int)")
	eventually(t, "the view is forgotten", func() bool { return !o.leads("DELETE FROM v", "move") })
}

// DDL that passes is known from its text before anybody can read it in the
// catalogs, and from them when it has ended.
func TestDDLThatPasses(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int); CREATE TABLE plain (id int); CREATE TABLE parted (id int) PARTITION BY RANGE (id)", slowly)
	o.s.Ran(pgquery.Parse("CREATE VIEW v AS SELECT * FROM move"))
	o.s.Ran(pgquery.Parse("CREATE TABLE part PARTITION OF parted FOR VALUES FROM (1) TO (2)"))
	o.s.Ran(pgquery.Parse("ALTER TABLE move INHERIT plain"))
	o.s.Ran(pgquery.Parse("ALTER TABLE move RENAME TO renamed"))
	o.s.Ran(pgquery.Parse("CREATE TABLE refers (id int REFERENCES move)"))
	for _, c := range [][2]string{
		{"DELETE FROM v", "move"}, {"DELETE FROM part", "parted"}, {"DELETE FROM plain", "move"}, {"DELETE FROM renamed", "move"},
	} {
		if !o.leads(c[0], c[1]) {
			t.Errorf("%s does not lead to %s", c[0], c[1])
		}
	}
	if o.leads("DELETE FROM refers", "move") {
		t.Error("a table that refers to another is taken for it")
	}
	o.s.Ended() // with ROLLBACK: nothing of it has come to be
	eventually(t, "what was rolled back is forgotten", func() bool { return !o.leads("DELETE FROM v", "move") })
	o.ran("CREATE VIEW w AS SELECT * FROM move")
	eventually(t, "the view is in the catalog", func() bool { return o.catalogs.States()[0].Relations == 4 })
	if !o.leads("DELETE FROM w", "move") {
		t.Error("the view is not known")
	}
}

// What a block of code has made nobody has seen. Until the catalogs were read
// a name that is not in them may be anything.
func TestNamesMadeUnseen(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int)", slowly)
	block := "DO $$ BEGIN EXECUTE 'CREATE VIEW v AS SELECT * FROM ' || 'mo' || 've'; END $$"
	if b := o.resolve("DELETE FROM v"); b.Class != inspect.Write {
		t.Errorf("before: %v", b.Class)
	}
	o.s.Ran(pgquery.Parse(block))
	if b := o.resolve("DELETE FROM v"); b.Class != inspect.Unknown || b.Why == "" {
		t.Errorf("in the transaction: class %v, why %q", b.Class, b.Why)
	}
	for _, sql := range []string{"DELETE FROM move", "DELETE FROM v WHERE id = 1", "INSERT INTO v VALUES (1)", "SELECT * FROM v"} {
		if b := o.resolve(sql); b.Class == inspect.Unknown {
			t.Errorf("%s is Unknown", sql)
		}
	}
	o.exec(block)
	o.s.Ended()
	eventually(t, "the view is known", func() bool { return o.leads("DELETE FROM v", "move") })
	if b := o.resolve("DELETE FROM nothing"); b.Class != inspect.Write {
		t.Errorf("after: %v", b.Class)
	}
}

func TestARenamedTableIsTheTable(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int)", slowly)
	o.exec("ALTER TABLE move RENAME TO archive")
	o.refresh()
	if !o.leads("DELETE FROM archive", "move") {
		t.Error("archive was move and is not taken for it")
	}
	o.exec("ALTER TABLE archive RENAME TO again")
	o.refresh()
	if !o.leads("DELETE FROM again", "move") || !o.leads("DELETE FROM again", "archive") {
		t.Error("again was move and is not taken for it")
	}
	o.exec("CREATE TABLE move (id int)")
	o.refresh()
	if o.leads("DELETE FROM again", "move") {
		t.Error("there is another move now")
	}
}

// A connection that is lost takes nothing away, and is made again.
func TestTheConnectionIsKilled(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int); CREATE VIEW v AS SELECT * FROM move")
	if !o.leads("DELETE FROM v", "move") {
		t.Fatal("the view is not known")
	}
	kill := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockkeeper catalog' AND datname = current_database()"
	o.exec("ALTER ROLE " + o.role + " NOLOGIN")
	defer o.exec("ALTER ROLE " + o.role + " LOGIN")
	o.exec(kill)
	eventually(t, "the catalog says why it is not up to date", func() bool { return o.catalogs.States()[0].Error != "" })
	eventually(t, "the catalog is stale", func() bool { return !o.catalogs.States()[0].Fresh })
	if !o.leads("DELETE FROM v", "move") {
		t.Error("what was known of the view is forgotten")
	}
	eventually(t, "it is said once", func() bool { return o.log.count("catalog not read") == 1 })
	o.exec("ALTER ROLE " + o.role + " LOGIN; CREATE VIEW w AS SELECT * FROM move")
	eventually(t, "the catalog is read again", func() bool { return o.catalogs.States()[0].Fresh && o.leads("DELETE FROM w", "move") })
	eventually(t, "it is said once that it is back", func() bool { return o.log.count("catalog read again") == 1 })
}

// Nothing becomes milder by a catalog that nobody has compared with the
// database for a while.
func TestAStaleCatalogMakesNothingMilder(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int PRIMARY KEY, code text UNIQUE, name text NOT NULL)")
	by := "UPDATE move SET name = '' WHERE code = 'x'"
	if got := o.resolve(by).Statements[0].Bound; got != inspect.BoundKeyed {
		t.Fatalf("bound by a key: %v", got)
	}
	o.exec("ALTER ROLE " + o.role + " NOLOGIN")
	defer o.exec("ALTER ROLE " + o.role + " LOGIN")
	o.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockkeeper catalog' AND datname = current_database()")
	eventually(t, "the catalog is stale", func() bool { return !o.catalogs.States()[0].Fresh })
	if got := o.resolve(by).Statements[0].Bound; got != inspect.BoundPredicate {
		t.Errorf("bound by a key, perhaps: %v", got)
	}
	if got := o.resolve("UPDATE move SET code = '' WHERE name IS NOT NULL").Statements[0].Bound; got != inspect.BoundVacuous {
		t.Errorf("not bound: %v", got)
	}
}

func TestADatabaseThatIsTooLarge(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := open(t, "CREATE TABLE move (id int); CREATE VIEW v AS SELECT * FROM move; CREATE TABLE one_more (id int)",
		func(c *catalog.Config) { c.Relations, c.Registerer = 2, reg })
	state := o.catalogs.States()[0]
	if !strings.Contains(state.Error, "limits.catalog_relations") || state.Relations != 0 {
		t.Errorf("state: %+v", state)
	}
	if o.leads("DELETE FROM v", "move") {
		t.Error("there is a catalog")
	}
	if n := testutil.ToFloat64(gauge(t, reg, "lockkeeper_catalog_stale_databases")); n != 1 {
		t.Errorf("%v databases without a catalog", n)
	}
	o.exec("DROP TABLE one_more")
	eventually(t, "the catalog is there", func() bool { return o.leads("DELETE FROM v", "move") })
}

// gauge returns a collector of one metric's values.
func gauge(t *testing.T, reg *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			value := f.GetMetric()[0].GetGauge().GetValue()
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name}, func() float64 { return value })
		}
	}
	t.Fatal("there is no " + name)
	return nil
}

// Only so many databases are kept; those that nobody is in make room.
func TestMoreDatabasesThanAreKept(t *testing.T) {
	o := open(t, "", func(c *catalog.Config) { c.Databases = 1 })
	other := o.pg.NewDatabase(t)
	if s := o.catalogs.Open(t.Context(), "test", other, o.control()); s != nil {
		t.Error("a second catalog")
	}
	if n := o.log.count("limits.catalog_databases"); n != 1 {
		t.Errorf("said %d times", n)
	}
	o.s.Close()
	s := o.catalogs.Open(t.Context(), "test", other, o.control())
	if s == nil {
		t.Fatal("a database that nobody is in keeps its place")
	}
	s.Close()
	o.s = o.session() // for the test's end
}

// A database that nobody is in can be dropped.
func TestTheConnectionEndsWithTheLastSession(t *testing.T) {
	o := open(t, "CREATE TABLE move (id int)")
	own := "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lockkeeper catalog' AND datname = '" + o.db + "'"
	second := o.catalogs.Open(t.Context(), "test", o.db, o.control())
	if n := o.pg.Value(t, "postgres", own); n != "1" {
		t.Errorf("%s connections for two sessions", n)
	}
	second.Close()
	o.s.Close()
	eventually(t, "the connection is closed", func() bool { return o.pg.Value(t, "postgres", own) == "0" })
	o.s = o.catalogs.Open(t.Context(), "test", o.db, o.control())
	eventually(t, "the catalog is up to date again", func() bool { return o.catalogs.States()[0].Fresh })
}

// The queries mean what they say, whatever stands in for the names in them.
func TestCatalogQueriesCannotBeShadowed(t *testing.T) {
	o := open(t, `
		CREATE TABLE move (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM move;
		CREATE TABLE public.pg_class (oid oid, relname name, relkind "char"); CREATE TABLE public.pg_rewrite (oid oid); CREATE TABLE public.pg_depend (objid oid);
		CREATE FUNCTION public."left"(text, int) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
		CREATE FUNCTION public.length(text) RETURNS int LANGUAGE sql AS 'SELECT 1/0';
		CREATE FUNCTION public.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
		CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.never);
		CREATE FUNCTION public.never(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
		CREATE OPERATOR public.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = public.never);
		CREATE DOMAIN public.text AS pg_catalog.text CHECK (VALUE = 'nothing');
		CREATE DOMAIN public.regclass AS pg_catalog.int4;
		CREATE FUNCTION public.sum(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 1/0::numeric';
		DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET search_path = public, pg_catalog'; END $$`)
	if s := o.catalogs.States()[0]; s.Error != "" {
		t.Fatal(s.Error)
	}
	if !o.leads("DELETE FROM v", "move") {
		t.Error("the view is not known")
	}
	if got := o.resolve("DELETE FROM move WHERE id = 1").Statements[0].Bound; got != inspect.BoundKeyed {
		t.Errorf("bound %v", got)
	}
}

// Temporary relations of every session are in the catalogs: of whatever may be
// meant the worst counts.
func TestTemporaryViews(t *testing.T) {
	pg := pgtest.Shared(t)
	o := openOn(t, pg, "CREATE TABLE move (id int)", slowly)
	conn, err := pg.Connect(t.Context(), o.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "CREATE TEMP VIEW v AS SELECT * FROM move"); err != nil {
		t.Fatal(err)
	}
	o.refresh()
	if !o.leads("DELETE FROM v", "move") || !o.leads("DELETE FROM pg_temp.v", "move") || o.leads("DELETE FROM public.v", "move") {
		t.Error("the temporary view is not known as that")
	}
}

// What a batch leads to is known without work the second time.
func TestResolvingAgainAllocatesNothing(t *testing.T) {
	o := open(t, base, slowly)
	for _, sql := range []string{"SELECT * FROM partner", "DELETE FROM v"} {
		b := pgquery.Parse(sql)
		if n := testing.AllocsPerRun(100, func() { o.s.Resolve(b) }); n > 0 {
			t.Errorf("%s: %v allocations", sql, n)
		}
	}
}
