package policy

import (
	"strings"

	"lockkeeper/inspect"
)

// ruleIndex finds the rules that may match without asking every rule. Each
// rule is listed in one way only: under the tables it names, or else under
// the exact users, applications or databases it names, or else under its
// classes. What is found is asked in full, so an index may list too much and
// never too little.
type ruleIndex struct {
	byTable       map[string][]int
	byUser        map[string][]int
	byApplication map[string][]int
	byDatabase    map[string][]int
	byClass       [inspect.Define + 1][]int
}

// newRuleIndex lists the rules for which take is true. tables is whether they
// may be found by table.
func newRuleIndex(rules []rule, tables bool, take func(*rule) bool) *ruleIndex {
	x := &ruleIndex{
		byTable: map[string][]int{}, byUser: map[string][]int{},
		byApplication: map[string][]int{}, byDatabase: map[string][]int{},
	}
	for i := range rules {
		if r := &rules[i]; take(r) {
			x.add(i, r, tables)
		}
	}
	return x
}

func (x *ruleIndex) add(i int, r *rule, tables bool) {
	switch {
	case tables && r.tables != nil && len(r.tables.prefixes) == 0:
		for name := range r.tables.names {
			x.byTable[name] = append(x.byTable[name], i)
		}
	case exact(r.subject.users):
		list(x.byUser, r.subject.users, i)
	case exact(r.subject.apps):
		list(x.byApplication, r.subject.apps, i)
	case exact(r.subject.databases):
		list(x.byDatabase, r.subject.databases, i)
	default:
		for class := range x.byClass {
			if r.classes.has(inspect.Class(class)) || !tables {
				x.byClass[class] = append(x.byClass[class], i)
			}
		}
	}
}

// exact reports whether there are names and none of them is a pattern.
func exact(names []string) bool {
	for _, n := range names {
		if strings.Contains(n, "*") {
			return false
		}
	}
	return len(names) > 0
}

func list(m map[string][]int, names []string, i int) {
	for _, n := range names {
		if l := m[n]; len(l) == 0 || l[len(l)-1] != i {
			m[n] = append(l, i)
		}
	}
}

// lists returns the lists in which the rules for a statement stand; rel is
// nil for a statement that names no relation.
func (x *ruleIndex) lists(class inspect.Class, rel *inspect.Relation, sub *Subject) [5][]int {
	l := [5][]int{x.byClass[class]}
	if rel != nil && len(x.byTable) > 0 {
		l[1] = x.byTable[rel.Name]
	}
	if len(x.byUser) > 0 {
		l[2] = x.byUser[sub.User]
	}
	if len(x.byApplication) > 0 {
		l[3] = x.byApplication[sub.Application]
	}
	if len(x.byDatabase) > 0 {
		l[4] = x.byDatabase[sub.Database]
	}
	return l
}
