package policy

import (
	"math"
	"time"

	"lockkeeper/inspect"
)

// Decide says what becomes of a request. It never blocks and never fails, and
// does not allocate where a statement is allowed without more ado.
//
// Text that would keep the server busy is refused whatever else holds.
// Otherwise containments are asked first, then the rules for each statement of the
// batch, and for each relation of a statement: there the first matching rule
// with an action decides, and the strictest of these decisions counts. What
// throttle and ddl ask for adds up over all matching rules.
func (s *Snapshot) Decide(r *Request) Decision {
	if s == nil || s.Policy == nil {
		return Decision{Verdict: Refuse, Rule: CheckNoPolicy, Refusal: noPolicyRefusal()}
	}
	if s.Passes(r.Batch) {
		return Decision{Verdict: Allow}
	}
	return s.evaluate(r)
}

// evaluate is Decide, with everything asked.
func (s *Snapshot) evaluate(r *Request) Decision {
	if r.Batch.Costly {
		return Decision{Verdict: Refuse, Rule: CheckCostlyText, Refusal: costlyRefusal(r.Batch.Why)}
	}
	var o Obligations
	if refusal, by := s.contain(r, &o); refusal != nil {
		return Decision{Verdict: Refuse, Rule: by, Refusal: refusal}
	}
	e := evaluation{
		p: s.Policy, sub: r.Subject, obligations: o,
		observing: s.find(ObserveMode, r.Subject, r.Now) != nil,
		lists:     s.Policy.index.about(r.Subject),
	}
	e.batch(r.Batch)
	return e.decision()
}

// none is the position of no rule.
const none = math.MaxInt

// evaluation collects what the rules say about one batch.
type evaluation struct {
	p         *Policy
	sub       *Subject
	observing bool // observe mode: no rule is acted on
	lists     ruleLists

	strongest   action
	rule        string
	refusal     *Refusal
	obligations Obligations
	observed    []Observation
}

func (e *evaluation) decision() Decision {
	d := Decision{Verdict: Allow, Rule: e.rule, Obligations: e.obligations, Observed: e.observed}
	if e.strongest >= refuseIt {
		d.Verdict, d.Refusal, d.Obligations = Refuse, e.refusal, Obligations{}
	}
	if e.strongest == disconnectIt {
		d.Verdict = Disconnect
	}
	return d
}

func (e *evaluation) batch(b *inspect.Batch) {
	for i := range b.Statements {
		s := &b.Statements[i]
		decided := e.statement(s)
		if s.Class == inspect.Unknown && !decided {
			e.unknown(b, s, orElse(s.Why, b.Why))
		}
	}
	if b.Why != "" && !hasUnknown(b) {
		e.unclassified(b)
	}
}

// hasUnknown reports whether one of the statements stands for what could not
// be classified.
func hasUnknown(b *inspect.Batch) bool {
	for i := range b.Statements {
		if b.Statements[i].Class == inspect.Unknown {
			return true
		}
	}
	return false
}

// unclassified is batch for a text of which no statement is known.
func (e *evaluation) unclassified(b *inspect.Batch) {
	s := &inspect.Statement{Class: inspect.Unknown, Why: b.Why}
	if !e.statement(s) {
		e.unknown(b, s, b.Why)
	}
}

// statement asks the rules about one statement. It reports whether a rule
// that is acted on decided about all of it.
func (e *evaluation) statement(s *inspect.Statement) bool {
	if len(s.Relations) == 0 {
		decided := e.relation(s, nil)
		e.unseenLocks(s)
		e.paceAtBegin(s)
		return decided
	}
	decided := true
	for i := range s.Relations {
		decided = e.relation(s, &s.Relations[i]) && decided
	}
	return decided
}

// relation asks the rules about what the statement does to one relation; rel
// is nil for a statement that names none. It reports whether a rule that is
// acted on decided.
func (e *evaluation) relation(s *inspect.Statement, rel *inspect.Relation) bool {
	enforced, watched := none, none
	e.p.index.lists(&e.lists, s.Class, rel)
	for l := range e.lists {
		for _, i := range e.lists[l] {
			r := &e.p.rules[i]
			if !r.matches(s, rel, e.sub) {
				continue
			}
			acted := r.enforce && !e.observing
			e.oblige(r, s, rel, acted)
			switch {
			case r.action == noAction:
			case acted:
				enforced = min(enforced, i)
			default:
				watched = min(watched, i)
			}
		}
	}
	if watched < enforced && e.p.rules[watched].action != allowIt {
		e.observe(&e.p.rules[watched], s, rel)
	}
	if enforced == none {
		return false
	}
	e.settle(&e.p.rules[enforced], s, rel)
	return true
}

// settle takes over a rule's decision where it is stricter than those before.
func (e *evaluation) settle(r *rule, s *inspect.Statement, rel *inspect.Relation) {
	if r.action <= e.strongest {
		return
	}
	e.strongest, e.rule = r.action, r.name
	if r.action >= refuseIt {
		e.refusal = e.p.ruleRefusal(r, s, rel)
	}
}

// observe records what a rule would have done.
func (e *evaluation) observe(r *rule, s *inspect.Statement, rel *inspect.Relation) {
	if !e.hasObserved(r.name) {
		e.observed = append(e.observed, Observation{Rule: r.name, Refusal: e.p.ruleRefusal(r, s, rel)})
	}
}

func (e *evaluation) hasObserved(name string) bool {
	for i := range e.observed {
		if e.observed[i].Rule == name {
			return true
		}
	}
	return false
}

// oblige adds the obligations of a matching rule, or records them where the
// rule is not acted on.
func (e *evaluation) oblige(r *rule, s *inspect.Statement, rel *inspect.Relation, acted bool) {
	limits := r.ddl != nil && s.WaitsFor(rel)
	paces := r.throttle != nil && s.Class != inspect.Control && s.Class != inspect.Session
	switch {
	case !limits && !paces:
	case !acted && r.action == noAction && !e.hasObserved(r.name):
		e.observed = append(e.observed, Observation{Rule: r.name})
	case !acted:
	default:
		if limits {
			e.limitOn(r, rel)
		}
		if paces {
			e.pace(r, tableOf(rel), false)
		}
	}
}

// limitOn adds a rule's timeouts because of one relation. A table that is only
// read may be read for hours.
func (e *evaluation) limitOn(r *rule, rel *inspect.Relation) {
	statement := r.ddl.statementTimeout
	if rel.Lock < inspect.ShareUpdateExclusive {
		statement = 0
	}
	e.limit(r, r.ddl.lockTimeout, statement)
}

// limit adds timeouts; the strictest of each counts.
func (e *evaluation) limit(r *rule, lock, statement time.Duration) {
	o := &e.obligations
	if stricter(lock, o.LockTimeout) {
		o.LockTimeout, o.Timeouts = lock, r.name
	}
	if stricter(statement, o.StatementTimeout) {
		o.StatementTimeout = statement
		if o.Timeouts == "" {
			o.Timeouts = r.name
		}
	}
}

// stricter reports whether the timeout a is shorter than b; 0 is none.
func stricter(a, b time.Duration) bool { return a > 0 && (b == 0 || a < b) }

func tableOf(rel *inspect.Relation) string {
	if rel == nil {
		return ""
	}
	return rel.Name
}

// pace adds a rule's throttle, once for each key.
func (e *evaluation) pace(r *rule, table string, atBegin bool) {
	t := r.throttleFor(e.sub, table)
	t.Begin = atBegin
	for i := range e.obligations.Throttles {
		if known := &e.obligations.Throttles[i]; known.Key == t.Key {
			known.Begin = known.Begin && atBegin // what is known to be written counts
			return
		}
	}
	e.obligations.Throttles = append(e.obligations.Throttles, t)
}

// paceAtBegin adds the throttles that statements of the transaction will be
// subject to, as far as the subject says: who is in debt waits at BEGIN,
// where it holds no locks.
func (e *evaluation) paceAtBegin(s *inspect.Statement) {
	if !beginsTransaction(s) || e.observing {
		return
	}
	lists := e.p.atBegin.about(e.sub)
	e.p.atBegin.lists(&lists, s.Class, nil)
	for l := range lists {
		for _, i := range lists[l] {
			if r := &e.p.rules[i]; r.enforce && r.subject.matches(e.sub) {
				e.paceRuleAtBegin(r)
			}
		}
	}
}

// paceRuleAtBegin adds one rule's throttle, for each table that it names
// where it counts by table.
func (e *evaluation) paceRuleAtBegin(r *rule) {
	if r.throttle.by != byTable {
		e.pace(r, "", true)
		return
	}
	if r.tables == nil {
		return
	}
	for _, name := range r.tables.bare {
		e.pace(r, name, true)
	}
}

// unseenLocks adds a lock_timeout to DDL that locks tables which the text
// does not name: DROP SCHEMA … CASCADE may hit any critical table.
func (e *evaluation) unseenLocks(s *inspect.Statement) {
	if !locksTablesUnseen(s) {
		return
	}
	for _, i := range e.p.ddlRules {
		r := &e.p.rules[i]
		if r.ddl.lockTimeout == 0 || !r.enforce || e.observing || !r.meansUnseen(s, e.sub) {
			continue
		}
		e.limit(r, r.ddl.lockTimeout, 0)
	}
}

// meansUnseen reports whether the rule would match if one of its tables were
// named.
func (r *rule) meansUnseen(s *inspect.Statement, sub *Subject) bool {
	return r.classes.has(s.Class) && r.bounds == 0 &&
		(r.kinds.empty() || r.kinds.matches(s, nil)) &&
		(r.tables == nil || !r.tables.empty()) &&
		r.subject.matches(sub)
}

// unknown applies the policy's unknown: to a statement, or a whole text, that
// was not classified and that no rule decided about.
func (e *evaluation) unknown(b *inspect.Batch, s *inspect.Statement, why string) {
	critical := e.p.unknown == carefulUnknown && e.p.mayMeanCritical(b, s)
	if e.p.unknown != refuseUnknown && !critical {
		if e.rule == "" {
			e.rule = CheckUnknownText
		}
		return
	}
	refusal := e.p.unknownRefusal(s, why, critical)
	if e.observing {
		e.observed = append(e.observed, Observation{Rule: CheckUnknownText, Refusal: refusal})
		return
	}
	if e.strongest < refuseIt {
		e.strongest, e.rule, e.refusal = refuseIt, CheckUnknownText, refusal
	}
}

// mayMeanCritical reports whether the name of a critical table may occur in
// what was not classified: in the whole text, in the body of a DO, or among
// the relations that the statement names.
func (p *Policy) mayMeanCritical(b *inspect.Batch, s *inspect.Statement) bool {
	for i := range s.Relations {
		if rel := &s.Relations[i]; p.critical.matches(rel.Schema, rel.Name) {
			return true
		}
	}
	if b.Why == "" && b.Words == nil && s.Hidden&inspect.HiddenBlock == 0 && s.Kind != inspect.KindDo {
		return false
	}
	return p.critical.mayOccurIn(b.Words)
}
