package pgquery

import (
	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"

	"lockkeeper/inspect"
)

// maxDepth bounds the walker's recursion. The decoder's own limit (10,000
// messages) is reached before it in most trees.
const maxDepth = 12_000

// walker collects the facts about one statement.
type walker struct {
	st     inspect.Statement
	rels   relations
	scopes []*scope // the WITH clauses around the node, innermost last
	depth  int

	search     search
	conditions int // within which conditions the one being evaluated is
}

// scope is what one WITH clause defines, as far as it is visible from where
// the walker is: in a definition, only those before it, but for RECURSIVE.
type scope struct {
	defs      []*pg.CommonTableExpr
	at        map[string]int // where among defs a name is
	visible   int            // so many of defs
	recursive bool           // all of them see each other
}

func scopeOf(c *pg.WithClause) *scope {
	s := &scope{at: make(map[string]int, len(c.Ctes)), visible: len(c.Ctes), recursive: c.Recursive}
	for i, n := range c.Ctes {
		s.defs = append(s.defs, n.GetCommonTableExpr())
		s.at[n.GetCommonTableExpr().GetCtename()] = i
	}
	return s
}

// finish returns the statement.
func (w *walker) finish() inspect.Statement {
	w.st.Relations = w.rels.sorted()
	for i := range w.st.Relations {
		w.st.Bound = inspect.Wider(w.st.Bound, w.st.Relations[i].Bound)
	}
	return w.st
}

// raise makes the statement's class at least as dangerous as c.
func (w *walker) raise(c inspect.Class) { w.st.Class = inspect.Worse(w.st.Class, c) }

func (w *walker) hide(h inspect.Hidden) { w.st.Hidden |= h }

// cte returns the definition that a name in FROM refers to, or nil: schema
// names and targets of INSERT, UPDATE, DELETE and MERGE never refer to one.
// Source: getNSItemForSpecialRelationTypes in parse_clause.c.
func (w *walker) cte(rv *pg.RangeVar) *pg.CommonTableExpr {
	def, _ := w.definition(rv)
	return def
}

// definition is cte that also returns the scopes which the definition sees: a
// name in it may be a table's, although a WITH query has it where it is used.
// Source: analyzeCTE and scanNameSpaceForCTE.
func (w *walker) definition(rv *pg.RangeVar) (def *pg.CommonTableExpr, sees []*scope) {
	if rv.GetSchemaname() != "" {
		return nil, nil
	}
	for i := len(w.scopes) - 1; i >= 0; i-- {
		s := w.scopes[i]
		at, ok := s.at[rv.GetRelname()]
		if !ok || at >= s.visible {
			continue
		}
		if s.recursive {
			return s.defs[at], w.scopes[: i+1 : i+1]
		}
		before := *s
		before.visible = at
		return s.defs[at], append(w.scopes[:i:i], &before)
	}
	return nil, nil
}

// within calls f with the query that a name in FROM stands for, in the scopes
// that it sees; with nil where it is no WITH query's.
func (w *walker) within(rv *pg.RangeVar, f func(s *pg.SelectStmt)) {
	def, sees := w.definition(rv)
	if def == nil {
		f(nil)
		return
	}
	defer func(before []*scope) { w.scopes = before }(w.scopes)
	w.scopes = sees
	f(def.GetCtequery().GetSelectStmt())
}

// with walks a WITH clause and leaves its names in scope; the caller calls
// the function that it returns where the names end.
func (w *walker) with(c *pg.WithClause) (leave func()) {
	if c == nil {
		return func() {}
	}
	names := scopeOf(c)
	if !c.Recursive {
		names.visible = 0
	}
	w.scopes = append(w.scopes, names)
	for i, def := range names.defs {
		w.cteQuery(def)
		names.visible = max(names.visible, i+1)
	}
	return func() { w.scopes = w.scopes[:len(w.scopes)-1] }
}

func (w *walker) cteQuery(def *pg.CommonTableExpr) {
	if def.GetCtequery().GetSelectStmt() == nil {
		w.hide(inspect.HiddenCTEWrite)
	}
	w.node(def.GetCtequery())
}

func (w *walker) nodes(list []*pg.Node) {
	for _, n := range list {
		w.node(n)
	}
}

// node walks an expression, a FROM item or a query, whatever stands there.
func (w *walker) node(n *pg.Node) {
	if n == nil {
		return
	}
	w.depth++
	if w.depth > maxDepth {
		panic(tooDeepError{})
	}
	defer func() { w.depth-- }()
	switch v := n.Node.(type) {
	case nil, *pg.Node_ColumnRef, *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_AStar, *pg.Node_SetToDefault,
		*pg.Node_SqlvalueFunction, *pg.Node_String_, *pg.Node_Integer, *pg.Node_Float, *pg.Node_Boolean,
		*pg.Node_CurrentOfExpr, *pg.Node_TypeName:
	case *pg.Node_RangeVar:
		w.fromTable(v.RangeVar)
	case *pg.Node_SelectStmt:
		w.selectStmt(v.SelectStmt)
	case *pg.Node_InsertStmt:
		w.insertStmt(v.InsertStmt)
	case *pg.Node_UpdateStmt:
		w.updateStmt(v.UpdateStmt)
	case *pg.Node_DeleteStmt:
		w.deleteStmt(v.DeleteStmt)
	case *pg.Node_MergeStmt:
		w.mergeStmt(v.MergeStmt)
	case *pg.Node_JoinExpr:
		w.node(v.JoinExpr.Larg)
		w.node(v.JoinExpr.Rarg)
		w.node(v.JoinExpr.Quals)
	case *pg.Node_FuncCall:
		w.funcCall(v.FuncCall)
	case *pg.Node_AExpr:
		w.operator(v.AExpr.Name)
		w.node(v.AExpr.Lexpr)
		w.node(v.AExpr.Rexpr)
	case *pg.Node_SubLink:
		w.operator(v.SubLink.OperName)
		w.node(v.SubLink.Testexpr)
		w.node(v.SubLink.Subselect)
	case *pg.Node_BoolExpr:
		w.nodes(v.BoolExpr.Args)
	case *pg.Node_TypeCast:
		w.node(v.TypeCast.Arg)
	case *pg.Node_NullTest:
		w.node(v.NullTest.Arg)
	case *pg.Node_ResTarget:
		w.nodes(v.ResTarget.Indirection)
		w.node(v.ResTarget.Val)
	case *pg.Node_List:
		w.nodes(v.List.Items)
	case *pg.Node_SortBy:
		w.operator(v.SortBy.UseOp)
		w.node(v.SortBy.Node)
	default:
		w.message(n.ProtoReflect())
	}
}

// message walks whatever nodes a message holds: the kinds of node that need
// no care of their own.
func (w *walker) message(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				w.inner(v.List().Get(i).Message())
			}
		default:
			w.inner(v.Message())
		}
		return true
	})
}

// inner walks a message that is a node, or that may hold nodes.
func (w *walker) inner(m protoreflect.Message) {
	switch v := m.Interface().(type) {
	case *pg.Node:
		w.node(v)
	case *pg.RangeVar:
		w.fromTable(v)
	case *pg.SelectStmt:
		w.selectStmt(v)
	case *pg.TypeName:
	default:
		w.message(m)
	}
}
