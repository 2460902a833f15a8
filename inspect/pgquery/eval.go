package pgquery

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// maxConditions bounds how deep conditions within conditions are looked into;
// what is deeper is a predicate.
const maxConditions = 32

// maxPairs bounds the search for an OR's contradicting arguments, which
// compares each with each.
const maxPairs = 16

// eval says for which of the target's rows a condition holds, or with not,
// for which its negation does.
func (e *rows) eval(n *pg.Node, not bool) outcome {
	if e.w.conditions >= maxConditions || e.w.search.exhausted(conditionCost) {
		return outcome{}
	}
	e.w.conditions++
	defer func() { e.w.conditions-- }()
	if v, loose := e.values.foldLoosely(n); v.known() {
		if o := truth(v.isTrue() && !not || v.isFalse() && not); o.cond == condTrue || !loose {
			return o
		}
		return outcome{} // it may hold for rows with NULLs
	}
	if o := e.evalNode(n, not); o.cond != condPredicate {
		return o
	}
	if n != nil && !e.certain && e.independent(n) {
		return outcome{cond: condTrue} // all rows or none
	}
	return outcome{}
}

// holds says whether a condition is true for every row, or false for every
// row, whatever parameters and the like are: for all rows or none is not
// enough where it is a part of another.
func (e *rows) holds(n *pg.Node) value {
	if e.w.conditions >= maxConditions {
		return unknownValue
	}
	defer func(before bool) { e.certain = before }(e.certain)
	e.certain = true
	e.w.conditions++
	defer func() { e.w.conditions-- }()
	for _, not := range []bool{false, true} {
		if !e.w.search.exhausted(conditionCost) && e.evalNode(n, not).cond == condTrue {
			return boolValue(!not)
		}
	}
	return unknownValue
}

func (e *rows) evalNode(n *pg.Node, not bool) outcome {
	switch v := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		return e.evalBool(v.BoolExpr, not)
	case *pg.Node_AExpr:
		return e.evalOperator(v.AExpr, not)
	case *pg.Node_FuncCall:
		if x := operatorOf(n); x != nil && e.evalOperator(x, not).cond == condTrue {
			return outcome{cond: condTrue} // keys are not looked for by functions
		}
	case *pg.Node_SubLink:
		if !not {
			return e.evalSubLink(v.SubLink)
		}
		t := v.SubLink.SubLinkType
		if (t == pg.SubLinkType_ANY_SUBLINK || t == pg.SubLinkType_EXISTS_SUBLINK) && e.isEmpty(v.SubLink.Subselect.GetSelectStmt()) {
			return outcome{cond: condTrue}
		}
	case *pg.Node_BooleanTest:
		return e.evalTest(v.BooleanTest, not)
	case *pg.Node_CaseExpr:
		return e.evalCase(v.CaseExpr, not)
	case *pg.Node_TypeCast:
		if _, name, _ := nameOf(v.TypeCast.TypeName.GetNames()); name == "bool" {
			return e.eval(v.TypeCast.Arg, not)
		}
	}
	return outcome{}
}

func (e *rows) evalBool(b *pg.BoolExpr, not bool) outcome {
	if b.Boolop == pg.BoolExprType_NOT_EXPR {
		return e.eval(b.Args[0], !not)
	}
	if (b.Boolop == pg.BoolExprType_AND_EXPR) != not {
		o := outcome{cond: condTrue}
		for _, arg := range b.Args {
			o = both(o, e.eval(arg, not))
		}
		return o
	}
	if e.values.coversAll(b.Args, not) {
		return outcome{cond: condTrue}
	}
	o := outcome{cond: condFalse}
	for _, arg := range b.Args {
		o = either(o, e.eval(arg, not))
	}
	return o
}

// evalTest is x IS TRUE and the like: as x for IS TRUE, as NOT x for IS
// FALSE. What NULL makes of the others is left to the predicate.
func (e *rows) evalTest(t *pg.BooleanTest, not bool) outcome {
	switch {
	case t.Booltesttype == pg.BoolTestType_IS_TRUE && !not:
		return e.eval(t.Arg, false)
	case t.Booltesttype == pg.BoolTestType_IS_FALSE && !not:
		return e.eval(t.Arg, true)
	default:
		return outcome{}
	}
}

// evalCase is the OR of the results, each with the condition before it, where
// the results are constants or conditions.
func (e *rows) evalCase(c *pg.CaseExpr, not bool) outcome {
	if c.Arg != nil {
		return outcome{}
	}
	o, rest := outcome{cond: condFalse}, outcome{cond: condTrue}
	for _, n := range c.Args {
		when := n.GetCaseWhen()
		here := e.eval(when.GetExpr(), false)
		o = either(o, both(rest, both(here, e.eval(when.GetResult(), not))))
		switch v, loose := e.values.foldLoosely(when.GetExpr()); {
		case v.isTrue() && !loose:
			return o
		case v.isTrue(), !v.known():
			rest = both(rest, outcome{})
		}
	}
	if c.Defresult != nil {
		o = either(o, both(rest, e.eval(c.Defresult, not)))
	}
	return o
}

// evalOperator is a comparison, or its negation.
func (e *rows) evalOperator(x *pg.A_Expr, not bool) outcome {
	switch op := opName(x); {
	case not && op == "<>" && x.Kind == pg.A_Expr_Kind_AEXPR_OP:
		return e.evalEquals(x.Lexpr, x.Rexpr)
	case (x.Kind == pg.A_Expr_Kind_AEXPR_OP_ALL && !not || x.Kind == pg.A_Expr_Kind_AEXPR_OP_ANY && not) && e.w.search.isEmptyArray(x.Rexpr):
		return outcome{cond: condTrue}
	case not:
		return outcome{}
	case findsItself(x) && (e.reaches(op, x.Lexpr, x.Rexpr) || e.reaches(mirror(op), x.Rexpr, x.Lexpr)):
		return outcome{cond: condTrue}
	case x.Kind == pg.A_Expr_Kind_AEXPR_BETWEEN && len(listOf(x.Rexpr)) == 2:
		low, high := listOf(x.Rexpr)[0], listOf(x.Rexpr)[1]
		return both(e.eval(operation(">=", x.Lexpr, low), false), e.eval(operation("<=", x.Lexpr, high), false))
	case op != "=":
		return outcome{}
	case x.Kind == pg.A_Expr_Kind_AEXPR_OP:
		return e.evalEquals(x.Lexpr, x.Rexpr)
	case x.Kind == pg.A_Expr_Kind_AEXPR_IN:
		return e.evalIn(x.Lexpr, listOf(x.Rexpr))
	case x.Kind == pg.A_Expr_Kind_AEXPR_OP_ANY:
		return e.evalAny(x.Lexpr, x.Rexpr)
	default:
		return outcome{}
	}
}

// reaches reports whether a comparison holds for every row, for what the column
// is compared with takes in all of its values: those of its own table, or the
// least or the greatest of them.
func (e *rows) reaches(op string, column, other *pg.Node) bool {
	if e.joinsWhole(column, other) {
		return true
	}
	extreme := map[string]string{"<=": "max", ">=": "min"}[op]
	name := e.targetColumn(column)
	return extreme != "" && name != "" && e.wholeAggregate(other, extreme) == name
}

// isEmptyArray reports whether an array has no elements: nothing is in it.
func (s *search) isEmptyArray(n *pg.Node) bool {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	if a := n.GetAArrayExpr(); a != nil {
		return len(a.Elements) == 0
	}
	text, ok := s.literal(n)
	return ok && strings.ReplaceAll(text, " ", "") == "{}"
}

// isEmpty reports whether a query returns nothing for certain.
func (e *rows) isEmpty(s *pg.SelectStmt) bool {
	if s == nil || s.Larg != nil {
		return false
	}
	if s.LimitCount != nil && e.values.fold(s.LimitCount).number() == 0 {
		return true
	}
	where := e.values.fold(s.WhereClause)
	if slices.ContainsFunc(s.FromClause, isOuterJoin) {
		where = unknownValue // its columns may be NULL, the key too
	}
	return (where.isFalse() || where.kind == valueNull) && !e.w.search.isOneGroup(s)
}

func isOuterJoin(n *pg.Node) bool {
	j := n.GetJoinExpr()
	return j != nil && (j.Jointype != pg.JoinType_JOIN_INNER || isOuterJoin(j.Larg) || isOuterJoin(j.Rarg))
}

// evalEquals is a = b: rows are compared column by column.
func (e *rows) evalEquals(a, b *pg.Node) outcome {
	if l, r := a.GetRowExpr(), b.GetRowExpr(); l != nil && r != nil && len(l.Args) == len(r.Args) {
		o := outcome{cond: condTrue}
		for i := range l.Args {
			o = both(o, e.eval(equals(l.Args[i], r.Args[i]), false))
		}
		return o
	}
	if o := e.evalKey(a, b); o.cond != condPredicate {
		return o
	}
	return e.evalKey(b, a)
}

// equals builds the condition a = b.
func equals(a, b *pg.Node) *pg.Node { return operation("=", a, b) }

func operation(op string, a, b *pg.Node) *pg.Node {
	return pg.MakeAExprNode(pg.A_Expr_Kind_AEXPR_OP, []*pg.Node{pg.MakeStrNode(op)}, a, b, 0)
}

// evalKey is key = other, in this order.
func (e *rows) evalKey(key, other *pg.Node) outcome {
	if e.orItself(key, other) || e.joinsWhole(key, other) || e.selectsItself(key, other) {
		return outcome{cond: condTrue}
	}
	column := e.keyColumn(key)
	if column == "" {
		return outcome{}
	}
	if e.isValue(column, other) {
		return listed(column, 1)
	}
	bare := other
	for bare.GetTypeCast() != nil {
		bare = bare.GetTypeCast().Arg // whatever the type, it is one value for each row of the list
	}
	alias, _ := columnOf(bare)
	if s := e.source(alias); s != nil && s.list {
		return listed(column, s.rows)
	}
	if sub := other.GetSubLink(); sub.GetSubLinkType() == pg.SubLinkType_EXPR_SUBLINK && isFixed(e, sub.Subselect) {
		return listed(column, 1)
	}
	return outcome{}
}

// selectsItself reports whether a scalar subselect finds the row's own value
// in its own table: column = (SELECT b.column FROM t b WHERE b.id = t.id) holds
// where EXISTS (… AND t.column = b.column) does.
func (e *rows) selectsItself(column, other *pg.Node) bool {
	s := other.GetSubLink().GetSubselect().GetSelectStmt()
	name := e.targetColumn(column)
	if other.GetSubLink().GetSubLinkType() != pg.SubLinkType_EXPR_SUBLINK || len(s.GetTargetList()) != 1 || s.GetWhereClause() == nil || name == "" {
		return false
	}
	for _, item := range s.FromClause {
		if fromAlias(item) == e.alias {
			return false // the target's name is another's in there
		}
	}
	value := s.TargetList[0].GetResTarget().GetVal()
	if e.w.search.isOneGroup(s) {
		value = nil
		if f := s.TargetList[0].GetResTarget().GetVal().GetFuncCall(); len(f.GetArgs()) == 1 {
			value = f.Args[0] // the greatest, say, of one
		}
	}
	own := &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: []*pg.Node{pg.MakeStrNode(e.alias), pg.MakeStrNode(name)}}}}
	where := pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, []*pg.Node{s.WhereClause, equals(own, value)}, 0)
	return value != nil && e.exists(&pg.SelectStmt{FromClause: s.FromClause, WhereClause: where, LimitCount: s.LimitCount, LimitOffset: s.LimitOffset}).cond == condTrue
}

// isFixed reports whether a scalar subselect has one value for the whole
// statement: no name in it is the target's, and it is evaluated once even where
// its functions are volatile. A name without qualifier is the target's where no
// FROM item has such a column; one that is the target's own table has.
func isFixed(e *rows, n *pg.Node) bool {
	s := n.GetSelectStmt()
	if s == nil || len(s.FromClause) == 0 {
		return false
	}
	shadowed, same := false, false
	var columns []string
	for _, item := range s.FromClause {
		shadowed = shadowed || fromAlias(item) == e.alias
		same = same || item.GetRangeVar() != nil && len(item.GetRangeVar().GetAlias().GetColnames()) == 0 && e.isSameTable(item.GetRangeVar())
		columns = append(columns, e.w.columnsOf(item)...)
	}
	return !e.w.search.node(n, func(n *pg.Node) bool {
		qualifier, name := columnOf(n)
		if qualifier != "" {
			return !shadowed && (qualifier == e.alias || e.source(qualifier) != nil)
		}
		return isColumn(n) && !isStar(n) && !same && !slices.Contains(columns, name)
	})
}

// orItself reports whether other is coalesce(…, key): with a parameter that
// is NULL the comparison holds for every row.
func (e *rows) orItself(key, other *pg.Node) bool {
	c := other.GetCoalesceExpr()
	if c == nil || len(c.Args) == 0 || key.GetColumnRef() == nil || !e.values.same(c.Args[len(c.Args)-1], key) {
		return false
	}
	for _, arg := range c.Args[:len(c.Args)-1] {
		if e.values.fold(arg).notNull {
			return false
		}
	}
	return true
}

func (e *rows) evalIn(key *pg.Node, items []*pg.Node) outcome {
	e.w.search.counted(items)
	o := outcome{cond: condFalse}
	if len(items) <= maxPairs || key.GetRowExpr() != nil {
		for _, item := range items {
			o = either(o, e.eval(equals(key, item), false))
		}
		return o
	}
	column := e.keyColumn(key)
	if column == "" {
		return outcome{}
	}
	for _, item := range items {
		if !e.isValue(column, item) {
			return outcome{}
		}
	}
	return listed(column, len(items))
}

func (e *rows) evalAny(key, array *pg.Node) outcome {
	if a := array.GetAArrayExpr(); a != nil && len(a.Elements) <= maxPairs && !slices.ContainsFunc(a.Elements, mayBeArray) {
		return e.evalIn(key, a.Elements)
	}
	if name := e.targetColumn(key); name != "" && e.wholeAggregate(array, "array_agg") == name {
		return outcome{cond: condTrue}
	}
	if sub := array.GetSubLink(); sub.GetSubLinkType() == pg.SubLinkType_ARRAY_SUBLINK {
		return e.inSubselect(key, sub.Subselect.GetSelectStmt())
	}
	column := e.keyColumn(key)
	if column == "" || !isKeyName(column) && !isPlain(array) {
		return outcome{}
	}
	if n, ok := e.arrayLength(array); ok {
		return listed(column, n)
	}
	return outcome{}
}

// mayBeArray reports whether an element of an array may be an array: what is
// neither a constant nor a row nor cast to a type that is none for certain.
func mayBeArray(n *pg.Node) bool {
	if isAnyConstant(n) {
		return false
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef, *pg.Node_RowExpr, *pg.Node_BoolExpr:
		return false
	case *pg.Node_TypeCast:
		return !isScalarType(v.TypeCast.TypeName)
	default:
		return true
	}
}

func (e *rows) evalSubLink(s *pg.SubLink) outcome {
	sel := s.Subselect.GetSelectStmt()
	switch s.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return e.exists(sel)
	case pg.SubLinkType_ALL_SUBLINK:
		if e.isEmpty(sel) {
			return outcome{cond: condTrue}
		}
	case pg.SubLinkType_ANY_SUBLINK:
		o := e.inSubselect(s.Testexpr, sel)
		if len(s.OperName) == 0 || opNamed(s.OperName, "=") {
			return o
		}
		if o.cond == condTrue && (opNamed(s.OperName, "<=") || opNamed(s.OperName, ">=")) {
			return o // for each is among them
		}
	case pg.SubLinkType_EXPR_SUBLINK:
		if v := e.values.scalar(sel); v != nil {
			return e.eval(v, false)
		}
	default:
	}
	return outcome{}
}

func opNamed(list []*pg.Node, name string) bool { return builtinOperator(list) == name }

// inSubselect is key IN (SELECT …); of a row only the key's column counts,
// with nothing said about the others.
func (e *rows) inSubselect(test *pg.Node, s *pg.SelectStmt) outcome {
	if v := e.values.scalar(s); v != nil {
		return e.eval(equals(test, v), false)
	}
	return e.inSelect(test, s)
}

// scalar returns the one expression of SELECT expression, which has nothing
// but this; nil for all other queries, and where a function may return more
// than one row.
func (k *folder) scalar(s *pg.SelectStmt) *pg.Node {
	if s == nil || s.Larg != nil || len(s.FromClause) > 0 || s.WhereClause != nil || s.HavingClause != nil ||
		len(s.ValuesLists) > 0 || len(s.TargetList) != 1 || k.search.limits(s) || k.search.returnsSets(s.TargetList) {
		return nil
	}
	return s.TargetList[0].GetResTarget().GetVal()
}
