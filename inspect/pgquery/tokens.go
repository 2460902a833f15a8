package pgquery

import (
	"bytes"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// maxPieces bounds how many statements of a text are read one by one.
const maxPieces = 10_000

// whyTokens is why a statement is Unknown whose tokens say too little.
const whyTokens = whySyntax

// fromTokens reads a text that the grammar does not take, for servers are newer
// than it: what parses of its statements is parsed, and of the others
// class, kind and relations are read from the tokens. Whatever a token may mean
// is taken for the worst of it. It returns nil where nothing is recognised.
func fromTokens(text string) *inspect.Batch {
	toks, ok := tokensOf(text)
	if !ok {
		return nil
	}
	b, known := &inspect.Batch{Class: inspect.Read}, false
	for start := 0; start < len(toks); {
		end := start
		for end < len(toks) && (toks[end].depth > 0 || !toks[end].is(";")) {
			end++
		}
		if len(b.Statements) == maxPieces {
			return nil
		}
		if end > start {
			st := piece(text, toks[start:end], b)
			b.Class = inspect.Worse(b.Class, st.Class)
			b.Statements = append(b.Statements, st)
			known = known || st.Kind != ""
		}
		start = end + 1
	}
	if !known {
		return nil
	}
	if b.Class == inspect.Unknown {
		b.Words = inspect.WordsOf([]byte(text))
	}
	return b
}

// piece returns the facts about one statement of several, by the parser if
// the grammar takes it alone.
func piece(text string, toks []token, b *inspect.Batch) inspect.Statement {
	start, end := 0, toks[len(toks)-1].end
	if n := len(b.Statements); n > 0 {
		start = toks[0].start
	}
	st, ok := parsedAlone(text[start:end])
	if !ok {
		r := reader{text: text, toks: toks}
		st = r.statement()
		b.FromTokens = true
	}
	st.Start, st.Len = start, end-start
	return st
}

// parsedAlone returns the facts about one statement if the grammar takes it.
func parsedAlone(text string) (st inspect.Statement, ok bool) {
	tree, err := pg.Parse(text)
	if err != nil || len(tree.Stmts) != 1 {
		return st, false
	}
	return statement(tree.Stmts[0]), true
}

// token is a token, and what reading one needs of it.
type token struct {
	kind       lex.Kind
	text       string // a name as the server folds it; anything else as it stands
	start, end int
	depth      int // of brackets around it; a bracket's own is the one outside
}

// is reports whether the token is a word without quotes, or punctuation.
func (t *token) is(s string) bool {
	return (t.kind == lex.Word || t.kind == lex.Punct) && t.text == s
}

// among reports whether the token is one of the words.
func (t *token) among(words ...string) bool {
	for _, w := range words {
		if t.is(w) {
			return true
		}
	}
	return false
}

// isName reports whether the token can be (a part of) a relation's name.
func (t *token) isName() bool {
	return t.kind == lex.QuotedWord || t.kind == lex.Word && !has(reservedWords, t.text)
}

// tokensOf returns the text's tokens; false where brackets do not match, where a name
// is spelled with escapes, or where a function's body hides semicolons.
func tokensOf(text string) (toks []token, ok bool) {
	l := lex.Lexer{Text: []byte(text)}
	depth := 0
	for {
		t := l.Next()
		if t.Kind == lex.EOF {
			return toks, depth == 0 && !hidesSemicolons(toks)
		}
		if t.Kind == lex.UnicodeWord {
			return nil, false
		}
		tok := token{kind: t.Kind, text: text[t.Start:t.End], start: t.Start, end: t.End, depth: depth}
		switch {
		case t.Kind == lex.Word || t.Kind == lex.QuotedWord:
			tok.text = folded(t.Kind, tok.text)
		case tok.is("("), tok.is("["):
			depth++
		case tok.is(")"), tok.is("]"):
			depth--
			tok.depth = depth
		}
		if depth < 0 {
			return nil, false
		}
		toks = append(toks, tok)
	}
}

// hidesSemicolons reports BEGIN ATOMIC, whose statements end with semicolons
// of their own.
func hidesSemicolons(toks []token) bool {
	for i := 1; i < len(toks); i++ {
		if toks[i].is("atomic") && toks[i-1].is("begin") {
			return true
		}
	}
	return false
}

// folded returns a name as the server knows it: in lower case without quotes,
// and cut to 63 bytes.
func folded(kind lex.Kind, s string) string {
	if kind == lex.QuotedWord {
		s = strings.ReplaceAll(s[1:len(s)-1], `""`, `"`)
	} else {
		s = string(bytes.Map(foldRune, []byte(s)))
	}
	return s[:min(len(s), nameDataLen)]
}

// nameDataLen is the server's limit for names, in bytes.
const nameDataLen = 63

func foldRune(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// reservedWords are the keywords that stand where a relation may, and are
// none. Sorted. Source: src/include/parser/kwlist.h.
var reservedWords = []string{
	"all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast", "check", "collate",
	"column", "constraint", "create", "current_date", "current_role", "current_time", "current_timestamp", "current_user",
	"default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "from",
	"grant", "group", "having", "in", "initially", "intersect", "into", "lateral", "leading", "limit", "localtime",
	"localtimestamp", "not", "null", "offset", "on", "only", "or", "order", "placing", "primary", "references", "returning",
	"select", "session_user", "some", "symmetric", "system_user", "table", "then", "to", "trailing", "true", "union", "unique",
	"user", "using", "variadic", "when", "where", "window", "with",
}
