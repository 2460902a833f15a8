package policy

// Check is one thing that lockkeeper looks at, by the name that appears in
// refusals, metrics and the journal, and as the page of the same name in
// docs/checks.
type Check struct {
	Name string
	Doc  string // one sentence

	reserved bool // built in: no rule may have the name
}

// The names of what decides besides the rules of a policy: Decision.Rule.
const (
	CheckReadOnly    = "read-only"
	CheckFreeze      = "freeze"
	CheckPause       = "pause"
	CheckUnknownText = "unknown-text"
	CheckNoPolicy    = "no-policy"
	CheckCostlyText  = "costly-text"
)

var checks = [...]Check{
	{"critical-rename", "ALTER TABLE … RENAME TO would take a critical table out of every rule's sight.", false},
	{"unbounded-write", "UPDATE, DELETE, MERGE and TRUNCATE that would change every row of a critical table.", false},
	{"ddl-timeouts", "DDL that waits for a strong lock, or holds it, for too long.", false},
	{"throttle", "Statements or rows that come faster than a rule allows.", false},
	{CheckUnknownText, "Text that could not be classified.", true},
	{CheckCostlyText, "Text that would keep the server's lexer busy for seconds or hours.", true},
	{CheckReadOnly, "Changes while a database is read-only.", true},
	{CheckFreeze, "DDL while DDL is frozen.", true},
	{CheckPause, "New transactions while their sender is paused.", true},
	{CheckNoPolicy, "Statements before a policy is in force.", true},
}

// Checks returns everything that lockkeeper looks at.
func Checks() []Check { return append([]Check{}, checks[:]...) }
