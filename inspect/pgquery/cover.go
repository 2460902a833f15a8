package pgquery

import pg "github.com/pganalyze/pg_query_go/v5"

// coversAll reports whether two of the conditions, or with not of their
// negations, leave nothing out, as in a OR NOT a, and in a <> 1 OR a <> 2.
func (k *folder) coversAll(args []*pg.Node, not bool) bool {
	if len(args) > maxPairs {
		return false
	}
	for i, a := range args {
		for _, b := range args[i+1:] {
			if k.opposite(a, b) || k.opposite(b, a) || k.overlap(a, b, not) {
				return true
			}
		}
	}
	return false
}

// negators are the operators that are each other's negation.
var negators = map[string]string{"=": "<>", "<": ">=", ">": "<=", "~~": "!~~", "~~*": "!~~*", "~": "!~", "~*": "!~*"}

var oppositeTests = map[pg.BoolTestType]pg.BoolTestType{
	pg.BoolTestType_IS_TRUE:    pg.BoolTestType_IS_NOT_TRUE,
	pg.BoolTestType_IS_FALSE:   pg.BoolTestType_IS_NOT_FALSE,
	pg.BoolTestType_IS_UNKNOWN: pg.BoolTestType_IS_NOT_UNKNOWN,
}

var oppositeKinds = map[pg.A_Expr_Kind]pg.A_Expr_Kind{
	pg.A_Expr_Kind_AEXPR_BETWEEN:     pg.A_Expr_Kind_AEXPR_NOT_BETWEEN,
	pg.A_Expr_Kind_AEXPR_BETWEEN_SYM: pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM,
	pg.A_Expr_Kind_AEXPR_DISTINCT:    pg.A_Expr_Kind_AEXPR_NOT_DISTINCT,
	pg.A_Expr_Kind_AEXPR_OP_ANY:      pg.A_Expr_Kind_AEXPR_OP_ALL,
}

// opposite reports whether one condition is the other's negation; NULL is
// passed over.
func (k *folder) opposite(a, b *pg.Node) bool { return k.negates(a, b) && !k.search.varies(a) }

func (k *folder) negates(a, b *pg.Node) bool {
	if nb := b.GetBoolExpr(); nb.GetBoolop() == pg.BoolExprType_NOT_EXPR {
		return k.search.equal(a, nb.Args[0])
	}
	if x, y := a.GetNullTest(), b.GetNullTest(); x != nil && y != nil {
		return x.Nulltesttype != y.Nulltesttype && k.search.equal(x.Arg, y.Arg)
	}
	if x, y := a.GetBooleanTest(), b.GetBooleanTest(); x != nil && y != nil {
		return oppositeTests[x.Booltesttype] == y.Booltesttype && k.search.equal(x.Arg, y.Arg)
	}
	if y := b.GetBooleanTest(); y.GetBooltesttype() == pg.BoolTestType_IS_FALSE || y.GetBooltesttype() == pg.BoolTestType_IS_NOT_TRUE {
		return k.search.equal(a, y.Arg)
	}
	if x, y := operatorOf(a), operatorOf(b); x != nil && y != nil {
		return oppositeOperators(x, y) && k.search.equal(x.Lexpr, y.Lexpr) && k.search.equal(x.Rexpr, y.Rexpr)
	}
	return false
}

func oppositeOperators(x, y *pg.A_Expr) bool {
	negated := negators[opName(x)] == opName(y) && opName(y) != ""
	switch kind, ok := oppositeKinds[x.Kind]; {
	case ok && x.Kind == pg.A_Expr_Kind_AEXPR_OP_ANY:
		return kind == y.Kind && negated
	case ok:
		return kind == y.Kind
	default:
		return x.Kind == y.Kind && negated
	}
}

// side is a comparison of an expression with a constant.
type side struct {
	of    *pg.Node
	op    string
	value value
}

// overlap reports whether what one comparison with a constant leaves out is
// the other's: a > 0 OR a <= 5, a <> 1 OR a <> 2, a = true OR a = false.
func (k *folder) overlap(a, b *pg.Node, not bool) bool {
	x, y := k.sideOf(a, not), k.sideOf(b, not)
	if x.of == nil || y.of == nil || !mayOverlap(x.op, y.op) || !k.same(x.of, y.of) {
		return false
	}
	if x.value.kind == valueBool && y.value.kind == valueBool {
		return x.op == y.op && (x.op == "=" || x.op == "<>") && x.value.read().b != y.value.read().b
	}
	switch x.op {
	case "=":
		return false
	case "<>":
		return foldValues("=", x.value, y.value).isFalse()
	case "<", "<=":
		x, y = y, x
	}
	low, high := x.value.number(), y.value.number()
	return low < high || low == high && (x.op == ">=" || y.op == "<=") // neither is NaN, then
}

// mayOverlap reports whether there are constants with which two comparisons
// leave nothing out.
func mayOverlap(op, other string) bool {
	switch op {
	case "=", "<>":
		return other == op
	case ">", ">=":
		return other == "<" || other == "<="
	default:
		return other == ">" || other == ">="
	}
}

// sideOf returns the comparison that a condition, or its negation, is; without
// an expression where it is none with a constant.
func (k *folder) sideOf(n *pg.Node, not bool) side {
	for n.GetBoolExpr().GetBoolop() == pg.BoolExprType_NOT_EXPR {
		n, not = n.GetBoolExpr().Args[0], !not
	}
	x := operatorOf(n)
	op := opName(x)
	if _, ok := compareSame(op); !ok || x.GetKind() != pg.A_Expr_Kind_AEXPR_OP || x.Lexpr == nil {
		return side{}
	}
	s := side{k.simplify(x.Lexpr), op, k.fold(x.Rexpr)}
	if isAnyConstant(x.Lexpr) {
		s = side{k.simplify(x.Rexpr), mirror(op), k.fold(x.Lexpr)}
	}
	if s.op == "!=" {
		s.op = "<>"
	}
	if not {
		s.op = negation(s.op)
	}
	if s.value.kind == valueUnknown || s.value.kind == valueNull {
		return side{}
	}
	return s
}

func negation(op string) string {
	for a, b := range negators {
		switch op {
		case a:
			return b
		case b:
			return a
		}
	}
	return op
}
