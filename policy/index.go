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
	by       [ways]nameIndex
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
	x := &ruleIndex{}
	var all, by [ways]map[string][]int // all has every rule in all of its ways
	for way := range ways {
		all[way], by[way] = map[string][]int{}, map[string][]int{}
	}
	for i := range rules {
		if r := &rules[i]; take(r) {
			for way, keys := range r.keys(tables, subjects) {
				list(all[way], keys, i)
			}
		}
	}
	for i := range rules {
		if r := &rules[i]; take(r) {
			if way, keys := r.rarest(tables, subjects, &all); way < ways {
				list(by[way], keys, i)
			} else {
				x.addByClass(i, r, !tables)
			}
		}
	}
	for way := range ways {
		x.by[way] = newNameIndex(by[way])
	}
	x.patterns = newPatternIndex(by[byPattern])
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

// rarest returns the way in which a rule shares its keys with the fewest others,
// and those; ways where there is none.
func (r *rule) rarest(tables, subjects bool, all *[ways]map[string][]int) (best int, by []string) {
	keys, best, fewest := r.keys(tables, subjects), ways, 0
	for way := range ways {
		if keys[way] == nil {
			continue
		}
		others := 0
		for _, key := range keys[way] {
			others = max(others, len(all[way][key]))
		}
		if best == ways || others < fewest {
			best, by, fewest = way, keys[way], others
		}
	}
	return best, by
}

// addByClass lists a rule under its classes, or under all.
func (x *ruleIndex) addByClass(i int, r *rule, all bool) {
	for class := range x.byClass {
		if all || r.classes.has(inspect.Class(class)) {
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
	l[byUserName] = x.by[byUserName].find(sub.User)
	l[byApplicationName] = x.by[byApplicationName].find(sub.Application)
	l[byDatabaseName] = x.by[byDatabaseName].find(sub.Database)
	return l
}

// lists sets the lists in which the rules for a statement stand, in those for
// its subject; rel is nil for a statement that names no relation.
func (x *ruleIndex) lists(l *ruleLists, class inspect.Class, rel *inspect.Relation) {
	l[ways] = x.byClass[class]
	l[byTableName], l[byPattern] = nil, nil
	if rel != nil {
		l[byTableName] = x.by[byTableName].find(rel.Name)
		l[byPattern] = x.patterns.find(rel.Name)
	}
}

// nameIndex finds the rules that have a name. Most names that are looked for
// have none: they are told apart by a few of their bytes, mostly, without a look
// into the map, which is far away in memory where rules are many.
type nameIndex struct {
	seen  [1 << (seenBits - 6)]uint64 // by mark
	rules map[string][]int
}

const seenBits = 10

func newNameIndex(rules map[string][]int) nameIndex {
	x := nameIndex{rules: rules}
	for name := range rules {
		m := mark(name)
		x.seen[m/64] |= 1 << (m % 64)
	}
	return x
}

func (x *nameIndex) find(name string) []int {
	if m := mark(name); x.seen[m/64]&(1<<(m%64)) == 0 {
		return nil
	}
	return x.rules[name]
}

// mark is of seenBits bits.
func mark(name string) uint32 {
	n := uint32(len(name)) //nolint:gosec // mixed
	if n == 0 {
		return 0
	}
	return (uint32(name[0])<<16 | uint32(name[n/2])<<8 | uint32(name[n-1]) ^ n<<20) * 0x9e3779b1 >> (32 - seenBits)
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
