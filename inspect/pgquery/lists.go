package pgquery

import (
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// maxSubselects bounds how deep subselects are followed for lists of keys.
const maxSubselects = 8

// itemLength returns how many rows a FROM item has whose rows the text lists:
// VALUES, also in a subselect or a WITH query, and unnest of an array.
// 0 rows is a list of unknown length.
func (w *walker) itemLength(n *pg.Node, depth int) (length int, ok bool) {
	if depth > maxSubselects {
		return 0, false
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeSubselect:
		return w.listLength(v.RangeSubselect.Subquery.GetSelectStmt(), depth+1)
	case *pg.Node_RangeVar:
		return w.listLength(w.cte(v.RangeVar).GetCtequery().GetSelectStmt(), depth+1)
	case *pg.Node_RangeFunction:
		return w.functionLength(v.RangeFunction)
	default:
		return 0, false
	}
}

// functionLength is itemLength for unnest(array).
func (w *walker) functionLength(f *pg.RangeFunction) (length int, ok bool) {
	if len(f.Functions) != 1 {
		return 0, false
	}
	call := listOf(f.Functions[0])
	if len(call) == 0 {
		return 0, false
	}
	return w.unnestLength(call[0])
}

func (w *walker) unnestLength(n *pg.Node) (length int, ok bool) {
	f := n.GetFuncCall()
	if name, builtin := builtinName(f.GetFuncname()); !builtin || name != "unnest" || len(f.Args) != 1 {
		return 0, false
	}
	return w.noRows().arrayLength(f.Args[0])
}

// noRows is where no column is the target's.
func (w *walker) noRows() *rows { return w.newRows(&pg.RangeVar{}, nil) }

// listLength is itemLength for a query.
func (w *walker) listLength(s *pg.SelectStmt, depth int) (length int, ok bool) {
	switch {
	case s == nil || depth > maxSubselects:
		return 0, false
	case s.Op == pg.SetOperation_SETOP_UNION:
		l, lok := w.listLength(s.Larg, depth+1)
		r, rok := w.listLength(s.Rarg, depth+1)
		return sum(l, r), lok && rok
	case s.Larg != nil:
		return 0, false
	case len(s.ValuesLists) > 0:
		return len(s.ValuesLists), true
	case len(s.FromClause) == 0:
		return w.rowLength(s.TargetList)
	case len(s.FromClause) == 1 && !w.search.returnsSets(s.TargetList):
		return w.itemLength(s.FromClause[0], depth+1)
	default:
		return 0, false
	}
}

// rowLength is listLength for SELECT without FROM: one row, or unnest.
func (w *walker) rowLength(targets []*pg.Node) (length int, ok bool) {
	if len(targets) == 1 {
		if n, isUnnest := w.unnestLength(targets[0].GetResTarget().GetVal()); isUnnest {
			return n, true
		}
	}
	return 1, !w.search.returnsSets(targets)
}

// returnsSets reports whether a target list may return more than one row for
// each: any function may, without a catalog to ask.
func (s *search) returnsSets(targets []*pg.Node) bool {
	return s.list(targets, func(n *pg.Node) bool { return n.GetFuncCall() != nil })
}

// isSameTable reports whether a FROM item's name is the target's table.
func (e *rows) isSameTable(rv *pg.RangeVar) bool {
	return e.w.cte(rv) == nil && rv.GetRelname() == e.target.GetRelname() &&
		(rv.GetSchemaname() == e.target.GetSchemaname() || rv.GetSchemaname() == "" || e.target.GetSchemaname() == "")
}

// isWholeItem reports whether a FROM item holds every row of the target's
// table.
func (e *rows) isWholeItem(n *pg.Node, depth int) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		if def := e.w.cte(v.RangeVar); def != nil {
			return e.isWhole(def.GetCtequery().GetSelectStmt(), depth+1)
		}
		return e.isSameTable(v.RangeVar)
	case *pg.Node_RangeSubselect:
		return e.isWhole(v.RangeSubselect.Subquery.GetSelectStmt(), depth+1)
	case *pg.Node_RangeTableSample:
		return samplesAll(v.RangeTableSample) && e.isWholeItem(v.RangeTableSample.Relation, depth)
	default:
		return false
	}
}

// samplesAll reports whether TABLESAMPLE takes everything: 100 percent.
func samplesAll(s *pg.RangeTableSample) bool {
	return len(s.Args) == 1 && (&folder{search: &search{}}).fold(s.Args[0]).number() >= 100
}

// isWhole reports whether a query returns the key of every row of the
// target's table: SELECT id (or *) FROM it, unlimited and unfiltered.
func (e *rows) isWhole(s *pg.SelectStmt, depth int) bool {
	if s == nil || depth > maxSubselects || s.Larg != nil || len(s.FromClause) != 1 || len(s.ValuesLists) > 0 ||
		len(s.GroupClause) > 0 || s.HavingClause != nil || limits(s) || !e.isWholeItem(s.FromClause[0], depth) {
		return false
	}
	if len(s.TargetList) != 1 || !isKeyOrStar(s.TargetList[0].GetResTarget().GetVal(), fromAlias(s.FromClause[0])) {
		return false
	}
	if s.WhereClause == nil {
		return true
	}
	inner := &pg.RangeVar{Relname: e.target.GetRelname(), Alias: &pg.Alias{Aliasname: fromAlias(s.FromClause[0])}}
	return e.w.newRows(inner, nil).eval(s.WhereClause, false).cond == condTrue
}

// limits reports whether the query has a LIMIT or OFFSET that may leave rows
// out.
func limits(s *pg.SelectStmt) bool {
	if s.LimitOffset != nil {
		return true
	}
	return s.LimitCount != nil && !s.LimitCount.GetAConst().GetIsnull()
}

func isKeyOrStar(n *pg.Node, alias string) bool {
	fields := n.GetColumnRef().GetFields()
	if len(fields) == 0 {
		return false
	}
	if fields[len(fields)-1].GetAStar() != nil {
		return true
	}
	qualifier, column := columnOf(n)
	return isKeyName(column) && (qualifier == "" || qualifier == alias)
}

// inSelect is the outcome of key IN (SELECT …).
func (e *rows) inSelect(s *pg.SelectStmt) outcome {
	if n, ok := e.w.listLength(s, 0); ok && e.ownValues(s) {
		return outcome{condKeyed, n}
	}
	if e.isWhole(s, 0) {
		return outcome{cond: condTrue}
	}
	return outcome{}
}

// exists is the outcome of EXISTS (SELECT …), where it is not the same for
// all rows: without FROM it is that of its WHERE; on the target's own table,
// joined by nothing but the key, every row finds itself.
func (e *rows) exists(s *pg.SelectStmt) outcome {
	switch {
	case s == nil || s.Larg != nil || len(s.ValuesLists) > 0 || len(s.GroupClause) > 0 || s.HavingClause != nil || limits(s):
		return outcome{}
	case len(s.FromClause) == 0 && s.WhereClause == nil:
		return outcome{cond: condTrue}
	case len(s.FromClause) == 0:
		return e.eval(s.WhereClause, false)
	case len(s.FromClause) == 1 && s.WhereClause != nil && e.isWholeItem(s.FromClause[0], 0):
		self := e.w.newRows(e.target, s.FromClause)
		self.link(s.WhereClause)
		if self.linked && self.eval(s.WhereClause, false).cond == condTrue {
			return outcome{cond: condTrue}
		}
	}
	return outcome{}
}

// ownValues reports whether the rows that a list query returns are made of
// its own constants: a name in it that it does not define may be a column of
// the target's, as in id IN (SELECT id FROM (VALUES (1)) AS v(x)).
func (e *rows) ownValues(s *pg.SelectStmt) bool {
	switch {
	case s.Larg != nil:
		return e.ownValues(s.Larg) && e.ownValues(s.Rarg)
	case len(s.FromClause) == 0:
		return !e.w.search.list(append(s.ValuesLists, s.TargetList...), isColumn)
	}
	columns := e.w.columnsOf(s.FromClause[0])
	foreign := func(n *pg.Node) bool {
		if !isColumn(n) {
			return false
		}
		qualifier, name := columnOf(n)
		return qualifier != "" && qualifier != fromAlias(s.FromClause[0]) || !slices.Contains(columns, name)
	}
	if e.w.search.list(s.TargetList, foreign) {
		return false
	}
	inner := e.w.queryOf(s.FromClause[0])
	return inner == nil || e.ownValues(inner)
}

func isColumn(n *pg.Node) bool { return n.GetColumnRef() != nil }

// queryOf returns the query that a FROM item stands for: a subselect, or a
// WITH query; nil for all others.
func (w *walker) queryOf(n *pg.Node) *pg.SelectStmt {
	if sub := n.GetRangeSubselect(); sub != nil {
		return sub.Subquery.GetSelectStmt()
	}
	if rv := n.GetRangeVar(); rv != nil {
		return w.cte(rv).GetCtequery().GetSelectStmt()
	}
	return nil
}

// columnsOf returns the names of a FROM item's columns, as far as the text
// shows them.
func (w *walker) columnsOf(n *pg.Node) []string {
	var names []string
	add := func(list []*pg.Node) {
		for _, n := range list {
			names = append(names, n.GetString_().GetSval())
		}
	}
	add(n.GetRangeSubselect().GetAlias().GetColnames())
	add(n.GetRangeVar().GetAlias().GetColnames())
	add(n.GetRangeFunction().GetAlias().GetColnames())
	if rv := n.GetRangeVar(); rv != nil {
		add(w.cte(rv).GetAliascolnames())
	}
	if f := n.GetRangeFunction(); f != nil {
		return append(names, fromAlias(n), "unnest")
	}
	if len(names) > 0 {
		return names
	}
	return outputNames(w.queryOf(n))
}

// outputNames returns the names of a query's columns where they are not
// renamed.
func outputNames(s *pg.SelectStmt) []string {
	if s == nil {
		return nil
	}
	var names []string
	if len(s.ValuesLists) > 0 {
		for i := range listOf(s.ValuesLists[0]) {
			names = append(names, "column"+strconv.Itoa(i+1))
		}
	}
	for _, n := range s.TargetList {
		target := n.GetResTarget()
		_, name := columnOf(target.GetVal())
		if target.GetName() != "" {
			name = target.GetName()
		}
		names = append(names, name)
	}
	return names
}
