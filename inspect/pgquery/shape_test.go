package pgquery

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

var plain = inspect.LexingFor("on", "UTF8")

// TestOdooStreamsHitTheCache replays what a real Odoo sent. A text is warm
// whose shape, or which itself where it has none, was there before: at least 97 of
// 100 of these find their facts in the cache, and a part of them is compared with
// what the parser says. The others are the first of their kind, as most DDL is: it
// names a table that no text named before.
func TestOdooStreamsHitTheCache(t *testing.T) {
	for _, name := range streams {
		t.Run(name, func(t *testing.T) {
			i := inspect.NewInspector(inspect.Limits{}, Parse, nil)
			texts, warm, hits := 0, 0, 0
			seen := map[string]bool{}
			var s lex.Shape
			for _, r := range readStream(t, name) {
				text := []byte(r.SQL)
				key := r.SQL
				if s.Read(text) == lex.Shaped {
					key = string(s.Key)
				}
				texts++
				b := i.Lookup(text, plain)
				if seen[key] {
					warm++
					hits += min(1, len(found(b)))
				}
				seen[key] = true
				if b == nil {
					i.Inspect(t.Context(), text, plain)
				} else if hits%20 == 0 {
					checkShape(t, i, r.SQL)
				}
			}
			t.Logf("%d texts; %d of the %d that were warm hit", texts, hits, warm)
			if hits*100 < warm*97 {
				t.Error("less than 97 %")
			}
		})
	}
}

func found(b *inspect.Batch) []inspect.Statement {
	if b == nil {
		return nil
	}
	return b.Statements
}

// TestTextsOfOneShapeShareTheirFacts: the very batch, so that what is made of
// it can be remembered by its address.
func TestTextsOfOneShapeShareTheirFacts(t *testing.T) {
	many := strings.Repeat(", 1", 5000)
	for _, test := range []struct{ text, same, other string }{
		{"SELECT * FROM t WHERE a = 1 AND b LIKE '%'", "SELECT * FROM t WHERE a = NULL AND b LIKE 'x'", "SELECT * FROM t WHERE a = 1 AND c LIKE '%'"},
		{"SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a IN (-2" + many + ")", "SELECT * FROM t WHERE a IN ('1')"},
		{"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, NULL), (NULL, true)", "INSERT INTO t VALUES (1)"},
		{"UPDATE t SET a = 1 WHERE id = 5", "UPDATE t SET a = -2.5 WHERE id = 60", "UPDATE t SET a = 1 WHERE id = NULL"},
		{"UPDATE t SET a = 'x' WHERE id IN (1, 2)", "UPDATE t SET a = NULL WHERE id IN (33, 44)", "UPDATE t SET a = 'x' WHERE id IN (1, 2, 3)"},
		{"DELETE FROM t WHERE 1 = 2", "DELETE FROM t WHERE 1 = 2", "DELETE FROM t WHERE 1 = 1"},
		{"DELETE FROM t WHERE a LIKE 'x%' AND b = 1", "DELETE FROM t WHERE a LIKE 'x%' AND b = 2", "DELETE FROM t WHERE a LIKE '%' AND b = 1"},
		{"DELETE FROM t WHERE date < '2024-01-01'", "DELETE FROM t WHERE date < '2025-01-01'", "DELETE FROM t WHERE date < 5"},
		{"WITH a AS (DELETE FROM t WHERE id = 1) SELECT 1", "WITH a AS (DELETE FROM t WHERE id = 2) SELECT 2", "WITH a AS (DELETE FROM t WHERE id = 1 OR true) SELECT 1"},
	} {
		i := inspect.NewInspector(inspect.Limits{}, Parse, nil)
		b := i.Inspect(t.Context(), []byte(test.text), plain)
		if same := i.Lookup([]byte(test.same), plain); same != b {
			t.Errorf("%.80q and %.80q: %p, %p", test.text, test.same, b, same)
		}
		if other := i.Lookup([]byte(test.other), plain); other != nil {
			t.Errorf("%q has the facts of %q", test.other, test.text)
		}
		checkShape(t, i, test.same)
	}
}

// TestFactsThatDependOnConstants: a second text of the shape is not taken for
// the first, and both are known from then on.
func TestFactsThatDependOnConstants(t *testing.T) {
	i := inspect.NewInspector(inspect.Limits{}, Parse, nil)
	for _, test := range []struct {
		text  string
		bound inspect.Bound
		rows  int
	}{
		{"DELETE FROM t WHERE 1 = 2 OR id IN (1, 2)", inspect.BoundKeyed, 2},
		{"DELETE FROM t WHERE 1 = 1 OR id IN (1, 2)", inspect.BoundVacuous, 0},
		{"DELETE FROM t WHERE 1 = 2 OR id IN (1, 2, 3)", inspect.BoundKeyed, 3},
		{"DELETE FROM t WHERE 1 = 2 OR id IN (7, 8, 9)", inspect.BoundKeyed, 3},
		{"DELETE FROM t WHERE a LIKE 'x'", inspect.BoundPredicate, 0},
		{"DELETE FROM t WHERE a LIKE '%'", inspect.BoundVacuous, 0},
		{"DELETE FROM t WHERE a = 1 OR b = 2", inspect.BoundPredicate, 0},
		{"DELETE FROM t WHERE id = ANY ('{1,2}')", inspect.BoundKeyed, 2},
		{"DELETE FROM t WHERE id = ANY ('{1,2,3}')", inspect.BoundKeyed, 3},
	} {
		i.Inspect(t.Context(), []byte(test.text), plain)
		b := i.Lookup([]byte(test.text), plain)
		if b == nil || b.Statements[0].Bound != test.bound || b.Statements[0].Relations[0].Rows != test.rows {
			t.Errorf("%s: %+v", test.text, b)
		}
	}
}

// TestConstantsAreReadInOnePlace: a look at a constant that nobody notes
// would let one text have the facts of another.
func TestConstantsAreReadInOnePlace(t *testing.T) {
	// What is left reads settings and options, of statements without shape; or
	// tells nodes apart; or makes them.
	allowed := map[string]int{"constants.go": -1, "decode_expression.go": 4, "decode_nodes.go": 6, "decode_names.go": 2, "utility.go": 6, "fold.go": 2, "bound.go": 1, "tree.go": 2, "walk.go": 1}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(string(text), "AConst") + strings.Count(string(text), "A_Const")
		if want := allowed[file]; !strings.HasSuffix(file, "_test.go") && want >= 0 && n != want {
			t.Errorf("%s names constants %d times, not %d: read them by way of constants.go", file, n, want)
		}
	}
}

// TestBatchesKeepNoConstants: where they stand is so in one text only.
func TestBatchesKeepNoConstants(t *testing.T) {
	text := "DELETE FROM t WHERE id = 5"
	if Parse(text).Constants == nil {
		t.Error("the parser does not tell which constants matter")
	}
	i := inspect.NewInspector(inspect.Limits{}, Parse, nil)
	if b := i.Inspect(t.Context(), []byte(text), plain); !reflect.DeepEqual(b.Constants, []inspect.Constant(nil)) {
		t.Errorf("%v", b.Constants)
	}
	for _, text := range []string{"BEGIN", "SELECT 1; SELECT 2", "SELEC 1", "EXPLAIN SELECT 1", "CALL p(1)"} {
		if b := Parse(text); b.Constants != nil {
			t.Errorf("%s: %v", text, b.Constants)
		}
	}
}
