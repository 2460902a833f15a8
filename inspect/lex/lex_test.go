package lex

import (
	"strings"
	"testing"
)

func read(text string, escapes bool) (kinds []Kind, parts []string) {
	l := Lexer{Text: []byte(text), EscapeStrings: escapes}
	for t := l.Next(); t.Kind != EOF; t = l.Next() {
		kinds, parts = append(kinds, t.Kind), append(parts, text[t.Start:t.End])
	}
	return kinds, parts
}

func TestTokens(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a.b", "a|.|b"},
		{"1..2", "1|..|2"},
		{"'a''b' 'c'", "'a''b'|'c'"},
		{"'a' \n 'b'", "'a' \n 'b'"},
		{`'a\' 'b'`, `'a\'|'b'`},
		{`E'a\' b'`, `E'a\' b'`},
		{"$1 $$a$$ $x$ $$ $x$", "$1|$$a$$|$x$ $$ $x$"},
		{"a+-1", "a|+|-|1"},
		{"a@-1", "a|@-|1"},
		{"a--b\nc", "a|c"},
		{"a/*b/*c*/d*/e", "a|e"},
		{"a*/*b*/c", "a|*|c"},
		{"x::int", "x|::|int"},
		{`U&"a" u&'b' "c""d"`, `U&"a"|u&'b'|"c""d"`},
		{"1e5 1e 0x1F 1_0", "1e5|1e|0x1F|1_0"},
		{"n'a'", "n|'a'"},
		{"'open", "'open"},
	} {
		if _, parts := read(test.text, false); strings.Join(parts, "|") != test.want {
			t.Errorf("%q: %q, want %q", test.text, parts, test.want)
		}
	}
	if _, parts := read(`'a\' b'`, true); len(parts) != 1 {
		t.Errorf("with escapes: %q", parts)
	}
	if kinds, _ := read("1a $1a 'open", false); kinds[0] != Bad || kinds[1] != Bad || kinds[2] != Bad {
		t.Errorf("what no grammar takes: %v", kinds)
	}
}

func TestCosts(t *testing.T) {
	for _, test := range []struct {
		name, text string
		nesting    int
		rescans    bool // more than a megabyte
	}{
		{"none", "SELECT 1 -- /* /*\n", 0, false},
		{"one level", "/* a */ /* b */", 1, false},
		{"nested", strings.Repeat("/*", 100) + strings.Repeat("*/", 100), 100, false},
		{"inside of a literal", "'" + strings.Repeat("/*", 100) + "'", 0, false},
		{"behind a literal, with escapes", `'\'` + strings.Repeat("/*", 100) + `'`, 100, false},
		{"a box", "/" + strings.Repeat("*", 200) + "/", 1, false},
		{"many comments in a row", strings.Repeat("/**/", 5000), 1, true},
		{"behind a literal that goes on", "'a' --\n'/*' /*", 1, false},
		{"behind a number", `'\' 1E'\'' ` + strings.Repeat("/*", 100), 100, false},
		{"behind an exponent", "1e5$a$ " + strings.Repeat("/*", 100), 0, false},
		{"in a name", "a$a$ " + strings.Repeat("/*", 100), 100, false},
		{"in a dollar tag's literal", "$a$ $b$ $aa$ $$ " + strings.Repeat("/*", 100) + " $a$", 0, false},
		{"behind it", "$a$ $b$a$ " + strings.Repeat("/*", 100), 100, false},
		{"signs", strings.Repeat("+", 5000), 0, true},
		{"minus signs are a comment", strings.Repeat("-", 5000), 0, false},
	} {
		c := CostOf([]byte(test.text))
		if c.Nesting != test.nesting || c.Rescans > 1<<20 != test.rescans {
			t.Errorf("%s: %+v", test.name, c)
		}
	}
}

// dullCost measures a text that is at hand by the lexer's tokens.
func dullCost(text []byte, escapes bool) (c Cost, bad bool) {
	// again is what is read again from behind a mark at i.
	again := func(i int) int {
		end := i + 1
		for end < len(text) && classes[text[end]] == operatorClass {
			end++
		}
		return end - i - 1
	}
	comments := func(gap []byte, at int) {
		depth := 0
		for i := 0; i+1 < len(gap); i++ {
			switch string(gap[i : i+2]) {
			case "/*":
				c.Rescans += again(at + i)
				depth++
				c.Nesting = max(c.Nesting, depth)
				i++
			case "*/":
				depth--
				i++
			case "--":
				for depth == 0 && i < len(gap) && gap[i] != '\n' && gap[i] != '\r' {
					i++
				}
			}
		}
	}
	l := Lexer{Text: text, EscapeStrings: escapes}
	end := 0
	for t := l.Next(); ; t = l.Next() {
		comments(text[end:t.Start], end)
		if t.Kind == EOF {
			return c, bad
		}
		if t.Kind == Operator && classes[text[t.Start]] == operatorClass {
			c.Rescans += again(t.Start)
		}
		bad = bad || t.Kind == Bad && text[t.Start] != '\'' && text[t.Start] != '"'
		end = t.End
	}
}

// FuzzMeter compares the meter, which is given a text in pieces, with the lexer,
// which has it whole.
func FuzzMeter(f *testing.F) {
	for _, text := range []string{
		"SELECT 'a''b' \n 'c' -- d\n 'e' /* f /* g */ */ + - @-+ 1", `E'a\'b' '\' "c""d" U&"e" u&'f' x'1' b'0''1' n'x' u&+u`,
		"$a$ $b$ $a$ $$ $x $$ $1$a$b$a$ a$b$c", "1e5$a$b$a$ 1e+5 1.5e-3++ 1..2", "a:=+++ b::c:::=++", "+/**/-*-/*+++*/++ --+++\n+", "/*/*/**/*/*/", "$$a$b$$", "'a'--b\n'c'-'d'", "$e'\\''/*", "+--++", "/*'*/'/*", "'a'\n-'b'", "@+-+-/**/+-+",
	} {
		f.Add([]byte(text), uint8(1), uint8(0))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece, encoding uint8) {
		if len(text) > 1<<12 || strings.Contains(string(text), "\x00") {
			return
		}
		chars := Characters(encoding % 5)
		m := NewMeter(chars)
		for rest := text; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			m.Add(rest[:n])
			rest = rest[n:]
		}
		letters := chars.Letters(text)
		for i := range m.readings {
			want, bad := dullCost(letters, m.readings[i].escapes)
			if got := m.readings[i].total(); got != want && !bad { // no server reads on behind what is bad, but version 14
				t.Errorf("%q, escapes %v: %+v, want %+v", text, m.readings[i].escapes, got, want)
			}
		}
	})
}

func TestMeterAllocatesNothing(t *testing.T) {
	text := []byte("SELECT a, 'b', $$c$$, 1.5 FROM \"t\" /* d */ WHERE x = $1")
	if n := testing.AllocsPerRun(100, func() { CostOf(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLexerAllocatesNothing(t *testing.T) {
	text := []byte("SELECT a, 'b', $$c$$, 1.5 FROM \"t\" /* d */ WHERE x = $1")
	if n := testing.AllocsPerRun(100, func() {
		l := Lexer{Text: text}
		for l.Next().Kind != EOF {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLexer(b *testing.B) {
	text := []byte(strings.Repeat("SELECT account_move.id, 'text', 12345 FROM account_move WHERE (state = 'posted') ", 12))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		l := Lexer{Text: text}
		for l.Next().Kind != EOF {
		}
	}
}

func BenchmarkMeter(b *testing.B) {
	for name, text := range map[string]string{
		"code":    strings.Repeat("SELECT account_move.id, 'text', 12345 FROM account_move WHERE (state = 'posted') ", 12),
		"literal": "'" + strings.Repeat("x", 1000) + "'",
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				CostOf([]byte(text))
			}
		})
	}
}
