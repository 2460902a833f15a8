package pgquery

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"

	"lockkeeper/inspect"
)

// maxVisits bounds how many nodes are looked at to find out how a statement's
// rows are bounded. A condition that takes more is a predicate.
const maxVisits = 4 << 20

// search walks trees in search of something, for one statement. When it has
// looked at too many nodes it finds everything: callers take "found" for the
// answer that promises less.
type search struct {
	visits int

	constants map[int32]inspect.Reading // what was read of the constants, by their places
	blind     bool                      // something was read whose place is not known
}

// What steps cost beside a visit of a node.
const (
	conditionCost = 16 // a condition's evaluation
	queryCost     = 32 // a look into a subselect or WITH query
	messageCost   = 15 // a message that is walked by reflection, field by field
)

// exhausted counts visits and reports whether there were too many.
func (s *search) exhausted(cost int) bool {
	s.visits += cost
	return s.visits > maxVisits
}

// node reports whether the tree under n, n included, holds a node for which
// yes holds.
func (s *search) node(n *pg.Node, yes func(*pg.Node) bool) bool {
	if n == nil {
		return false
	}
	if s.exhausted(1) || yes(n) {
		return true
	}
	switch v := n.Node.(type) {
	case *pg.Node_AConst:
		s.note(v.AConst, inspect.ReadCount) // more of them take more visits
		return false
	case nil, *pg.Node_ColumnRef, *pg.Node_ParamRef:
		return false
	case *pg.Node_AExpr:
		return s.node(v.AExpr.Lexpr, yes) || s.node(v.AExpr.Rexpr, yes)
	case *pg.Node_BoolExpr:
		return s.list(v.BoolExpr.Args, yes)
	case *pg.Node_List:
		return s.list(v.List.Items, yes)
	case *pg.Node_TypeCast:
		return s.node(v.TypeCast.Arg, yes)
	default:
		return s.message(n.ProtoReflect(), yes)
	}
}

func (s *search) list(list []*pg.Node, yes func(*pg.Node) bool) bool {
	for _, n := range list {
		if s.node(n, yes) {
			return true
		}
	}
	return false
}

func (s *search) message(m protoreflect.Message, yes func(*pg.Node) bool) (found bool) {
	s.visits += messageCost
	inner := func(m protoreflect.Message) bool {
		if n, ok := m.Interface().(*pg.Node); ok {
			return s.node(n, yes)
		}
		return s.message(m, yes)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = inner(v.List().Get(i).Message())
			}
		default:
			found = inner(v.Message())
		}
		return !found
	})
	return found
}

// mayBeVolatile reports whether the expression may give another value each
// time it is evaluated, as far as its functions say.
func (s *search) mayBeVolatile(n *pg.Node) bool {
	return s.node(n, func(n *pg.Node) bool {
		f := n.GetFuncCall()
		if f == nil {
			return callsUnknown(n)
		}
		name, ok := builtinName(f.Funcname)
		return !ok || !has(harmlessFunctions, name) || has(volatileFunctions, name)
	})
}

// varies reports whether the expression may have another value in each row
// although no column is in it: random(), or a function that is not known.
func (s *search) varies(n *pg.Node) bool {
	return s.node(n, func(n *pg.Node) bool {
		f := n.GetFuncCall()
		if f == nil {
			return callsUnknown(n)
		}
		name, ok := builtinName(f.Funcname)
		return !ok || name == "random" || name == "gen_random_uuid" || !has(harmlessFunctions, name)
	})
}

// callsUnknown reports whether a node calls a function without naming it: an
// operator that is not built in, or one in the form of a field, (row).function.
func callsUnknown(n *pg.Node) bool {
	if x := n.GetAExpr(); x != nil {
		name, ok := builtinName(x.Name)
		return !ok || !isOperator(name)
	}
	return slices.ContainsFunc(n.GetAIndirection().GetIndirection(), func(n *pg.Node) bool { return n.GetString_() != nil })
}

// equalMessages is equal for messages; see there.
func equalMessages(a, b protoreflect.Message) bool {
	if a.Descriptor() != b.Descriptor() {
		return false
	}
	same, fields := true, 0
	a.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Name() == "location" {
			return true
		}
		fields++
		same = b.Has(f) && equalValues(f, v, b.Get(f))
		return same
	})
	if !same {
		return false
	}
	b.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f.Name() != "location" {
			fields--
		}
		return true
	})
	return fields == 0
}

func equalValues(f protoreflect.FieldDescriptor, a, b protoreflect.Value) bool {
	switch {
	case f.IsList():
		return equalLists(a.List(), b.List())
	case f.Message() != nil:
		return equalMessages(a.Message(), b.Message())
	default:
		return a.Equal(b)
	}
}

// equalLists compares lists of messages; the tree holds no others but of
// numbers, which are compared as values.
func equalLists(a, b protoreflect.List) bool {
	if a.Len() != b.Len() {
		return false
	}
	for i := range a.Len() {
		x, y := a.Get(i), b.Get(i)
		if m, ok := x.Interface().(protoreflect.Message); ok {
			if !equalMessages(m, y.Message()) {
				return false
			}
		} else if !x.Equal(y) {
			return false
		}
	}
	return true
}

// aggregates are the built-in ones. Sorted. Source: pg_aggregate, but for
// those that take WITHIN GROUP, which no plain call is.
var aggregates = []string{
	"any_value", "array_agg", "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop",
	"covar_samp", "every", "json_agg", "json_agg_strict", "json_object_agg", "jsonb_agg", "jsonb_object_agg", "max", "min",
	"range_agg", "range_intersect_agg", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope",
	"regr_sxx", "regr_sxy", "regr_syy", "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "var_pop", "var_samp",
	"variance", "xmlagg",
}

// isOneGroup reports whether a query returns exactly one row, whatever rows it
// reads: it has an aggregate and no GROUP BY.
func (s *search) isOneGroup(q *pg.SelectStmt) bool {
	if len(q.GroupClause) > 0 || q.HavingClause != nil {
		return false
	}
	return slices.ContainsFunc(q.TargetList, func(target *pg.Node) bool {
		inner := s.node(target, func(n *pg.Node) bool { return n.GetSubLink() != nil }) // which may have aggregates of its own
		return !inner && s.node(target, func(n *pg.Node) bool {
			f := n.GetFuncCall()
			name, ok := builtinName(f.GetFuncname())
			return f != nil && f.Over == nil && ok && (has(aggregates, name) || f.AggWithinGroup)
		})
	})
}
