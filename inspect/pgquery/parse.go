// Package pgquery parses SQL with PostgreSQL's own grammar and walks the tree for the facts that package inspect describes.
package pgquery

import (
	"errors"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pganalyze/pg_query_go/v5/parser"

	"lockkeeper/inspect"
)

// The reasons for texts that are not classified. They hold no word of the
// text.
const (
	whySyntax  = inspect.ParserReason + "syntax error"
	whyLimit   = inspect.ParserReason + "limit of the parser reached"
	whyNesting = inspect.ParserReason + "nested too deeply"
	whyLiteral = inspect.ParserReason + "invalid literal"
	whyOther   = inspect.ParserReason + "error"
	whyCrash   = inspect.ParserReason + "tree not understood"
)

// Parse is an inspect.ParseFunc: it returns the facts about each statement of
// the text. The grammar is PostgreSQL 16's. Names are looked up in no
// catalog: what a name stands for (a view, a partitioned table, a function of
// the user's that hides a built-in one) is for package inspect/catalog.
func Parse(text string) (b *inspect.Batch) {
	defer func() {
		if r := recover(); r != nil {
			b = unknown(reasonOf(r), text)
		}
	}()
	utf := asUTF8(text)
	if why := refused(utf); why != "" {
		return unknown(why, text)
	}
	f := inspect.NewFingerprint(utf, fingerprint)
	if len(text) > inspect.MaxLateText {
		go f.Value() // beside the tree
		defer f.Value()
	}
	t, err := parseTree(utf)
	if err != nil {
		return unparsed(whyOf(err), utf, text)
	}
	defer t.release()
	b = t.facts(utf, text)
	b.Fingerprint = f
	return b
}

// fingerprint returns pg_query's; 0 if there is none. It is a parse of its own,
// of the same cost as the tree.
func fingerprint(utf string) uint64 {
	sum, err := pg.FingerprintToUInt64(utf)
	if err != nil {
		return 0
	}
	return sum
}

// facts returns what a tree tells of its text; utf is the text as the parser
// was given it.
func (t *tree) facts(utf, text string) *inspect.Batch {
	b := &inspect.Batch{Class: inspect.Read, Statements: make([]inspect.Statement, 0, len(t.stmts)), SlowTree: t.slow}
	for _, raw := range t.stmts {
		st, constants := traced(raw)
		b.Constants = constants
		b.Class = inspect.Worse(b.Class, st.Class)
		b.Statements = append(b.Statements, st)
	}
	if len(t.stmts) == 1 && hasShape(t.stmts[0].Stmt) {
		b.Statements[0].Start, b.Statements[0].Len = 0, 0 // it is all of the text
	}
	if len(b.Statements) != 1 || b.Class == inspect.Unknown || isDeep(utf) {
		b.Constants = nil // the texts that differ in constants may be read otherwise
	}
	if b.Class == inspect.Unknown {
		b.Words = inspect.WordsOf([]byte(text))
	}
	if len(utf) != len(text) {
		restorePositions(b.Statements, text)
	}
	return b
}

// unparsed returns what the tokens tell of a text that the grammar does not
// take; utf is the text as the parser was given it.
func unparsed(why, utf, text string) *inspect.Batch {
	if why == whySyntax && len(utf) == len(text) {
		if b := fromTokens(text); b != nil {
			return b
		}
	}
	return unknown(why, text)
}

// statement returns the facts about one statement.
func statement(raw *pg.RawStmt) inspect.Statement {
	st, _ := traced(raw)
	return st
}

// traced returns the facts about one statement, and of one whose texts may
// have a shape, what of its constants they were made from.
func traced(raw *pg.RawStmt) (inspect.Statement, []inspect.Constant) {
	w := &walker{}
	w.statement(raw.Stmt)
	st := w.finish()
	st.Columns, st.Plain = plainChange(raw.Stmt)
	st.Start, st.Len = int(raw.StmtLocation), int(raw.StmtLen)
	if !hasShape(raw.Stmt) {
		return st, nil
	}
	return st, w.search.readings()
}

func unknown(why, text string) *inspect.Batch {
	return inspect.NewUnknown(why, inspect.WordsOf([]byte(text)))
}

// tooDeepError is what the walker panics with; Parse recovers it.
type tooDeepError struct{}

func (tooDeepError) Error() string { return "nested too deeply" }

func reasonOf(recovered any) string {
	if err, ok := recovered.(error); ok {
		if _, deep := errors.AsType[tooDeepError](err); deep {
			return whyNesting
		}
	}
	return whyCrash
}

// whyOf returns the reason that stands for a parser's error. The error's own
// words quote the text, so they are not used.
func whyOf(err error) string {
	pe, ok := errors.AsType[*parser.Error](err)
	if !ok {
		return whyNesting // the decoder's limit: the only error that is not the parser's
	}
	switch msg := pe.Message; {
	case strings.HasPrefix(msg, "syntax error"):
		return whySyntax
	case strings.Contains(msg, "memory"), strings.Contains(msg, "stack depth"):
		return whyLimit
	case strings.HasPrefix(msg, "invalid"), strings.HasPrefix(msg, "unterminated"):
		return whyLiteral
	default:
		return whyOther
	}
}
