package pgquery

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// manyRelations is from where on relations are found by a map.
const manyRelations = 16

type relationKey struct{ schema, name string }

// relations collects what a statement names, without duplicates.
type relations struct {
	list  []inspect.Relation
	index map[relationKey]int // nil while there are few
}

// add merges r into the list.
func (rs *relations) add(r inspect.Relation) {
	if i := rs.find(r.Schema, r.Name); i >= 0 {
		merge(&rs.list[i], r)
		return
	}
	rs.list = append(rs.list, r)
	if rs.index != nil {
		rs.index[relationKey{r.Schema, r.Name}] = len(rs.list) - 1
	}
}

func (rs *relations) find(schema, name string) int {
	if len(rs.list) < manyRelations {
		return slices.IndexFunc(rs.list, func(r inspect.Relation) bool { return r.Name == name && r.Schema == schema })
	}
	if rs.index == nil {
		rs.index = make(map[relationKey]int, 2*manyRelations)
		for i, r := range rs.list {
			rs.index[relationKey{r.Schema, r.Name}] = i
		}
	}
	if i, ok := rs.index[relationKey{schema, name}]; ok {
		return i
	}
	return -1
}

// merge adds what r does to what is known of the same relation.
func merge(into *inspect.Relation, r inspect.Relation) {
	into.Rows = mergeRows(*into, r)
	into.Needs = mergeNeeds(*into, r)
	into.Only = into.Only && r.Only
	into.Bound = inspect.Wider(into.Bound, r.Bound)
	into.Access |= r.Access
	into.Lock = max(into.Lock, r.Lock)
	into.Rewrite = into.Rewrite || r.Rewrite
}

// notKeyed makes predicates of all bounds that count rows.
func (rs *relations) notKeyed() {
	for i := range rs.list {
		if r := &rs.list[i]; r.Bound == inspect.BoundKeyed || r.Bound == inspect.BoundCursor {
			r.Bound, r.Rows = inspect.BoundPredicate, 0
		}
	}
}

// mergeRows adds the rows of two keyed bounds; 0 is "not known" and stays so.
func mergeRows(a, b inspect.Relation) int {
	switch {
	case a.Bound == inspect.NotApplicable:
		return b.Rows
	case b.Bound == inspect.NotApplicable:
		return a.Rows
	case a.Bound != inspect.BoundKeyed || b.Bound != inspect.BoundKeyed || a.Rows == 0 || b.Rows == 0:
		return 0
	default:
		return a.Rows + b.Rows
	}
}

// sorted returns the list with the written relations first.
func (rs *relations) sorted() []inspect.Relation {
	written := func(r inspect.Relation) int {
		if r.Access&(inspect.AccessWrite|inspect.AccessDefine) != 0 {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rs.list, func(a, b inspect.Relation) int { return written(a) - written(b) })
	return rs.list
}

// named returns a relation for the name in rv.
func named(rv *pg.RangeVar, access inspect.Access, lock inspect.LockMode) inspect.Relation {
	return inspect.Relation{Schema: rv.GetSchemaname(), Name: rv.GetRelname(), Access: access, Lock: lock, Only: rv != nil && !rv.Inh}
}

// nameOf returns the schema and name that a list of strings spells, as in
// DROP TABLE a.b.c; false when it is not a list of strings.
func nameOf(list []*pg.Node) (schema, name string, ok bool) {
	parts := make([]string, 0, 3)
	for _, n := range list {
		s, isString := n.GetNode().(*pg.Node_String_)
		if !isString {
			return "", "", false
		}
		parts = append(parts, s.String_.Sval)
	}
	switch len(parts) {
	case 0:
		return "", "", false
	case 1:
		return "", parts[0], true
	default:
		return parts[len(parts)-2], parts[len(parts)-1], true
	}
}

// listOf returns the items of a list node.
func listOf(n *pg.Node) []*pg.Node {
	return n.GetList().GetItems()
}
