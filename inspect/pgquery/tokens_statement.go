package pgquery

import (
	"slices"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// maxTargets bounds how many tables one statement may write that is read from
// its tokens.
const maxTargets = 64

// reader reads one statement from its tokens.
type reader struct {
	text string // the whole text
	toks []token
	w    walker // collects the facts

	targets int  // tables that are written, so far
	parsed  bool // a part of the statement was given to the parser
	renames bool // RENAME or SCHEMA is somewhere in it
}

// at returns a token, an empty one outside of the statement.
func (r *reader) at(i int) *token {
	if i < 0 || i >= len(r.toks) {
		return &token{kind: lex.EOF}
	}
	return &r.toks[i]
}

// queryWords are those that a query begins with.
var queryWords = []string{"select", "values", "table", "with", "insert", "update", "delete", "merge"}

// statement returns the facts.
func (r *reader) statement() inspect.Statement {
	r.w.st.Class = inspect.Read
	i := 0
	for r.at(i).is("(") {
		i++
	}
	switch first := r.at(i); {
	case first.among(queryWords...):
		r.w.st.Kind = r.verb(i)
		r.query(0)
	case first.is("explain"):
		r.explain()
	case first.is("prepare"):
		return r.prepare()
	case first.is("declare"):
		r.w.st.Kind, r.w.st.Name = "DECLARE CURSOR", r.at(1).text
		r.w.hide(inspect.HiddenCursor)
		r.query(1)
	case first.is("copy"):
		r.copy()
	case first.among("create", "alter", "drop", "comment", "grant", "revoke", "refresh", "reindex", "cluster", "vacuum", "analyze", "truncate", "lock", "import", "security"):
		r.define(first.text)
	default:
		return inspect.Statement{Class: inspect.Unknown, Why: whyTokens}
	}
	for i := range r.toks {
		if k := r.toks[i].kind; k == lex.Bad || k == lex.UnicodeString {
			r.w.hide(inspect.HiddenFunction) // whatever it is
			r.w.call("", "")
		}
	}
	if r.targets > maxTargets {
		return inspect.Statement{Class: inspect.Unknown, Why: whyTokens}
	}
	return r.w.finish()
}

// verb returns the kind of a query: what stands behind its WITH clause.
func (r *reader) verb(i int) inspect.Kind {
	depth := r.at(i).depth
	if r.at(i).is("with") {
		for i++; i < len(r.toks); i++ {
			if t := r.at(i); t.depth == depth && t.among("select", "values", "table", "insert", "update", "delete", "merge") && r.at(i-1).is(")") {
				break
			}
		}
	}
	switch r.at(i).text {
	case "insert":
		return inspect.KindInsert
	case "update":
		return inspect.KindUpdate
	case "delete":
		return inspect.KindDelete
	case "merge":
		return inspect.KindMerge
	default:
		return inspect.KindSelect
	}
}

// explain takes EXPLAIN for running its statement where it says ANALYZE
// anywhere.
func (r *reader) explain() {
	runs := slices.ContainsFunc(r.toks, func(t token) bool { return t.among("analyze", "analyse") })
	inner := reader{text: r.text, toks: r.toks}
	inner.w.st.Class = inspect.Read
	inner.query(1)
	r.w.st.Kind, r.targets = "EXPLAIN", inner.targets
	st := inner.w.finish()
	if !runs {
		r.w.plan(&st)
		return
	}
	r.w.rels = inner.w.rels
	r.w.st.Class, r.w.st.Hidden, r.w.st.Calls = st.Class, st.Hidden|inspect.HiddenExplain, st.Calls
}

// prepare is as dangerous as what it prepares.
func (r *reader) prepare() inspect.Statement {
	as := slices.IndexFunc(r.toks, func(t token) bool { return t.depth == 0 && t.is("as") })
	if as < 2 || !r.at(1).isName() {
		return inspect.Statement{Class: inspect.Unknown, Why: whyTokens}
	}
	inner := reader{text: r.text, toks: r.toks[as+1:]}
	if !inner.at(0).among(queryWords...) && !inner.at(0).is("(") {
		return inspect.Statement{Class: inspect.Unknown, Why: whyTokens} // PREPARE of PREPARE, as deep as one likes
	}
	st := inner.statement()
	return inspect.Statement{
		Class: inspect.Worse(inspect.Session, st.Class), Kind: inspect.KindPrepare, Why: st.Why,
		Relations: slices.Clone(st.Relations), Bound: st.Bound, Hidden: st.Hidden | inspect.HiddenPrepared,
		Name: r.at(1).text, Prepared: &st, Calls: st.Calls,
	}
}

// copy is COPY of a table or of a query.
func (r *reader) copy() {
	r.w.st.Kind = inspect.KindCopyTo
	access := inspect.AccessRead
	for i := range r.toks {
		switch t := &r.toks[i]; {
		case t.depth > 0:
		case t.is("from"):
			r.w.st.Kind, access = inspect.KindCopyFrom, inspect.AccessInsert
			r.w.raise(inspect.Write)
		case t.is("program"), t.kind == lex.String, t.kind == lex.EscapeString, t.kind == lex.DollarString:
			r.w.hide(inspect.HiddenServerSide)
		}
	}
	if r.at(1).is("(") {
		r.w.hide(inspect.HiddenCopyQuery)
	} else if rel, _, ok := r.relation(1); ok {
		rel.Access = access
		r.w.rels.add(rel)
	}
	r.query(1)
}

// define is DDL: it may take the strongest lock on whatever it names, and may
// rewrite it.
func (r *reader) define(first string) {
	r.w.st.Class, r.w.st.Kind = inspect.Define, r.tag(first)
	if first == "truncate" {
		r.w.st.Class = inspect.Write
	}
	r.renames = slices.ContainsFunc(r.toks, func(t token) bool { return t.among("rename", "schema") })
	for i := 1; i < len(r.toks); i++ {
		switch r.at(i).text {
		case "concurrently":
			r.w.st.Concurrently, r.w.st.NoBlock = true, true
		case "as":
			r.w.hide(inspect.HiddenCreateAs)
		case "set":
			r.w.hide(inspect.HiddenSettings)
		}
		i = r.defined(i, first) - 1
	}
	r.query(1)
}

// defined records what DDL may name where a name begins: a relation, or one
// with a column behind it. It returns where to go on.
func (r *reader) defined(i int, first string) (next int) {
	rel, next, ok := r.relation(i)
	if !ok {
		return i + 1
	}
	rel.Access, rel.Lock, rel.Rewrite = inspect.AccessDefine, inspect.AccessExclusive, true
	if first == "truncate" {
		rel.Access, rel.Rewrite, rel.Bound = inspect.AccessTruncate, false, inspect.BoundNone
	}
	if r.renames {
		rel.Access |= inspect.AccessRename
	}
	r.w.rels.add(rel)
	for end := i + 1; end < next; end += 2 {
		rel.Schema, rel.Name = "", r.at(end-1).text
		if end > i+1 {
			rel.Schema = r.at(end - 3).text
		}
		r.w.rels.add(rel)
	}
	return next
}

// tag returns the command tag of DDL, as far as its first words tell.
func (r *reader) tag(first string) inspect.Kind {
	switch first {
	case "truncate":
		return inspect.KindTruncate
	case "lock":
		return inspect.KindLockTable
	}
	kind := upper(first)
	for i := 1; i < len(r.toks); i++ {
		t := r.at(i)
		switch {
		case t.among("or", "replace", "unique", "temp", "temporary", "unlogged", "global", "local", "constraint"):
		case t.among("materialized", "foreign", "event", "access", "text", "default"):
			kind += " " + upper(t.text)
		case t.kind == lex.Word:
			return inspect.Kind(kind + " " + upper(t.text))
		default:
			return inspect.Kind(kind)
		}
	}
	return inspect.Kind(kind)
}

func upper(word string) string {
	b := []byte(word)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// relation returns the name that begins at a token, and where it ends; false where
// none begins, and for a function's name.
func (r *reader) relation(i int) (rel inspect.Relation, next int, ok bool) {
	if !r.at(i).isName() {
		return rel, i, false
	}
	rel.Name = r.at(i).text
	for i++; r.at(i).is(".") && (r.at(i+1).kind == lex.Word || r.at(i+1).kind == lex.QuotedWord); i += 2 {
		rel.Schema, rel.Name = rel.Name, r.at(i+1).text
	}
	return rel, i, true
}
