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
	name := rel.Name
	if rel.Schema != "" {
		name = rel.Schema + "." + name
	}
	if rel.Via != "" {
		return quoted(name) + " (through " + quotedPlain(rel.Via) + ")"
	}
	return quoted(name)
}

// quotedPlain is quoted without the quotes.
func quotedPlain(words string) string { return strings.Trim(quoted(words), `"`) }

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
		return "this text"
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

// boundWords says, as the end of a sentence, why every row may be changed; ""
// when the bound does not say so.
func boundWords(s *inspect.Statement, rel *inspect.Relation) string {
	switch {
	case rel == nil:
		return ""
	case rel.Access&inspect.AccessTruncate != 0:
		return "removes every row"
	case rel.Bound == inspect.BoundNone && (s.Kind == inspect.KindMerge || s.Kind == inspect.KindInsert):
		return "has nothing that limits the rows it changes"
	case rel.Bound == inspect.BoundNone:
		return "has no WHERE clause"
	case rel.Bound == inspect.BoundVacuous:
		return "has a condition that is true for every row"
	default:
		return ""
	}
}

// ruleRefusal is what a rule says to who it refuses.
func (p *Policy) ruleRefusal(r *rule, s *inspect.Statement, rel *inspect.Relation) *Refusal {
	message := "refused by rule " + quoted(r.name)
	if r.reason != "" {
		message += " (" + strings.TrimRight(r.reason, ". ") + ")"
	}
	message += ": " + deed(s, rel)
	if why := boundWords(s, rel); why != "" && r.bounds != 0 {
		message += " " + why
	}
	return &Refusal{SQLSTATE: p.codes.rule, Message: message, Detail: r.detail(s, rel), Hint: r.hint(rel)}
}

// detail names the rule and what was seen.
func (r *rule) detail(s *inspect.Statement, rel *inspect.Relation) string {
	seen := []string{"class " + s.Class.String()}
	if s.Kind != "" {
		seen = append(seen, "kind "+string(s.Kind))
	}
	if rel != nil {
		table := "table " + tableName(rel) + sizeWords(rel.Size)
		if r.critical {
			table = "critical " + table
		}
		seen = append(seen, table, "access "+strings.ReplaceAll(orElse(rel.Access.String(), "none"), ", ", " and "))
		if b := rel.Bound.String(); b != "" {
			seen = append(seen, "bound "+b)
		}
	}
	return "Rule " + quoted(r.name) + " matched: " + strings.Join(seen, ", ") + "."
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

// unknownRefusal is said where unknown: refuses a statement or a text. why is
// what inspect says; critical is whether the name of a critical table is the
// reason.
func (p *Policy) unknownRefusal(s *inspect.Statement, why string, critical bool) *Refusal {
	r := &Refusal{
		SQLSTATE: p.codes.rule,
		Message:  "refused: nobody can tell what " + deed(s, nil) + " would do",
		Detail:   "Not classified: " + sentence(orElse(why, "it runs what its text does not show")),
		Hint:     "Send simpler statements, one at a time, or ask lockkeeper's operator for an exception.",
	}
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

// sentence ends text in a period.
func sentence(text string) string { return strings.TrimRight(text, ". ") + "." }

// because is how the messages of containments begin: "read-only (incident 42)".
func (c *Containment) because(what string) string {
	return what + " (" + orElse(c.Reason, "no reason given") + ")"
}

// readOnlyRefusal is said to a statement that may change something while c is
// in force. why is a sentence.
func (p *Policy) readOnlyRefusal(c *Containment, what, why string) *Refusal {
	return &Refusal{
		SQLSTATE: p.codes.readOnly,
		Message:  c.because("read-only") + ": " + what + " refused",
		Detail:   why + " " + c.origin(),
		Hint:     "Reading works. " + c.end(),
	}
}

// mixedRefusal is said to a text that a read-only server could not follow.
func (p *Policy) mixedRefusal(c *Containment) *Refusal {
	r := p.readOnlyRefusal(c, "text of several statements with transaction control", "In such a text changes could escape the read-only transaction.")
	r.Hint = "Send BEGIN, the statements and COMMIT separately. " + c.end()
	return r
}

// blockRefusal is said to a DO or CALL that a rule lets run in read-only, outside
// a transaction block.
func (p *Policy) blockRefusal(c *Containment, by *rule, what string) *Refusal {
	r := p.readOnlyRefusal(c, what, "Rule "+quoted(by.name)+" lets it run in a transaction block only: outside one it could commit, and write in its next transaction.")
	r.Hint = "Send BEGIN before it and COMMIT behind it. " + c.end()
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
		Message:  c.because("read-only") + ": the server refused a change",
		Detail:   "The transaction is read-only in the server. " + c.origin(),
		Hint:     "Reading works. " + c.end(),
	}
}

// CommitRefusal is what the client receives in place of a COMMIT of a
// transaction that began before c and has written, where Obligations.GateCommit
// was set.
func (s *Snapshot) CommitRefusal(c *Containment) *Refusal {
	return &Refusal{
		SQLSTATE: s.codes().readOnly,
		Message:  c.because("read-only") + ": COMMIT refused, the transaction is rolled back",
		Detail:   "The transaction began before read-only and has written. " + c.origin(),
		Hint:     "Nothing of the transaction was kept. " + c.end(),
	}
}

// OpaqueCommitRefusal is CommitRefusal for a transaction that was READ ONLY and
// has a transaction id all the same, for it has run a DO or CALL that a rule let
// run.
func (s *Snapshot) OpaqueCommitRefusal(c *Containment) *Refusal {
	r := s.CommitRefusal(c)
	r.Detail = "A DO or CALL in it has done something that PostgreSQL lets through in a READ ONLY transaction, and that commits. " + c.origin()
	return r
}

func (s *Snapshot) codes() codes {
	if s == nil || s.Policy == nil {
		return codesOf(ProfilePostgres)
	}
	return s.Policy.codes
}

// freezeRefusal is said to DDL while c is in force. why is a sentence.
func (p *Policy) freezeRefusal(c *Containment, what, why string) *Refusal {
	return &Refusal{
		SQLSTATE: p.codes.rule,
		Message:  c.because("DDL is frozen") + ": " + what + " refused",
		Detail:   why + " " + c.origin(),
		Hint:     "Reading and writing rows works. " + c.end(),
	}
}

// pauseRefusal is said to a new transaction while c is in force: at once, or
// when holding it has taken too long.
func pauseRefusal(c *Containment) *Refusal {
	if c.Refuse {
		return &Refusal{
			SQLSTATE: sqlstate.CannotConnectNow,
			Message:  c.because("paused") + ": new transactions are refused",
			Detail:   c.origin(),
			Hint:     c.end(),
		}
	}
	return &Refusal{
		SQLSTATE: sqlstate.LockNotAvailable,
		Message:  c.because("paused") + ": the new transaction waited for too long",
		Detail:   "It waited for " + shortDuration(c.maxHold()) + ". " + c.origin(),
		Hint:     "Try again. " + c.end(),
	}
}

func noPolicyRefusal() *Refusal {
	return &Refusal{
		SQLSTATE: sqlstate.CannotConnectNow,
		Message:  "lockkeeper has no policy yet",
		Detail:   "No statement passes before a policy is in force.",
		Hint:     "Try again in a moment; if it lasts, ask lockkeeper's operator.",
	}
}

// costlyRefusal is for text that no server should have to read.
func costlyRefusal(why string) *Refusal {
	return &Refusal{
		SQLSTATE: sqlstate.StatementTooComplex,
		Message:  "refused: reading this text would keep the server busy",
		Detail:   "The text has " + why + ".",
		Hint:     "Take the comments out; if the text is meant to be so, ask lockkeeper's operator to raise limits.comment_nesting.",
	}
}

// title names the containment at the beginning of a sentence.
func (c *Containment) title() string {
	switch c.Kind {
	case ReadOnlyMode:
		return "Read-only"
	case FreezeDDL:
		return "The DDL freeze"
	case Pause:
		return "The pause"
	case ObserveMode:
		return "Observe mode"
	case Disable:
		return "The refusal of new connections"
	}
	return "The containment"
}

// origin says who set the containment, and when.
func (c *Containment) origin() string {
	title := c.title()
	if c.ID != "" {
		title += " " + quoted(c.ID)
	}
	return title + " was set by " + orElse(c.Author, "somebody unknown") + " at " + moment(c.Since) + "."
}

// end says when the containment ends.
func (c *Containment) end() string {
	if c.Until.IsZero() {
		return c.title() + " lasts until the operator lifts it."
	}
	return c.title() + " ends at " + moment(c.Until) + "."
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
