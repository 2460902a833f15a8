package lex

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func template(text string) *Template {
	var s Shape
	if s.Read([]byte(text)) != Shaped {
		return nil
	}
	return NewTemplate(&s, []byte(text), string(s.Key))
}

func TestTemplates(t *testing.T) {
	for _, test := range []struct {
		text, other string
		fits        bool
	}{
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 22", true},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 'x'", true},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = null", true},
		{"SELECT a FROM t WHERE b = 1 OR c", "SELECT a FROM t WHERE b = True OR c", true},
		{"SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN (-7.5,8 , 9)", true},
		{"SELECT a FROM t WHERE b IN ('x') LIMIT 80", "SELECT a FROM t WHERE b IN ('y', 'é') LIMIT 8", true},
		{"SELECT a FROM t WHERE b = 1", "SELECT c FROM t WHERE b = 1", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1 ", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = ", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = x", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1.5", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = \x051", false},
		{"SELECT a FROM t WHERE b > 1", "SELECT a FROM t WHERE b > 'x'", false},
		{"SELECT a FROM t WHERE b > 1", "SELECT a FROM t WHERE b > 1234567890", false},
		{"SELECT 'a' ", "SELECT 'a\xff' ", false},
		{"SELECT 'a' ", "SELECT 'a\x00' ", false},
		{"SELECT 'a' ", `SELECT '\' `, false},
		{"SELECT 'a' ", "SELECT 'a''b' ", false},
		{"SELECT 'a'\n", "SELECT 'b'\n", false},
	} {
		known := template(test.text)
		if known == nil {
			if test.fits {
				t.Errorf("%q has no template", test.text)
			}
			continue
		}
		if fits := known.Fits([]byte(test.other)); fits != test.fits {
			t.Errorf("%q fits %q: %v, want %v", test.other, test.text, fits, test.fits)
		}
		checkTemplate(t, test.text, test.other)
	}
}

func TestShapesWithoutTemplates(t *testing.T) {
	for _, text := range []string{
		"SELECT a", "BEGIN", "INSERT INTO t VALUES (1, 2)", "SELECT 1.5", "SELECT b'1'", "SELECT E'a'", "SELECT a = -1", `SELECT "\", 1`, "SELECT x::FLOAT, 'a'",
		"SELECT a[1]", "SELECT '\n' 'x'", "SELECT 1" + strings.Repeat(", 1", maxHoles), `SAVEPOINT ` + uuid,
	} {
		if template(text) != nil {
			t.Errorf("%q has a template", text)
		}
	}
}

// checkTemplate compares what a template says of a text with what a pass over
// the text does.
func checkTemplate(t *testing.T, text, other string) (fits bool) {
	t.Helper()
	known := template(text)
	if known == nil || !known.Fits([]byte(other)) {
		return false
	}
	var want, got Shape
	if !known.Fill(&got, []byte(other)) || len(other) < known.Begins() || other[:known.Begins()] != text[:known.Begins()] {
		t.Fatalf("%q fits %q, and does not", other, text)
	}
	if why := want.Read([]byte(other)); why != Shaped || !bytes.Equal(want.Key, got.Key) || !slices.Equal(want.Slots, got.Slots) {
		t.Fatalf("%q fits %q:\n%q %v, and read it is (%d)\n%q %v", other, text, got.Key, got.Slots, why, want.Key, want.Slots)
	}
	return true
}

// templateSeeds have constants in all places where what is around them matters.
var templateSeeds = []string{
	`SELECT "a"."b" FROM "t" WHERE ("t"."c" = 5) AND ("t"."d" IN (1, 2, 3)) AND "e" = 'x' AND "f" IN ('a', 'b') LIMIT 80`,
	"SELECT a=1, b = NULL, c = true, d = 'x' , e <> 7, f::int[5], g[1:2], h - 5, i = - 5 - 3, ARRAY[4]",
	"SELECT x IN (1, 'a'), y IN (1, now()), position('a' IN ('b')), z IN (1, a = 5), 'a' /* c */ , 5 -- d\n, 6",
	"UPDATE t SET a = 'x', b=5, c = NULL WHERE id IN (7) RETURNING 1;",
	"MERGE INTO t USING v ON id = 1 WHEN NOT MATCHED THEN INSERT VALUES (1, 'x')", "VALUES (now(), 1), (2, 'x')",
	"SELECT date '2020-01-01', interval'1 day', a = 'x'AND b, 1 UNION SELECT 'a' 'b', 3, 'a'\n'b'\n, 'c', $1, $$x$$, 1 = 'y' = 5",
	"SELECT 5 5, 'a' 5, 5 'a', 'a'5, 5'a', a.b = 5.c, 5 ], e 'x', n 'x', u & 'x', 7--\n",
}

// templateParts are what stands in a constant's place.
var templateParts = []string{
	"0", "5", "77", "123456789", "1234567890", "000000000", "1.5", ".5", "5.", "1e5", "5e", "-5", "- 5", "5a", "0x1f", "5]", "5 ]", "$1", "1, 2", "1,-2 , .5 ", "1)", "(1)",
	"''", "'a'", "'a''b'", "'a' 'b'", "'a'\n'b'", "'a'--\n'b'", "'\\'", "'\x00'", "'\xff'", "'é'", "'", "'a", "'a' -", "E'a'", "e'\\x41'", "b'1'", "n'a'", "u&'a'", "$$a$$",
	"'a', 'b'", "'a','b' ", "null", "NULL", "True", "FALSE", "nullx", "null.x", "null'x'", "default", "\x01", "\x02", "\x05", "\x06", "", " 5", "5 ", "5--\n", "'a'/**/", "float", "5::float, 5",
}

// varyConstants puts other things in the place of some of the text's constants.
func varyConstants(random *rand.Rand, text string) string {
	var s Shape
	if s.Read([]byte(text)) != Shaped {
		return text
	}
	var out strings.Builder
	done := 0
	for _, slot := range s.Slots {
		out.WriteString(text[done:slot.Start])
		parts := templateParts
		if random.IntN(2) == 0 {
			parts = []string{"7", "88", "'x'", "'yz'", "NULL", "1, 2, 3"}
		}
		if done = slot.Start; random.IntN(3) == 0 {
			out.WriteString(parts[random.IntN(len(parts))])
			done = slot.End
		}
	}
	return out.String() + text[done:]
}

// varyText puts a part into the text somewhere, or takes bytes out of it.
func varyText(random *rand.Rand, text string) string {
	at := random.IntN(len(text) + 1)
	if random.IntN(2) == 0 {
		return text[:at] + templateParts[random.IntN(len(templateParts))] + text[at:]
	}
	return text[:at] + text[min(len(text), at+random.IntN(4)):]
}

func TestTemplatesOfVariedTexts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fits := 0
	for range 5000 {
		text := templateSeeds[random.IntN(len(templateSeeds))]
		for range random.IntN(4) {
			text = varyText(random, varyConstants(random, text))
		}
		for range 5 {
			if other := varyConstants(random, text); other != text && checkTemplate(t, text, other) {
				fits++
			}
		}
	}
	t.Logf("%d texts had a template's shape", fits)
	if fits < 500 {
		t.Errorf("only %d texts had a template's shape", fits)
	}
}

// FuzzTemplate is TestTemplatesOfVariedTexts with the fuzzer's guidance.
func FuzzTemplate(f *testing.F) {
	for i, text := range templateSeeds {
		f.Add(text, templateSeeds[(i+1)%len(templateSeeds)], uint64(i))
	}
	f.Fuzz(func(t *testing.T, text, other string, seed uint64) {
		checkTemplate(t, text, other)
		random := rand.New(rand.NewPCG(seed, 1))
		for range 8 {
			checkTemplate(t, text, varyConstants(random, text))
		}
	})
}

func BenchmarkTemplate(b *testing.B) {
	for name, text := range shapeTexts {
		known := template(text)
		text := []byte(text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if !known.Fits(text) {
					b.Fatal("it does not fit")
				}
			}
		})
	}
}
