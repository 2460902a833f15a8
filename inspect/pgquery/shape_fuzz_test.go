package pgquery

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// FuzzShape is the proof of the shape key: whatever the cache returns for a
// text is what the parser says of it. A text and texts that differ from it in
// constants and lists, and another text, fill a cache and are looked up there.
func FuzzShape(f *testing.F) {
	for i, text := range shapeSeeds {
		f.Add(text, shapeSeeds[(i+1)%len(shapeSeeds)], uint64(i))
	}
	for _, e := range readEvasions(f) {
		texts, _ := e.texts()
		for i, text := range texts {
			if len(text) < 2000 {
				f.Add(text, "", uint64(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text, other string, seed uint64) {
		if len(text) > 4000 || len(other) > 4000 || !affordable(text) || !affordable(other) {
			t.Skip("costs too much")
		}
		checkVaried(t, text, other, seed)
	})
}

// roundsVariable is the environment variable that says how often
// TestVariedTextsHaveTheirOwnFacts goes through the texts.
const roundsVariable = "LOCKKEEPER_SHAPE_ROUNDS"

// TestVariedTextsHaveTheirOwnFacts is what FuzzShape does, without the
// fuzzer's guidance and much faster: the texts' constants are drawn anew in
// each round, and in texts that were drawn before.
func TestVariedTextsHaveTheirOwnFacts(t *testing.T) {
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		rounds = n
	}
	texts := slices.Clone(shapeSeeds)
	hits := 0
	for round := range rounds {
		random := rand.New(rand.NewPCG(uint64(round), 2))
		for n, text := range texts {
			hits += checkVaried(t, text, texts[random.IntN(len(texts))], random.Uint64())
			if next := varied(random, text); len(next) < 1000 && Parse(next).Constants != nil {
				texts[n] = next
			}
			if random.IntN(8) == 0 {
				texts[n] = shapeSeeds[n]
			}
		}
	}
	t.Logf("%d rounds of %d texts: %d hits were the parser's facts", rounds, len(texts), hits)
	if hits == 0 {
		t.Error("nothing was compared")
	}
}

// checkVaried fills a cache with texts and compares each hit with a parse. It
// returns how many there were.
func checkVaried(t *testing.T, text, other string, seed uint64) (hits int) {
	t.Helper()
	i := inspect.NewInspector(inspect.Limits{CacheBytes: 1 << 20, ParseSlots: 1}, Parse, nil)
	random := rand.New(rand.NewPCG(seed, 1))
	i.Inspect(t.Context(), []byte(text), plain)
	hits += checkShape(t, i, other)
	for range 6 {
		hits += checkShape(t, i, varied(random, text))
	}
	return hits + checkShape(t, i, text)
}

// affordable keeps the fuzzer from spending its time on what it is not about.
func affordable(text string) bool {
	cost := lex.CostOf([]byte(text))
	return cost.Nesting < 16 && cost.Rescans < 1<<20
}

// checkShape compares what the cache has for a text with a parse, and returns
// 1; or 0 for a text that it did not have and has now.
func checkShape(t *testing.T, i *inspect.Inspector, text string) int {
	t.Helper()
	got := i.Lookup([]byte(text), plain)
	if got == nil {
		i.Inspect(t.Context(), []byte(text), plain)
		return 0
	}
	want := Parse(text)
	want.Constants, want.SlowTree = nil, false
	if !equal(got, want) {
		t.Fatalf("%q:\n%+v from the cache, and from the parser\n%+v", text, got, want)
	}
	return 1
}

// equal compares batches, and of fingerprints what they are: how they were made
// does not matter, and may go on aside.
func equal(a, b *inspect.Batch) bool {
	x, y := *a, *b
	x.Fingerprint, y.Fingerprint = nil, nil
	return a.Fingerprint.Value() == b.Fingerprint.Value() && reflect.DeepEqual(&x, &y)
}

// shapeSeeds are where the fuzzer begins: what the walker reads of constants,
// and where the grammar does not take them all alike.
var shapeSeeds = []string{
	"SELECT a, 'x', 1.5 FROM t WHERE b = 1 AND c IN (1, 2, 3) AND d LIKE 'x%' LIMIT 80",
	"UPDATE t SET a = 'x', b = NULL, c = -5.5, d = true WHERE id = 5",
	"UPDATE t SET a = 1 WHERE id IN (1, 2, 3)",
	"UPDATE t SET a = 1 WHERE id IN ('1', '2') OR id = 4",
	"UPDATE t SET a = 1 WHERE 1 = 1",
	"UPDATE t SET a = 1 WHERE 'a' = 'b' OR id = '5'",
	"DELETE FROM t WHERE x LIKE 'a%' OR y ~ '^a' OR z IS NULL",
	"DELETE FROM t WHERE a <> 1 OR a <> 2 OR b > 1 OR b <= 5 OR NOT (c = 1 AND c = 2) OR d = true OR d = false",
	"DELETE FROM t WHERE x IN (true, false) OR (id, 1) > (id, 0) OR (x, 1) = (x, 2) OR x BETWEEN 1 AND 5 OR x NOT BETWEEN 1 AND 5",
	"DELETE FROM t WHERE EXISTS (SELECT 1 FROM t b WHERE b.id = t.id LIMIT 1) OR id IN (SELECT id FROM t OFFSET 0)",
	"DELETE FROM t WHERE 0.1 + 0.2 = 0.3 OR 1.4::int = 1 OR (NULL || 'x') IS NULL OR 'a' COLLATE c = 'A' OR id = ANY (ARRAY['{1}'::_int4])",
	"DELETE FROM t WHERE id IN (1) AND x >= 'a' AND x + 0 = 5",
	"DELETE FROM t WHERE x BETWEEN 1 AND 2 AND length(x) > -1",
	"DELETE FROM t WHERE coalesce(x, 1) = 1 OR NOT (x > 3 AND x < 5)",
	"DELETE FROM t WHERE CASE WHEN 1 = 2 THEN true ELSE x = 1 END",
	"DELETE FROM t WHERE id = ANY ('{1,2,3}') OR id = ANY (ARRAY[1, 2])",
	"DELETE FROM t WHERE id = ALL ('{}') OR x <> ALL (ARRAY['a'])",
	"DELETE FROM t WHERE (id, x) IN ((1, 2), (3, 4)) OR id = 7",
	"DELETE FROM t WHERE id IN (SELECT x FROM (VALUES (1), (2)) AS v(x))",
	"DELETE FROM t USING (VALUES (1, 'a'), (2, 'b')) AS v(id, n) WHERE t.id = v.id",
	"DELETE FROM t WHERE EXISTS (SELECT 1 WHERE 1 = 1 LIMIT 1)",
	"DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 5) OR id IN (SELECT id FROM t LIMIT (NULL))",
	"DELETE FROM t WHERE id IN (SELECT id FROM t TABLESAMPLE system (100))",
	"DELETE FROM t WHERE x + 1 > x + 2 OR y - 5 < y - 3 OR abs(x) >= 0",
	"DELETE FROM t WHERE x = '5'::int OR x::text = 'true' OR 'true'::bool",
	"DELETE FROM t WHERE row(1, 2) = row(1, 3) OR x = 3",
	"DELETE FROM t WHERE f(1, 'a') = f(1, 'b') OR f('a') <> f('a')",
	"DELETE FROM t WHERE id IN (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18) OR x IN ('a')",
	"INSERT INTO t (a, b) VALUES (1, 'a'), (2, NULL), (-3, DEFAULT) RETURNING id",
	"INSERT INTO t VALUES (1, 'x'::jsonb), (2, '{}'::jsonb) ON CONFLICT (id) DO UPDATE SET a = 1 WHERE t.a = 2",
	"INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = excluded.a",
	"INSERT INTO t VALUES (1), (2), (now()), (DEFAULT) ON CONFLICT DO NOTHING",
	"WITH x AS (DELETE FROM t WHERE id IN (1, 2) RETURNING *) SELECT * FROM x WHERE a = 5",
	"MERGE INTO t USING (VALUES (1), (2)) AS v(id) ON t.id = v.id WHEN MATCHED AND t.x = 1 THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
	"SELECT set_config('a', 'b', false), nextval('s'), 'x'::regclass, position('a' IN ('b'))",
	"SELECT 1::float(5), 1::numeric(5, 2), 'x'::char(3), interval '1' second(3), int '5', date '2020-01-01', x::int[3], a[1:2]",
	"SELECT E'a\\'b\\n', E'\\x41', $$x$$, $a$b$a$, 'a' \n 'b', B'01', X'1f', .5, 1e5, 2147483648, 00000000005",
	"SELECT extract('year' from x), x AT TIME ZONE 'UTC', x COLLATE \"C\" = -5 COLLATE \"C\", a = -5 ^ 2, -5::int, a = - 5",
	`SELECT "a"."b", "c" AS "d""e", "f"."g" = 5 FROM "t" AS "u" WHERE "u"."in" IN (1, 2) AND "u"."b""c" = NULL`,
	`SAVEPOINT "4f1c2a9e-11aa-11ef-8d6c-0242ac120002"`, `ROLLBACK TO SAVEPOINT "4F1C2A9E11AA11EF8D6C0242AC120002"; `, `release "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`,
	"SELECT x -> 'a' ->> 'b', x @> '{}', x ? 'a', a.in (1, 2), a . /* c */ values (1), (2), 1 AS values FROM values (1)",
	"SELECT * FROM t ORDER BY x USING =, 1 FETCH FIRST 5 ROWS ONLY",
	"VALUES (1, true), (2, NULL); -- done",
	"((SELECT 1) UNION SELECT 2) EXCEPT VALUES (1), (2) LIMIT 1",
	"DELETE FROM t WHERE x IN (1, NULL) OR y IN (NULL) OR z = NULL OR q = true OR true",
	"SELECT xmlserialize(content x as text), xmltable('/a' passing x columns b int path 'b'), overlay('a' placing 'b' from 1 for 2), x SIMILAR TO 'a' ESCAPE 'b'",
}

// constants are what varied puts in a constant's place.
var constants = []string{
	"0", "1", "-1", "5", "17", "30", "- 5", "2147483647", "2147483648", "0000000000005", "1.5", ".5", "0.0", "-0.5", "1e5", "100", "NULL", "null", "TRUE", "false",
	"''", "'a'", "'%'", "'%%'", "'a%'", "'true'", "'f'", "'1'", "'0'", "'{}'", "'{1,2,3}'", "'^'", "'.*'", "'a''b'", "E'a\\'b'", "E'\\\\'", "e'\\x41'",
	"$$$$", "$$%$$", "$1", "B'01'", "x'1f'", "'é'", "'a\nb'", "'a'\n'b'", "DEFAULT", "'x'::text", "1::int", "'\\'", "(1)", "(NULL)", "1, 2", "'a', 'b'", "now()", "id",
}

// varied returns the text with some of its constants replaced, and some of
// its lists made longer.
func varied(random *rand.Rand, text string) string {
	if !utf8.ValidString(text) {
		return text
	}
	var out strings.Builder
	l := lex.Lexer{Text: []byte(text)}
	end, opened := 0, -1
	for tok := l.Next(); tok.Kind != lex.EOF; tok = l.Next() {
		out.WriteString(text[end:tok.Start])
		part := text[tok.Start:tok.End]
		end = tok.End
		switch {
		case part == "(":
			opened = tok.Start
		case part == ")" && opened >= 0 && random.IntN(3) == 0:
			out.WriteString(part)
			for range random.IntN(20) {
				out.WriteString(", " + text[opened:tok.End])
			}
			opened = -1
			continue
		case tok.Kind == lex.QuotedWord && lex.IsDrawn(part[1:len(part)-1]):
			part = fmt.Sprintf(`"%036x"`, random.Uint64())
		case isConstant(tok.Kind, part) && random.IntN(2) == 0:
			part = constants[random.IntN(len(constants))]
			if random.IntN(3) == 0 {
				part = sameKindOf(random, text[tok.Start:tok.End])
			}
			if random.IntN(6) == 0 {
				part = strings.Repeat(part+", ", random.IntN(20)) + part
			}
		}
		out.WriteString(part)
	}
	out.WriteString(text[end:])
	return out.String()
}

func isConstant(k lex.Kind, part string) bool {
	if k == lex.Word {
		return strings.EqualFold(part, "null") || strings.EqualFold(part, "true") || strings.EqualFold(part, "false")
	}
	return slices.Contains([]lex.Kind{lex.String, lex.EscapeString, lex.BitString, lex.DollarString, lex.Integer, lex.Number}, k)
}

// sameKindOf returns a constant that begins as this one does.
func sameKindOf(random *rand.Rand, part string) string {
	if strings.HasPrefix(part, "'") {
		return "'" + strings.Repeat("x%", random.IntN(3)) + "'"
	}
	return strings.Repeat("7", 1+random.IntN(12))
}
