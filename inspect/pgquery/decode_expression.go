package pgquery

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

func (d *decoder) columnRef(v *pg.ColumnRef) {
	for d.object(); d.field(); {
		switch d.name {
		case "fields":
			v.Fields = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
}

func (d *decoder) resTarget(v *pg.ResTarget) {
	for d.object(); d.field(); {
		switch d.name {
		case "name":
			v.Name = d.word()
		case "indirection":
			v.Indirection = d.nodes()
		case "val":
			v.Val = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
}

func (d *decoder) operator(v *pg.A_Expr) {
	for d.object(); d.field(); {
		switch d.name {
		case "kind":
			v.Kind = pg.A_Expr_Kind(d.enum(pg.A_Expr_Kind_value))
		case "name":
			v.Name = d.nodes()
		case "lexpr":
			v.Lexpr = d.node()
		case "rexpr":
			v.Rexpr = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
}

func (d *decoder) paramRef() *pg.ParamRef {
	v := &pg.ParamRef{}
	for d.object(); d.field(); {
		switch d.name {
		case "number":
			v.Number = d.int()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) boolExpr() *pg.BoolExpr {
	v := &pg.BoolExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "boolop":
			v.Boolop = pg.BoolExprType(d.enum(pg.BoolExprType_value))
		case "args":
			v.Args = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) nullTest() *pg.NullTest {
	v := &pg.NullTest{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "nulltesttype":
			v.Nulltesttype = pg.NullTestType(d.enum(pg.NullTestType_value))
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) booleanTest() *pg.BooleanTest {
	v := &pg.BooleanTest{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "booltesttype":
			v.Booltesttype = pg.BoolTestType(d.enum(pg.BoolTestType_value))
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) typeCast() *pg.TypeCast {
	v := &pg.TypeCast{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "typeName":
			v.TypeName = d.typeName()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) typeName() *pg.TypeName {
	v := &pg.TypeName{}
	for d.object(); d.field(); {
		switch d.name {
		case "names":
			v.Names = d.nodes()
		case "typmods":
			v.Typmods = d.nodes()
		case "typemod":
			v.Typemod = d.int()
		case "arrayBounds":
			v.ArrayBounds = d.bounds()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) funcCall() *pg.FuncCall {
	v := &pg.FuncCall{}
	for d.object(); d.field(); {
		switch d.name {
		case "funcname":
			v.Funcname = d.nodes()
		case "args":
			v.Args = d.nodes()
		case "agg_order":
			v.AggOrder = d.nodes()
		case "agg_filter":
			v.AggFilter = d.node()
		case "over":
			v.Over = d.windowDef()
		case "agg_within_group":
			v.AggWithinGroup = d.bool()
		case "agg_star":
			v.AggStar = d.bool()
		case "agg_distinct":
			v.AggDistinct = d.bool()
		case "func_variadic":
			v.FuncVariadic = d.bool()
		case "funcformat":
			v.Funcformat = pg.CoercionForm(d.enum(pg.CoercionForm_value))
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) subLink() *pg.SubLink {
	v := &pg.SubLink{}
	for d.object(); d.field(); {
		switch d.name {
		case "subLinkType":
			v.SubLinkType = pg.SubLinkType(d.enum(pg.SubLinkType_value))
		case "testexpr":
			v.Testexpr = d.node()
		case "operName":
			v.OperName = d.nodes()
		case "subselect":
			v.Subselect = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) caseExpr() *pg.CaseExpr {
	v := &pg.CaseExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "args":
			v.Args = d.nodes()
		case "defresult":
			v.Defresult = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) caseWhen() *pg.CaseWhen {
	v := &pg.CaseWhen{}
	for d.object(); d.field(); {
		switch d.name {
		case "expr":
			v.Expr = d.node()
		case "result":
			v.Result = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) coalesceExpr() *pg.CoalesceExpr {
	v := &pg.CoalesceExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "args":
			v.Args = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) minMaxExpr() *pg.MinMaxExpr {
	v := &pg.MinMaxExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "op":
			v.Op = pg.MinMaxOp(d.enum(pg.MinMaxOp_value))
		case "args":
			v.Args = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) rowExpr() *pg.RowExpr {
	v := &pg.RowExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "args":
			v.Args = d.nodes()
		case "row_format":
			v.RowFormat = pg.CoercionForm(d.enum(pg.CoercionForm_value))
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) arrayExpr() *pg.A_ArrayExpr {
	v := &pg.A_ArrayExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "elements":
			v.Elements = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) indirection() *pg.A_Indirection {
	v := &pg.A_Indirection{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "indirection":
			v.Indirection = d.nodes()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) indices() *pg.A_Indices {
	v := &pg.A_Indices{}
	for d.object(); d.field(); {
		switch d.name {
		case "is_slice":
			v.IsSlice = d.bool()
		case "lidx":
			v.Lidx = d.node()
		case "uidx":
			v.Uidx = d.node()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) collateClause() *pg.CollateClause {
	v := &pg.CollateClause{}
	for d.object(); d.field(); {
		switch d.name {
		case "arg":
			v.Arg = d.node()
		case "collname":
			v.Collname = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) sqlValueFunction() *pg.SQLValueFunction {
	v := &pg.SQLValueFunction{}
	for d.object(); d.field(); {
		switch d.name {
		case "op":
			v.Op = pg.SQLValueFunctionOp(d.enum(pg.SQLValueFunctionOp_value))
		case "typmod":
			v.Typmod = d.int()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) setToDefault() *pg.SetToDefault {
	v := &pg.SetToDefault{}
	for d.object(); d.field(); {
		switch d.name {
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) star() *pg.A_Star {
	for d.object(); d.field(); {
		d.fail()
	}
	return &pg.A_Star{}
}

// list reads a list that is a node, as the right side of IN.
func (d *decoder) list() *pg.List {
	v := &pg.List{}
	for d.object(); d.field(); {
		if d.name != "items" {
			d.fail()
		}
		v.Items = d.nodes()
	}
	return v
}

// constant reads a constant.
func (d *decoder) constant(v *pg.A_Const) {
	for d.object(); d.field(); {
		switch d.name {
		case "ival":
			b := d.boxes.integers.next()
			b.is.Ival, v.Val = &b.v, &b.is
			b.v.Ival = only(d, "ival", d.int)
		case "fval":
			v.Val = &pg.A_Const_Fval{Fval: &pg.Float{Fval: only(d, "fval", d.string)}}
		case "boolval":
			v.Val = &pg.A_Const_Boolval{Boolval: &pg.Boolean{Boolval: only(d, "boolval", d.bool)}}
		case "sval":
			b := d.boxes.texts.next()
			b.is.Sval, v.Val = &b.v, &b.is
			b.v.Sval = only(d, "sval", d.string)
		case "bsval":
			v.Val = &pg.A_Const_Bsval{Bsval: &pg.BitString{Bsval: only(d, "bsval", d.string)}}
		case "isnull":
			v.Isnull = d.bool()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	if i := v.GetIval(); i != nil && i.Ival == 0 {
		i.Ival = d.notPositive(v.Location)
	}
}

// notPositive returns the integer at a place of the text, if it is 0 or written
// like -5: the JSON is the same for all that are not positive (_outInteger in
// pg_query_outfuncs_json.c). The place of a constant with a minus is that of the
// minus (doNegate in gram.y), and of one that the grammar made up, another word's
// or none.
func (d *decoder) notPositive(place int32) int32 {
	if place < 0 || int(place) >= len(d.text) {
		d.fail()
		return 0
	}
	literal := d.text[place:]
	if literal[0] == '0' {
		return 0
	}
	end := 1
	for end < len(literal) && literal[end] >= '0' && literal[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(literal[:end], 10, 32)
	if err != nil || n >= 0 || end < len(literal) && (isWordByte(literal[end]) || literal[end] == '.') {
		d.fail()
	}
	return int32(n)
}

// bounds reads the sizes of a type's arrays. For those without one, the tree
// has -1, and the JSON the same as for zero.
func (d *decoder) bounds() []*pg.Node {
	var list []*pg.Node
	for d.array(); d.more(); {
		size := only(d, "Integer", func() int32 { return only(d, "ival", d.int) })
		if size == 0 {
			size = -1
			if hasZeroSize(d.text) {
				d.fail()
			}
		}
		list = append(list, pg.MakeIntNode(int64(size)))
	}
	return list
}

// hasZeroSize reports whether [0] may be in the text, with white space or
// comments in it.
func hasZeroSize(text string) bool {
	for {
		_, rest, found := strings.Cut(text, "[")
		if !found {
			return false
		}
		if rest != "" && strings.IndexByte("0 \t\n\v\f\r/-", rest[0]) >= 0 {
			return true
		}
		text = rest
	}
}

// only reads an object that holds nothing but one value, or nothing where that
// is zero.
func only[T any](d *decoder, name string, read func() T) (value T) {
	for d.object(); d.field(); {
		if d.name != name {
			d.fail()
		}
		value = read()
	}
	return value
}
