package pgquery

import (
	"math"
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// maxPattern bounds the regular expressions that are looked into.
const maxPattern = 64

// foldOperator folds operators and what the grammar makes of them: IN,
// BETWEEN, LIKE, IS DISTINCT FROM.
func (k *folder) foldOperator(x *pg.A_Expr) value {
	op := opName(x)
	switch x.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		if x.Lexpr == nil || x.Rexpr == nil {
			return k.foldUnary(op, x.Rexpr)
		}
		return k.foldBinary(op, x.Lexpr, x.Rexpr)
	case pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return k.foldDistinct(x)
	case pg.A_Expr_Kind_AEXPR_NULLIF:
		return k.foldNullif(x)
	case pg.A_Expr_Kind_AEXPR_IN:
		return k.foldIn(op, x.Lexpr, listOf(x.Rexpr))
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		if a := x.Rexpr.GetAArrayExpr(); a != nil && op == "=" {
			return k.foldIn("=", x.Lexpr, a.Elements)
		}
	case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
		if v, isLike := k.foldSameMatch(op, x); isLike {
			return k.passing(v)
		}
		return k.passing(k.foldMatch(op, x.Rexpr))
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:
		return k.foldBetween(x, false)
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		return k.foldBetween(x, true)
	default:
	}
	return unknownValue
}

// operatorOf returns the operator that n is, or that the function it calls
// stands behind; nil for anything else.
func operatorOf(n *pg.Node) *pg.A_Expr {
	f := n.GetFuncCall()
	if len(f.GetArgs()) != 2 {
		return n.GetAExpr()
	}
	name, ok := builtinName(f.Funcname)
	op := operatorFunctions[name]
	switch name {
	case "like":
		op = "~~"
	case "notlike":
		op = "!~~"
	case "regexp_like":
		op = "~"
	}
	if !ok || op == "" {
		return nil
	}
	return operation(op, f.Args[0], f.Args[1]).GetAExpr()
}

func (k *folder) foldUnary(op string, n *pg.Node) value {
	v := k.fold(n)
	if v.kind == valueNull && isOperator(op) {
		return v
	}
	switch f := v.number(); {
	case math.IsNaN(f):
	case op == "-":
		return numberValue(-f)
	case op == "+":
		return numberValue(f)
	}
	return value{notNull: v.notNull && isOperatorStrict(op)}
}

// isOperatorStrict reports whether an operator's result is NULL only if an
// operand is; those of JSON and arrays are not.
func isOperatorStrict(op string) bool {
	return strings.Contains(" + - * = <> != < <= > >= || ", " "+op+" ")
}

func (k *folder) foldBinary(op string, left, right *pg.Node) value {
	a, b := k.simplify(left), k.simplify(right)
	switch {
	case isMatch(op), strings.HasSuffix(op, "~~"), strings.HasSuffix(op, "~~*"):
		return k.passing(k.foldMatch(op, b))
	case op == "^@" && isEmptyText(k.fold(b)):
		return k.passing(boolValue(true))
	}
	if containsItself(op) && k.same(a, b) {
		return k.passing(boolValue(true))
	}
	if a.GetRowExpr() == nil && k.same(a, b) && !k.hasNull(a) {
		if v, ok := compareSame(op); ok {
			k.loose = k.loose || !k.fold(a).notNull
			return v
		}
	}
	if l, r := a.GetRowExpr(), b.GetRowExpr(); l != nil && r != nil {
		return k.foldRows(op, l.Args, r.Args)
	}
	for _, rule := range []func(op string, a, b *pg.Node) value{k.foldRange, k.foldShift, k.foldAlgebra, k.foldOpposite, k.foldExtreme} {
		if v := rule(op, a, b); v.kind != valueUnknown {
			return k.passing(v)
		}
	}
	return foldValues(op, k.fold(left), k.fold(right)) // with their collations
}

// same reports whether two expressions have the same value in every row.
func (k *folder) same(a, b *pg.Node) bool {
	if k.alias != "" && a.GetColumnRef() != nil && b.GetColumnRef() != nil {
		q, x := columnOf(a)
		r, y := columnOf(b)
		if x != "" && x == y && (q == "" || q == k.alias) && (r == "" || r == k.alias) {
			return true
		}
	}
	return k.search.equal(a, b) && !k.search.mayBeVolatile(a)
}

// hasNull reports whether the expression is the constant NULL.
func (k *folder) hasNull(n *pg.Node) bool { return k.fold(n).kind == valueNull }

// compareSame compares an expression with itself.
func compareSame(op string) (v value, ok bool) {
	switch op {
	case "=", "<=", ">=":
		return boolValue(true), true
	case "<>", "!=", "<", ">":
		return boolValue(false), true
	default:
		return unknownValue, false
	}
}

// containsItself reports whether an operator holds between an array and itself,
// unless it is empty.
func containsItself(op string) bool { return op == "@>" || op == "<@" || op == "&&" }

// simplify takes away what does not change a value: + 0, * 1, an empty text appended, a
// COLLATE, a subselect around it.
func (k *folder) simplify(n *pg.Node) *pg.Node {
	for range maxSubselects {
		inner := k.simpler(n)
		if inner == nil {
			return n
		}
		n = inner
	}
	return n
}

func (k *folder) simpler(n *pg.Node) *pg.Node {
	if c := n.GetCollateClause(); c != nil {
		return c.Arg
	}
	if s := n.GetSubLink(); s.GetSubLinkType() == pg.SubLinkType_EXPR_SUBLINK {
		return k.scalar(s.Subselect.GetSelectStmt())
	}
	if c := n.GetTypeCast(); c != nil && keepsApart(c.TypeName) && (c.Arg.GetColumnRef() != nil || k.simpler(c.Arg).GetColumnRef() != nil) {
		return c.Arg
	}
	if c := n.GetCoalesceExpr(); c != nil && len(c.Args) > 0 && c.Args[0].GetColumnRef() != nil && k.fold(c.Args[0]).notNull {
		return c.Args[0]
	}
	x := n.GetAExpr()
	if x.GetKind() != pg.A_Expr_Kind_AEXPR_OP || x.Rexpr == nil {
		return nil
	}
	switch op := opName(x); {
	case x.Lexpr == nil && op == "+":
		return x.Rexpr
	case x.Lexpr == nil:
		return nil
	case k.isNeutral(op, x.Rexpr):
		return x.Lexpr
	case strings.Contains(" + * || | # ", " "+op+" ") && k.isNeutral(op, x.Lexpr):
		return x.Rexpr
	default:
		return nil
	}
}

// isNeutral reports whether n is the operator's neutral element.
func (k *folder) isNeutral(op string, n *pg.Node) bool {
	v := k.fold(n)
	switch op {
	case "+", "-", "|", "#", "<<", ">>":
		return v.number() == 0
	case "*", "/", "^":
		return v.number() == 1
	case "||":
		return v.isText("")
	default:
		return false
	}
}

// foldRows compares rows: for equality column by column, and otherwise by the
// first column in which they differ.
func (k *folder) foldRows(op string, a, b []*pg.Node) value {
	result, comparable := compareSame(op)
	if len(a) != len(b) || !comparable {
		return unknownValue
	}
	if op == "<>" || op == "!=" {
		return negatedValue(k.foldRows("=", a, b))
	}
	open := false
	for i := range a {
		switch v := k.foldBinary("=", a[i], b[i]); {
		case v.isTrue():
		case v.isFalse() && op == "=":
			return v
		case v.isFalse() && !open:
			return k.foldBinary(op, a[i], b[i])
		default:
			open = true
		}
	}
	if open {
		return unknownValue
	}
	return result
}

func negatedValue(v value) value {
	if v.kind == valueBool {
		return boolValue(!v.b)
	}
	return v
}

// foldValues folds an operator on two values.
func foldValues(op string, a, b value) value {
	if a.kind == valueNull || b.kind == valueNull {
		if !isOperator(op) || op == "||" && a.kind != valueText && b.kind != valueText {
			return unknownValue // an array with NULL appended is none
		}
		return nullValue
	}
	if a.kind == valueText && b.kind == valueText {
		return foldTexts(op, a.read().s, b.read().s)
	}
	if a.kind == valueBool && b.kind == valueText || a.kind == valueText && b.kind == valueBool {
		a, b = a.boolean(), b.boolean()
	}
	if a.kind == valueBool && b.kind == valueBool {
		return foldNumbers(op, toNumber(a.read().b), toNumber(b.read().b))
	}
	if a.mayBeNumber() && b.mayBeNumber() {
		if l, r := a.number(), b.number(); !math.IsNaN(l) && !math.IsNaN(r) {
			return foldNumbers(op, l, r)
		}
	}
	return value{notNull: a.notNull && b.notNull && isOperatorStrict(op)}
}

func toNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// foldTexts compares texts for equality; their order is the collation's.
func foldTexts(op, a, b string) value {
	switch op {
	case "=":
		return boolValue(a == b)
	case "<>", "!=":
		return boolValue(a != b)
	case "||":
		return textValue(a + b)
	default:
		return someValue
	}
}

func foldNumbers(op string, a, b float64) value {
	switch op {
	case "=":
		return boolValue(a == b)
	case "<>", "!=":
		return boolValue(a != b)
	case "<":
		return boolValue(a < b)
	case "<=":
		return boolValue(a <= b)
	case ">":
		return boolValue(a > b)
	case ">=":
		return boolValue(a >= b)
	case "+":
		return wholeValue(a + b)
	case "-":
		return wholeValue(a - b)
	case "*":
		return wholeValue(a * b)
	default:
		return someValue
	}
}

// foldShift compares x + a with x + b.
func (k *folder) foldShift(op string, a, b *pg.Node) value {
	x, left := k.shift(a)
	y, right := k.shift(b)
	if _, ok := compareSame(op); !ok || left == right || !k.same(x, y) {
		return unknownValue
	}
	return foldNumbers(op, left, right)
}

// shift splits x + c and x - c.
func (k *folder) shift(n *pg.Node) (x *pg.Node, c float64) {
	if e := n.GetAExpr(); e.GetKind() == pg.A_Expr_Kind_AEXPR_OP && e.Lexpr != nil && e.Rexpr != nil {
		by := k.fold(e.Rexpr).number()
		switch op := opName(e); {
		case math.IsNaN(by):
		case op == "+":
			return e.Lexpr, by
		case op == "-":
			return e.Lexpr, -by
		}
	}
	return n, 0
}

// foldOpposite compares a condition with its negation, as in a <> NOT a.
func (k *folder) foldOpposite(op string, a, b *pg.Node) value {
	if op != "=" && op != "<>" || !k.opposite(a, b) && !k.opposite(b, a) {
		return unknownValue
	}
	return boolValue(op == "<>")
}

// foldExtreme knows that GREATEST is not less than its arguments, nor LEAST
// greater, and that no row's address is below the first.
func (k *folder) foldExtreme(op string, a, b *pg.Node) value {
	if op == "<=" || op == "<" {
		op, a, b = mirror(op), b, a
	}
	among := func(m *pg.MinMaxExpr, n *pg.Node) bool {
		return slices.ContainsFunc(m.GetArgs(), func(arg *pg.Node) bool { return k.same(arg, n) })
	}
	x, y := a.GetMinMaxExpr(), b.GetMinMaxExpr()
	switch {
	case op == ">=" && x.GetOp() == pg.MinMaxOp_IS_GREATEST && among(x, b), op == ">=" && y.GetOp() == pg.MinMaxOp_IS_LEAST && among(y, a):
		return boolValue(true)
	case (op == ">=" || op == ">") && isAddress(a) && k.isFirstAddress(b):
		return boolValue(true)
	default:
		return unknownValue
	}
}

func isAddress(n *pg.Node) bool {
	_, column := columnOf(n)
	return column == "ctid"
}

// isFirstAddress reports whether n is '(0,0)': rows are counted from 1.
func (k *folder) isFirstAddress(n *pg.Node) bool {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	return k.fold(n).isText("(0,0)")
}

// foldAlgebra knows x - x, x * 0, x / x, that no text is less than the empty
// one, and the lesser and the greater Boolean.
func (k *folder) foldAlgebra(op string, a, b *pg.Node) value {
	left, right := k.fold(a), k.fold(b)
	switch {
	case op == "-" && k.same(a, b), op == "*" && (left.number() == 0 || right.number() == 0):
		return numberValue(0)
	case op == "/" && k.same(a, b):
		return numberValue(1)
	case op == ">=" && isLeast(right), op == "<=" && isLeast(left), op == "<=" && isGreatest(right), op == ">=" && isGreatest(left):
		return boolValue(true)
	default:
		return unknownValue
	}
}

func isEmptyText(v value) bool { return v.isText("") }

func isLeast(v value) bool { return isEmptyText(v) || v.kind == valueBool && v.isFalse() }

func isGreatest(v value) bool { return v.kind == valueBool && v.isTrue() }

// notNegative are functions whose result is never below zero.
var notNegative = map[string]bool{
	"length": true, "char_length": true, "character_length": true, "octet_length": true, "bit_length": true,
	"random": true, "abs": true, "cardinality": true, "array_length": true, "pg_column_size": true, "count": true,
	"num_nulls": true, "num_nonnulls": true, "sqrt": true, "json_array_length": true, "jsonb_array_length": true,
}

// foldRange compares a function that is never negative with a number. For
// NULL it is NULL, which is passed over as in x = x.
func (k *folder) foldRange(op string, a, b *pg.Node) value {
	if isNotNegative(b) && !isNotNegative(a) {
		return k.foldRange(mirror(op), b, a)
	}
	if !isNotNegative(a) {
		return unknownValue
	}
	limit := k.fold(b).number()
	if isRandom(a) && (op == "<" && limit >= 1 || op == "<=" && limit >= 1) {
		return boolValue(true)
	}
	if math.IsNaN(limit) {
		return unknownValue
	}
	switch {
	case op == ">=" && limit <= 0, op == ">" && limit < 0, (op == "<>" || op == "!=") && limit < 0:
		return boolValue(true)
	case op == "<" && limit <= 0, op == "<=" && limit < 0, op == "=" && limit < 0:
		return boolValue(false)
	default:
		return unknownValue
	}
}

// isRandom reports whether n is random(), which is below one.
func isRandom(n *pg.Node) bool {
	name, ok := builtinName(n.GetFuncCall().GetFuncname())
	return ok && name == "random"
}

func isNotNegative(n *pg.Node) bool {
	if s := n.GetSubLink(); s.GetSubLinkType() == pg.SubLinkType_EXPR_SUBLINK {
		return isCount(s.Subselect.GetSelectStmt())
	}
	name, ok := builtinName(n.GetFuncCall().GetFuncname())
	return ok && notNegative[name]
}

// isCount reports whether a query returns a count, which is never NULL.
func isCount(s *pg.SelectStmt) bool {
	if len(s.GetTargetList()) != 1 || len(s.GroupClause) > 0 || s.HavingClause != nil || s.LimitCount != nil || s.LimitOffset != nil {
		return false
	}
	name, ok := builtinName(s.TargetList[0].GetResTarget().GetVal().GetFuncCall().GetFuncname())
	return ok && name == "count"
}

func mirror(op string) string {
	if m, ok := map[string]string{"<": ">", ">": "<", "<=": ">=", ">=": "<="}[op]; ok {
		return m
	}
	return op
}

func (k *folder) foldDistinct(x *pg.A_Expr) value {
	a, b := k.simplify(x.Lexpr), k.simplify(x.Rexpr)
	distinct := x.Kind == pg.A_Expr_Kind_AEXPR_DISTINCT
	if k.same(a, b) {
		return boolValue(!distinct)
	}
	if k.opposite(a, b) || k.opposite(b, a) {
		return k.passing(boolValue(distinct))
	}
	l, r := k.fold(x.Lexpr), k.fold(x.Rexpr)
	switch {
	case l.kind == valueNull && k.isWholeRow(b), r.kind == valueNull && k.isWholeRow(a):
		return boolValue(distinct)
	case l.kind == valueNull && r.kind == valueNull:
		return boolValue(!distinct)
	case l.kind == valueNull && r.notNull, r.kind == valueNull && l.notNull:
		return boolValue(distinct)
	}
	if v := foldValues("=", l, r); v.kind == valueBool {
		return boolValue(v.b != distinct)
	}
	return someValue
}

// isWholeRow reports whether n is a row, as of the one table there is. It is
// never NULL itself, even if all of its columns are.
func (k *folder) isWholeRow(n *pg.Node) bool {
	if n.GetRowExpr() != nil {
		return true
	}
	qualifier, column := columnOf(n)
	return k.alias != "" && (qualifier == "" && column == k.alias || isStar(n))
}

// foldNullif is the first value unless it equals the second.
func (k *folder) foldNullif(x *pg.A_Expr) value {
	a, b := k.fold(x.Lexpr), k.fold(x.Rexpr)
	if b.kind == valueNull {
		return a
	}
	switch v := foldValues("=", a, b); {
	case v.isTrue():
		return nullValue
	case v.isFalse():
		return a
	default:
		return unknownValue
	}
}

// foldIn is IN and NOT IN of a list.
func (k *folder) foldIn(op string, a *pg.Node, items []*pg.Node) value {
	k.search.counted(items)
	if len(items) > maxPairs {
		return k.foldLongIn(op, a, items)
	}
	found, open := false, false
	var trues, falses bool
	for _, item := range items {
		v, is := k.foldBinary("=", a, item), k.fold(item)
		found = found || v.isTrue()
		open = open || !v.isTrue() && !v.isFalse()
		trues, falses = trues || is.kind == valueBool && is.isTrue(), falses || is.kind == valueBool && is.isFalse()
	}
	if trues && falses {
		return k.passing(inResult(op, true, false)) // there is nothing else to be
	}
	return inResult(op, found, open)
}

// foldLongIn looks for a itself among many items and does not compare
// values.
func (k *folder) foldLongIn(op string, a *pg.Node, items []*pg.Node) value {
	if a.GetColumnRef() == nil {
		return unknownValue
	}
	for _, item := range items {
		if item.GetColumnRef() != nil && k.same(a, item) {
			return k.passing(inResult(op, true, false))
		}
	}
	return unknownValue
}

func inResult(op string, found, open bool) value {
	switch {
	case found:
		return boolValue(op == "=")
	case open:
		return unknownValue
	default:
		return boolValue(op != "=")
	}
}

func isMatch(op string) bool { return op == "~" || op == "~*" || op == "!~" || op == "!~*" }

// foldSameMatch is x LIKE x. Where x holds wildcards or escapes it may be
// false, which is passed over.
func (k *folder) foldSameMatch(op string, x *pg.A_Expr) (v value, ok bool) {
	if !strings.HasSuffix(op, "~~") && !strings.HasSuffix(op, "~~*") || !k.same(k.simplify(x.Lexpr), k.simplify(x.Rexpr)) {
		return unknownValue, false
	}
	return boolValue(!strings.HasPrefix(op, "!")), true
}

// matchesEverything reports whether a regular expression matches every text:
// it is one of the plain ones, or it needs neither a character nor a place.
func matchesEverything(pattern string) bool {
	if strings.Contains(" ^ $ ^.* .*$ ^.*$ ", " "+pattern+" ") || pattern == "" {
		return true
	}
	if len(pattern) > maxPattern || strings.ContainsAny(pattern, `^$\`) {
		return false
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString("")
}

// foldMatch is LIKE and its kin with a pattern that everything matches.
func (k *folder) foldMatch(op string, pattern *pg.Node) value {
	regular := isMatch(op)
	if f := pattern.GetFuncCall(); f != nil && len(f.Args) > 0 {
		if name, ok := builtinName(f.Funcname); ok && (name == "similar_to_escape" || name == "like_escape") {
			pattern, regular = f.Args[0], false
		}
	}
	v := k.fold(pattern)
	if v.kind != valueText {
		return unknownValue
	}
	text := v.read().s
	matchesAll := text != "" && strings.Trim(text, "%") == ""
	if regular {
		matchesAll = matchesEverything(text)
	}
	if !matchesAll {
		return unknownValue
	}
	return boolValue(!strings.HasPrefix(op, "!"))
}

// foldBetween is a BETWEEN b AND c as a >= b AND a <= c.
func (k *folder) foldBetween(x *pg.A_Expr, not bool) value {
	items := listOf(x.Rexpr)
	if len(items) != 2 {
		return unknownValue
	}
	low, high := k.foldBinary(">=", x.Lexpr, items[0]), k.foldBinary("<=", x.Lexpr, items[1])
	switch {
	case low.isTrue() && high.isTrue():
		return boolValue(!not)
	case low.isFalse() || high.isFalse():
		if x.Kind == pg.A_Expr_Kind_AEXPR_BETWEEN || x.Kind == pg.A_Expr_Kind_AEXPR_NOT_BETWEEN {
			return boolValue(not)
		}
	}
	return unknownValue
}
