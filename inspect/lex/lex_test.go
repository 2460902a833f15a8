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
		{"signs", strings.Repeat("+", 5000), 0, true},
		{"minus signs are a comment", strings.Repeat("-", 5000), 0, false},
	} {
		c := CostOf([]byte(test.text))
		if c.Nesting != test.nesting || c.Rescans > 1<<20 != test.rescans {
			t.Errorf("%s: %+v", test.name, c)
		}
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
