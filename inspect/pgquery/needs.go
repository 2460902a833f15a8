package pgquery

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// assumed are the target's columns that are taken for NOT NULL, to see what a
// condition says if they are.
type assumed struct {
	alias string // under which the target's columns are known
	alone bool   // there is no other table
	names []string

	missing *inspect.Column // in place of all that: a column that its table does not have
}

// notNull takes a column of the target's for NOT NULL, and notes it.
func (a *assumed) notNull(qualifier, name string) bool {
	if a == nil || a.missing != nil || name == "" || qualifier != a.alias && (qualifier != "" || !a.alone) {
		return false
	}
	if !slices.Contains(a.names, name) {
		a.names = append(a.names, name)
	}
	return true
}

// vacuousIf returns the columns which make a condition true for every row if
// they are NOT NULL; none where they do not.
func (w *walker) vacuousIf(target *pg.RangeVar, from []*pg.Node, where *pg.Node) []string {
	a := &assumed{alias: aliasOf(target), alone: len(from) == 0}
	if !w.vacuousUnder(a, target, from, where) {
		return nil
	}
	return a.names
}

// vacuousUnder reports whether a condition is true for every row under what is
// assumed. What it searches for is not taken from the statement's budget:
// nothing else may become milder by it.
func (w *walker) vacuousUnder(a *assumed, target *pg.RangeVar, from []*pg.Node, where *pg.Node) bool {
	before := w.search
	defer func() {
		before.constants = w.search.constants // what was read of them counts all the same
		before.blind = before.blind || w.search.blind || w.search.visits > maxVisits
		w.search = before
	}()
	e := w.newRows(target, from)
	e.values.assumed = a
	e.link(where)
	return e.eval(where, false).cond == condTrue
}

// maxStrays bounds how many columns of a condition are looked up elsewhere.
const maxStrays = 8

// stray returns the column that a query takes from its one table, if the
// target has one of that name and it is not qualified: in id IN (SELECT id FROM
// other) it is the target's id where other has none. Source: manual, 7.2.1.3
// on outer references; colNameToVar in src/backend/parser/parse_relation.c.
func (e *rows) stray(name string, s *pg.SelectStmt) *inspect.Column {
	if s.Larg != nil || len(s.FromClause) != 1 || len(s.TargetList) != 1 || len(e.sources) > 0 {
		return nil
	}
	from := s.FromClause[0].GetRangeVar()
	qualifier, column := columnOf(s.TargetList[0].GetResTarget().GetVal())
	if from == nil || from.GetAlias().GetColnames() != nil || e.w.cte(from) != nil || qualifier != "" || column != name || isSystemColumn(name) {
		return nil
	}
	return &inspect.Column{Schema: from.Schemaname, Table: from.Relname, Name: name}
}

// isSystemColumn reports whether every table has the column. Source: manual, 5.5.
func isSystemColumn(name string) bool {
	switch name {
	case "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid":
		return true
	}
	return false
}

// inStray is the outcome of a column IN such a query: every row finds itself
// if the column is missing there. Whether it is a catalog has to say.
func (e *rows) inStray(name string, s *pg.SelectStmt) outcome {
	c := e.stray(name, s)
	switch a := e.values.assumed; {
	case c == nil:
	case a != nil && a.missing != nil && *a.missing == *c:
		return outcome{cond: condTrue}
	case a == nil && len(e.values.strays) < maxStrays && !slices.Contains(e.values.strays, *c):
		e.values.strays = append(e.values.strays, *c)
	}
	return outcome{}
}

// withStrays notes the columns each of which, if it is missing, makes the
// condition true for every row.
func (w *walker) withStrays(n *inspect.Needs, strays []inspect.Column, target *pg.RangeVar, where *pg.Node) *inspect.Needs {
	out := orNone(n)
	for i := range strays {
		if w.vacuousUnder(&assumed{missing: &strays[i]}, target, nil, where) {
			one := *out
			one.Strays = append(slices.Clip(one.Strays), strays[i])
			out = &one
		}
	}
	if out.Strays == nil {
		return n
	}
	return out
}

// isValue reports whether n is one value for the whole statement, to compare a
// column with. For what is no key by its name only constants and parameters
// are looked at, which costs nothing.
func (e *rows) isValue(column string, n *pg.Node) bool {
	if isKeyName(column) {
		// By a collation of its own a value may equal several texts.
		return e.once(n) && !e.w.search.node(n, func(n *pg.Node) bool { return n.GetCollateClause() != nil })
	}
	return isPlain(n)
}

// isPlain reports whether n is a constant or a parameter, perhaps cast.
func isPlain(n *pg.Node) bool {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	return isAnyConstant(n) || n.GetParamRef() != nil
}

// union returns the names of both lists.
func union(a, b []string) []string {
	for _, name := range b {
		if !slices.Contains(a, name) {
			a = append(slices.Clip(a), name)
		}
	}
	return a
}

// withSets notes the columns that an UPDATE sets.
func withSets(n *inspect.Needs, targets []*pg.Node) *inspect.Needs {
	out := inspect.Needs{}
	if n != nil {
		out = *n
	}
	for _, t := range targets {
		out.Sets = append(out.Sets, t.GetResTarget().GetName())
	}
	return &out
}

// withNotNull notes columns that would make the condition true for every row.
func withNotNull(n *inspect.Needs, columns []string) *inspect.Needs {
	if len(columns) == 0 {
		return n
	}
	out := inspect.Needs{}
	if n != nil {
		out = *n
	}
	out.NotNull = [][]string{columns}
	return &out
}

// mergeNeeds adds the needs of two uses of one relation. Columns that one of
// them sets are known only if those of the other are.
func mergeNeeds(a, b inspect.Relation) *inspect.Needs {
	if a.Needs == nil && b.Needs == nil {
		return nil
	}
	x, y := orNone(a.Needs), orNone(b.Needs)
	out := &inspect.Needs{NotNull: append(slices.Clip(x.NotNull), y.NotNull...), Strays: append(slices.Clip(x.Strays), y.Strays...)}
	if sets, other := a.Access&inspect.AccessUpdate != 0, b.Access&inspect.AccessUpdate != 0; (!sets || x.Sets != nil) && (!other || y.Sets != nil) {
		out.Sets = union(x.Sets, y.Sets)
	}
	// A predicate that is no list of keys stays one, whatever the other is.
	keyed := a.Bound == inspect.BoundKeyed && b.Bound == inspect.BoundKeyed
	if keyed || a.Bound == inspect.NotApplicable || b.Bound == inspect.NotApplicable || x.Keys != nil && y.Keys != nil {
		out.Keys = union(x.Keys, y.Keys)
	}
	return out
}

func orNone(n *inspect.Needs) *inspect.Needs {
	if n == nil {
		return &inspect.Needs{}
	}
	return n
}
