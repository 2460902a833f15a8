package catalog

import (
	"crypto/sha256"
	"slices"
	"strings"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// write is a change of rows that the source of a function shows.
type write struct {
	schema, name string
	access       inspect.Access
	bound        inspect.Bound
}

// source is what the text of a function shows.
type source struct {
	writes  []write
	certain bool // there is no other change of rows in it, as far as it is not in what it calls
}

// sourceKey stands for a text.
type sourceKey [sha256.Size]byte

// writingWords are without which no text changes rows.
var writingWords = []string{"call", "copy", "delete", "do", "execute", "insert", "merge", "truncate", "update"}

// source returns what a text shows: from before, where the last snapshot has
// read it already.
func (l *loader) source(text string, words []string) source {
	if words != nil && !slices.ContainsFunc(writingWords, func(w string) bool { _, found := slices.BinarySearch(words, w); return found }) {
		return source{certain: true}
	}
	if l.parse == nil {
		return source{}
	}
	key := sha256.Sum256([]byte(text))
	known, ok := l.before[key]
	if !ok {
		known = readSource(text, l.parse)
	}
	l.snap.sources[key] = known
	return known
}

// readSource finds the statements that change rows in a text of SQL or
// PL/pgSQL, wherever they stand in it: from the word that begins one to the
// semicolon, the closing bracket of a WITH query, the LOOP of a FOR, or the
// RETURNING whose INTO would be PL/pgSQL's own. Variables are names of columns
// to the parser, so that what depends on them is a predicate.
func readSource(text string, parse inspect.ParseFunc) source {
	if cost := lex.CostOf([]byte(text)); cost.Nesting > maxNesting || cost.Rescans > len(text) {
		return source{}
	}
	r := sourceReader{text: text}
	lexer := lex.Lexer{Text: []byte(text)}
	for t := lexer.Next(); t.Kind != lex.EOF; t = lexer.Next() {
		r.toks = append(r.toks, t)
	}
	out := source{certain: true}
	for i := 0; i < len(r.toks); i++ {
		switch {
		case r.isDynamic(i):
			out.certain = false
		case r.begins(i):
			end := r.end(i)
			out.read(parse(text[r.toks[i].Start:r.toks[end-1].End]))
			i = end - 1
		}
	}
	return out
}

// read takes over what one statement changes.
func (s *source) read(b *inspect.Batch) {
	if b.Why != "" || b.Class == inspect.Unknown || b.FromTokens {
		s.certain = false
		return
	}
	for i := range b.Statements {
		for _, rel := range b.Statements[i].Relations {
			w := write{rel.Schema, rel.Name, rel.Access & inspect.AccessWrite, rel.Bound}
			if w.bound == inspect.BoundKeyed || w.bound == inspect.BoundCursor {
				w.bound = inspect.BoundPredicate // it may run in a loop
			}
			if w.access != 0 && !slices.Contains(s.writes, w) {
				s.writes = append(s.writes, w)
			}
		}
	}
}

// maxNesting is how deep comments in a source may be nested. PostgreSQL's lexer
// takes seconds for deep ones, and cannot be stopped.
const maxNesting = 16

// sourceReader walks the tokens of a function's source.
type sourceReader struct {
	text string
	toks []lex.Token
}

// word returns a token as it stands, a keyword in lower case; "" beyond the
// ends.
func (r *sourceReader) word(i int) string {
	if i < 0 || i >= len(r.toks) {
		return ""
	}
	t := r.text[r.toks[i].Start:r.toks[i].End]
	if r.toks[i].Kind == lex.Word {
		return strings.ToLower(t)
	}
	return t
}

func (r *sourceReader) isName(i int) bool {
	return i < len(r.toks) && (r.toks[i].Kind == lex.Word || r.toks[i].Kind == lex.QuotedWord)
}

// begins reports whether a statement that changes rows begins with a token.
func (r *sourceReader) begins(i int) bool {
	before, next := r.word(i-1), r.word(i+1)
	switch r.word(i) {
	case "insert", "merge":
		return next == "into"
	case "delete":
		return next == "from"
	case "update":
		return r.isName(i+1) && !slices.Contains([]string{"for", "key", "on", "do", "before", "after", "or", "of", "."}, before)
	case "truncate":
		return r.isName(i+1) && r.startsStatement(i)
	default:
		return false
	}
}

// isDynamic reports whether what a token begins runs text that is not in the
// source, or COPY, which names files.
func (r *sourceReader) isDynamic(i int) bool {
	switch r.word(i) {
	case "execute":
		return r.startsStatement(i) || r.word(i-1) == "query" || r.word(i-1) == "in" || r.word(i-1) == "for"
	case "call", "do", "copy":
		return r.startsStatement(i)
	default:
		return false
	}
}

// startsStatement reports whether a statement may begin at a token.
func (r *sourceReader) startsStatement(i int) bool {
	return slices.Contains([]string{"", ";", "begin", "then", "else", "loop", ">>"}, r.word(i-1))
}

// end returns the token behind the statement that begins at i.
func (r *sourceReader) end(i int) int {
	depth := 0
	for i++; i < len(r.toks); i++ {
		switch w := r.word(i); {
		case w == "(", w == "[":
			depth++
		case w == ")", w == "]":
			if depth--; depth < 0 {
				return i
			}
		case depth > 0:
		case w == ";", w == "returning", w == "loop":
			return i
		}
	}
	return i
}
