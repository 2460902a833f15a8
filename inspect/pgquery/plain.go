package pgquery

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// plainChange reports whether a statement changes rows of one table and does nothing
// else, as far as its text can tell: INSERT of VALUES, UPDATE, DELETE, or COPY
// FROM STDIN, in which every expression is a constant, a parameter, a column, a
// comparison of such, now(), or a cast to a type of the short list. Whatever is
// not named here is not plain.
//
// columns are the names that have to be columns of the table: where it has no
// such column, name may be a whole row, of which a user's cast or operator makes
// anything, and table.name a call of the function name. Source:
// transformColumnRef in src/backend/parser/parse_expr.c.
func plainChange(n *pg.Node) (columns []string, ok bool) {
	p := &plainness{}
	switch v := n.GetNode().(type) {
	case *pg.Node_InsertStmt:
		ok = p.insert(v.InsertStmt)
	case *pg.Node_UpdateStmt:
		s := v.UpdateStmt
		ok = s.WithClause == nil && isLocal(s.Relation) && p.values(s.FromClause) &&
			p.all(s.TargetList) && p.expr(s.WhereClause) && p.returning(s.ReturningList)
	case *pg.Node_DeleteStmt:
		s := v.DeleteStmt
		ok = s.WithClause == nil && isLocal(s.Relation) && p.values(s.UsingClause) && p.expr(s.WhereClause) && p.returning(s.ReturningList)
	case *pg.Node_CopyStmt:
		s := v.CopyStmt
		ok = s.IsFrom && isLocal(s.Relation) && !s.IsProgram && s.Filename == "" && s.Query == nil && s.WhereClause == nil
	}
	if !ok {
		return nil, false
	}
	return p.columns, true
}

// plainness is what plainChange needs to know of the text on its way.
type plainness struct {
	columns []string
	made    map[string][]string // the columns that FROM (VALUES …) AS name (columns) makes, by name
	depth   int
}

func isLocal(rv *pg.RangeVar) bool { return rv != nil && rv.Catalogname == "" }

func (p *plainness) insert(s *pg.InsertStmt) bool {
	return s.WithClause == nil && isLocal(s.Relation) && p.all(s.Cols) && (s.SelectStmt == nil || p.rows(s.SelectStmt.GetSelectStmt())) &&
		p.conflict(s.OnConflictClause) && p.returning(s.ReturningList)
}

func (p *plainness) conflict(c *pg.OnConflictClause) bool {
	if c == nil {
		return true
	}
	if i := c.Infer; i != nil {
		for _, n := range i.IndexElems {
			if e := n.GetIndexElem(); e == nil || e.Expr != nil || len(e.Collation)+len(e.Opclass) > 0 {
				return false
			}
		}
		if !p.expr(i.WhereClause) {
			return false
		}
	}
	return p.all(c.TargetList) && p.expr(c.WhereClause)
}

// values takes FROM items that are VALUES with names, as Odoo updates many
// rows at once.
func (p *plainness) values(from []*pg.Node) bool {
	for _, n := range from {
		r := n.GetRangeSubselect()
		if r == nil || r.Lateral || r.Alias == nil || !p.rows(r.Subquery.GetSelectStmt()) {
			return false
		}
		if p.made == nil {
			p.made = map[string][]string{}
		}
		columns := []string{}
		for _, c := range r.Alias.Colnames {
			columns = append(columns, c.GetString_().GetSval())
		}
		p.made[r.Alias.Aliasname] = columns
	}
	return true
}

// rows takes VALUES and nothing else.
func (p *plainness) rows(s *pg.SelectStmt) bool {
	if s == nil || len(s.ValuesLists) == 0 || s.WithClause != nil || s.IntoClause != nil || s.LimitCount != nil || s.LimitOffset != nil ||
		len(s.SortClause)+len(s.LockingClause)+len(s.FromClause)+len(s.TargetList) > 0 || s.Larg != nil || s.Rarg != nil {
		return false
	}
	return p.all(s.ValuesLists)
}

func (p *plainness) all(list []*pg.Node) bool {
	for _, n := range list {
		if !p.expr(n) {
			return false
		}
	}
	return true
}

func (p *plainness) expr(n *pg.Node) bool {
	p.depth++
	if p.depth > maxDepth {
		panic(tooDeepError{})
	}
	defer func() { p.depth-- }()
	if isAnyConstant(n) {
		return true
	}
	switch v := n.GetNode().(type) {
	case nil, *pg.Node_ParamRef, *pg.Node_SetToDefault, *pg.Node_SqlvalueFunction:
		return true
	case *pg.Node_ColumnRef:
		return p.column(v.ColumnRef.Fields)
	case *pg.Node_ResTarget:
		return len(v.ResTarget.Indirection) == 0 && p.expr(v.ResTarget.Val)
	case *pg.Node_List:
		return p.all(v.List.Items)
	case *pg.Node_AArrayExpr:
		return p.all(v.AArrayExpr.Elements)
	case *pg.Node_BoolExpr:
		return p.all(v.BoolExpr.Args)
	case *pg.Node_NullTest:
		return p.expr(v.NullTest.Arg)
	case *pg.Node_TypeCast:
		return isPlainType(v.TypeCast.TypeName) && p.expr(v.TypeCast.Arg)
	case *pg.Node_AExpr:
		return p.comparison(v.AExpr)
	case *pg.Node_FuncCall:
		return p.call(v.FuncCall)
	default:
		return false
	}
}

func (p *plainness) comparison(e *pg.A_Expr) bool {
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL, pg.A_Expr_Kind_AEXPR_IN:
	default:
		return false
	}
	schema, name, ok := nameOf(e.Name)
	return ok && schema == "" && slices.Contains(plainOperators[:], name) && e.Lexpr != nil && p.expr(e.Lexpr) && p.expr(e.Rexpr)
}

// call takes now() and AT TIME ZONE, which the grammar writes as a call of
// pg_catalog.timezone.
func (p *plainness) call(f *pg.FuncCall) bool {
	schema, name, ok := nameOf(f.Funcname)
	known := ok && (name == "now" && len(f.Args) == 0 || name == "timezone" && schema == "pg_catalog")
	return known && (schema == "" || schema == "pg_catalog") && p.all(f.Args) &&
		f.AggFilter == nil && f.Over == nil && len(f.AggOrder) == 0 && !f.AggStar && !f.AggDistinct && !f.FuncVariadic
}

// returning takes what RETURNING lists, * among it.
func (p *plainness) returning(list []*pg.Node) bool {
	for _, n := range list {
		fields := n.GetResTarget().GetVal().GetColumnRef().GetFields()
		if len(fields) == 0 || fields[len(fields)-1].GetAStar() == nil {
			if !p.expr(n) {
				return false
			}
		}
	}
	return true
}

// column takes a column, alone or with its table in front.
func (p *plainness) column(fields []*pg.Node) bool {
	name := fields[len(fields)-1].GetString_().GetSval()
	switch {
	case len(fields) > 2 || !isPlainName(name):
		return false
	case len(fields) == 2:
		if made, ok := p.made[fields[0].GetString_().GetSval()]; ok {
			return slices.Contains(made, name)
		}
	default:
		for _, made := range p.made {
			if slices.Contains(made, name) {
				return true
			}
		}
	}
	if !slices.Contains(p.columns, name) {
		p.columns = append(p.columns, name)
	}
	return true
}

// isPlainName reports whether a name needs no care wherever it is written.
func isPlainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

// plainOperators may be used in a plain statement. Who relies on it has to see
// that nobody has made others of the same names.
var plainOperators = [...]string{"=", "<>", "<", ">", "<=", ">="}

// plainTypes may be cast to by these names, under the same condition; those
// that the grammar itself knows (integer, timestamp, varchar …) it qualifies.
var plainTypes = [...]string{"bool", "bytea", "date", "float4", "float8", "int2", "int4", "int8", "json", "jsonb", "text", "timestamptz", "uuid"}

func isPlainType(t *pg.TypeName) bool {
	schema, name, ok := nameOf(t.GetNames())
	if !ok || t.Setof || t.PctType || schema != "" && schema != "pg_catalog" {
		return false
	}
	for _, m := range t.Typmods {
		if !isAnyConstant(m) {
			return false
		}
	}
	return schema == "pg_catalog" || slices.Contains(plainTypes[:], name)
}
