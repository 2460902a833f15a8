package policy

import (
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// ruleIndex finds the rules that may match without asking every rule. Each
// rule is listed in one way only: under the tables it names, the patterns of
// tables, the exact users, applications or databases, whichever it shares with
// the fewest rules; or else under its classes. What is found is asked in full,
// so an index may list too much and never too little.
type ruleIndex struct {
	by       [ways]map[string][]int
	patterns patternIndex
	byClass  [inspect.Define + 1][]int
}

// The ways to list a rule but by class.
const (
	byTableName = iota
	byPattern   // rules with patterns: under these, and under their names as if they were
	byUserName
	byApplicationName
	byDatabaseName
	ways
)

// ruleLists are the lists in which the rules for a statement stand; the last
// one is that of its class.
type ruleLists [ways + 1][]int

// newRuleIndex lists the rules for which take is true. tables is whether they
// may be found by table, subjects whether by who asks.
func newRuleIndex(rules []rule, tables, subjects bool, take func(*rule) bool) *ruleIndex {
	all, x := &ruleIndex{}, &ruleIndex{}
	for way := range ways {
		all.by[way], x.by[way] = map[string][]int{}, map[string][]int{}
	}
	for i := range rules {
		if r := &rules[i]; take(r) {
			for way, keys := range r.keys(tables, subjects) {
				list(all.by[way], keys, i)
			}
		}
	}
	for i := range rules {
		if r := &rules[i]; take(r) {
			x.add(i, r, tables, subjects, all)
		}
	}
	x.patterns = newPatternIndex(x.by[byPattern])
	return x
}

// keys returns what a rule may be listed under, in each of the ways; nil where
// it may not. A set of tables that is empty is met by none.
func (r *rule) keys(tables, subjects bool) (keys [ways][]string) {
	if tables && r.tables != nil {
		names := append([]string{}, r.tables.bare...)
		if len(r.tables.prefixes) == 0 {
			keys[byTableName] = names
		} else {
			for i := range r.tables.prefixes {
				names = append(names, r.tables.prefixes[i].prefix)
			}
			keys[byPattern] = names
		}
	}
	if !subjects {
		return keys
	}
	for way, names := range map[int][]string{byUserName: r.subject.users, byApplicationName: r.subject.apps, byDatabaseName: r.subject.databases} {
		if exact(names) {
			keys[way] = names
		}
	}
	return keys
}

// add lists a rule in the best way; all has every rule in all of its ways.
func (x *ruleIndex) add(i int, r *rule, tables, subjects bool, all *ruleIndex) {
	keys, best, fewest := r.keys(tables, subjects), ways, 0
	for way := range ways {
		if keys[way] == nil {
			continue
		}
		others := 0
		for _, key := range keys[way] {
			others = max(others, len(all.by[way][key]))
		}
		if best == ways || others < fewest {
			best, fewest = way, others
		}
	}
	if best < ways {
		list(x.by[best], keys[best], i)
		return
	}
	for class := range x.byClass {
		if r.classes.has(inspect.Class(class)) || !tables {
			x.byClass[class] = append(x.byClass[class], i)
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

// about returns the lists for a subject, to which lists adds those for a
// statement.
func (x *ruleIndex) about(sub *Subject) (l ruleLists) {
	if m := x.by[byUserName]; len(m) > 0 {
		l[byUserName] = m[sub.User]
	}
	if m := x.by[byApplicationName]; len(m) > 0 {
		l[byApplicationName] = m[sub.Application]
	}
	if m := x.by[byDatabaseName]; len(m) > 0 {
		l[byDatabaseName] = m[sub.Database]
	}
	return l
}

// lists sets the lists in which the rules for a statement stand, in those for
// its subject; rel is nil for a statement that names no relation.
func (x *ruleIndex) lists(l *ruleLists, class inspect.Class, rel *inspect.Relation) {
	l[ways] = x.byClass[class]
	l[byTableName], l[byPattern] = nil, nil
	if rel != nil {
		l[byTableName] = x.by[byTableName][rel.Name]
		l[byPattern] = x.patterns.find(rel.Name)
	}
}

// patternIndex finds the rules of all patterns that a name meets. A pattern is
// what the name begins with, a byte at least.
type patternIndex struct {
	first   [256]bool // what patterns begin with
	sorted  []string
	parents []int   // for each pattern the longest other one that it begins with, or -1
	rules   [][]int // for each pattern its rules, and its parents'
}

func newPatternIndex(byPattern map[string][]int) (x patternIndex) {
	for pattern := range byPattern {
		x.sorted = append(x.sorted, pattern)
	}
	slices.Sort(x.sorted)
	for i, pattern := range x.sorted {
		parent := x.begins(i-1, pattern)
		rules := slices.Clone(byPattern[pattern])
		if parent >= 0 {
			rules = append(rules, x.rules[parent]...)
		}
		slices.Sort(rules)
		x.first[pattern[0]] = true
		x.parents, x.rules = append(x.parents, parent), append(x.rules, slices.Compact(rules))
	}
	return x
}

// begins returns the longest pattern that name begins with, or -1; i is the last
// pattern that is not behind name. All that name begins with are prefixes of
// each other, and what stands between one and name begins with it, too.
func (x *patternIndex) begins(i int, name string) int {
	for i >= 0 && !strings.HasPrefix(name, x.sorted[i]) {
		i = x.parents[i]
	}
	return i
}

func (x *patternIndex) find(name string) []int {
	if name == "" || !x.first[name[0]] {
		return nil // as most names
	}
	i, found := slices.BinarySearch(x.sorted, name)
	if !found {
		i--
	}
	if i = x.begins(i, name); i < 0 {
		return nil
	}
	return x.rules[i]
}
