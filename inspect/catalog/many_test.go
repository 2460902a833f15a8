package catalog_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"lockkeeper/inspect/catalog"
)

// tablesVariable is the environment variable that says how many tables
// TestManyRelations makes, each with two indexes and a foreign key: "make
// catalog TABLES=30000".
const tablesVariable = "LOCKKEEPER_CATALOG_TABLES"

// A catalog of many relations is read, and what that takes is told. One that is
// larger than the limit is not kept, and what was known before stays.
func TestManyRelations(t *testing.T) {
	tables := 100
	if n, err := strconv.Atoi(os.Getenv(tablesVariable)); err == nil {
		tables = n
	}
	before := heap()
	limit := 3*tables + 3 // indexes, and the one that all refer to
	o := open(t, "", func(c *catalog.Config) { c.Relations, c.Poll = limit, time.Hour })
	o.exec("CREATE TABLE hub (id int PRIMARY KEY)")
	const together = 500 // in one transaction, which holds locks on all of them
	const ofHub = 1200   // that refer to one table; the others refer to those
	for first := 1; first <= tables; first += together {
		o.exec(fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE many_%%s (id int PRIMARY KEY, name text NOT NULL, note text, other_id int REFERENCES %%I ON DELETE CASCADE)',
				i, CASE WHEN i <= %d THEN 'hub' ELSE 'many_' || i - %d END);
			EXECUTE format('CREATE INDEX ON many_%%s (other_id)', i);
		END LOOP; END $$`, first, min(first+together-1, tables), ofHub, ofHub))
	}
	begun := time.Now()
	o.refresh()
	first := time.Since(begun)
	begun = time.Now()
	o.refresh()
	again := time.Since(begun)
	s := o.catalogs.States()[0]
	t.Logf("%d relations: first read in %v, again in %v with the pause before it, %d MB of memory", s.Relations, first, again, (heap()-before)>>20)
	if s.Relations != 3*tables+2 || !s.Fresh {
		t.Errorf("%+v", s)
	}
	name := fmt.Sprintf("many_%d", tables)
	if got := facts(o.resolve("DELETE FROM " + name + " WHERE id = 1")); len(got) != 1 || got[0] != name+": delete keyed" {
		t.Errorf("of the last table is known %v", got)
	}
	begun = time.Now()
	derived := len(o.resolve("DELETE FROM hub WHERE id = 1").Statements[0].Relations)
	t.Logf("a table that all refer to leads to %d, in %v", derived, time.Since(begun))
	if derived != 1+min(tables, catalog.MaxDerived) {
		t.Errorf("a table that all refer to leads to %d", derived)
	}
	o.exec("CREATE TABLE two_more (id int PRIMARY KEY)")
	if err := o.catalogs.Refresh(t.Context()); err == nil {
		t.Error("a catalog that is larger than the limit is kept")
	}
	if s := o.catalogs.States()[0]; s.Relations != 3*tables+2 || s.Error == "" {
		t.Errorf("over the limit: %+v", s)
	}
}

// heap is how much is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
