package pgquery

import (
	"cmp"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pganalyze/pg_query_go/v5/parser"
	"google.golang.org/protobuf/proto"

	"lockkeeper/inspect"
)

// checkDecoded compares the tree and the facts of a text that come from JSON
// with those that come from protobuf. It reports whether there was a tree to
// compare.
func checkDecoded(t *testing.T, text string) bool {
	t.Helper()
	utf := asUTF8(text)
	if refused(utf) != "" {
		return false
	}
	json, jsonErr := parser.ParseToJSON(utf)
	want, err := pg.Parse(utf)
	if jsonErr != nil {
		if err == nil || err.Error() != jsonErr.Error() {
			t.Errorf("%q\n%v; from protobuf: %v", text, jsonErr, err)
		}
		return false
	}
	got, ok := decode(json, utf)
	if !ok {
		return false
	}
	defer got.release()
	if err != nil {
		t.Errorf("%q: there is a tree; from protobuf: %v", text, err)
		return false
	}
	if tree := (&pg.ParseResult{Version: want.Version, Stmts: got.stmts}); !proto.Equal(tree, want) {
		t.Errorf("%q\n%v\nfrom protobuf:\n%v", text, tree, want)
		return false
	}
	checkSameFacts(t, text, got.facts(utf, text), (&tree{stmts: want.Stmts}).facts(utf, text))
	return true
}

func checkSameFacts(t *testing.T, text string, got, want *inspect.Batch) {
	t.Helper()
	for _, b := range []*inspect.Batch{got, want} {
		slices.SortFunc(b.Constants, func(a, b inspect.Constant) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q\n%+v\nfrom protobuf:\n%+v", text, got, want)
	}
}

// TestOdooQueriesAreDecoded compares what a real Odoo sent, or with
// LOCKKEEPER_TEST_ALL=1 all of it. No query of its takes the slow way.
func TestOdooQueriesAreDecoded(t *testing.T) {
	step := 40
	if os.Getenv("LOCKKEEPER_TEST_ALL") != "" {
		step = 1
	}
	for _, name := range streams {
		t.Run(name, func(t *testing.T) {
			decoded := 0
			for i, r := range readStream(t, name) {
				switch {
				case i%step != 0:
				case checkDecoded(t, r.SQL):
					decoded++
				default:
					if result, err := pg.Parse(r.SQL); err == nil && len(result.Stmts) == 1 && isQuery(result.Stmts[0].Stmt) {
						t.Errorf("not decoded: %s", r.SQL)
					}
				}
			}
			t.Logf("%d decoded", decoded)
		})
	}
}

// decodeSeeds are texts whose trees may be read from JSON.
func decodeSeeds() []string {
	list := slices.Concat(shapeSeeds, nestingTexts, slices.Collect(func(yield func(string) bool) {
		for i := range productions {
			if !yield(productions[i].text(3)) {
				return
			}
		}
	}))
	return append(list,
		"SELECT 'a\"b\\c\x01\x7f\n\t<é>', E'\\b\\f\\r\\u00e9', U&'\\0041', \"a\"\"b<\"",
		"SELECT f(VARIADIC a, b => 1), count(*) FILTER (WHERE a), f(DISTINCT a ORDER BY b DESC NULLS LAST) OVER (w ROWS UNBOUNDED PRECEDING) FROM t WINDOW w AS (PARTITION BY a)",
		"WITH RECURSIVE a(b) AS NOT MATERIALIZED (SELECT 1 UNION ALL SELECT b FROM a) SELECT DISTINCT ON (b) * FROM ONLY s.a AS x(y), LATERAL ROWS FROM (f(1), g(2)) WITH ORDINALITY AS z FOR NO KEY UPDATE OF x SKIP LOCKED",
		"INSERT INTO a (b, c.d[1]) OVERRIDING USER VALUE SELECT 1 ON CONFLICT (lower(b) COLLATE \"C\" text_ops) WHERE c DO UPDATE SET (d, e) = (SELECT 1, 2) RETURNING *",
		"UPDATE a SET b = DEFAULT FROM c WHERE b IS NOT TRUE AND a[1:] = x.y[:2] AND current_date > 'x' AND nullif(a, b) IS NULL",
		"SELECT GREATEST(a, b), COALESCE(c), ROW(1, 2), ARRAY[1], x'1f', -1, 0, 00, 2147483647, 2147483648, 1.5, NULL, true, $1, a::int[][3]::numeric(1, 2) COLLATE b",
		"SELECT count(DISTINCT a) OVER (w PARTITION BY b) FROM c.d.e JOIN f USING (g) AS h GROUP BY DISTINCT a, ROLLUP (b) LIMIT 5 OFFSET 6",
		"SELECT count(DISTINCT a) OVER (w ORDER BY b) FROM c.d.e JOIN f USING (g) AS h GROUP BY DISTINCT a LIMIT 5 OFFSET 6",
		"INSERT INTO a VALUES (1) ON CONFLICT ON CONSTRAINT b DO NOTHING", "INSERT INTO a VALUES (1) ON CONFLICT (b text_ops (c = 'd') DESC) DO NOTHING",
		"PREPARE TRANSACTION 'a'", "BEGIN ISOLATION LEVEL SERIALIZABLE", "SAVEPOINT \"a b\"", "ROLLBACK TO a; COMMIT AND CHAIN", "", ";", "\xff")
}

func TestTreesAreThoseOfProtobuf(t *testing.T) {
	texts := decodeSeeds()
	for _, e := range readEvasions(t) {
		more, _ := e.texts()
		texts = append(texts, more...)
	}
	decoded := 0
	for _, text := range texts {
		if checkDecoded(t, text) {
			decoded++
		}
	}
	t.Logf("%d decoded", decoded)
	if decoded < 300 {
		t.Error("most were not decoded")
	}
}

// TestVariedTreesAreThoseOfProtobuf is what FuzzDecode does, faster and without
// its guidance: each text with other constants, as often as
// LOCKKEEPER_SHAPE_ROUNDS says.
func TestVariedTreesAreThoseOfProtobuf(t *testing.T) {
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		rounds = n
	}
	compared, decoded := 0, 0
	texts := decodeSeeds()
	for round := range rounds {
		random := rand.New(rand.NewPCG(uint64(round), 3))
		for _, text := range texts {
			compared++
			if checkDecoded(t, varied(random, text)) {
				decoded++
			}
		}
	}
	t.Logf("%d rounds: %d of %d texts decoded", rounds, decoded, compared)
	if decoded < compared/4 {
		t.Error("most were not decoded")
	}
}

// FuzzDecode looks for a text whose tree, or whose facts, are others when they
// come from JSON.
func FuzzDecode(f *testing.F) {
	for _, text := range decodeSeeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4000 || strings.Contains(text, "\x00") || !affordable(text) {
			t.Skip("costs too much, or is no text for the parser")
		}
		checkDecoded(t, text)
	})
}

// TestWhatJSONDoesNotTell: what is the same in JSON, for different trees, is not
// read from there.
func TestWhatJSONDoesNotTell(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT 0": true, "SELECT 00, 0x0": true, "SELECT 1, -1.5, '-1'": true,
		"SELECT -1, a-1, a -1, -2147483647": true, "SELECT a FROM t LIMIT -5": true, "SELECT -1::int, -5 ^ 2, -007, -2147483648, -1.5, -1e5": true,
		"SELECT - 1": false, "SELECT -(1)": false, "SELECT - -1": true, "SELECT - - -1": false, "SELECT -0": false, "SELECT -0x5": false, "SELECT -5_0": false,
		"SELECT a::int[]": true, "SELECT a::int[3][], '[0]'": false, "SELECT a::int ARRAY": true, "SELECT a[1]::int[]": true,
		"SELECT a::int[0]": false, "SELECT a::int[ /**/ 0]": false, "SELECT a::int[--\n0]": false,
		"SELECT E'\\xff'": false, "SELECT a INTO b": false, "SELECT 1; DROP TABLE a": false, "SELECT 1; SELECT 2": true,
	} {
		if got := checkDecoded(t, text); got != want {
			t.Errorf("%q: decoded: %t", text, got)
		}
	}
}

// TestBrokenJSON takes away and changes what libpg_query wrote.
func TestBrokenJSON(t *testing.T) {
	const text = `SELECT "a"."b", 'x\y', 5, true FROM t WHERE a IN (1, 2) AND b::int[] IS NULL`
	json, err := parser.ParseToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range json {
		if _, ok := decode(json[:i], text); ok {
			t.Errorf("decoded: %s", json[:i])
		}
		for _, c := range "\x00\xff0-9\"\\,:{}[]x" {
			if got, ok := decode(json[:i]+string(c)+json[i+1:], text); ok {
				got.release()
			}
		}
	}
	for _, json := range []string{
		"", "null", "\xff", `{"stmts":[{"stmt":{"String":{"sval":"\"\`, json + " ", json + json, `{"stmts":[{"stmt":{"Fancy":{}}}]}`, `{"stmts":[{"stmt":{"SelectStmt":{"fancy":1}}}]}`,
		`{"stmts":[{"stmt":{"SelectStmt":{"op":"(null)"}}}]}`, `{"stmts":[{"stmt":{"SelectStmt":{"all":yes}}}]}`,
		`{"stmts":[{"stmt_len":2147483648}]}`, `{"stmts":[{"stmt_len":99999999999}]}`, `{"stmts":[{"stmt_len":-}]}`,
		`{"stmts":[{"stmt":{"SelectStmt":` + strings.Repeat(`{"larg":`, maxDecoded) + "{}" + strings.Repeat("}", maxDecoded) + `}}]}`,
	} {
		if _, ok := decode(json, text); ok {
			t.Errorf("decoded: %.100s", json)
		}
	}
}

// TestFactsHoldNothingOfTheTree: its memory is that of the next text.
func TestFactsHoldNothingOfTheTree(t *testing.T) {
	facts := func() *inspect.Batch {
		b := Parse("WITH x AS (SELECT 1 FROM s.a) UPDATE ONLY b AS c SET d = 1 FROM x WHERE c.id = 5 AND e.f IN (1, 2)")
		b.Fingerprint.Value()
		return b
	}
	before := facts()
	for range 10 {
		Parse("DELETE FROM z WHERE y = 'y' AND w.v IN (SELECT u FROM t.s)")
	}
	checkSameFacts(t, "after others", before, facts())
}
