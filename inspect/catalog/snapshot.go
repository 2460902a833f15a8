// Package catalog resolves names against the live database: views, rules, partitions, inheritance, foreign keys, keys.
package catalog

import (
	"strings"
	"time"

	"lockkeeper/inspect"
)

// Snapshot is what the catalogs of one database held at one moment. It is
// immutable and shared between sessions.
type Snapshot struct {
	Taken     time.Time
	Relations int

	byName map[string][]*relation // as the catalogs spell it, in any schema
	folded map[string][]*relation // by the name in lower case, where that differs
	byOID  map[uint32]*relation

	functions map[string]*function // by name, folded to lower case, and by operator; nil where there are too many to keep
	builtIns  map[string]struct{}  // names of pg_catalog's functions
	sources   map[sourceKey]source // of the functions, for the next snapshot
}

// The kinds of relation, as in pg_class.relkind.
const (
	kindTable            = 'r'
	kindPartitioned      = 'p'
	kindView             = 'v'
	kindMaterialized     = 'm'
	kindIndex            = 'i'
	kindPartitionedIndex = 'I'
)

// relation is one row of pg_class, and what hangs on it.
type relation struct {
	schema, name string
	kind         byte

	parents, children []*relation // partitions and inheritance
	bases             []*relation // of a view: what its query names
	rules             []rule      // but for SELECT
	referencedBy      []foreignKey
	references        []*relation
	table             *relation // of an index

	columns []string // nil where they are not known
	keys    []string // columns that are a unique key alone
	notNull []string
	runs    []run    // the user's functions that its use runs
	former  []former // names that it had in an earlier snapshot and that nothing else has now
	size    *inspect.Size
}

type former struct{ schema, name string }

// rule is a rule of CREATE RULE, one that is not a view's query.
type rule struct {
	event     byte // as pg_rewrite.ev_type: '2' UPDATE, '3' INSERT, '4' DELETE
	writes    bool // one of its commands is UPDATE or DELETE
	inserts   bool
	unbounded bool // an UPDATE or DELETE of it has no WHERE, or does not look at the row that it is about
	names     []*relation
}

// foreignKey is one that refers to the relation that holds it.
type foreignKey struct {
	by                 *relation
	onDelete, onUpdate byte     // as pg_constraint.confdeltype: 'a', 'r', 'c' cascade, 'n' set null, 'd' set default
	columns            []string // of the table that is referred to
	byColumns          []string
}

// named returns the relations that a name in a text may mean: in any schema,
// where the text gives none. pg_temp is every session's temporary schema.
func (s *Snapshot) named(schema, name string) []*relation {
	all := s.byName[name]
	if schema == "" || len(all) == 0 {
		return all
	}
	var some []*relation
	for _, r := range all {
		if r.schema == schema || schema == tempSchema && strings.HasPrefix(r.schema, tempPrefix) {
			some = append(some, r)
		}
	}
	return some
}

// A session's own temporary schema is pg_temp_ and a number in the catalogs.
const (
	tempSchema = "pg_temp"
	tempPrefix = "pg_temp_"
)

// remember notes which relations had other names in an earlier snapshot: a
// policy knows tables by their names, and a table that was renamed behind
// lockkeeper's back is still the table.
func (s *Snapshot) remember(before *Snapshot) {
	if before == nil {
		return
	}
	for oid, old := range before.byOID {
		now, ok := s.byOID[oid]
		if !ok {
			continue
		}
		names := old.former
		if old.name != now.name || old.schema != now.schema {
			names = append(names[:len(names):len(names)], former{old.schema, old.name})
		}
		for _, f := range names {
			if len(now.former) < maxFormer && len(s.named(f.schema, f.name)) == 0 {
				now.former = append(now.former, f)
			}
		}
	}
}

// maxFormer bounds the names that are kept of one relation.
const maxFormer = 8
