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
		w.within(v.RangeVar, func(s *pg.SelectStmt) { length, ok = w.listLength(s, depth+1) })
		return length, ok
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
	case s == nil || depth > maxSubselects || w.search.exhausted(queryCost) || s.WithClause != nil && depth > 0:
		return 0, false
	case s.Op == pg.SetOperation_SETOP_UNION:
		l, lok := w.listLength(s.Larg, depth+1)
		r, rok := w.listLength(s.Rarg, depth+1)
		return sum(l, r), lok && rok
	case s.Larg != nil:
		return 0, false
	case len(s.ValuesLists) > 0:
		w.search.countedRows(s.ValuesLists)
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
	return s.list(targets, func(n *pg.Node) bool { return n.GetFuncCall() != nil || callsUnknown(n) })
}

// isSameTable reports whether a FROM item's name is the target's table.
func (e *rows) isSameTable(rv *pg.RangeVar) bool {
	return e.w.cte(rv) == nil && rv.GetRelname() == e.target.GetRelname() &&
		(rv.GetSchemaname() == e.target.GetSchemaname() || rv.GetSchemaname() == "" || e.target.GetSchemaname() == "")
}

// wholeColumn returns which of the target's columns a column of a FROM item
// is, where the item holds every row of the target's table; "" where it does
// not.
func (e *rows) wholeColumn(n *pg.Node, qualifier, column string, depth int) string {
	if qualifier != "" && n.GetJoinExpr() == nil && fromAlias(n) != qualifier {
		return ""
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return e.wholeTable(v.RangeVar, column, depth)
	case *pg.Node_RangeSubselect:
		s := v.RangeSubselect.Subquery.GetSelectStmt()
		return e.wholeOutput(s, renamed(s, v.RangeSubselect.GetAlias().GetColnames(), column), depth+1)
	case *pg.Node_RangeTableSample:
		if e.w.search.samplesAll(v.RangeTableSample) {
			return e.wholeColumn(v.RangeTableSample.Relation, qualifier, column, depth)
		}
	case *pg.Node_JoinExpr:
		left, right := e.keepsSides(v.JoinExpr)
		if left {
			if found := e.wholeColumn(v.JoinExpr.Larg, qualifier, column, depth); found != "" {
				return found
			}
		}
		if right {
			return e.wholeColumn(v.JoinExpr.Rarg, qualifier, column, depth)
		}
	}
	return ""
}

func (e *rows) wholeTable(rv *pg.RangeVar, column string, depth int) string {
	def := e.w.cte(rv)
	switch {
	case len(rv.GetAlias().GetColnames()) > 0:
		return ""
	case def != nil:
		output := ""
		e.w.within(rv, func(s *pg.SelectStmt) { output = e.wholeOutput(s, renamed(s, def.GetAliascolnames(), column), depth+1) })
		return output
	case e.isSameTable(rv):
		return column
	default:
		return ""
	}
}

// renamed returns what a query calls the column that has another name outside;
// "" where it is none of those.
func renamed(s *pg.SelectStmt, names []*pg.Node, column string) string {
	outputs := outputNames(s)
	for i, n := range names {
		if i >= len(outputs) {
			return ""
		}
		if n.GetString_().GetSval() == column {
			return outputs[i]
		}
	}
	return column
}

// wholeOutput is wholeColumn for a column that a query returns.
func (e *rows) wholeOutput(s *pg.SelectStmt, column string, depth int) string {
	if s == nil || depth > maxSubselects || e.w.search.exhausted(queryCost) {
		return ""
	}
	defer e.w.enter(s.WithClause)()
	if s.Op == pg.SetOperation_SETOP_UNION {
		if left := e.wholeOutput(s.Larg, column, depth+1); left != "" {
			return left
		}
		return e.wholeOutput(s.Rarg, column, depth+1)
	}
	for i, n := range s.TargetList {
		expr := e.values.simplify(n.GetResTarget().GetVal())
		qualifier, name := columnOf(expr)
		output := name
		if n.GetResTarget().GetName() != "" {
			output = n.GetResTarget().GetName()
		}
		if isStar(expr) {
			name, output = column, column
		}
		if name == "" || output != column || !e.keepsValues(s, expr, i+1) {
			continue
		}
		if found := e.wholeFrom(s, qualifier, name, depth); found != "" {
			return found
		}
	}
	return ""
}

// wholeFrom is wholeColumn for a column of one of a query's FROM items.
func (e *rows) wholeFrom(s *pg.SelectStmt, qualifier, column string, depth int) string {
	for i, item := range s.FromClause {
		if found := e.wholeColumn(item, qualifier, column, depth); found != "" && e.keepsRows(s, i) {
			return found
		}
	}
	return ""
}

// wholeAggregate returns the target's column that a scalar subselect
// aggregates all values of, by the function of this name.
func (e *rows) wholeAggregate(n *pg.Node, function string) (column string) {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	s := n.GetSubLink().GetSubselect().GetSelectStmt()
	if n.GetSubLink().GetSubLinkType() != pg.SubLinkType_EXPR_SUBLINK || len(s.GetTargetList()) != 1 || !e.w.search.isOneGroup(s) {
		return ""
	}
	f := s.TargetList[0].GetResTarget().GetVal().GetFuncCall()
	if name, ok := builtinName(f.GetFuncname()); !ok || name != function || len(f.Args) != 1 || f.AggFilter != nil {
		return ""
	}
	defer e.w.enter(s.WithClause)()
	qualifier, name := columnOf(e.values.simplify(f.Args[0]))
	if name == "" {
		return ""
	}
	return e.wholeFrom(s, qualifier, name, 0)
}

// keepsValues reports whether every value of an output is left by GROUP BY and
// DISTINCT ON: it is among what they go by, or a key is. They may give its
// number.
func (e *rows) keepsValues(s *pg.SelectStmt, expr *pg.Node, number int) bool {
	by := s.GroupClause
	if len(s.DistinctClause) > 0 && s.DistinctClause[0].GetNode() != nil {
		by = append(by[:len(by):len(by)], s.DistinctClause...)
	}
	_, column := columnOf(expr)
	return len(by) == 0 || slices.ContainsFunc(by, func(n *pg.Node) bool {
		_, name := columnOf(n)
		return name != "" && (name == column || isKeyName(name)) || e.values.fold(n).number() == float64(number)
	})
}

func isStar(n *pg.Node) bool {
	fields := n.GetColumnRef().GetFields()
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// keepsRows reports whether a query returns something for each row of one of
// its FROM items: nothing filters or limits them. What is joined to them has
// rows.
func (e *rows) keepsRows(s *pg.SelectStmt, item int) bool {
	if s.Larg != nil || len(s.ValuesLists) > 0 || !e.keepsGroups(s, s.HavingClause) || e.w.search.limits(s) {
		return false
	}
	if s.WhereClause == nil {
		return true
	}
	others := slices.Delete(slices.Clone(s.FromClause), item, item+1)
	return e.holdsFor(fromAlias(s.FromClause[item]), others, s.WhereClause)
}

// keepsGroups reports whether a HAVING of a query leaves out no group that has
// rows.
func (e *rows) keepsGroups(s *pg.SelectStmt, having *pg.Node) bool {
	if b := having.GetBoolExpr(); b.GetBoolop() == pg.BoolExprType_AND_EXPR {
		return !slices.ContainsFunc(b.Args, func(n *pg.Node) bool { return !e.keepsGroups(s, n) })
	}
	if having == nil || e.values.fold(having).isTrue() {
		return true
	}
	x := operatorOf(having)
	op, limit := opName(x), x.GetRexpr()
	if countsRows(s, limit) {
		op, limit = mirror(op), x.GetLexpr()
	} else if !countsRows(s, x.GetLexpr()) {
		return false
	}
	n := e.values.fold(limit).number()
	return (op == ">" || op == "<>") && n < 1 || op == ">=" && n <= 1
}

// countsRows reports whether n is count(*) or the like, which is at least 1 for
// a group that has rows. Behind an outer join a key may be NULL in all of them.
func countsRows(s *pg.SelectStmt, n *pg.Node) bool {
	f := n.GetFuncCall()
	if name, ok := builtinName(f.GetFuncname()); !ok || name != "count" || f.AggFilter != nil || f.Over != nil || !f.AggStar && len(f.Args) != 1 {
		return false
	}
	if f.AggStar {
		return true
	}
	_, column := columnOf(f.Args[0])
	return isAnyConstant(f.Args[0]) || isKeyName(column) && !slices.ContainsFunc(s.FromClause, isOuterJoin)
}

// holdsFor reports whether a condition holds for every row of the target's
// table under another alias, joined to others.
func (e *rows) holdsFor(alias string, others []*pg.Node, condition *pg.Node) bool {
	inner := &pg.RangeVar{Relname: e.target.GetRelname(), Schemaname: e.target.GetSchemaname(), Alias: &pg.Alias{Aliasname: alias}}
	joined := e.w.newRows(inner, others)
	joined.link(condition)
	return joined.eval(condition, false).cond == condTrue
}

// isWholeQuery reports whether a query reads every row of the target's table.
func (e *rows) isWholeQuery(s *pg.SelectStmt) bool {
	defer e.w.enter(s.WithClause)()
	if s.Op == pg.SetOperation_SETOP_UNION {
		return e.isWholeQuery(s.Larg) || e.isWholeQuery(s.Rarg)
	}
	for i, item := range s.FromClause {
		if e.wholeColumn(item, fromAlias(item), "id", 0) == "id" && e.keepsRows(s, i) {
			return true
		}
	}
	return false
}

// enter puts the names of a WITH clause in scope without walking it again;
// the caller calls the function that it returns where the names end.
func (w *walker) enter(c *pg.WithClause) (leave func()) {
	if c == nil {
		return func() {}
	}
	before := w.scopes
	w.scopes = slices.Concat(before, []*scope{scopeOf(c)})
	return func() { w.scopes = before }
}

// samplesAll reports whether TABLESAMPLE takes everything: 100 percent.
func (s *search) samplesAll(t *pg.RangeTableSample) bool {
	return len(t.Args) == 1 && (&folder{search: s}).fold(t.Args[0]).number() >= 100
}

// limits reports whether the query has a LIMIT or OFFSET that may leave rows
// out.
func (s *search) limits(q *pg.SelectStmt) bool {
	return s.skips(q) || q.LimitCount != nil && !s.isNull(q.LimitCount)
}

// skips reports whether the query has an OFFSET that may leave rows out.
func (s *search) skips(q *pg.SelectStmt) bool {
	if q.LimitOffset == nil {
		return false
	}
	v := (&folder{search: s}).fold(q.LimitOffset)
	return v.kind != valueNull && v.number() != 0
}

// inSelect is the outcome of column IN (SELECT …).
func (e *rows) inSelect(column *pg.Node, s *pg.SelectStmt) outcome {
	if row := column.GetRowExpr(); row != nil && s != nil {
		return e.rowInSelect(row.Args, s)
	}
	name := e.targetColumn(column)
	if s == nil || name == "" {
		return outcome{}
	}
	defer e.w.enter(s.WithClause)()
	output := name
	if outputs := outputNames(s); len(outputs) == 1 && outputs[0] != "" {
		output = outputs[0]
	}
	if e.wholeOutput(s, output, 0) == name {
		return outcome{cond: condTrue}
	}
	if s.Op == pg.SetOperation_SETOP_UNION && !e.w.search.exhausted(queryCost) && either(e.inSubselect(column, s.Larg), e.inSubselect(column, s.Rarg)).cond == condTrue {
		return outcome{cond: condTrue}
	}
	for _, row := range s.ValuesLists[:min(len(s.ValuesLists), maxPairs)] {
		if items := listOf(row); len(items) == 1 && e.eval(equals(column, items[0]), false).cond == condTrue {
			return outcome{cond: condTrue}
		}
	}
	if n, ok := e.w.listLength(s, 0); ok && e.keyColumn(column) != "" && e.ownValues(s) {
		return listed(name, n)
	}
	return e.inStray(name, s)
}

// rowInSelect is inSelect for a row: of each of its columns the query has to
// return every value.
func (e *rows) rowInSelect(columns []*pg.Node, s *pg.SelectStmt) outcome {
	outputs := outputNames(s)
	if len(outputs) != len(columns) {
		return outcome{}
	}
	defer e.w.enter(s.WithClause)()
	for i, column := range columns {
		if name := e.targetColumn(column); name == "" || outputs[i] == "" || e.wholeOutput(s, outputs[i], 0) != name {
			return outcome{}
		}
	}
	return outcome{cond: condTrue}
}

// exists is the outcome of EXISTS (SELECT …), where it is not the same for
// all rows: an aggregate without GROUP BY has a row whatever there is; without
// FROM it is that of its WHERE; on the target's own table, joined by nothing but
// the key, every row finds itself.
func (e *rows) exists(s *pg.SelectStmt) outcome {
	switch {
	case s == nil || len(s.ValuesLists) > 0 || !e.keepsGroups(s, s.HavingClause) || e.w.search.exhausted(queryCost) || e.mayBeNone(s):
		return outcome{}
	case s.Larg != nil:
		if s.Op != pg.SetOperation_SETOP_UNION {
			return outcome{}
		}
		return either(e.exists(s.Larg), e.exists(s.Rarg))
	case e.w.search.isOneGroup(s), len(s.GroupClause) == 0 && s.HavingClause != nil && e.values.fold(s.HavingClause).isTrue():
		return outcome{cond: condTrue}
	case len(s.FromClause) == 0 && s.WhereClause == nil:
		return outcome{cond: condTrue}
	case len(s.FromClause) == 0:
		return e.eval(s.WhereClause, false)
	case s.WhereClause != nil:
		defer e.w.enter(s.WithClause)()
		self := e.w.newRows(e.target, s.FromClause)
		self.link(s.WhereClause)
		if self.linked != "" && self.eval(s.WhereClause, false).cond == condTrue {
			return outcome{cond: condTrue}
		}
	}
	return outcome{}
}

// mayBeNone reports whether LIMIT or OFFSET may leave no row of those that
// there are. LIMIT leaves one unless it is 0.
func (e *rows) mayBeNone(s *pg.SelectStmt) bool {
	return e.w.search.skips(s) || s.LimitCount != nil && e.values.fold(s.LimitCount).number() == 0
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
	own := true
	e.w.withQueryOf(s.FromClause[0], func(inner *pg.SelectStmt) { own = inner == nil || e.ownValues(inner) })
	return own
}

func isColumn(n *pg.Node) bool { return n.GetColumnRef() != nil }

// withQueryOf calls f with the query that a FROM item stands for: a subselect,
// or a WITH query; with nil for all others.
func (w *walker) withQueryOf(n *pg.Node, f func(s *pg.SelectStmt)) {
	if rv := n.GetRangeVar(); rv != nil {
		w.within(rv, f)
		return
	}
	f(n.GetRangeSubselect().GetSubquery().GetSelectStmt())
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
	w.withQueryOf(n, func(s *pg.SelectStmt) { names = outputNames(s) })
	return names
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
