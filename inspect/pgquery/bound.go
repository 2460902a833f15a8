package pgquery

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// condition is what a condition says about the target's rows.
type condition uint8

const (
	condPredicate condition = iota // depends on the rows, or is not understood
	condFalse                      // holds for no row
	condTrue                       // holds for every row whatever the data; or for all or none
	condListed                     // holds for the rows of a list of values, which may be keys or not
	condKeyed                      // holds for the rows of a list of keys
)

// outcome is a condition, and for condKeyed the length of the list: 0 where
// the text does not show it. columns are the target's that the lists are of:
// each of them has to be a key.
type outcome struct {
	cond    condition
	rows    int
	columns []string
}

// listed is the outcome of a list of n values of one of the target's columns.
func listed(column string, n int) outcome {
	if isKeyName(column) {
		return outcome{condKeyed, n, []string{column}}
	}
	return outcome{condListed, 0, []string{column}}
}

// isListed reports whether the condition is a list of values.
func (o outcome) isListed() bool { return o.cond == condKeyed || o.cond == condListed }

// needs is what the outcome leaves to a catalog.
func (o outcome) needs() *inspect.Needs {
	if !o.isListed() {
		return nil
	}
	return &inspect.Needs{Keys: o.columns}
}

func truth(b bool) outcome {
	if b {
		return outcome{cond: condTrue}
	}
	return outcome{cond: condFalse}
}

// bound is the outcome in the words of package inspect. What holds for no row
// is a predicate like others.
func (o outcome) bound() (b inspect.Bound, rows int) {
	switch o.cond {
	case condTrue:
		return inspect.BoundVacuous, 0
	case condKeyed:
		return inspect.BoundKeyed, o.rows
	case condPredicate, condListed, condFalse:
	}
	return inspect.BoundPredicate, 0
}

// both is the outcome of a AND b.
func both(a, b outcome) outcome {
	switch {
	case a.cond == condFalse || b.cond == condFalse:
		return outcome{cond: condFalse}
	case a.cond == condTrue:
		return b
	case b.cond == condTrue:
		return a
	case a.cond == condKeyed && b.cond == condKeyed:
		if fewer(a.rows, b.rows) == a.rows {
			return a
		}
		return b
	case a.cond == condKeyed, a.cond == condListed && b.cond != condKeyed:
		return a
	default:
		return b
	}
}

// fewer returns the smaller of two lengths, of which 0 is not known.
func fewer(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// either is the outcome of a OR b.
func either(a, b outcome) outcome {
	switch {
	case a.cond == condTrue || b.cond == condTrue:
		return outcome{cond: condTrue}
	case a.cond == condFalse:
		return b
	case b.cond == condFalse:
		return a
	case a.cond == condKeyed && b.cond == condKeyed:
		return outcome{condKeyed, sum(a.rows, b.rows), union(a.columns, b.columns)}
	case a.isListed() && b.isListed():
		return outcome{condListed, 0, union(a.columns, b.columns)}
	default:
		return outcome{}
	}
}

func sum(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return a + b
}

// whereBound says in r how the WHERE of an UPDATE or DELETE bounds its target.
func (w *walker) whereBound(r *inspect.Relation, target *pg.RangeVar, from []*pg.Node, where *pg.Node) {
	switch {
	case where == nil:
		r.Bound = inspect.BoundNone
	case where.GetCurrentOfExpr() != nil:
		r.Bound = inspect.BoundCursor
	default:
		e := w.newRows(target, from)
		e.link(where)
		o := e.eval(where, false)
		r.Bound, r.Rows = o.bound()
		r.Needs = o.needs()
		if r.Bound == inspect.BoundPredicate && e.values.testsNull {
			r.Needs = withNotNull(r.Needs, w.vacuousIf(target, from, where))
		}
		if r.Bound == inspect.BoundPredicate {
			r.Needs = w.withStrays(r.Needs, e.values.strays, target, where)
		}
	}
}

// mergeBound says how a MERGE bounds the rows of its target that exist: the
// widest of its WHEN MATCHED clauses that change them, or all of these where
// what one leaves is another's.
func (w *walker) mergeBound(s *pg.MergeStmt) (b inspect.Bound, rows int, needs *inspect.Needs) {
	e := w.newRows(s.Relation, []*pg.Node{s.SourceRelation})
	e.link(s.JoinCondition)
	widest := inspect.Relation{}
	var conditions []*pg.Node
	for _, n := range s.MergeWhenClauses {
		when := n.GetMergeWhenClause()
		if mergeAccess(when.GetCommandType())&(inspect.AccessUpdate|inspect.AccessDelete) == 0 {
			continue
		}
		o := e.eval(s.JoinCondition, false)
		if when.GetCondition() != nil {
			o = both(o, e.eval(when.Condition, false))
			conditions = append(conditions, when.Condition)
		}
		r := inspect.Relation{}
		r.Bound, r.Rows = o.bound()
		r.Needs = o.needs()
		merge(&widest, r)
	}
	if len(conditions) > 1 && widest.Bound == inspect.BoundPredicate {
		if o := both(e.eval(s.JoinCondition, false), e.eval(anyOf(conditions), false)); o.cond == condTrue {
			return inspect.BoundVacuous, 0, nil
		}
	}
	return widest.Bound, widest.Rows, widest.Needs
}

// anyOf builds the OR of conditions.
func anyOf(conditions []*pg.Node) *pg.Node {
	return pg.MakeBoolExprNode(pg.BoolExprType_OR_EXPR, conditions, 0)
}

// conflictBound says how many existing rows INSERT … ON CONFLICT DO UPDATE
// may change: at most one for each row of VALUES; all of them where the rows
// come from the whole table itself.
func (w *walker) conflictBound(s *pg.InsertStmt) (b inspect.Bound, rows int) {
	e := w.newRows(s.Relation, nil)
	sel := s.SelectStmt.GetSelectStmt()
	if sel == nil {
		return inspect.BoundKeyed, 1 // DEFAULT VALUES
	}
	if n, ok := w.listLength(sel, 0); ok {
		return inspect.BoundKeyed, n
	}
	if e.isWholeQuery(sel) && (s.OnConflictClause.WhereClause == nil || e.eval(s.OnConflictClause.WhereClause, false).cond == condTrue) {
		return inspect.BoundNone, 0
	}
	return inspect.BoundPredicate, 0
}

// rows is what a condition about a target's rows is evaluated in.
type rows struct {
	w       *walker
	target  *pg.RangeVar
	alias   string   // under which the target's columns are known
	sources []source // the other FROM items
	linked  string   // a source that is the target once more, row by row; "" where none is
	certain bool     // what holds for all rows or none counts for nothing, see holds
	values  folder
}

// source is one FROM item beside the target.
type source struct {
	alias string
	item  *pg.Node // nil where rows of it may be left out by a join
	list  bool     // rows that the text lists
	rows  int      // of a list: how many, 0 when the text does not show it
}

// of returns the FROM item; nil where there is none.
func (s *source) of() *pg.Node {
	if s == nil {
		return nil
	}
	return s.item
}

func (w *walker) newRows(target *pg.RangeVar, from []*pg.Node) *rows {
	e := &rows{w: w, target: target, alias: aliasOf(target), values: folder{search: &w.search}}
	for _, n := range from {
		e.addSource(n, true)
	}
	if len(from) == 0 {
		e.values.alias = e.alias
	}
	e.values.certain = e.holds
	return e
}

// addSource notes a FROM item; complete says that no join leaves rows of it
// out.
func (e *rows) addSource(n *pg.Node, complete bool) {
	if j := n.GetJoinExpr(); j != nil {
		left, right := e.keepsSides(j)
		e.addSource(j.Larg, complete && left)
		e.addSource(j.Rarg, complete && right)
		for _, alias := range []*pg.Alias{j.Alias, j.JoinUsingAlias} {
			if alias != nil {
				e.sources = append(e.sources, source{alias: alias.Aliasname})
			}
		}
		return
	}
	s := source{alias: fromAlias(n), item: n}
	if !complete {
		s.item = nil
	}
	s.rows, s.list = e.w.itemLength(n, 0)
	e.sources = append(e.sources, s)
}

// keepsSides reports which sides of a join keep all their rows, or all of the
// target's table if that is what they are.
func (e *rows) keepsSides(j *pg.JoinExpr) (left, right bool) {
	cross := !j.IsNatural && len(j.UsingClause) == 0 && (j.Quals == nil || e.values.fold(j.Quals).isTrue())
	if cross || j.Jointype == pg.JoinType_JOIN_FULL || e.joinsItself(j) {
		return true, true
	}
	return j.Jointype == pg.JoinType_JOIN_LEFT, j.Jointype == pg.JoinType_JOIN_RIGHT
}

// joinsItself reports whether a join is of the target's table with itself, row
// by row.
func (e *rows) joinsItself(j *pg.JoinExpr) bool {
	l, r := j.Larg.GetRangeVar(), j.Rarg.GetRangeVar()
	if l == nil || r == nil || !e.isSameTable(l) || !e.isSameTable(r) || len(l.GetAlias().GetColnames())+len(r.GetAlias().GetColnames()) > 0 {
		return false
	}
	return j.IsNatural || len(j.UsingClause) > 0 || e.holdsFor(aliasOf(l), []*pg.Node{j.Rarg}, j.Quals)
}

// fromAlias returns the name under which a FROM item's columns are known.
func fromAlias(n *pg.Node) string {
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return aliasOf(v.RangeVar)
	case *pg.Node_RangeSubselect:
		return v.RangeSubselect.GetAlias().GetAliasname()
	case *pg.Node_RangeFunction:
		if alias := v.RangeFunction.GetAlias().GetAliasname(); alias != "" {
			return alias
		}
		return functionName(v.RangeFunction)
	case *pg.Node_RangeTableFunc:
		return v.RangeTableFunc.GetAlias().GetAliasname()
	case *pg.Node_RangeTableSample:
		return fromAlias(v.RangeTableSample.Relation)
	default:
		return ""
	}
}

// functionName returns the name of the one function in FROM: it is the name
// of its columns' table where there is no alias.
func functionName(f *pg.RangeFunction) string {
	if len(f.Functions) != 1 || len(listOf(f.Functions[0])) == 0 {
		return ""
	}
	_, name, _ := nameOf(listOf(f.Functions[0])[0].GetFuncCall().GetFuncname())
	return name
}

// link notes whether a condition joins the target to all rows of its own
// table by the key: the source's columns are the target's, then.
func (e *rows) link(n *pg.Node) {
	if b := n.GetBoolExpr(); b != nil {
		for _, arg := range b.Args {
			e.link(arg)
		}
		return
	}
	x := operatorOf(n)
	if l, r := x.GetLexpr().GetRowExpr(), x.GetRexpr().GetRowExpr(); l != nil && r != nil && len(l.Args) == len(r.Args) {
		for i := range l.Args {
			e.link(equals(l.Args[i], r.Args[i]))
		}
		return
	}
	items := slices.Concat(listOf(x.GetRexpr()), x.GetRexpr().GetAArrayExpr().GetElements())
	for _, item := range items[:min(len(items), maxPairs)] {
		e.link(equals(x.Lexpr, item)) // IN, and ANY of an array
	}
	if e.linked != "" || !findsItself(x) && opName(x) != "<>" { // which NOT may stand before
		return
	}
	for _, pair := range [][2]*pg.Node{{x.Lexpr, x.Rexpr}, {x.Rexpr, x.Lexpr}} {
		if e.joinsWhole(pair[0], pair[1]) {
			e.linked, _ = columnOf(e.values.simplify(pair[1]))
		}
	}
}

// findsItself reports whether an operator holds between a value and itself.
func findsItself(x *pg.A_Expr) bool {
	op := opName(x)
	switch x.GetKind() {
	case pg.A_Expr_Kind_AEXPR_OP:
		return op == "=" || op == "<=" || op == ">="
	case pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return true
	default:
		return false
	}
}

// joinsWhole reports whether a = b joins a column of the target's to the same
// column of its own table: every row finds itself (but for NULL, which is
// passed over as in a = a).
func (e *rows) joinsWhole(a, b *pg.Node) bool {
	a, b = e.values.simplify(a), e.values.simplify(b)
	column := e.targetColumn(a)
	if column == "" {
		return false
	}
	alias, name := columnOf(b)
	s := e.source(alias)
	return s != nil && s.item != nil && e.wholeColumn(s.item, alias, name, 0) == column
}

func (e *rows) source(alias string) *source {
	if alias == "" {
		return nil
	}
	for i := range e.sources {
		if e.sources[i].alias == alias {
			return &e.sources[i]
		}
	}
	return nil
}

// isKeyName reports whether a column so named is taken for the primary key
// where there is no catalog to ask: Odoo's are all named id; ctid is the
// row's address.
func isKeyName(name string) bool { return name == "id" || name == "ctid" }

// columnOf splits a column reference in its qualifier and its name; "" for
// anything else, and for whole rows.
func columnOf(n *pg.Node) (qualifier, column string) {
	qualifier, column, _ = nameOf(n.GetColumnRef().GetFields())
	return qualifier, column
}

// targetColumn returns the name of the target's column that n is, perhaps cast
// to a type that keeps its values apart; "" when it is none, and for tableoid,
// which no row is found by.
func (e *rows) targetColumn(n *pg.Node) string {
	for n.GetTypeCast() != nil && keepsApart(n.GetTypeCast().TypeName) {
		n = n.GetTypeCast().Arg
	}
	qualifier, column := columnOf(n)
	if column != "tableoid" && (qualifier == e.alias || qualifier == "" && len(e.sources) == 0) {
		return column
	}
	return ""
}

// keyColumn is targetColumn for a column that is found by its values: texts
// that differ may be one number, and numbers one integer.
func (e *rows) keyColumn(n *pg.Node) string {
	for t := n.GetTypeCast(); t != nil; t = t.Arg.GetTypeCast() {
		if _, name, _ := nameOf(t.TypeName.GetNames()); name != "text" && name != "varchar" {
			return ""
		}
	}
	return e.targetColumn(n)
}

func keepsApart(t *pg.TypeName) bool {
	_, name, _ := nameOf(t.GetNames())
	return len(t.GetTypmods()) == 0 && len(t.GetArrayBounds()) == 0 &&
		(name == "int4" || name == "int8" || name == "numeric" || name == "text" || name == "varchar")
}

// once reports whether n has one value for the whole statement: nothing of a
// row in it, and no function that is evaluated for each.
func (e *rows) once(n *pg.Node) bool {
	others := func(alias string) bool { return e.source(alias) != nil }
	return !e.dependsOnRow(n, others, "") && !e.w.search.varies(n)
}

// independent is once where columns of other sources count as fixed, too, but
// for those that are the target's own; and so does tableoid, which is the same
// in every row of a table.
func (e *rows) independent(n *pg.Node) bool {
	linked := func(alias string) bool { return e.linked != "" && alias == e.linked }
	return !e.dependsOnRow(n, linked, "tableoid") && !e.w.search.varies(n)
}

// dependsOnRow reports whether n may hold a column of the target's, or of one
// of the others. Columns called but do not count. A name without qualifier
// inside a subselect may be either's, and is taken for the target's.
func (e *rows) dependsOnRow(n *pg.Node, others func(alias string) bool, but string) bool {
	return e.w.search.node(n, func(n *pg.Node) bool {
		if n.GetColumnRef() == nil {
			return false
		}
		fields := n.GetColumnRef().Fields
		if len(fields) == 1 && fields[0].GetAStar() != nil {
			return false // SELECT * or count(*) of a subselect
		}
		if but != "" && fields[len(fields)-1].GetString_().GetSval() == but {
			return false
		}
		if len(fields) > 1 {
			qualifier := fields[len(fields)-2].GetString_().GetSval()
			return qualifier == e.alias || others(qualifier)
		}
		if name := fields[0].GetString_().GetSval(); e.isFunction(name) {
			return others(name)
		}
		return true
	})
}

// isFunction reports whether a name without qualifier is that of a function in
// FROM, and so of what it returns.
func (e *rows) isFunction(name string) bool {
	f := e.source(name).of().GetRangeFunction()
	return f != nil && len(f.GetAlias().GetColnames()) == 0
}

// opName returns the operator's name; "" where it is one of somebody's schema,
// which may do anything.
func opName(x *pg.A_Expr) string { return builtinOperator(x.GetName()) }

func builtinOperator(list []*pg.Node) string {
	schema, name, _ := nameOf(list)
	if schema != "" && schema != "pg_catalog" {
		return ""
	}
	return name
}

// arrayLength returns how many elements an array that the text shows may
// have; 0 for a parameter.
func (e *rows) arrayLength(n *pg.Node) (length int, ok bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_TypeCast:
		if isArrayType(v.TypeCast.TypeName) || isScalarType(v.TypeCast.TypeName) {
			return e.arrayLength(v.TypeCast.Arg)
		}
	case *pg.Node_ParamRef:
		return 0, true
	case *pg.Node_AArrayExpr:
		return e.elementsLength(v.AArrayExpr.Elements)
	case *pg.Node_AConst:
		if text, isText := e.w.search.literal(n); isText && strings.HasPrefix(strings.TrimSpace(text), "{") {
			return strings.Count(text, ",") + 1, true
		}
	}
	return 0, false
}

// scalarTypes are types that are no arrays, and none of somebody's own. Sorted.
var scalarTypes = []string{"bool", "bpchar", "date", "float4", "float8", "int2", "int4", "int8", "numeric", "text", "timestamp", "timestamptz", "uuid", "varchar"}

func isScalarType(t *pg.TypeName) bool {
	name, ok := builtinName(t.GetNames())
	return ok && !isArrayType(t) && has(scalarTypes, name)
}

// isArrayType reports whether a type is written as an array's: int[]. Others
// may be arrays under a name of their own, as _int4 and int2vector are.
func isArrayType(t *pg.TypeName) bool { return len(t.GetArrayBounds()) > 0 }

// elementsLength is arrayLength for ARRAY[…]. An element may be an array
// itself, and then all elements of all dimensions are compared.
func (e *rows) elementsLength(elements []*pg.Node) (length int, ok bool) {
	for _, el := range elements {
		switch {
		case el.GetAArrayExpr() != nil || isArrayType(el.GetTypeCast().GetTypeName()):
			n, ok := e.arrayLength(el)
			if !ok || n == 0 {
				return 0, ok
			}
			length += n
		case el.GetParamRef() != nil:
			return 0, true // of whatever type
		case mayBeArray(el) || !e.once(el):
			return 0, false
		default:
			length++
		}
	}
	return max(1, length), true
}
