package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/sqlstate"
)

// codes are the SQLSTATEs of one profile, chosen for what the client does
// with them.
type codes struct {
	rule     string // a rule refused
	readOnly string
}

func codesOf(profile string) codes {
	if profile == ProfileOdoo {
		return codes{rule: sqlstate.OdooRuleRefused, readOnly: sqlstate.OdooReadOnly}
	}
	return codes{rule: sqlstate.InsufficientPrivilege, readOnly: sqlstate.ReadOnlySQLTransaction}
}

// maxShownBytes is how much of a name from a statement's text is shown.
const maxShownBytes = 128

// quoted writes a name as PostgreSQL does in its messages.
func quoted(name string) string {
	if len(name) > maxShownBytes {
		name = strings.ToValidUTF8(name[:maxShownBytes], "") + "…"
	}
	return `"` + name + `"`
}

func tableName(rel *inspect.Relation) string {
	if rel.Schema == "" {
		return quoted(rel.Name)
	}
	return quoted(rel.Schema + "." + rel.Name)
}

// writeWord names the most dangerous of the accesses that change rows; ""
// when there is none.
func writeWord(a inspect.Access) string {
	switch {
	case a&inspect.AccessTruncate != 0:
		return "TRUNCATE"
	case a&inspect.AccessDelete != 0:
		return "DELETE"
	case a&inspect.AccessUpdate != 0:
		return "UPDATE"
	case a&inspect.AccessInsert != 0:
		return "INSERT"
	default:
		return ""
	}
}

// deed says what a statement does to a relation: "UPDATE on table "x"",
// "DELETE inside EXPLAIN on table "x"". rel may be nil.
func deed(s *inspect.Statement, rel *inspect.Relation) string {
	kind := string(s.Kind)
	if kind == "" {
		return "a statement that could not be classified"
	}
	if rel == nil {
		return kind
	}
	return deedWord(s, rel) + " on table " + tableName(rel)
}

func deedWord(s *inspect.Statement, rel *inspect.Relation) string {
	kind, word := string(s.Kind), writeWord(rel.Access)
	switch {
	case word == "" || strings.HasPrefix(kind, word) || s.Kind == inspect.KindMerge || s.Kind == inspect.KindCopyFrom:
		return kind
	case s.Kind == inspect.KindInsert && word == "UPDATE":
		return "INSERT … ON CONFLICT DO UPDATE"
	default:
		return word + " inside " + kind
	}
}

// worst returns the relation that a statement is named after in messages: the
// first written one, or the first that it defines; nil when there is none.
func worst(s *inspect.Statement) *inspect.Relation {
	for _, a := range [...]inspect.Access{inspect.AccessWrite, inspect.AccessDefine, inspect.AccessLockRows} {
		for i := range s.Relations {
			if s.Relations[i].Access&a != 0 {
				return &s.Relations[i]
			}
		}
	}
	return nil
}

// boundWords says why every row may be changed; "" when the bound does not
// say so.
func boundWords(s *inspect.Statement, rel *inspect.Relation) string {
	switch {
	case rel == nil:
		return ""
	case rel.Access&inspect.AccessTruncate != 0:
		return "it removes every row"
	case rel.Bound == inspect.BoundNone && s.Kind == inspect.KindMerge:
		return "nothing limits the rows"
	case rel.Bound == inspect.BoundNone:
		return "it has no WHERE clause"
	case rel.Bound == inspect.BoundVacuous:
		return "its condition is true for every row"
	default:
		return ""
	}
}

// ruleRefusal is what a rule says to who it refuses.
func (p *Policy) ruleRefusal(r *rule, s *inspect.Statement, rel *inspect.Relation) *Refusal {
	message := deed(s, rel) + " is refused by rule " + quoted(r.name)
	if why := boundWords(s, rel); why != "" && r.bounds != 0 {
		message = deed(s, rel) + " is refused, for " + why
	}
	return &Refusal{
		SQLSTATE: p.codes.rule,
		Message:  message,
		Detail:   r.detail(s, rel),
		Hint:     r.hint(rel),
	}
}

// detail names the rule and what was seen.
func (r *rule) detail(s *inspect.Statement, rel *inspect.Relation) string {
	seen := "class " + s.Class.String()
	if rel != nil && rel.Access != 0 {
		seen += ", " + rel.Access.String() + " on " + tableName(rel)
		if r.critical {
			seen += " (critical)"
		}
		if b := rel.Bound.String(); b != "" {
			seen += ", bound " + b
		}
	}
	detail := "Rule " + quoted(r.name) + " saw " + seen + "."
	if r.reason != "" {
		detail += " Reason: " + sentence(r.reason)
	}
	return detail
}

func (r *rule) hint(rel *inspect.Relation) string {
	const ask = "ask lockkeeper's operator for an exception to the rule."
	switch {
	case r.action == disconnectIt:
		return "The session is closed; " + ask
	case r.bounds == 0 || rel == nil:
		return "If it is meant, " + ask
	case rel.Access&inspect.AccessTruncate != 0:
		return "Use DELETE with a WHERE clause that names the rows; if every row is meant, " + ask
	default:
		return "Add a condition that limits the rows, as in WHERE id IN (...); if every row is meant, " + ask
	}
}

// sentence ends text in a period.
func sentence(text string) string { return strings.TrimRight(text, ". ") + "." }

// throttleRefusal is said when a throttled statement has waited for long
// enough.
func throttleRefusal(r *rule) *Refusal {
	l := &r.throttle.limit
	return &Refusal{
		SQLSTATE: sqlstate.LockNotAvailable,
		Message:  "too fast: rule " + quoted(r.name) + " allows " + paceOf(l),
		Detail: fmt.Sprintf("Rule %s counts by %s; the statement waited for %s.",
			quoted(r.name), r.throttle.by, shortDuration(l.MaxWait)),
		Hint: "Try again in a moment, with fewer rows or pauses in between.",
	}
}

func paceOf(t *Throttle) string {
	var parts []string
	if t.RowsPerSecond > 0 {
		parts = append(parts, number(t.RowsPerSecond)+" rows per second")
	}
	if t.StatementsPerSecond > 0 {
		parts = append(parts, number(t.StatementsPerSecond)+" statements per second")
	}
	return strings.Join(parts, " and ")
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// unknownRefusal is said where unknown: refuses a text. why is what inspect
// says; critical is whether the name of a critical table is the reason.
func (p *Policy) unknownRefusal(s *inspect.Statement, why string, critical bool) *Refusal {
	r := &Refusal{
		SQLSTATE: p.codes.rule,
		Message:  deed(s, nil) + " is refused, for it cannot be told what it would do",
		Hint:     "Send simpler statements, one at a time, or ask lockkeeper's operator for an exception.",
	}
	r.Detail = "Not classified: " + sentence(orElse(why, "nobody can see what it runs"))
	if critical {
		r.Detail += " The name of a critical table may occur in it."
	}
	switch {
	case strings.HasPrefix(why, inspect.ReasonTooLong):
		r.SQLSTATE = sqlstate.ProgramLimitExceeded
	case strings.HasPrefix(why, inspect.ReasonBusy):
		r.SQLSTATE = sqlstate.LockNotAvailable
		r.Hint = "Try again in a moment."
	}
	return r
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// readOnlyRefusal is said to a statement that may change something while c is
// in force. why is a clause, as in "it is a write".
func (p *Policy) readOnlyRefusal(c *Containment, what, why string) *Refusal {
	return &Refusal{
		SQLSTATE: p.codes.readOnly,
		Message:  "read-only (" + orElse(c.Reason, "no reason given") + "): " + what + " is refused",
		Detail:   c.detail() + " The statement is refused, for " + why + ".",
		Hint:     "Reading works. " + c.end(),
	}
}

// mixedRefusal is said to a text that a read-only server could not follow.
func (p *Policy) mixedRefusal(c *Containment) *Refusal {
	r := p.readOnlyRefusal(c, "a text of several statements with transaction control in it",
		"in such a text changes could escape the read-only transaction")
	r.Hint = "Send BEGIN, the statements and COMMIT separately. " + c.end()
	return r
}

// ServerReadOnlyRefusal is what the client receives in place of the server's
// own 25006 where the transaction is read-only because of c. c is nil when it
// was lifted in the meantime.
func (s *Snapshot) ServerReadOnlyRefusal(c *Containment) *Refusal {
	if c == nil {
		return &Refusal{
			SQLSTATE: s.codes().readOnly,
			Message:  "read-only: the transaction began while read-only was in force",
			Detail:   "Read-only has been lifted since.",
			Hint:     "Run the transaction again.",
		}
	}
	return &Refusal{
		SQLSTATE: s.codes().readOnly,
		Message:  "read-only (" + orElse(c.Reason, "no reason given") + "): the server refused a change",
		Detail:   c.detail() + " The transaction is read-only in the server.",
		Hint:     "Reading works. " + c.end(),
	}
}

// CommitRefusal is what the client receives in place of a COMMIT of a
// transaction that began before c and has written, where Obligations.GateCommit
// was set.
func (s *Snapshot) CommitRefusal(c *Containment) *Refusal {
	return &Refusal{
		SQLSTATE: s.codes().readOnly,
		Message:  "read-only (" + orElse(c.Reason, "no reason given") + "): COMMIT is refused and the transaction is rolled back",
		Detail:   c.detail() + " The transaction began before and has written.",
		Hint:     "Nothing of the transaction was kept. " + c.end(),
	}
}

func (s *Snapshot) codes() codes {
	if s == nil || s.Policy == nil {
		return codesOf(ProfilePostgres)
	}
	return s.Policy.codes
}

// freezeRefusal is said to DDL while c is in force.
func (p *Policy) freezeRefusal(c *Containment, what, why string) *Refusal {
	return &Refusal{
		SQLSTATE: p.codes.rule,
		Message:  "DDL is frozen (" + orElse(c.Reason, "no reason given") + "): " + what + " is refused",
		Detail:   c.detail() + " The statement is refused, for " + why + ".",
		Hint:     "Reading and writing rows works. " + c.end(),
	}
}

// pauseRefusal is said to a new transaction while c is in force: at once, or
// when holding it has taken too long.
func pauseRefusal(c *Containment) *Refusal {
	r := &Refusal{
		SQLSTATE: sqlstate.CannotConnectNow,
		Message:  "paused (" + orElse(c.Reason, "no reason given") + "): new transactions are refused",
		Detail:   c.detail(),
		Hint:     c.end(),
	}
	if !c.Refuse {
		r.SQLSTATE = sqlstate.LockNotAvailable
		r.Message = "paused (" + orElse(c.Reason, "no reason given") + "): the new transaction waited for too long"
		r.Detail += " It waited for " + shortDuration(c.maxHold()) + "."
	}
	return r
}

func noPolicyRefusal() *Refusal {
	return &Refusal{
		SQLSTATE: sqlstate.CannotConnectNow,
		Message:  "lockkeeper has no policy yet",
		Detail:   "No statement passes before a policy is in force.",
		Hint:     "Try again in a moment; if it lasts, ask lockkeeper's operator.",
	}
}

// detail names the containment, its author and its age.
func (c *Containment) detail() string {
	name := string(c.Kind)
	if c.ID != "" {
		name += " " + quoted(c.ID)
	}
	return fmt.Sprintf("Containment %s by %s since %s.", name, orElse(c.Author, "unknown"), moment(c.Since))
}

// end says when the containment ends.
func (c *Containment) end() string {
	what := string(c.Kind)
	if what != "" {
		what = strings.ToUpper(what[:1]) + what[1:]
	}
	if c.Until.IsZero() {
		return what + " lasts until the operator lifts it."
	}
	return what + " ends at " + moment(c.Until) + "."
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
