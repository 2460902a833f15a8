package pgquery

import (
	"strings"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// query reads what the tokens from one on read, write and call.
func (r *reader) query(from int) {
	locked := false
	for i := from; i < len(r.toks); i++ {
		switch t := r.at(i); {
		case t.kind == lex.Operator:
			r.operator(i)
		case t.kind == lex.QuotedWord:
			r.function(i)
		case t.kind == lex.Punct:
			r.punctuation(i)
		case t.kind != lex.Word:
		case r.at(i - 1).is("."):
			r.function(i)
		case t.is("for") && r.at(i+1).among("update", "no", "share", "key"):
			locked = true
		default:
			r.word(i)
		}
	}
	if locked {
		r.lockRows()
	}
}

// lockRows takes FOR UPDATE and friends for locking rows of all tables.
func (r *reader) lockRows() {
	r.w.hide(inspect.HiddenRowLock)
	for i := range r.w.rels.list {
		r.w.rels.list[i].Access |= inspect.AccessLockRows
	}
}

// word reads a keyword, or a function's name.
func (r *reader) word(i int) {
	switch t := r.at(i); t.text {
	case "insert":
		if r.at(i + 1).is("into") {
			r.target(i, i+2)
		}
	case "update":
		if !r.at(i-1).among("for", "key", "then", "do", "on") {
			r.target(i, i+1)
		}
	case "delete":
		if r.at(i + 1).is("from") {
			r.target(i, i+2)
		}
	case "merge":
		if r.at(i + 1).is("into") {
			r.target(i, i+2)
		}
	case "into":
		if !r.at(i-1).among("insert", "merge") {
			r.into(i + 1)
		}
	case "from", "join", "using", "only", "table":
		r.read(i + 1)
	default:
		r.function(i)
	}
}

// punctuation reads what may begin a list of tables.
func (r *reader) punctuation(i int) {
	if t := r.at(i); t.is("(") || t.is(",") {
		r.read(i + 1)
	}
}

// read records a table that is read, if the name of one begins here. A
// column's is one too many, and does no harm.
func (r *reader) read(i int) {
	rel, next, ok := r.relation(i)
	if !ok || r.at(next).is("(") {
		return
	}
	rel.Access = inspect.AccessRead
	r.w.rels.add(rel)
}

// intoWords are those that may stand before the name in SELECT … INTO.
var intoWords = []string{"temporary", "temp", "local", "global", "unlogged", "table"}

// into is SELECT … INTO.
func (r *reader) into(i int) {
	for r.at(i).among(intoWords...) && (r.at(i+1).isName() || r.at(i+1).is("table")) {
		i++ // without a name behind it, it is the name
	}
	if rel, _, ok := r.relation(i); ok {
		r.w.raise(inspect.Define)
		r.w.hide(inspect.HiddenCreateAs)
		rel.Access = inspect.AccessDefine
		r.w.rels.add(rel)
		if r.w.st.Kind == inspect.KindSelect {
			r.w.st.Kind = "SELECT INTO"
		}
	}
}

// target records a table that is written: verb is where the statement's verb
// stands, i where the name does. A statement with more of them than people
// write is Unknown, for what follows looks through all of it for each.
func (r *reader) target(verb, i int) {
	for r.at(i).among("only", "(") {
		i++
	}
	rel, _, ok := r.relation(i)
	if !ok {
		return
	}
	r.w.raise(inspect.Write)
	if r.targets++; r.targets > maxTargets {
		return
	}
	if r.at(verb).depth > 0 {
		r.w.hide(inspect.HiddenCTEWrite)
	}
	rel.Access = r.access(verb)
	if rel.Access&^inspect.AccessInsert != 0 && rel.Access != inspect.AccessRead {
		rel.Bound, rel.Rows = r.bound(verb, rel)
	}
	r.w.rels.add(rel)
}

// access is what the verb at i does with its table.
func (r *reader) access(i int) inspect.Access {
	switch r.at(i).text {
	case "insert":
		return r.insertAccess(i)
	case "update":
		return inspect.AccessUpdate
	case "delete":
		return inspect.AccessDelete
	default:
		return r.mergeAccess(i)
	}
}

// insertAccess is what INSERT does with its table.
func (r *reader) insertAccess(i int) inspect.Access {
	for j := i + 1; j < r.end(i); j++ {
		if r.at(j).is("update") && r.at(j-1).is("do") {
			return inspect.AccessInsert | inspect.AccessUpdate
		}
	}
	return inspect.AccessInsert
}

// mergeAccess is what the WHEN clauses of MERGE do.
func (r *reader) mergeAccess(i int) inspect.Access {
	access := inspect.Access(0)
	for j := i + 1; j < r.end(i); j++ {
		if !r.at(j - 1).is("then") {
			continue
		}
		switch r.at(j).text {
		case "insert":
			access |= inspect.AccessInsert
		case "update":
			access |= inspect.AccessUpdate
		case "delete":
			access |= inspect.AccessDelete
		}
	}
	if access == 0 {
		return inspect.AccessRead
	}
	return access
}

// end returns the token behind the query whose verb stands at i.
func (r *reader) end(i int) int {
	depth := r.at(i).depth
	for i < len(r.toks) && r.at(i).depth >= depth {
		i++
	}
	return i
}

// bound returns how the rows of a verb's target are bounded: by the parser
// where the statement parses without its RETURNING list, and otherwise as
// widely as can be.
func (r *reader) bound(verb int, target inspect.Relation) (b inspect.Bound, rows int) {
	end := r.end(verb)
	depth := r.at(verb).depth
	where := false
	for j := verb; j < end; j++ {
		if r.at(j).depth != depth || r.at(j-1).is(".") { // a part of a name may be any word
			continue
		}
		if r.at(j).is("returning") {
			end = j
		}
		where = where || r.at(j).is("where")
	}
	if !where && !r.at(verb).is("merge") {
		return inspect.BoundNone, 0
	}
	if depth > 0 || r.parsed {
		return inspect.BoundVacuous, 0 // names of other WITH queries may mean anything
	}
	r.parsed = true
	st, ok := parsedAlone(strings.TrimSpace(r.text[r.toks[0].start:r.at(end-1).end]))
	if !ok {
		return inspect.BoundVacuous, 0
	}
	for i := range st.Relations {
		if rel := &st.Relations[i]; rel.Name == target.Name && rel.Schema == target.Schema {
			return rel.Bound, rel.Rows
		}
	}
	return inspect.BoundVacuous, 0
}

// function records a call, if a bracket follows the name.
func (r *reader) function(i int) {
	t := r.at(i)
	if !r.at(i + 1).is("(") {
		return
	}
	qualified := r.at(i - 1).is(".")
	switch {
	case qualified:
		r.w.call(r.at(i-2).text, t.text)
	case t.kind == lex.Word && has(callWords, t.text):
		return
	default:
		r.w.call("", t.text)
	}
	if qualified && !r.at(i-2).is("pg_catalog") {
		r.w.hide(inspect.HiddenFunction)
		return
	}
	switch {
	case t.text == "set_config":
		r.w.hide(inspect.HiddenFunction | inspect.HiddenSettings)
	case escapesReadOnly(t.text):
		r.w.hide(inspect.HiddenFunction | inspect.HiddenServerSide)
	case !has(harmlessFunctions, t.text):
		r.w.hide(inspect.HiddenFunction)
	}
}

// operator records what is no built-in operator, by its name or its schema:
// OPERATOR(other.+), not other.*.
func (r *reader) operator(i int) {
	op, first := r.at(i).text, i
	for r.at(first - 1).is(".") {
		first -= 2
	}
	if first < i && !r.at(i-2).is("pg_catalog") && r.at(first-2).is("operator") {
		r.w.hide(inspect.HiddenFunction)
		r.w.call(r.at(i-2).text, op)
		return
	}
	if op == "!=" || op == ":=" || op == "=>" || op == ".." || op == "*" {
		return
	}
	if !isOperator(op) {
		r.w.hide(inspect.HiddenFunction)
		r.w.call("", op)
	}
}

// callWords are the keywords that cannot be a function's name: what follows in
// brackets is the grammar's own. Sorted. Source: the reserved ones and the
// ones for columns in src/include/parser/kwlist.h.
var callWords = []string{
	"all", "and", "any", "array", "as", "between", "bigint", "bit", "boolean", "case", "cast", "char", "character", "check",
	"coalesce", "dec", "decimal", "distinct", "else", "except", "exists", "extract", "float", "from", "greatest", "group",
	"grouping", "having", "in", "int", "integer", "intersect", "interval", "json_array", "json_arrayagg", "json_object",
	"json_objectagg", "lateral", "least", "limit", "nchar", "normalize", "not", "nullif", "numeric", "offset", "on", "only", "or",
	"overlay", "position", "primary", "real", "references", "returning", "row", "select", "smallint", "some", "substring", "table",
	"then", "time", "timestamp", "treat", "trim", "union", "unique", "using", "values", "varchar", "when", "where", "with",
	"xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlparse", "xmlpi", "xmlroot", "xmlserialize", "xmltable",
}
