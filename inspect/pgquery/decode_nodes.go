package pgquery

import pg "github.com/pganalyze/pg_query_go/v5"

// boxes are where nodes of the kinds that are most of a query are made, the
// structs of a node together. They are most of the memory that a tree takes, and
// serve one text after the other.
type boxes struct {
	columns slab[struct {
		node pg.Node
		is   pg.Node_ColumnRef
		v    pg.ColumnRef
	}]
	strings slab[struct {
		node pg.Node
		is   pg.Node_String_
		v    pg.String
	}]
	constants slab[struct {
		node pg.Node
		is   pg.Node_AConst
		v    pg.A_Const
	}]
	targets slab[struct {
		node pg.Node
		is   pg.Node_ResTarget
		v    pg.ResTarget
	}]
	operators slab[struct {
		node pg.Node
		is   pg.Node_AExpr
		v    pg.A_Expr
	}]
	integers slab[struct {
		is pg.A_Const_Ival
		v  pg.Integer
	}]
	texts slab[struct {
		is pg.A_Const_Sval
		v  pg.String
	}]
	sorts   slab[pg.SortBy]
	tables  slab[pg.RangeVar]
	aliases slab[pg.Alias]
	others  slab[pg.Node]
}

// slabLength is how many values of a type are kept for the next text.
const slabLength = 96

// slab has values of one type, for one text after the other.
type slab[T any] struct {
	values []T
	used   int
}

// next returns a value that is zero.
func (s *slab[T]) next() *T {
	if s.values == nil {
		s.values = make([]T, slabLength)
	}
	if s.used == len(s.values) {
		return new(T)
	}
	s.used++
	return &s.values[s.used-1]
}

func (s *slab[T]) reset() {
	clear(s.values[:s.used])
	s.used = 0
}

func (b *boxes) reset() {
	b.columns.reset()
	b.strings.reset()
	b.constants.reset()
	b.targets.reset()
	b.operators.reset()
	b.integers.reset()
	b.texts.reset()
	b.sorts.reset()
	b.tables.reset()
	b.aliases.reset()
	b.others.reset()
}

// node reads a node: an object whose only field is named by the node's kind,
// or that has none where something is missing in a list.
func (d *decoder) node() *pg.Node {
	if n := d.plainColumn(); n != nil {
		return n
	}
	if n := d.plainString(); n != nil {
		return n
	}
	if n := d.plainInteger(); n != nil {
		return n
	}
	d.object()
	if !d.field() {
		return &pg.Node{}
	}
	n := d.frequent()
	if n == nil {
		n = d.boxes.others.next()
		if !d.table(n) && !d.expression(n) && !d.statement(n) {
			d.fail()
		}
	}
	if d.field() {
		d.fail()
	}
	return n
}

// frequent reads a node of one of the kinds that have boxes; nil is another
// kind.
func (d *decoder) frequent() *pg.Node {
	switch d.name {
	case "ColumnRef":
		b := d.boxes.columns.next()
		b.node.Node, b.is.ColumnRef = &b.is, &b.v
		d.columnRef(&b.v)
		return &b.node
	case "String":
		b := d.boxes.strings.next()
		b.node.Node, b.is.String_ = &b.is, &b.v
		b.v.Sval = only(d, "sval", d.string)
		return &b.node
	case "A_Const":
		b := d.boxes.constants.next()
		b.node.Node, b.is.AConst = &b.is, &b.v
		d.constant(&b.v)
		return &b.node
	case "ResTarget":
		b := d.boxes.targets.next()
		b.node.Node, b.is.ResTarget = &b.is, &b.v
		d.resTarget(&b.v)
		return &b.node
	case "A_Expr":
		b := d.boxes.operators.next()
		b.node.Node, b.is.AExpr = &b.is, &b.v
		d.operator(&b.v)
		return &b.node
	default:
		return nil
	}
}

// table reads a node of FROM, ORDER BY and what else is around expressions.
func (d *decoder) table(n *pg.Node) bool {
	switch d.name {
	case "RangeVar":
		n.Node = &pg.Node_RangeVar{RangeVar: d.rangeVar()}
	case "JoinExpr":
		n.Node = &pg.Node_JoinExpr{JoinExpr: d.joinExpr()}
	case "RangeSubselect":
		n.Node = &pg.Node_RangeSubselect{RangeSubselect: d.rangeSubselect()}
	case "RangeFunction":
		n.Node = &pg.Node_RangeFunction{RangeFunction: d.rangeFunction()}
	case "CommonTableExpr":
		n.Node = &pg.Node_CommonTableExpr{CommonTableExpr: d.commonTableExpr()}
	case "SortBy":
		n.Node = &pg.Node_SortBy{SortBy: d.sortBy()}
	case "WindowDef":
		n.Node = &pg.Node_WindowDef{WindowDef: d.windowDef()}
	case "LockingClause":
		n.Node = &pg.Node_LockingClause{LockingClause: d.lockingClause()}
	case "IndexElem":
		n.Node = &pg.Node_IndexElem{IndexElem: d.indexElem()}
	case "MultiAssignRef":
		n.Node = &pg.Node_MultiAssignRef{MultiAssignRef: d.multiAssignRef()}
	case "List":
		n.Node = &pg.Node_List{List: d.list()}
	default:
		return false
	}
	return true
}

// expression reads a node of an expression.
func (d *decoder) expression(n *pg.Node) bool {
	switch d.name {
	case "A_Star":
		n.Node = &pg.Node_AStar{AStar: d.star()}
	case "ParamRef":
		n.Node = &pg.Node_ParamRef{ParamRef: d.paramRef()}
	case "BoolExpr":
		n.Node = &pg.Node_BoolExpr{BoolExpr: d.boolExpr()}
	case "NullTest":
		n.Node = &pg.Node_NullTest{NullTest: d.nullTest()}
	case "BooleanTest":
		n.Node = &pg.Node_BooleanTest{BooleanTest: d.booleanTest()}
	case "TypeCast":
		n.Node = &pg.Node_TypeCast{TypeCast: d.typeCast()}
	case "FuncCall":
		n.Node = &pg.Node_FuncCall{FuncCall: d.funcCall()}
	case "SubLink":
		n.Node = &pg.Node_SubLink{SubLink: d.subLink()}
	case "CaseExpr":
		n.Node = &pg.Node_CaseExpr{CaseExpr: d.caseExpr()}
	case "CaseWhen":
		n.Node = &pg.Node_CaseWhen{CaseWhen: d.caseWhen()}
	case "CoalesceExpr":
		n.Node = &pg.Node_CoalesceExpr{CoalesceExpr: d.coalesceExpr()}
	case "MinMaxExpr":
		n.Node = &pg.Node_MinMaxExpr{MinMaxExpr: d.minMaxExpr()}
	case "RowExpr":
		n.Node = &pg.Node_RowExpr{RowExpr: d.rowExpr()}
	case "A_ArrayExpr":
		n.Node = &pg.Node_AArrayExpr{AArrayExpr: d.arrayExpr()}
	case "A_Indirection":
		n.Node = &pg.Node_AIndirection{AIndirection: d.indirection()}
	case "A_Indices":
		n.Node = &pg.Node_AIndices{AIndices: d.indices()}
	case "CollateClause":
		n.Node = &pg.Node_CollateClause{CollateClause: d.collateClause()}
	case "SQLValueFunction":
		n.Node = &pg.Node_SqlvalueFunction{SqlvalueFunction: d.sqlValueFunction()}
	case "SetToDefault":
		n.Node = &pg.Node_SetToDefault{SetToDefault: d.setToDefault()}
	default:
		return false
	}
	return true
}

// statement reads a node that is a query or controls a transaction.
func (d *decoder) statement(n *pg.Node) bool {
	switch d.name {
	case "SelectStmt":
		n.Node = &pg.Node_SelectStmt{SelectStmt: d.selectStmt()}
	case "InsertStmt":
		n.Node = &pg.Node_InsertStmt{InsertStmt: d.insertStmt()}
	case "UpdateStmt":
		n.Node = &pg.Node_UpdateStmt{UpdateStmt: d.updateStmt()}
	case "DeleteStmt":
		n.Node = &pg.Node_DeleteStmt{DeleteStmt: d.deleteStmt()}
	case "TransactionStmt":
		n.Node = &pg.Node_TransactionStmt{TransactionStmt: d.transactionStmt()}
	default:
		return false
	}
	return true
}
