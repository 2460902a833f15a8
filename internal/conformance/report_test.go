package main

import (
	"os"
	"slices"
	"testing"
)

// The page is made of the records beside it. UPDATE_GOLDEN=1 writes it.
func TestThePageIsMadeOfTheRecords(t *testing.T) {
	const page = "../../docs/compatibility.md"
	records, err := kept("../../docs/compatibility")
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want, err := pageWith(string(text), records)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := writePage(page, records); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Error("docs/compatibility.md is not what docs/compatibility says: make golden writes it")
	}
}

// Every difference that a record has is explained.
func TestRecordedDifferencesAreExplained(t *testing.T) {
	records, err := kept("../../docs/compatibility")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := r.verdict(); err != nil {
			t.Error(err)
		}
	}
}

func TestDifferencesAreSeen(t *testing.T) {
	direct := results{"same": {passed, "x"}, "output": {passed, "x"}, "status": {passed, ""}, "gone": {passed, ""}}
	through := results{"same": {passed, "x"}, "output": {passed, "y"}, "status": {failed, ""}, "new": {passed, ""}}
	if got := differing(direct, through); !slices.Equal(got, []string{"gone", "new", "output", "status"}) {
		t.Errorf("got %q", got)
	}
}

func TestWhatSuitesPrintIsRead(t *testing.T) {
	dir := t.TempDir()
	p := pgRegress{prefix: "x/"}
	r, err := p.results("parallel group (2 tests):  boolean char\n     boolean                      ... ok           90 ms\n     char                         ... FAILED       80 ms\n"+
		"test tablespace                   ... ok          100 ms\ntest slot  ... FAILED (test process exited with exit code 1)      12 ms\n", dir)
	if err != nil || r.count(passed) != 2 || !slices.Equal(r.named(failed), []string{"x/char", "x/slot"}) {
		t.Errorf("pg_regress: %v, %v", r, err)
	}
	r = goResults([]byte(`{"Action":"pass","Package":"a.b/c","Test":"T/1234567"}
no JSON
{"Action":"fail","Package":"a.b/c","Test":"U"}
{"Action":"output","Package":"a.b/c","Test":"U","Output":"x"}
{"Action":"pass","Package":"a.b/c"}
`))
	if len(r) != 2 || r["c.T/…"].status != passed || r["c.U"].status != failed {
		t.Errorf("go test: %v", r)
	}
	r = stepResults("== one\nx\n== two\n!! oh\n")
	if len(r) != 2 || r["one"] != (result{passed, "x"}) || r["two"].status != failed {
		t.Errorf("an exercise: %v", r)
	}
	if r := benchResult("number of transactions actually processed: 2000/2000\n", nil); r != (result{passed, "2000/2000"}) {
		t.Errorf("pgbench: %v", r)
	}
}

func TestSourceVersionsAreNewestFirst(t *testing.T) {
	got := sourceVersions("Package: x\nVersion: 15.9-0+deb12u1\n\nVersion: 15.18-0+deb12u1\nVersion: 15.20-0+deb12u1\nVersion: 15.18-0+deb12u1\n")
	if want := []string{"15.20-0+deb12u1", "15.18-0+deb12u1", "15.9-0+deb12u1"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
