package pgquery

import (
	"strings"
	"testing"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect/lex"
)

// FuzzLex compares package lex with PostgreSQL's own lexer: where that one
// takes a text, both find tokens of the same kinds at the same places. (Where
// a literal ends, pg_query does not tell rightly.)
func FuzzLex(f *testing.F) {
	for _, text := range []string{
		"SELECT 1", "select 'a''b', E'a\\'b', e'\\\\', $$x$$, $a$ $b$ $a$, U&'\\0041', b'01', X'1f', n'x'",
		"a.b.c[1:2] :: int4 = 1.5e-3 and .5 <> 1. or 1..2", "'a' \n 'b' -- x\n 'c'", "'a' -- x\n --y\n\t'b'", "'a' /* */ 'b'",
		"/* a /* b */ c */ x", "a+-b", "a@-b", "a -- b", "a*/*x*/b", "x=-1", "a<=b>=c!=d<>e=>f:=g", "\"a\"\"b\" u&\"\\0041\"", "$1$2 $1a",
		"1_000 0x1F 1a 1e 1e+ 1e5 1.e5", "ab$c$d$e$", "/*", "'", "\"", "$a$", "e'\\", "+++---", "|+", "é$é$é", "\f\t\r\n", "@--", "1.5.5", "B'''' x''\n''", "a..b", ":::=", "'a'\n--'b'\n'c'",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || len(text) > 1<<16 || strings.ContainsAny(text, "\x00\v") {
			t.Skip("no text that a parser is given; \\v is white space from PostgreSQL 17 on")
		}
		compareTokens(t, text)
	})
}

func compareTokens(t *testing.T, text string) {
	t.Helper()
	l := lex.Lexer{Text: []byte(text)}
	var got []lex.Token
	bad := false
	for tok := l.Next(); tok.Kind != lex.EOF; tok = l.Next() {
		if tok.End <= tok.Start {
			t.Fatalf("%q: token %v is empty", text, tok)
		}
		bad = bad || tok.Kind == lex.Bad || isLiteral(tok.Kind) && strings.Contains(text[tok.Start:tok.End], "--")
		got = append(got, tok)
	}
	if cost := lex.CostOf([]byte(text)); cost.Nesting > 64 || cost.Rescans > 1<<20 {
		return // costs the server's lexer too much
	}
	scanned, err := pg.Scan(text)
	if err != nil || bad {
		// Whoever uses the tokens takes Bad for what he cannot read. And
		// pg_query's lexer does not join literals with a comment between them.
		return
	}
	i := 0
	for _, want := range scanned.Tokens {
		if want.Token == pg.Token_SQL_COMMENT || want.Token == pg.Token_C_COMMENT {
			continue
		}
		if i == len(got) {
			t.Fatalf("%q: token %v at %d was not found", text, want.Token, want.Start)
		}
		tok := got[i]
		if tok.Start != int(want.Start) || !sameKind(tok.Kind, want.Token) {
			t.Fatalf("%q: token %d is %v, want %v at %d", text, i, tok, want.Token, want.Start)
		}
		i++
	}
	if i != len(got) {
		t.Fatalf("%q: token %v is one too many", text, got[i])
	}
}

func isLiteral(k lex.Kind) bool {
	return k == lex.String || k == lex.EscapeString || k == lex.UnicodeString || k == lex.BitString
}

func sameKind(k lex.Kind, want pg.Token) bool {
	switch want {
	case pg.Token_SCONST:
		return k == lex.String || k == lex.EscapeString || k == lex.DollarString
	case pg.Token_USCONST:
		return k == lex.UnicodeString
	case pg.Token_BCONST, pg.Token_XCONST:
		return k == lex.BitString
	case pg.Token_ICONST:
		return k == lex.Integer
	case pg.Token_FCONST:
		return k == lex.Number || k == lex.Integer
	case pg.Token_PARAM:
		return k == lex.Param
	case pg.Token_UIDENT:
		return k == lex.UnicodeWord
	case pg.Token_TYPECAST:
		return k == lex.Cast
	case pg.Token_IDENT:
		return k == lex.Word || k == lex.QuotedWord
	default:
		return k == lex.Word || k == lex.Punct || k == lex.Operator
	}
}
