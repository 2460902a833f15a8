package policy

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"lockkeeper/inspect"
)

// Limits of what a policy may hold.
const (
	maxPolicyBytes = 1 << 20
	maxRules       = 10_000
	maxNameBytes   = 63
	maxRate        = 1e9
	maxTimeout     = 24 * time.Hour
	maxMaxWait     = time.Hour
)

// DefaultMaxWait is how long a throttled statement waits where the rule does
// not say.
const DefaultMaxWait = 10 * time.Second

// spec is what one policy file says; nil is "not said".
type spec struct {
	profile  string
	critical *[]string
	tags     []tagRule
	unknown  unknownText
	rules    *[]rule
	writable *[]string
}

// Parse reads a policy. What it does not say comes from the profile's default
// policy: critical_tables, rules and unknown each as a whole; its tags are
// added to the profile's. The error, if any, holds one line for each mistake,
// beginning with file and line.
func Parse(data []byte, file string) (*Policy, error) {
	r := &reader{file: file}
	return r.policy(r.load(data))
}

// ParseNode is Parse for a policy that stands inside another YAML document.
// file names that document.
func ParseNode(n *yaml.Node, file string) (*Policy, error) {
	r := &reader{file: file}
	if n != nil && n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	return r.policy(n)
}

// policy reads and compiles the policy whose root is n; nil when it could not
// be loaded.
func (r *reader) policy(n *yaml.Node) (*Policy, error) {
	if n == nil {
		if len(r.problems) == 0 {
			r.problems = append(r.problems, problem{1, "there is no policy"})
		}
		return nil, r.err()
	}
	sp := r.spec(n)
	if err := r.err(); err != nil {
		return nil, err
	}
	base, err := defaultSpec(sp.profile)
	if err != nil {
		return nil, err
	}
	return compile(sp.over(base)), nil
}

// over fills what s does not say from base.
func (s *spec) over(base *spec) *spec {
	out := *s
	if out.critical == nil {
		out.critical = base.critical
	}
	if out.rules == nil {
		out.rules = base.rules
	}
	if out.unknown == "" {
		out.unknown = base.unknown
	}
	if out.writable == nil {
		out.writable = base.writable
	}
	out.tags = append(append([]tagRule{}, base.tags...), s.tags...)
	return &out
}

func (r *reader) spec(n *yaml.Node) *spec {
	s := &spec{}
	ok := r.mapping(n, "the policy", []field{
		{"profile", func(n *yaml.Node) { s.profile = r.oneOf(n, "profile", ProfileOdoo, ProfilePostgres) }},
		{"critical_tables", func(n *yaml.Node) { s.critical = new(r.tables(n, "critical_tables")) }},
		{"tags", func(n *yaml.Node) { s.tags = r.tagRules(n) }},
		{"unknown", func(n *yaml.Node) {
			s.unknown = unknownText(r.oneOf(n, "unknown", string(carefulUnknown), string(refuseUnknown), string(allowUnknown)))
		}},
		{"rules", func(n *yaml.Node) { s.rules = new(r.rules(n)) }},
		{"read_only", func(n *yaml.Node) {
			r.mapping(n, "read_only", []field{{"writable_tables", func(n *yaml.Node) { s.writable = new(r.writable(n)) }}})
		}},
	})
	if ok && s.profile == "" && len(r.problems) == 0 {
		r.complain(n, "the policy has no profile: write profile: odoo or profile: postgres")
	}
	return s
}

// tables reads a list of table names and patterns.
func (r *reader) tables(n *yaml.Node, what string) []string {
	out := []string{}
	for _, item := range r.items(n, what) {
		if s, ok := r.text(item, what); ok && r.checkTable(item, s) {
			out = append(out, s)
		}
	}
	return out
}

// writable reads the tables that may be written during read-only; the list may
// be empty.
func (r *reader) writable(n *yaml.Node) []string {
	out := r.texts(n, "writable_tables")
	if len(out) > MaxWritable {
		r.complain(n, "writable_tables names %d tables: use at most %d", len(out), MaxWritable)
	}
	for i, s := range out {
		if wrong := CheckWritable(s); wrong != "" {
			r.complain(n.Content[min(i, len(n.Content)-1)], "%s", wrong)
		}
	}
	return out
}

func (r *reader) checkTable(n *yaml.Node, s string) bool {
	_, name := splitName(s)
	prefix, _ := strings.CutSuffix(name, "*")
	switch {
	case strings.ContainsAny(s, "\"'` \t\n"):
		r.complain(n, "table %q: write the name as \\d shows it, without quotes and spaces", s)
	case strings.Count(s, ".") > 1 || strings.HasPrefix(s, ".") || name == "":
		r.complain(n, "table %q: write name or schema.name", s)
	case strings.Contains(s[:len(s)-len(name)]+prefix, "*") || prefix == "":
		r.complain(n, "table %q: a pattern is a prefix followed by one *, as in stock_*", s)
	default:
		return true
	}
	return false
}

func (r *reader) tagRules(n *yaml.Node) []tagRule {
	var out []tagRule
	for _, item := range r.items(n, "tags") {
		var t tagRule
		ok := r.mapping(item, "a tag", []field{
			{"tag", func(n *yaml.Node) { t.tag = r.name(n, "tag") }},
			{"match", func(n *yaml.Node) { r.mapping(n, "a tag's match", r.subjectFields(&t.match)) }},
		})
		if ok && (t.tag == "" || t.match.empty()) {
			r.complain(item, "a tag needs tag: with its name and match: with users, databases, apps or addresses")
		}
		out = append(out, t)
	}
	return out
}

// subjectFields reads what a tag may ask of a subject.
func (r *reader) subjectFields(m *subjectMatch) []field {
	return []field{
		{"users", func(n *yaml.Node) { m.users = r.someTexts(n, "users") }},
		{"databases", func(n *yaml.Node) { m.databases = r.someTexts(n, "databases") }},
		{"apps", func(n *yaml.Node) { m.apps = r.someTexts(n, "apps") }},
		{"addresses", func(n *yaml.Node) { m.addresses = r.addresses(n) }},
	}
}

func (r *reader) addresses(n *yaml.Node) []addressMatch {
	var out []addressMatch
	for i, s := range r.someTexts(n, "addresses") {
		a, ok := parseAddress(s)
		if !ok {
			r.complain(n.Content[min(i, len(n.Content)-1)], "address %q: write an address, a network as in 10.0.0.0/8, or local for unix sockets", s)
			continue
		}
		out = append(out, a)
	}
	return out
}

// name reads a name that may become a metric's label.
func (r *reader) name(n *yaml.Node, what string) string {
	s, ok := r.text(n, what)
	if !ok {
		return ""
	}
	if len(s) > maxNameBytes || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.HasPrefix(s, "-") {
		r.complain(n, "%s %q: use at most %d lower-case letters, digits, - and _", what, s, maxNameBytes)
	}
	return s
}

func (r *reader) rules(n *yaml.Node) []rule {
	items := r.items(n, "rules")
	if len(items) > maxRules {
		r.complain(n, "there are %d rules: use at most %d", len(items), maxRules)
		return nil
	}
	out := make([]rule, 0, len(items))
	lines := make(map[string]int, len(items))
	for _, item := range items {
		one := r.rule(item)
		if line, dup := lines[one.name]; dup && one.name != "" {
			r.complain(item, "there is a rule %q in line %d already: give each its own name", one.name, line)
		}
		lines[one.name] = item.Line
		out = append(out, one)
	}
	return out
}

func (r *reader) rule(n *yaml.Node) rule {
	one := rule{enforce: true, classes: dataClasses}
	before := len(r.problems)
	matched := false
	ok := r.mapping(n, "a rule", []field{
		{"name", func(n *yaml.Node) { one.name = r.ruleName(n) }},
		{"doc", func(n *yaml.Node) { one.doc, _ = r.text(n, "doc") }},
		{"reason", func(n *yaml.Node) { one.reason, _ = r.text(n, "reason") }},
		{"enforce", func(n *yaml.Node) { one.enforce = r.boolean(n, "enforce") }},
		{"match", func(n *yaml.Node) { matched = true; r.match(n, &one) }},
		{"action", func(n *yaml.Node) {
			one.action = parseAction(r.oneOf(n, "action", actionNames[1:]...))
		}},
		{"in_read_only", func(n *yaml.Node) { one.inReadOnly = r.boolean(n, "in_read_only") }},
		{"throttle", func(n *yaml.Node) { one.throttle = r.throttle(n) }},
		{"ddl", func(n *yaml.Node) { one.ddl = r.ddl(n) }},
	})
	if !ok || len(r.problems) > before {
		return one
	}
	switch {
	case one.name == "":
		r.complain(n, "a rule has no name: give it one, it is shown to who is refused")
	case !matched:
		r.complain(n, "rule %q has no match: write match: with what it is about, or match: {} for every statement", one.name)
	case one.action == noAction && one.throttle == nil && one.ddl == nil:
		r.complain(n, "rule %q does nothing: give it action, throttle or ddl", one.name)
	case one.action != allowIt && len(one.procedures) > 0:
		r.complain(n, "rule %q has procedures: that is for action: allow, since a CALL need not say the schema", one.name)
	case one.inReadOnly && !one.vouches():
		r.complain(n, "rule %q has in_read_only: that is for action: allow and kinds: of do and call, without tables and bound", one.name)
	}
	return one
}

// vouches reports whether the rule is about nothing but DO and CALL, and allows
// them whatever tables they mention.
func (r *rule) vouches() bool {
	for _, k := range r.kinds.tags {
		if k != inspect.KindDo && k != inspect.KindCall {
			return false
		}
	}
	return r.action == allowIt && len(r.kinds.tags) > 0 && r.kinds.access == 0 && r.tables == nil && !r.critical && r.bounds == 0
}

func (r *reader) ruleName(n *yaml.Node) string {
	s := r.name(n, "name")
	for _, c := range checks {
		if s == c.Name && c.reserved {
			r.complain(n, "the name %q is lockkeeper's own: choose another", s)
		}
	}
	return s
}

func (r *reader) match(n *yaml.Node, one *rule) {
	fields := []field{
		{"kinds", func(n *yaml.Node) { r.kinds(n, one) }},
		{"classes", func(n *yaml.Node) { r.classes(n, one) }},
		{"tables", func(n *yaml.Node) { r.matchTables(n, one) }},
		{"bound", func(n *yaml.Node) { one.bounds = r.bounds(n) }},
		{"calls", func(n *yaml.Node) { one.volatile = r.oneOf(n, "calls", "volatile", "any") == "volatile" }},
		{"procedures", func(n *yaml.Node) { one.procedures = r.procedures(n) }},
	}
	fields = append(fields, r.subjectFields(&one.subject)...)
	fields = append(fields, field{"tags", func(n *yaml.Node) { one.subject.tags = r.someTexts(n, "tags") }})
	r.mapping(n, "match", fields)
	if !one.byClass && !one.kinds.empty() {
		one.classes = allClasses
	}
}

func (r *reader) kinds(n *yaml.Node, one *rule) {
	for i, s := range r.someTexts(n, "kinds") {
		if !one.kinds.add(s) {
			r.complain(n.Content[min(i, len(n.Content)-1)],
				"unknown kind %q: write insert, update, delete, truncate, merge, or a command tag as in alter table", s)
		}
	}
}

// procedures reads names of procedures. Each has its schema: which procedure a
// bare name means depends on the search_path of whoever calls it.
func (r *reader) procedures(n *yaml.Node) []string {
	names := r.someTexts(n, "procedures")
	for i, s := range names {
		schema, name, _ := strings.Cut(s, ".")
		if schema == "" || name == "" || strings.Contains(name, ".") || strings.ContainsAny(s, "\"'`*() \t\n") {
			r.complain(n.Content[min(i, len(n.Content)-1)], "procedure %q: write schema.name, without quotes, arguments and patterns", s)
		}
	}
	return names
}

func (r *reader) classes(n *yaml.Node, one *rule) {
	one.byClass, one.classes = true, 0
	for _, s := range r.someTexts(n, "classes") {
		c, err := inspect.ParseClass(s)
		if err != nil {
			r.complain(n, "%v", err)
			continue
		}
		one.classes |= 1 << c
	}
}

func (r *reader) bounds(n *yaml.Node) boundSet {
	var set boundSet
	for _, s := range r.someTexts(n, "bound") {
		b, err := inspect.ParseBound(s)
		if err != nil {
			r.complain(n, "%v", err)
			continue
		}
		set |= 1 << b
	}
	return set
}

// matchTables reads tables: critical, any, or a list. compile turns critical
// into the policy's set.
func (r *reader) matchTables(n *yaml.Node, one *rule) {
	if n.Kind == yaml.ScalarNode {
		one.critical = r.oneOf(n, "tables", "critical", "any") == "critical"
		return
	}
	names := r.tables(n, "tables")
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.complain(n, "tables is an empty list: name at least one, or write any")
	}
	one.tables = newTableSet(names)
}

func (r *reader) throttle(n *yaml.Node) *throttle {
	t := &throttle{by: byRule, limit: Throttle{MaxWait: DefaultMaxWait}}
	before := len(r.problems)
	r.mapping(n, "throttle", []field{
		{"rows_per_second", func(n *yaml.Node) { t.limit.RowsPerSecond = r.rate(n, "rows_per_second") }},
		{"statements_per_second", func(n *yaml.Node) { t.limit.StatementsPerSecond = r.rate(n, "statements_per_second") }},
		{"by", func(n *yaml.Node) {
			t.by = by(r.oneOf(n, "by", string(byUser), string(byApplication), string(byTable), string(byRule)))
		}},
		{"max_wait", func(n *yaml.Node) { t.limit.MaxWait = r.duration(n, "max_wait", maxMaxWait) }},
	})
	if len(r.problems) == before && t.limit.RowsPerSecond == 0 && t.limit.StatementsPerSecond == 0 {
		r.complain(n, "throttle limits nothing: give it rows_per_second or statements_per_second")
	}
	return t
}

func (r *reader) ddl(n *yaml.Node) *ddl {
	d := &ddl{}
	before := len(r.problems)
	r.mapping(n, "ddl", []field{
		{"lock_timeout", func(n *yaml.Node) { d.lockTimeout = r.duration(n, "lock_timeout", maxTimeout) }},
		{"statement_timeout", func(n *yaml.Node) { d.statementTimeout = r.duration(n, "statement_timeout", maxTimeout) }},
	})
	if len(r.problems) == before && d.lockTimeout == 0 && d.statementTimeout == 0 {
		r.complain(n, "ddl limits nothing: give it lock_timeout or statement_timeout")
	}
	return d
}

// compile makes a complete specification runnable.
func compile(s *spec) *Policy {
	p := &Policy{profile: s.profile, unknown: s.unknown, tags: s.tags, rules: *s.rules, critical: newTableSet(*s.critical)}
	p.codes = codesOf(s.profile)
	if s.writable != nil {
		p.writable = *s.writable
	}
	for i := range p.rules {
		one := &p.rules[i]
		if one.critical {
			one.tables = p.critical
		}
		if one.throttle != nil {
			one.throttle.limit.Rule, one.throttle.limit.Key = one.name, one.name
			one.throttle.limit.Refusal = throttleRefusal(one)
		}
	}
	all := func(*rule) bool { return true }
	p.index = newRuleIndex(p.rules, true, true, all)
	p.byTable = newRuleIndex(p.rules, true, false, all)
	p.atBegin = newRuleIndex(p.rules, false, true, func(r *rule) bool { return r.throttle != nil })
	for i := range p.rules {
		if p.rules[i].ddl != nil {
			p.ddlRules = append(p.ddlRules, i)
		}
	}
	return p
}
