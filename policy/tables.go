package policy

import "strings"

// tableSet is a set of table names and prefixes, schema-qualified or not.
type tableSet struct {
	names    map[string][]string // bare name → schemas it was configured with; "" is any schema
	prefixes []tablePrefix       // patterns of the form prefix_*
}

type tablePrefix struct {
	schema, prefix string // schema "" is any schema
}

// newTableSet builds a set from names and patterns as they are written in a
// policy.
func newTableSet(patterns []string) tableSet {
	t := tableSet{names: make(map[string][]string, len(patterns))}
	for _, p := range patterns {
		schema, name := splitName(p)
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			t.prefixes = append(t.prefixes, tablePrefix{schema, prefix})
			continue
		}
		t.names[name] = append(t.names[name], schema)
	}
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
