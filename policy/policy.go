// Package policy turns facts and a subject into a decision; no I/O, no clock, no goroutine.
package policy

// The profiles. A profile chooses SQLSTATEs, built-in recognisers of subjects
// and the default policy.
const (
	ProfileOdoo     = "odoo"
	ProfilePostgres = "postgres"
)

// Policy is a configuration made runnable. It is immutable after Parse and may
// be used by any number of goroutines.
type Policy struct {
	profile  string
	critical tableSet
	names    []string // critical tables as configured
}

// Profile returns the name of the policy's profile.
func (p *Policy) Profile() string { return p.profile }

// Critical reports whether the table is one of the critical tables. schema is
// "" where the text did not qualify the name.
func (p *Policy) Critical(schema, name string) bool { return p.critical.matches(schema, name) }

// CriticalTables returns the critical tables as configured; callers must not
// change it.
func (p *Policy) CriticalTables() []string { return p.names }

// Tags returns the tags, sorted, that a subject has because of who it is.
func (p *Policy) Tags(s *Subject) []string { return nil }
