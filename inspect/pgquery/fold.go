package pgquery

import (
	"math"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// valueKind is what is known of an expression's value.
type valueKind uint8

const (
	valueUnknown valueKind = iota
	valueNull
	valueBool
	valueNumber
	valueText
)

// value is an expression's value as far as the text shows it for every row.
// A comparison of a column with itself counts as true, although it is not for
// rows where the column is NULL: see folder.loose.
type value struct {
	kind    valueKind
	b       bool
	num     float64
	s       string
	notNull bool // never NULL, whatever it is

	from *constant // where the content is still to be read from: see read
}

var (
	unknownValue = value{}
	nullValue    = value{kind: valueNull}
	someValue    = value{notNull: true} // not known, but not NULL
)

func boolValue(b bool) value      { return value{kind: valueBool, b: b, notNull: true} }
func numberValue(f float64) value { return value{kind: valueNumber, num: f, notNull: true} }
func textValue(s string) value    { return value{kind: valueText, s: s, notNull: true} }

// known reports whether the value is a constant in a Boolean's place.
func (v value) known() bool {
	return v.kind == valueNull || v.kind == valueBool || v.kind == valueText && v.boolean().kind == valueBool
}

func (v value) isTrue() bool  { b := v.boolean(); return b.kind == valueBool && b.b }
func (v value) isFalse() bool { b := v.boolean(); return b.kind == valueBool && !b.b }

// boolean is the value cast to bool.
func (v value) boolean() value {
	switch v.kind {
	case valueText:
		if b, ok := parseBool(strings.TrimSpace(v.read().s)); ok {
			return boolValue(b)
		}
	case valueNumber:
		return boolValue(v.read().num != 0)
	case valueBool, valueNull:
		return v.read()
	case valueUnknown:
	}
	return value{notNull: v.notNull}
}

// number is the value as a number, NaN when it is none, and when two numbers
// of its length might look the same.
func (v value) number() float64 {
	switch v.kind {
	case valueNumber:
		return v.read().num
	case valueText:
		return parseExact(strings.TrimSpace(v.read().s))
	case valueUnknown, valueNull, valueBool:
	}
	return math.NaN()
}

// The decimals that a float64 keeps apart: DBL_DIG digits, and sizes that are
// not rounded to zero or infinity.
const (
	exactDigits = 15
	exactSize   = 1e290
	exactWhole  = 1 << 53 // beyond it integers are rounded
)

// parseExact reads a decimal number, NaN where the server may tell it from
// another that reads alike here.
func parseExact(s string) float64 {
	mantissa, _, _ := strings.Cut(strings.ToLower(s), "e")
	digits := strings.TrimLeft(strings.NewReplacer("+", "", "-", "", ".", "").Replace(mantissa), "0")
	f, err := strconv.ParseFloat(s, 64)
	size := math.Abs(f)
	switch {
	case err != nil, len(digits) > exactDigits, strings.Trim(digits, "0123456789") != "":
		return math.NaN()
	case digits != "" && (size > exactSize || size < 1/exactSize):
		return math.NaN()
	default:
		return f
	}
}

// isWhole reports whether a number is an integer, and exactly this one.
func isWhole(f float64) bool { return math.Abs(f) <= exactWhole && f == math.Trunc(f) }

// wholeValue is numberValue for results, which may have been rounded.
func wholeValue(f float64) value {
	if isWhole(f) {
		return numberValue(f)
	}
	return someValue
}

// folder folds expressions. It remembers what it found, so that each node of
// a tree is looked at once.
type folder struct {
	memo   map[*pg.Node]remembered
	search *search
	alias  string // where there is one table only: the name that may qualify its columns

	// certain is asked about conditions that do not fold by themselves; nil
	// where there is no table whose rows they may hold for.
	certain func(n *pg.Node) value

	// loose is set where NULL was passed over: what is folded is as it says in
	// most rows, which is enough to be suspicious of it and not enough to rely
	// on it.
	loose bool

	testsNull bool             // a test for NULL depends on columns
	strays    []inspect.Column // that may be the target's own
	assumed   *assumed         // nil where nothing is
}

// remembered is a value that was found before.
type remembered struct {
	value
	loose bool
}

// passing notes that NULL is passed over, where that matters.
func (k *folder) passing(v value) value {
	k.loose = k.loose || v.kind != valueUnknown
	return v
}

// foldLoosely is fold that also reports whether NULL was passed over.
func (k *folder) foldLoosely(n *pg.Node) (v value, loose bool) {
	before := k.loose
	k.loose = false
	v = k.fold(n)
	loose = k.loose
	k.loose = before
	return v, loose
}

// fold returns what is known of an expression's value.
func (k *folder) fold(n *pg.Node) value {
	switch v := n.GetNode().(type) {
	case *pg.Node_AConst:
		return k.foldConst(v.AConst)
	case *pg.Node_ColumnRef:
		return k.foldColumn(v.ColumnRef)
	case nil, *pg.Node_ParamRef:
		return unknownValue
	}
	if v, ok := k.memo[n]; ok {
		k.loose = k.loose || v.loose
		return v.value
	}
	if k.search.exhausted(1) {
		return unknownValue
	}
	before := k.loose
	k.loose = false
	v := k.foldNode(n)
	if v.kind == valueUnknown && k.certain != nil && isCondition(n) {
		if c := k.passing(k.certain(n)); c.kind == valueBool {
			v = c
		}
	}
	if k.memo == nil {
		k.memo = make(map[*pg.Node]remembered)
	}
	k.memo[n] = remembered{v, k.loose}
	k.loose = k.loose || before
	return v
}

// isCondition reports whether an expression is one of those that say of rows
// more than their parts do.
func isCondition(n *pg.Node) bool {
	switch n.GetNode().(type) {
	case *pg.Node_BoolExpr, *pg.Node_AExpr, *pg.Node_SubLink, *pg.Node_CaseExpr:
		return true
	case *pg.Node_FuncCall:
		return operatorOf(n) != nil
	default:
		return false
	}
}

func (k *folder) foldNode(n *pg.Node) value {
	switch v := n.GetNode().(type) {
	case *pg.Node_TypeCast:
		return k.foldCast(v.TypeCast)
	case *pg.Node_CollateClause:
		return k.foldCollate(v.CollateClause)
	case *pg.Node_BoolExpr:
		return k.foldBool(v.BoolExpr)
	case *pg.Node_AExpr:
		return k.foldOperator(v.AExpr)
	case *pg.Node_NullTest:
		return k.foldNullTest(v.NullTest)
	case *pg.Node_BooleanTest:
		return k.foldBooleanTest(v.BooleanTest)
	case *pg.Node_CoalesceExpr:
		return k.foldCoalesce(v.CoalesceExpr)
	case *pg.Node_MinMaxExpr:
		return k.foldAnyNotNull(v.MinMaxExpr.Args)
	case *pg.Node_CaseExpr:
		return k.foldCase(v.CaseExpr)
	case *pg.Node_SubLink:
		return k.foldSubLink(v.SubLink)
	case *pg.Node_FuncCall:
		if x := operatorOf(n); x != nil {
			return k.passing(k.foldOperator(x)) // passing, for the function may be a user's
		}
		return foldCall(v.FuncCall)
	case *pg.Node_SqlvalueFunction, *pg.Node_AArrayExpr:
		return someValue
	default:
		return unknownValue
	}
}

// systemColumns are never NULL in a table's row. Source: manual, section 5.5.
var systemColumns = map[string]bool{"tableoid": true, "xmin": true, "cmin": true, "xmax": true, "cmax": true, "ctid": true}

// foldColumn takes id for the primary key, as isKeyName does.
func (k *folder) foldColumn(c *pg.ColumnRef) value {
	qualifier, name, ok := nameOf(c.Fields)
	if ok && (isKeyName(name) || systemColumns[name] || k.assumed.notNull(qualifier, name)) {
		return someValue
	}
	return unknownValue
}

func (k *folder) foldCast(c *pg.TypeCast) value {
	v := k.fold(c.Arg)
	if v.kind == valueNull && !isScalarType(c.TypeName) {
		return unknownValue // what is done to an array or a row that is NULL need not be NULL
	}
	if v.kind == valueNull || v.kind == valueUnknown {
		return v
	}
	_, name, _ := nameOf(c.TypeName.GetNames())
	switch name {
	case "bool":
		return v.boolean()
	case "int2", "int4", "int8", "numeric", "float4", "float8":
		if v.kind == valueBool {
			return numberValue(toNumber(v.read().b))
		}
		return foldNumberCast(v.number(), name, len(c.TypeName.GetTypmods()) > 0)
	case "text", "varchar":
		if v.kind == valueText && len(c.TypeName.GetTypmods()) == 0 {
			return v
		}
	}
	return someValue
}

// foldNumberCast knows casts that round nothing.
func foldNumberCast(f float64, name string, typmods bool) value {
	rounds := typmods || name != "numeric" && name != "float8"
	if math.IsNaN(f) || rounds && (!isWhole(f) || math.Abs(f) >= 1<<15) {
		return someValue
	}
	return numberValue(f)
}

// foldCollate takes texts for unknown that may be equal to others by a
// collation of the user's.
func (k *folder) foldCollate(c *pg.CollateClause) value {
	v := k.fold(c.Arg)
	if _, name, _ := nameOf(c.Collname); v.kind == valueText && name != "C" && name != "POSIX" && name != "default" {
		return someValue
	}
	return v
}

func (k *folder) foldBool(b *pg.BoolExpr) value {
	if b.Boolop == pg.BoolExprType_NOT_EXPR {
		v := k.fold(b.Args[0]).boolean()
		if v.kind == valueBool {
			return boolValue(!v.b)
		}
		return v
	}
	// The value that settles it: false for AND, true for OR.
	settles := b.Boolop == pg.BoolExprType_OR_EXPR
	null, open := false, false
	for _, arg := range b.Args {
		switch v := k.fold(arg).boolean(); {
		case v.kind == valueBool && v.b == settles:
			return boolValue(settles)
		case v.kind == valueNull:
			null = true
		case v.kind != valueBool:
			open = true
		}
	}
	switch {
	case open:
		return unknownValue
	case null:
		return nullValue
	default:
		return boolValue(!settles)
	}
}

func (k *folder) foldNullTest(t *pg.NullTest) value {
	wantNull := t.Nulltesttype == pg.NullTestType_IS_NULL
	args := []*pg.Node{t.Arg}
	if row := t.Arg.GetRowExpr(); row != nil {
		args = row.Args // each of its columns is tested
	}
	if len(args) == 0 || wantNull && t.Arg.GetRowExpr() == nil && k.isWholeRow(t.Arg) {
		return boolValue(len(args) == 0) // ROW() is both; a row with a key is not NULL
	}
	allNull, noneNull := true, true
	for _, arg := range args {
		v := k.fold(arg)
		allNull = allNull && v.kind == valueNull
		noneNull = noneNull && v.notNull
	}
	switch {
	case allNull:
		return boolValue(wantNull)
	case noneNull:
		return boolValue(!wantNull)
	default:
		k.testsNull = true
		return someValue
	}
}

func (k *folder) foldBooleanTest(t *pg.BooleanTest) value {
	v := k.fold(t.Arg).boolean()
	isTrue, isFalse, isNull := v.isTrue(), v.isFalse(), v.kind == valueNull
	known := isTrue || isFalse || isNull
	switch t.Booltesttype {
	case pg.BoolTestType_IS_UNKNOWN, pg.BoolTestType_IS_NOT_UNKNOWN:
		if known || v.notNull {
			return boolValue(isNull == (t.Booltesttype == pg.BoolTestType_IS_UNKNOWN))
		}
	case pg.BoolTestType_IS_TRUE, pg.BoolTestType_IS_NOT_TRUE:
		if known {
			return boolValue(isTrue == (t.Booltesttype == pg.BoolTestType_IS_TRUE))
		}
	case pg.BoolTestType_IS_FALSE, pg.BoolTestType_IS_NOT_FALSE:
		if known {
			return boolValue(isFalse == (t.Booltesttype == pg.BoolTestType_IS_FALSE))
		}
	case pg.BoolTestType_BOOL_TEST_TYPE_UNDEFINED:
	}
	return someValue
}

func (k *folder) foldCoalesce(c *pg.CoalesceExpr) value {
	for _, arg := range c.Args {
		switch v := k.fold(arg); {
		case v.kind == valueNull:
		case v.notNull:
			return v
		default:
			return k.foldAnyNotNull(c.Args)
		}
	}
	return nullValue
}

// foldAnyNotNull is for functions that are NULL only if all their arguments
// are.
func (k *folder) foldAnyNotNull(args []*pg.Node) value {
	for _, arg := range args {
		if k.fold(arg).notNull {
			return someValue
		}
	}
	return unknownValue
}

// foldCase is the result of the first condition that is true; where a
// condition is not known, it is known only if all results that may follow are
// the same.
func (k *folder) foldCase(c *pg.CaseExpr) value {
	var results []value
	for _, n := range c.Args {
		when := n.GetCaseWhen()
		test := when.GetExpr()
		if c.Arg != nil {
			test = equals(c.Arg, test)
		}
		switch v := k.fold(test).boolean(); {
		case v.isTrue():
			return common(append(results, k.fold(when.GetResult())))
		case v.kind == valueUnknown:
			results = append(results, k.fold(when.GetResult()))
		}
	}
	last := nullValue
	if c.Defresult != nil {
		last = k.fold(c.Defresult)
	}
	return common(append(results, last))
}

// common returns the value that all of these have.
func common(values []value) value {
	for _, v := range values[1:] {
		if v.read() != values[0].read() {
			return unknownValue
		}
	}
	return values[0]
}

func (k *folder) foldSubLink(s *pg.SubLink) value {
	switch s.SubLinkType {
	case pg.SubLinkType_EXPR_SUBLINK:
		if v := k.scalar(s.Subselect.GetSelectStmt()); v != nil {
			return k.fold(v)
		}
		if isCount(s.Subselect.GetSelectStmt()) {
			return someValue
		}
	case pg.SubLinkType_EXISTS_SUBLINK:
		return k.foldExists(s.Subselect.GetSelectStmt())
	case pg.SubLinkType_ARRAY_SUBLINK:
		return someValue
	default:
	}
	return unknownValue
}

// foldExists knows EXISTS of a query without FROM: it has one row, if its
// WHERE says so.
func (k *folder) foldExists(s *pg.SelectStmt) value {
	if s == nil || s.Larg != nil || len(s.FromClause) > 0 || len(s.GroupClause) > 0 || s.HavingClause != nil || k.search.limits(s) ||
		k.search.returnsSets(s.TargetList) {
		return someValue
	}
	if s.WhereClause == nil {
		return boolValue(true)
	}
	if v := k.fold(s.WhereClause); v.known() {
		return boolValue(v.isTrue())
	}
	return someValue
}

// neverNull are functions that return a value whatever they are given.
var neverNull = map[string]bool{
	"now": true, "random": true, "clock_timestamp": true, "statement_timestamp": true, "transaction_timestamp": true,
	"timeofday": true, "version": true, "pg_backend_pid": true, "gen_random_uuid": true, "pi": true, "concat": true,
	"current_database": true, "txid_current": true, "count": true, "row_to_json": true, "num_nulls": true, "num_nonnulls": true,
}

func foldCall(f *pg.FuncCall) value {
	if name, ok := builtinName(f.Funcname); ok && neverNull[name] {
		return someValue
	}
	return unknownValue
}
