package policy

import (
	"fmt"
	"strings"

	"lockkeeper/inspect"
)

// Explanation says what would become of a request, and why.
type Explanation struct {
	Profile string  `json:"profile"`
	Subject Subject `json:"subject"`

	Statements   []ExplainedStatement `json:"statements"`
	Unclassified string               `json:"unclassified,omitempty"` // why the text was not classified
	Names        string               `json:"names,omitempty"`        // from where it is known what names stand for; "" where nobody looked them up

	Steps []Step `json:"steps"` // in the order in which they are asked

	Verdict     string                 `json:"verdict"`
	Rule        string                 `json:"rule,omitempty"` // what settled it; "" when nothing matched
	Refusal     *Refusal               `json:"refusal,omitempty"`
	Obligations []string               `json:"obligations,omitempty"` // in words
	Observed    []ExplainedObservation `json:"observed,omitempty"`
}

// ExplainedStatement is what is known about one statement.
type ExplainedStatement struct {
	Kind  string   `json:"kind"`
	Class string   `json:"class"`
	Facts []string `json:"facts,omitempty"` // in words
}

// Step is one containment or rule that was asked.
type Step struct {
	Name    string `json:"name"`
	What    string `json:"what"` // containment, rule, rule in observe mode, built-in
	Matched bool   `json:"matched"`
	Effect  string `json:"effect"`        // what it does where it matches
	Why     string `json:"why,omitempty"` // what it matched, or why it did not
}

// ExplainedObservation is what a rule in observe mode would have done.
type ExplainedObservation struct {
	Rule    string   `json:"rule"`
	Refusal *Refusal `json:"refusal,omitempty"`
}

// Explain decides as Decide does and says why.
func (s *Snapshot) Explain(r *Request) Explanation {
	d := s.Decide(r)
	e := Explanation{Subject: *r.Subject, Verdict: d.Verdict.String(), Rule: d.Rule, Refusal: d.Refusal, Unclassified: r.Batch.Why}
	for i := range d.Observed {
		e.Observed = append(e.Observed, ExplainedObservation(d.Observed[i]))
	}
	for i := range r.Batch.Statements {
		e.Statements = append(e.Statements, explainStatement(&r.Batch.Statements[i]))
	}
	if s == nil || s.Policy == nil {
		return e
	}
	e.Profile = s.Policy.profile
	if d.Verdict == Allow {
		e.Obligations = d.Obligations.words()
	}
	for i := range s.Containments {
		e.Steps = append(e.Steps, s.explainContainment(&s.Containments[i], r))
	}
	for i := range s.Policy.rules {
		e.Steps = append(e.Steps, s.Policy.rules[i].explain(r))
	}
	if r.Batch.Class == inspect.Unknown || r.Batch.Why != "" {
		e.Steps = append(e.Steps, s.Policy.explainUnknown(r.Batch))
	}
	return e
}

func explainStatement(s *inspect.Statement) ExplainedStatement {
	e := ExplainedStatement{Kind: string(s.Kind), Class: s.Class.String()}
	for i := range s.Relations {
		e.Facts = append(e.Facts, relationFact(&s.Relations[i]))
	}
	hidden := s.Hidden
	for i := range s.Calls {
		if fact := callFact(&s.Calls[i]); fact != "" {
			e.Facts = append(e.Facts, fact)
			hidden &^= inspect.HiddenFunction // that is said
		}
	}
	for _, h := range hiddenWords {
		if hidden&h.bit != 0 {
			e.Facts = append(e.Facts, h.words)
		}
	}
	if s.Concurrently {
		e.Facts = append(e.Facts, "CONCURRENTLY: waits by design, gets no timeouts")
	}
	if s.NoBlock {
		e.Facts = append(e.Facts, "cannot run in a transaction block")
	}
	if s.Why != "" {
		e.Facts = append(e.Facts, "not classified: "+s.Why)
	}
	return e
}

func relationFact(rel *inspect.Relation) string {
	fact := "table " + tableName(rel) + sizeWords(rel.Size)
	if a := rel.Access.String(); a != "" {
		fact += ": " + a
	}
	if rel.Bound != inspect.NotApplicable {
		fact += ", bound " + rel.Bound.String()
	}
	if rel.Rows > 0 {
		fact += fmt.Sprintf(" (at most %d rows)", rel.Rows)
	}
	if rel.Lock != inspect.NoLock {
		fact += ", lock " + rel.Lock.String()
	}
	if rel.Rewrite {
		fact += ", rewrites the table"
	}
	return fact
}

// callFact says what is known of a call; "" of one that nobody need ask about.
func callFact(c *inspect.Call) string {
	name := c.Name
	if c.Schema != "" {
		name = c.Schema + "." + name
	}
	fact := "calls " + quoted(name)
	if c.Via != "" {
		fact += " (through " + quotedPlain(c.Via) + ")"
	}
	switch c.Effect {
	case inspect.CallUnknown:
		fact += ": not known to be harmless"
	case inspect.CallMissing:
		fact += ": the catalog has no function of that name"
	case inspect.CallVolatile:
		fact += ": VOLATILE, it may write"
	case inspect.CallStable:
		fact += ": STABLE or IMMUTABLE"
	case inspect.CallBuiltIn:
		return ""
	}
	if c.More == nil {
		return fact
	}
	fact += ", LANGUAGE " + c.More.Language
	if c.More.Definer {
		fact += ", SECURITY DEFINER"
	}
	for _, name := range c.More.Settings {
		fact += ", SET " + name
	}
	return fact
}

var hiddenWords = [...]struct {
	bit   inspect.Hidden
	words string
}{
	{inspect.HiddenCTEWrite, "a WITH clause changes rows"},
	{inspect.HiddenExplain, "EXPLAIN ANALYZE runs the statement"},
	{inspect.HiddenPrepared, "runs, or will run, a prepared statement"},
	{inspect.HiddenCursor, "a cursor runs the query"},
	{inspect.HiddenCopyQuery, "COPY runs a query"},
	{inspect.HiddenCreateAs, "a query fills the new table"},
	{inspect.HiddenBlock, "runs a block of code"},
	{inspect.HiddenCall, "calls a procedure"},
	{inspect.HiddenFunction, "calls a function that is not known to be harmless"},
	{inspect.HiddenRowLock, "locks rows"},
	{inspect.HiddenServerSide, "has effects that a read-only transaction does not stop"},
	{inspect.HiddenSettings, "may change settings"},
	{inspect.HiddenTrigger, "triggers run that are not the server's own"},
}

func (s *Snapshot) explainContainment(c *Containment, r *Request) Step {
	step := Step{Name: string(c.Kind), What: "containment", Effect: c.effect()}
	if c.ID != "" {
		step.Name += " " + c.ID
	}
	switch {
	case !c.Active(r.Now):
		step.Why = "it ended at " + moment(c.Until)
	case !c.Scope.Matches(r.Subject):
		step.Why = "the subject is outside its scope"
	default:
		step.Matched, step.Why = true, s.containmentWhy(c, r)
	}
	return step
}

// containmentWhy says what a containment in force means for the request.
func (s *Snapshot) containmentWhy(c *Containment, r *Request) string {
	alone := Snapshot{Policy: s.Policy, Containments: []Containment{*c}}
	var o Obligations
	refusal, _ := alone.contain(r, &o)
	switch {
	case refusal != nil:
		return "refused: " + refusal.Message
	case c.Kind == ReadOnlyMode && c.stageOf(r) == draining:
		return "the transaction began before and may end until " + moment(c.DrainUntil)
	case c.Kind == Pause && o.Hold == nil:
		return "only new transactions wait"
	case c.Kind == ObserveMode:
		return "no rule is acted on"
	case c.Kind == Disable:
		return "only new connections are refused"
	case o.empty():
		return "nothing in the statement concerns it"
	default:
		return strings.Join(o.words(), "; ")
	}
}

func (c *Containment) effect() string {
	switch c.Kind {
	case ReadOnlyMode:
		return "refuses changes and makes transactions read-only"
	case FreezeDDL:
		return "refuses DDL"
	case Pause:
		if c.Refuse {
			return "refuses new transactions"
		}
		return "holds new transactions"
	case ObserveMode:
		return "no rule is acted on"
	case Disable:
		return "refuses new connections"
	}
	return string(c.Kind)
}

// explain says whether the rule matches any part of the request. Of several
// reasons why it does not, the first one is given: a statement's written
// relations come first.
func (r *rule) explain(req *Request) Step {
	step := Step{Name: r.name, What: "rule", Effect: r.effect()}
	if !r.enforce {
		step.What = "rule in observe mode"
	}
	if r.throttle != nil && begins(req.Batch) && r.subject.matches(req.Subject) {
		step.Matched, step.Why = true, "the transaction may be subject to it"
		return step
	}
	for _, p := range partsOf(req.Batch) {
		why := r.objection(p.s, p.rel, req.Subject)
		switch {
		case r.ddl != nil && locksTablesUnseen(p.s) && r.meansUnseen(p.s, req.Subject):
			step.Matched, step.Why = true, deed(p.s, p.rel)+" may lock tables that the text does not name: lock_timeout only"
			return step
		case why == "":
			step.Matched, step.Why = true, deed(p.s, p.rel)
			if r.onlyDDL() && !p.s.WaitsFor(p.rel) {
				step.Why += ", whose lock needs no limit"
			}
			return step
		case step.Why == "":
			step.Why = why
		}
	}
	return step
}

// onlyDDL reports whether the rule does nothing but limit DDL.
func (r *rule) onlyDDL() bool { return r.ddl != nil && r.action == noAction && r.throttle == nil }

func begins(b *inspect.Batch) bool {
	for i := range b.Statements {
		if beginsTransaction(&b.Statements[i]) {
			return true
		}
	}
	return false
}

// part is a statement and one of its relations; rel is nil when it has none.
type part struct {
	s   *inspect.Statement
	rel *inspect.Relation
}

// partsOf returns what the rules are asked about.
func partsOf(b *inspect.Batch) []part {
	var out []part
	if b.Why != "" && !hasUnknown(b) {
		out = append(out, part{s: &inspect.Statement{Class: inspect.Unknown, Why: b.Why}})
	}
	for i := range b.Statements {
		s := &b.Statements[i]
		if len(s.Relations) == 0 {
			out = append(out, part{s: s})
		}
		for j := range s.Relations {
			out = append(out, part{s, &s.Relations[j]})
		}
	}
	return out
}

func (p *Policy) explainUnknown(b *inspect.Batch) Step {
	step := Step{Name: CheckUnknownText, What: "built-in", Matched: true, Effect: string(p.unknown)}
	switch p.unknown {
	case allowUnknown:
		step.Why = "let through"
	case refuseUnknown:
		step.Why = "refused where no rule decides"
	case carefulUnknown:
		step.Why = "let through where no rule decides: no critical table's name occurs"
		for _, part := range partsOf(b) {
			if part.s.Class == inspect.Unknown && p.mayMeanCritical(b, part.s) {
				step.Why = "refused where no rule decides: a critical table's name may occur"
			}
		}
	}
	return step
}

func (o *Obligations) empty() bool { return len(o.words()) == 0 }

// words lists the obligations.
func (o *Obligations) words() []string {
	var out []string
	if o.ReadOnly {
		out = append(out, "the transaction is made read-only")
	}
	if o.GateCommit {
		out = append(out, "the commit is refused if the transaction has written")
	}
	if o.Hold != nil {
		out = append(out, "held for at most "+shortDuration(o.Hold.Max))
	}
	if o.LockTimeout > 0 {
		out = append(out, "lock_timeout "+shortDuration(o.LockTimeout)+" (rule "+o.Timeouts+")")
	}
	if o.StatementTimeout > 0 {
		out = append(out, "statement_timeout "+shortDuration(o.StatementTimeout))
	}
	for i := range o.Throttles {
		t := &o.Throttles[i]
		words := "paced to " + paceOf(t) + " (" + t.Key + ", waits for at most " + shortDuration(t.MaxWait) + ")"
		if t.Begin {
			words = "waits while in debt to " + t.Key + ", for at most " + shortDuration(t.MaxWait)
		}
		out = append(out, words)
	}
	return out
}

// Text renders the explanation for people.
func (e *Explanation) Text() string {
	var b strings.Builder
	e.writeVerdict(&b)
	e.writeFacts(&b)
	for i := range e.Steps {
		if i == 0 {
			b.WriteString("\nasked:\n")
		}
		e.Steps[i].write(&b)
	}
	return b.String()
}

func (e *Explanation) writeVerdict(b *strings.Builder) {
	b.WriteString(e.Verdict)
	switch {
	case e.Rule != "":
		b.WriteString(" by " + e.Rule)
	case e.Verdict == Allow.String():
		b.WriteString(": nothing forbids it")
	}
	b.WriteString("\n")
	if e.Refusal != nil {
		writeRefusal(b, e.Refusal, "  ")
	}
	for _, o := range e.Obligations {
		b.WriteString("  " + o + "\n")
	}
	for i := range e.Observed {
		o := &e.Observed[i]
		if o.Refusal == nil {
			b.WriteString("  observed: " + o.Rule + " would have limited it\n")
			continue
		}
		b.WriteString("  observed: " + o.Rule + " would have refused it\n")
		writeRefusal(b, o.Refusal, "    ")
	}
}

func writeRefusal(b *strings.Builder, r *Refusal, indent string) {
	b.WriteString(indent + "ERROR:  " + r.SQLSTATE + ": " + r.Message + "\n")
	if r.Detail != "" {
		b.WriteString(indent + "DETAIL:  " + r.Detail + "\n")
	}
	if r.Hint != "" {
		b.WriteString(indent + "HINT:  " + r.Hint + "\n")
	}
}

func (e *Explanation) writeFacts(b *strings.Builder) {
	b.WriteString("\nseen:\n")
	if e.Unclassified != "" {
		b.WriteString("  text that could not be classified: " + e.Unclassified + "\n")
	}
	if len(e.Statements) == 0 && e.Unclassified == "" {
		b.WriteString("  an empty text\n")
	}
	for _, s := range e.Statements {
		fmt.Fprintf(b, "  %s, class %s\n", orElse(s.Kind, "statement of unknown kind"), s.Class)
		for _, f := range s.Facts {
			b.WriteString("    " + f + "\n")
		}
	}
	if e.Names != "" {
		b.WriteString("  names: " + e.Names + "\n")
	}
}

func (s *Step) write(b *strings.Builder) {
	mark := "no "
	if s.Matched {
		mark = "yes"
	}
	fmt.Fprintf(b, "  %s  %s %s (%s)", mark, s.What, s.Name, s.Effect)
	if s.Why != "" {
		b.WriteString(": " + s.Why)
	}
	b.WriteString("\n")
}
