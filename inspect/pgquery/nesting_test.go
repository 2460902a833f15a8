package pgquery

import (
	"math/rand/v2"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"

	"lockkeeper/inspect"
)

// depthOf returns how deep nodes nest in a tree.
func depthOf(m protoreflect.Message) int {
	deepest := 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				deepest = max(deepest, depthOf(v.List().Get(i).Message()))
			}
		default:
			deepest = max(deepest, depthOf(v.Message()))
		}
		return true
	})
	if _, ok := m.Interface().(*pg.Node); ok {
		deepest++
	}
	return deepest
}

// fixedLevels is what a statement adds to the depth of its expressions.
const fixedLevels = 12

// checkNesting fails if a tree is deeper than the text promised.
func checkNesting(t *testing.T, text string) {
	t.Helper()
	bound := loadOf(text).levels
	if bound > maxNesting || loadOf(text).work > maxWork {
		return // never given to the parser
	}
	tree, err := pg.Parse(text)
	if err != nil {
		return
	}
	if depth := depthOf(tree.ProtoReflect()); depth > 2*bound+fixedLevels {
		t.Errorf("depth %d is more than promised (nesting %d): %.300q", depth, bound, text)
	}
}

var nestingTexts = []string{
	"SELECT 1", "SELECT ((((1))))", "SELECT a+b*c-d", "SELECT - - - -1", "SELECT a::int::text::int",
	"SELECT NOT NOT NOT a", "SELECT a IS NULL IS NULL IS NULL", "SELECT f(g(h(1)))", "SELECT ARRAY[ARRAY[ARRAY[1]]]",
	"SELECT x BETWEEN 1 AND 2 IS NULL BETWEEN 1 AND 2 IS NULL BETWEEN 1 AND 2",
	"SELECT x IS NULL BETWEEN 1 AND 2 IS NULL BETWEEN 1 AND 2 IS NULL",
	"SELECT CASE WHEN a AND b THEN 1 END + CASE WHEN a OR b THEN 1 END + CASE WHEN a, b THEN 1 END",
	"SELECT CASE WHEN a AND b THEN c END + 1 + 1 + CASE WHEN a AND b THEN c END + 1 + 1",
	"SELECT t.and + t.or + t.and + t . and + t/**/./**/or", "SELECT a AS case, b AS end, c + d AS and",
	"SELECT 1 UNION SELECT 2, 3 UNION SELECT 4", "SELECT 1 FROM a JOIN b ON f(1,2) AND x JOIN c ON true AND y",
	"SELECT E'\\'' + E'a\\'b' 'c' + e'\\\\'", "SELECT E'a'\n'\\'+1+1+1' + 1", "SELECT E'a' -- '\n'\\'+1' + 1",
	"SELECT $$+1+1'$$ + $a$ $$ ' $b$ + $a$ + 1", "SELECT 'a''+1' + U&'\\0061' + B'01' + X'1F' + N'x'",
	`SELECT "a""+1" + U&"b" + a$b$ + 1`, "SELECT 1 /* + 1 /* + 1 */ ' */ + 2 -- + 3 '\n + 4", "SELECT a ~-b @-c <->-d *--x\n e",
	"SELECT a COLLATE x COLLATE y AT TIME ZONE z AT TIME ZONE w", "SELECT a OPERATOR(pg_catalog.+) b OPERATOR(+) c",
	"SELECT (((a OR b) OR c) OR d) AND (a AND (b AND (c AND d)))", "SELECT a.b.c.d, (a).b.c, a[1][2][3]",
	"SELECT (SELECT (SELECT (SELECT 1)))", "SELECT * FROM (SELECT * FROM (VALUES (1,2), (3,4)) x) y",
	"SELECT a LIKE b ESCAPE c, a SIMILAR TO b, a NOT IN (1, 2), (a, b) OVERLAPS (c, d), a ISNULL NOTNULL",
	"WITH a AS (WITH b AS (SELECT 1) SELECT * FROM b) SELECT * FROM a", "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2+3)",
	"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE a WHEN 1 THEN 2 END; END", "SELECT 1; SELECT 2 + 3; ;",
	"SELECT xmlelement(name a, xmlattributes(b AS and), c)", "SELECT json_object('a': 1 + 2, 'b': (3))", "SELECT 1 FROM a NATURAL JOIN b LEFT JOIN c USING (d)",
	"SELECT array_agg(a ORDER BY b) FILTER (WHERE c) OVER (PARTITION BY d ORDER BY e ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING)",
}

func TestNestingIsNeverUnderestimated(t *testing.T) {
	for _, text := range nestingTexts {
		checkNesting(t, text)
	}
}

// TestNestingOfProductions repeats all that recurs in the grammar.
func TestNestingOfProductions(t *testing.T) {
	for i := range productions {
		for _, n := range []int{1, 3, 100} {
			checkNesting(t, productions[i].text(n))
		}
	}
}

// expression puts productions that take an expression and are one into each
// other, each some times: two bytes for each.
func expression(choices []byte) string {
	text := "a"
	for ; len(choices) > 1; choices = choices[2:] {
		p := &productions[int(choices[0])%len(productions)]
		if p.before != "SELECT " || p.after != "" {
			continue
		}
		n := int(choices[1])
		text = strings.Repeat(p.open, n) + text + strings.Repeat(p.end, n)
	}
	return text
}

// randomChoices chooses up to a dozen productions, each some times.
func randomChoices(random *rand.Rand) []byte {
	choices := make([]byte, 2*(1+random.IntN(12)))
	for i := range choices {
		choices[i] = byte(random.IntN(len(productions)))
		if i%2 == 1 {
			choices[i] %= 16
		}
	}
	return choices
}

// FuzzNestingOfProductions looks for a way to put productions together that
// is deeper than it looks, that ends the process, or that takes long: Go ends a
// worker that is busy with one text for 10 s, and shows nothing of its words
// ("deadlocked!") but an EOF.
func FuzzNestingOfProductions(f *testing.F) {
	f.Add([]byte("\xea\xd1\x01\x7f\x04D\xe5\xa9\x89\x021\xb2\x7f\xb2\xd2")) // took four seconds
	random := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		f.Add(randomChoices(random))
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		text := expression(choices)
		if len(text) > 1<<16 {
			return
		}
		checkNesting(t, "SELECT "+text)
		checkNesting(t, "DELETE FROM t WHERE "+text)
		Parse("DELETE FROM t WHERE " + text)
	})
}

// TestNestingOfRepeatedParts repeats what can stand in a row: an undercount
// grows until it shows.
func TestNestingOfRepeatedParts(t *testing.T) {
	parts := []string{
		" + 1", " * a", " - -1", "::int", " IS NULL", " BETWEEN 1 AND 2 IS NULL", " AND a", " OR a", " AND a = b", " OR a + b = c",
		" + t.and", " + CASE WHEN a AND b THEN c END", " + f(a, b)", " + (a, b)", " COLLATE x", " AT TIME ZONE z", " || E'\\''",
		" || E'a'\n'\\'b'", " || $$ ' $$", " || 'x'", " IN (1, 2) IS NULL", " + (SELECT 1)", " + ARRAY[1, 2]", " [1]", ", a + b",
		" UNION SELECT a, b", " /* ' */ + 1", " -- '\n + 1", " + a$b", ` + "a'"`, " + (a AND b)", " IS DISTINCT FROM b", " ISNULL",
		" OPERATOR(pg_catalog.+) 1", " LIKE b IS NULL", " + CASE a WHEN 1 THEN 2 ELSE 3 END", " @ a", " ->> 'b'", " #> a <-> b",
	}
	for _, part := range parts {
		for _, n := range []int{1, 30, 300} {
			checkNesting(t, "SELECT a"+strings.Repeat(part, n))
			checkNesting(t, "SELECT 1 FROM t WHERE a"+strings.Repeat(part, n))
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var text strings.Builder
		text.WriteString("SELECT a")
		for range 1 + random.IntN(60) {
			text.WriteString(parts[random.IntN(len(parts))])
		}
		checkNesting(t, text.String())
	}
}

func TestDeepTextsAreUnknownAndHarmless(t *testing.T) {
	const n = 100_000
	tests := map[string]string{
		"operators":  "SELECT 1" + strings.Repeat("+1", n),
		"brackets":   "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"not":        "SELECT " + strings.Repeat("NOT ", n) + "a",
		"subselects": "SELECT " + strings.Repeat("(SELECT ", n) + "1" + strings.Repeat(")", n),
		"unions":     "SELECT 1" + strings.Repeat(" UNION SELECT 1", n),
		"joins":      "SELECT 1 FROM a" + strings.Repeat(" JOIN b ON true", n),
		"casts":      "SELECT a" + strings.Repeat("::int", n),
		"case":       "SELECT " + strings.Repeat("CASE WHEN a THEN ", n) + "1" + strings.Repeat(" END", n),
		"between":    "SELECT x" + strings.Repeat(" IS NULL BETWEEN 1 AND 2", n),
		"labels":     "SELECT 1" + strings.Repeat(" + t.and", n),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if b := Parse(text); b.Class != inspect.Unknown || b.Why == "" {
				t.Errorf("class %v, want unknown with a reason", b.Class)
			}
		})
	}
}

func TestLongButFlatTextsAreParsed(t *testing.T) {
	const n = 10_000
	tests := map[string]string{
		"or":      "SELECT 1 FROM t WHERE a=1" + strings.Repeat(" OR a=1", n),
		"and":     "SELECT 1 FROM t WHERE a=1" + strings.Repeat(" AND a=1", n),
		"in":      "SELECT 1 FROM t WHERE a IN (1" + strings.Repeat(",1", 10*n) + ")",
		"values":  "INSERT INTO t VALUES (1,-2,'a'::text)" + strings.Repeat(",(1,-2,'a'::text)", n),
		"case":    "UPDATE t SET a = CASE" + strings.Repeat(" WHEN id = 1 AND b = 2 THEN 3+4", n) + " END WHERE id = 1",
		"literal": "INSERT INTO t VALUES ('" + strings.Repeat("(+a||b)", 10*n) + "')",
		"escaped": "INSERT INTO t VALUES (E'" + strings.Repeat(`\'+(`, 10*n) + "')",
		"nested":  "SELECT 1 FROM t WHERE " + strings.Repeat("(", 1000) + "a=1" + strings.Repeat(" OR b=2)", 1000),
		"columns": "SELECT a+b" + strings.Repeat(", a+b", n),
		"many":    strings.Repeat("SELECT 1+1 FROM a JOIN b ON true; ", n),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if b := Parse(text); b.Why != "" {
				t.Errorf("unknown: %s (nesting %d)", b.Why, loadOf(text).levels)
			}
		})
	}
}

func FuzzNesting(f *testing.F) {
	for _, text := range nestingTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\x00") {
			return
		}
		checkNesting(t, text)
	})
}

// nodesOf counts a tree's nodes.
func nodesOf(m protoreflect.Message) int {
	nodes := 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				nodes += nodesOf(v.List().Get(i).Message())
			}
		default:
			nodes += nodesOf(v.Message())
		}
		return true
	})
	if _, ok := m.Interface().(*pg.Node); ok {
		nodes++
	}
	return nodes
}

// TestRepeatedSourcesAreCounted: what several columns are set to is in the tree
// once for each, and what is within that, once for each of those.
func TestRepeatedSourcesAreCounted(t *testing.T) {
	nested := func(columns string, n int) string {
		return strings.Repeat("UPDATE t SET ("+columns+")=(WITH x AS (", n) + "SELECT 1" + strings.Repeat(") SELECT 1)", n)
	}
	many := "a" + strings.Repeat(",a", 60)
	for _, text := range []string{
		nested("a,b", 6), nested("a,b,c", 4), nested(many, 1),
		"UPDATE t SET (" + many + ") /**/ = --\n (SELECT " + many + ")",
		"UPDATE t SET x = 1, (" + many + ") = (" + many + "), (a, b[1]) = (SELECT " + many + ") WHERE a",
		"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SeT(" + many + ")=ROW(" + many + ")",
		"MERGE INTO t USING u ON a WHEN MATCHED THEN UPDATE SET (" + many + ") = (SELECT CASE WHEN a THEN (" + many + ") END)",
	} {
		result, err := pg.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if nodes, tokens := nodesOf(result.ProtoReflect()), loadOf(text).tokens; nodes > 4*tokens {
			t.Errorf("%d nodes, %d tokens: %.200s", nodes, tokens, text)
		}
	}
	for _, text := range []string{
		nested("a,b", 20), nested("a,a,a,a,a,a,a,a,a,a", 8), nested(strings.Repeat("a,", 2000)+"a", 2), strings.ToLower(nested("a,b", 20)),
		"UPDATE t SET (" + strings.Repeat("a,", 2000) + "a) = ROW(" + strings.Repeat("a,", 2000) + "a)",
		"UPDATE t SET (" + strings.Repeat("a,", 1000) + "a) = ROW('" + strings.Repeat("a ", 100_000) + "')",
	} {
		if b := Parse(text); b.Why != whyLimit {
			t.Errorf("%s: %.200s", b.Why, text)
		}
	}
	if b := Parse("UPDATE t SET (" + many + ") = ROW(" + many + ") WHERE (a, b) = (1, 2) OR (a, b) = (3, 4)"); b.Why != "" {
		t.Error(b.Why)
	}
}
