package policy

import (
	"maps"
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// tempSchema is how a text names the session's own temporary schema. A table
// qualified with it is never one of the configured ones.
const tempSchema = "pg_temp"

// tableSet is a set of table names and prefixes, schema-qualified or not.
type tableSet struct {
	names    map[string][]string // bare name → schemas it was configured with; "" is any schema
	prefixes []tablePrefix       // patterns of the form prefix_*
	written  []string            // as configured, for people
	bare     []string            // the names without patterns and schemas, sorted
}

type tablePrefix struct {
	schema, prefix string // schema "" is any schema
}

// newTableSet builds a set from names and patterns as they are written in a
// policy.
func newTableSet(patterns []string) *tableSet {
	t := &tableSet{names: make(map[string][]string, len(patterns)), written: patterns}
	for _, p := range patterns {
		schema, name := splitName(p)
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			t.prefixes = append(t.prefixes, tablePrefix{schema, prefix})
			continue
		}
		t.names[name] = append(t.names[name], schema)
	}
	t.bare = slices.Sorted(maps.Keys(t.names))
	return t
}

// splitName splits "schema.name"; schema is "" when there is no dot.
func splitName(s string) (schema, name string) {
	if schema, name, ok := strings.Cut(s, "."); ok {
		return schema, name
	}
	return "", s
}

func (t *tableSet) empty() bool { return len(t.names) == 0 && len(t.prefixes) == 0 }

// matches reports whether a relation of the text is in the set. A name that
// the text or the policy leaves unqualified matches in any schema.
func (t *tableSet) matches(schema, name string) bool {
	if schema == tempSchema {
		return false
	}
	for _, s := range t.names[name] {
		if sameSchema(s, schema) {
			return true
		}
	}
	for i := range t.prefixes {
		p := &t.prefixes[i]
		if strings.HasPrefix(name, p.prefix) && sameSchema(p.schema, schema) {
			return true
		}
	}
	return false
}

func sameSchema(configured, text string) bool {
	return configured == "" || text == "" || configured == text
}

// mayOccurIn reports whether a name of the set may occur in a text of which
// only the words are known; nil words are any words. It errs to true.
func (t *tableSet) mayOccurIn(words []string) bool {
	if t.empty() {
		return false
	}
	if words == nil {
		return true
	}
	text := inspect.Batch{Why: "only its words are known", Words: words}
	for _, name := range t.bare {
		if text.Mentions(name) {
			return true
		}
	}
	for i := range t.prefixes {
		if hasPrefixed(words, strings.ToLower(t.prefixes[i].prefix)) {
			return true
		}
	}
	return false
}

// hasPrefixed reports whether a word of the sorted words begins with prefix.
func hasPrefixed(words []string, prefix string) bool {
	i, _ := slices.BinarySearch(words, prefix)
	return i < len(words) && strings.HasPrefix(words[i], prefix)
}
