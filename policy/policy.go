// Package policy turns facts and a subject into a decision; no I/O, no clock, no goroutine.
package policy

import "slices"

// The profiles. A profile chooses SQLSTATEs, built-in recognisers of subjects
// and the default policy.
const (
	ProfileOdoo     = "odoo"
	ProfilePostgres = "postgres"
)

// unknownText says what becomes of text that could not be classified.
type unknownText string

// The treatments of text that could not be classified.
const (
	carefulUnknown unknownText = "careful" // let through unless the name of a critical table occurs in it
	refuseUnknown  unknownText = "refuse"
	allowUnknown   unknownText = "allow"
)

// Policy is a configuration made runnable. What it decides is settled after
// Parse; it may be used by any number of goroutines.
type Policy struct {
	profile  string
	codes    codes
	critical *tableSet
	unknown  unknownText
	tags     []tagRule
	rules    []rule   // in the order of the file
	writable []string // tables that may be written during read-only, where the operator does not say

	index    *ruleIndex
	byTable  *ruleIndex // the same rules, whoever asks
	atBegin  *ruleIndex // rules with a throttle, by subject
	ddlRules []int      // rules with ddl

	opinions opinions // what was found out about batches: the one thing that changes
}

// Profile returns the name of the policy's profile.
func (p *Policy) Profile() string { return p.profile }

// Critical reports whether the table is one of the critical tables. schema is
// "" where the text did not qualify the name.
func (p *Policy) Critical(schema, name string) bool { return p.critical.matches(schema, name) }

// CriticalTables returns the critical tables as configured, patterns too.
func (p *Policy) CriticalTables() []string { return slices.Clone(p.critical.written) }

// RuleInfo describes one rule to people and metrics.
type RuleInfo struct {
	Name    string `json:"name"`
	Doc     string `json:"doc,omitempty"`
	Enforce bool   `json:"enforce"`
	Effect  string `json:"effect"` // in words
}

// Rules returns the rules in their order.
func (p *Policy) Rules() []RuleInfo {
	out := make([]RuleInfo, len(p.rules))
	for i := range p.rules {
		r := &p.rules[i]
		out[i] = RuleInfo{Name: r.name, Doc: r.doc, Enforce: r.enforce, Effect: r.effect()}
	}
	return out
}

// Tags returns the tags, sorted and without duplicates, that a subject has
// because of who it is: the profile's and the policy's own.
func (p *Policy) Tags(s *Subject) []string {
	var out []string
	for i := range p.tags {
		if t := &p.tags[i]; t.match.matches(s) {
			out = append(out, t.tag)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Warnings returns what is allowed and yet probably not meant, for people who
// check a policy.
func (p *Policy) Warnings() []string {
	var out []string
	for i := range p.rules {
		if r := &p.rules[i]; r.critical && p.critical.empty() {
			out = append(out, "rule "+r.name+" is about critical tables and there are none: it matches nothing")
		}
	}
	if !p.critical.empty() && !p.guardsCritical() {
		out = append(out, "no enforced rule refuses unbounded writes on the critical tables")
	}
	return out
}

// guardsCritical reports whether a rule refuses writes on critical tables,
// whoever sends them.
func (p *Policy) guardsCritical() bool {
	for i := range p.rules {
		if r := &p.rules[i]; r.enforce && r.critical && r.action >= refuseIt && r.subject.empty() {
			return true
		}
	}
	return false
}
