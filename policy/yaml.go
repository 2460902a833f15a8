package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// maxProblems is how many mistakes of one file are reported; who has made
// more is helped better by a second run.
const maxProblems = 20

// problem is one mistake in a policy.
type problem struct {
	line int
	text string
}

// reader reads a tree of YAML nodes strictly and collects the mistakes.
type reader struct {
	file     string
	problems []problem
}

func (r *reader) complain(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, problem{n.Line, fmt.Sprintf(format, args...)})
}

// err returns all mistakes in the order of their lines; nil when there are
// none.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, p := range r.problems {
		if i == maxProblems {
			errs = append(errs, fmt.Errorf("%s: and %d more", r.file, len(r.problems)-i))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s", r.file, p.line, p.text))
	}
	return errors.Join(errs...)
}

// load parses data into its one document's root; nil when it cannot be read.
func (r *reader) load(data []byte) *yaml.Node {
	if len(data) > maxPolicyBytes {
		r.problems = append(r.problems, problem{1, fmt.Sprintf("the policy is longer than %d bytes: make it shorter", maxPolicyBytes)})
		return nil
	}
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		p := syntaxProblem(err)
		p.line = min(p.line, 1+bytes.Count(data, []byte("\n"))) // what is missing at the end is said of the last line
		r.problems = append(r.problems, p)
		return nil
	}
	if len(doc.Content) != 1 {
		r.problems = append(r.problems, problem{1, "the policy is empty: write at least profile: odoo or profile: postgres"})
		return nil
	}
	return doc.Content[0]
}

func syntaxProblem(err error) problem {
	if e, ok := errors.AsType[*yaml.LoadErrors](err); ok && len(e.Errors) > 0 {
		text := strings.TrimPrefix(e.Errors[0].Message, "yaml: ")
		return problem{max(e.Errors[0].Mark.Line, 1), text + ": write one YAML document"}
	}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		return problem{max(e.Mark.Line, 1), "this is not YAML: " + e.Message}
	}
	return problem{1, "this is not YAML: " + err.Error()}
}

// field reads the value of one key.
type field struct {
	key  string
	read func(*yaml.Node)
}

// later are the keys of versions to come. They are refused by name: a limit
// that is written down and not in force would be worse than none.
var later = [...]string{"budget", "on_exceed", "park", "only_in_window", "max_wait"}

// mapping reads a mapping with the given fields only. what names it in
// mistakes. It returns false when n is no mapping.
func (r *reader) mapping(n *yaml.Node, what string, fields []field) bool {
	if n.Kind != yaml.MappingNode {
		r.complain(n, "%s must be a mapping of keys to values, not %s", what, describeNode(n))
		return false
	}
	seen := make(map[string]int, len(fields))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, dup := seen[key.Value]; dup {
			r.complain(key, "%q is written twice in %s, first in line %d: remove one", key.Value, what, line)
			continue
		}
		seen[key.Value] = key.Line
		r.value(key, value, what, fields)
	}
	return true
}

func (r *reader) value(key, value *yaml.Node, what string, fields []field) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
	switch {
	case i < 0 && slices.Contains(later[:], key.Value):
		r.complain(key, "%q in %s is not supported by this version of lockkeeper: remove it", key.Value, what)
	case i < 0:
		r.complain(key, "unknown key %q in %s: it may have %s", key.Value, what, keysOf(fields))
	case value.Kind == yaml.AliasNode || value.Anchor != "":
		r.complain(value, "%s: anchors and aliases are not supported: write the value out", key.Value)
	case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
		r.complain(key, "%q has no value: write one or remove the key", key.Value)
	default:
		fields[i].read(value)
	}
}

func keysOf(fields []field) string {
	keys := make([]string, len(fields))
	for i := range fields {
		keys[i] = fields[i].key
	}
	return strings.Join(keys, ", ")
}

func describeNode(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode, yaml.DocumentNode, yaml.StreamNode:
		return strconv.Quote(n.Value)
	}
	return strconv.Quote(n.Value)
}

// items returns the elements of a list.
func (r *reader) items(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.complain(n, "%s must be a list, as in [a, b], not %s", what, describeNode(n))
		return nil
	}
	return n.Content
}

// text reads a non-empty string.
func (r *reader) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "" || n.Anchor != "" {
		r.complain(n, "%s must be text, not %s: put it in quotes", what, describeNode(n))
		return "", false
	}
	return n.Value, true
}

// texts reads a list of non-empty strings.
func (r *reader) texts(n *yaml.Node, what string) []string {
	out := []string{}
	for _, item := range r.items(n, what) {
		if s, ok := r.text(item, what); ok {
			out = append(out, s)
		}
	}
	return out
}

// someTexts is texts of a list that must not be empty: in a match it would
// match nothing and look as if it matched everything.
func (r *reader) someTexts(n *yaml.Node, what string) []string {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.complain(n, "%s is an empty list: name at least one or remove the key", what)
	}
	return r.texts(n, what)
}

// oneOf reads a word out of a closed set.
func (r *reader) oneOf(n *yaml.Node, what string, words ...string) string {
	s, ok := r.text(n, what)
	if ok && !slices.Contains(words, s) {
		r.complain(n, "%s %q: write one of %s", what, s, strings.Join(words, ", "))
		return ""
	}
	return s
}

// boolean reads true or false.
func (r *reader) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		r.complain(n, "%s must be true or false, not %s", what, describeNode(n))
	}
	return strings.EqualFold(n.Value, "true")
}

// rate reads a positive number.
func (r *reader) rate(n *yaml.Node, what string) float64 {
	if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") {
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil && v > 0 && v <= maxRate {
			return v
		}
	}
	r.complain(n, "%s must be a number above 0 and at most %g, not %s", what, float64(maxRate), describeNode(n))
	return 0
}

// duration reads a time with a unit, PostgreSQL's (ms, s, min, h, d) or Go's.
func (r *reader) duration(n *yaml.Node, what string, most time.Duration) time.Duration {
	if n.Kind == yaml.ScalarNode {
		if d, ok := parseDuration(n.Value); ok && d >= time.Millisecond && d <= most {
			return d
		}
	}
	r.complain(n, "%s must be a time with a unit, from 1ms to %s, as in 500ms, 5s, 15min or 1h, not %s",
		what, shortDuration(most), describeNode(n))
	return 0
}

// parseDuration reads what PostgreSQL and time.ParseDuration read, the unit
// being required.
func parseDuration(s string) (time.Duration, bool) {
	s = strings.ReplaceAll(s, " ", "")
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 10)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	if s == "0" {
		return 0, false
	}
	d, err := time.ParseDuration(strings.ReplaceAll(s, "min", "m"))
	return d, err == nil
}

// shortDuration writes 15m0s as 15m and 1h0m0s as 1h.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
