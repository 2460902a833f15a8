package session

import (
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// readOnlyRule is the rule's name in substitutes that read-only puts in.
const readOnlyRule = "read-only"

// passes reports whether nobody asks anything of a batch, or of the message that
// holds it: decide would allow it as it is.
func (s *Session) passes(b *inspect.Batch) bool {
	snap := s.host.Snapshot()
	if snap == nil || !snap.Passes(b) || s.settings != nil || !s.head.unasked() {
		return false
	}
	s.beginsIn(snap)
	return true
}

// vet resolves a batch and reports whether it passes; nil has to wait, as act
// says.
func (s *Session) vet(raw *inspect.Batch) (b *inspect.Batch, passes bool, act action) {
	b, act = s.resolve(raw)
	return b, b != nil && s.passes(b), act
}

// beginsIn notes the snapshot in which a transaction begins, where nothing is
// under way.
func (s *Session) beginsIn(snap *policy.Snapshot) {
	if s.settled() && s.status() == policy.TxIdle {
		s.tx.epoch, s.tx.since = snap.Epoch, s.moment()
	}
}

// decide asks the policy about a batch. Under read-only the transaction's
// status has to be known first; where it is not, action says what to wait for.
// The decision is there until the next one.
func (s *Session) decide(b *inspect.Batch) (*policy.Decision, action) {
	d := &s.decision
	*d = policy.Decision{}
	now := s.now()
	snap := s.host.Snapshot()
	if snap == nil {
		d.Refusal = &policy.Refusal{SQLSTATE: "57P03", Message: "lockkeeper has no policy yet", Hint: "Try again in a moment."}
		return d, forward
	}
	if h := s.head.held; h != nil && h.refusal != nil {
		d.Verdict, d.Rule, d.Refusal = policy.Refuse, "cancel", h.refusal
		return d, forward
	}
	// In a pipeline it counts for DO and CALL alone whether a block is open.
	if s.out.Len() > 0 && (!s.seg.open || b.Class == inspect.Unknown) && snap.ReadOnlyFor(s.sub, now) != nil {
		return d, s.waitReplies()
	}
	s.beginsIn(snap)
	*d = snap.Decide(&policy.Request{
		Subject: s.sub, Batch: b, Tx: s.status(), TxEpoch: s.txEpoch(), Now: now, Waited: s.waited(now), Pipelined: s.seg.open,
		InBlock: s.out.Len() == 0 && s.tx.block && !s.tx.implicit, TxOpaque: s.tx.opaque, Fenced: s.tx.fence.begun,
	})
	if d.Verdict == policy.Disconnect && s.out.Len() > 0 {
		return d, s.waitReplies() // the client first gets what it is owed
	}
	return d, forward
}

// waited returns how long the client's message has been held.
func (s *Session) waited(now time.Time) time.Duration {
	if s.head.held == nil {
		return 0
	}
	return max(1, now.Sub(s.head.held.began))
}

// status returns the transaction status: that of the last ReadyForQuery, or what
// replies have told since.
func (s *Session) status() policy.TxStatus {
	switch {
	case s.tx.block == (s.tx.status != policy.TxIdle):
		return s.tx.status
	case s.tx.block:
		return policy.TxActive
	default:
		return policy.TxIdle
	}
}

// txEpoch returns the epoch from which the open transaction is known to be as
// that epoch's read-only wants it. One that was not made READ ONLY, and stands
// behind no fence, began before it, or under another subject.
func (s *Session) txEpoch() uint64 {
	if s.status() != policy.TxIdle && !s.tx.armed && !s.tx.fence.up {
		return 0
	}
	return s.tx.epoch
}

// hold waits where the decision asks for it: outside a transaction, with
// nothing under way. It reports whether the message may go on; a hold that
// took too long turns into a refusal in d.
func (s *Session) hold(d *policy.Decision) (action, bool) {
	if d.Verdict != policy.Allow || d.Obligations.Hold == nil && len(d.Obligations.Throttles) == 0 {
		if h := s.head.held; h != nil {
			s.endHold(h.cause, s.now())
		}
		return forward, true
	}
	if s.seg.open || s.status() != policy.TxIdle && s.out.Len() == 0 {
		return forward, true
	}
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	now := s.now()
	if s.head.held == nil {
		s.head.held = &hold{began: now}
	}
	if h := d.Obligations.Hold; h != nil {
		return s.holdFor(h, d, now)
	}
	if s.head.paced {
		return forward, true
	}
	if pause := s.host.Throttle(d.Obligations.Throttles, now); pause > 0 {
		t := strictest(d.Obligations.Throttles)
		end := s.head.held.began.Add(t.MaxWait)
		if !now.Before(end) || now.Add(pause).After(end) {
			s.endHold("throttle", now)
			*d = policy.Decision{Verdict: policy.Refuse, Rule: t.Rule, Refusal: t.Refusal}
			return forward, true
		}
		return s.waitHold("throttle", t.Rule, now.Add(pause), d)
	}
	s.head.paced = true
	s.endHold("throttle", now)
	return forward, true
}

// holdFor waits for a pause or for mode hold. What mode hold has held for long
// enough is decided again, as by read-only.
func (s *Session) holdFor(h *policy.Hold, d *policy.Decision, now time.Time) (action, bool) {
	cause, end := "hold", s.head.held.began.Add(h.Max)
	if h.Refusal != nil {
		cause = "pause"
	}
	if h.Refusal != nil && (h.Max <= 0 || !now.Before(end)) {
		s.endHold(cause, now)
		*d = policy.Decision{Verdict: policy.Refuse, Rule: h.Containment, Refusal: h.Refusal}
		return forward, true
	}
	return s.waitHold(cause, h.Containment, end, d)
}

// tooManyHeld is said where limits.held_sessions are held already.
var tooManyHeld = &policy.Refusal{
	SQLSTATE: "53300", Message: "too many sessions are held already",
	Detail: "As many statements as limits.held_sessions wait for a pause, mode hold or a throttle.", Hint: "Try again in a moment.",
}

// throttled counts a statement that is sent; its rows are counted when they are
// known.
func (s *Session) throttled(r *reply, limits []policy.Throttle) {
	if len(limits) > 0 {
		r.rare().throt = limits
		s.host.Begun(limits, s.now())
	}
}

// strictest returns the throttle that lets a statement wait the least.
func strictest(limits []policy.Throttle) *policy.Throttle {
	best := &limits[0]
	for i := range limits[1:] {
		if t := &limits[i+1]; t.MaxWait < best.MaxWait {
			best = t
		}
	}
	return best
}

// waitHold holds the message, if another one may be held. It reports whether
// the message goes on: with a refusal in d.
func (s *Session) waitHold(cause, by string, until time.Time, d *policy.Decision) (action, bool) {
	if !s.holding && !s.host.Hold() {
		*d = policy.Decision{Verdict: policy.Refuse, Rule: by, Refusal: tooManyHeld}
		return forward, true
	}
	s.holding = true
	if s.heldBy != by {
		s.heldBy, s.stateSince = by, s.moment()
	}
	h := s.head.held
	if !h.waits {
		h.waits, h.since = true, s.now()
	}
	s.head.wait, h.until, h.cause = waitHold, until, cause
	return block, false
}

// endHold ends a wait, and counts it. A message may come here again while it
// waits for something else, and may be held once more.
func (s *Session) endHold(cause string, now time.Time) {
	h := s.head.held
	if waited := now.Sub(h.since); h.waits && waited > 0 {
		n := s.incidents()
		n.Holds = append(n.Holds, HoldCount{cause, waited})
		s.work.done.WaitTime += waited
	}
	h.waits = false
	s.letGo()
}

// letGo gives back the place of a held session.
func (s *Session) letGo() {
	s.heldBy = ""
	if s.holding {
		s.host.LetGo()
		s.holding = false
	}
}

// passed is told of a batch that passes and is sent.
func (s *Session) passed(b *inspect.Batch) {
	s.leaveFence(false)
	s.count(b.Class, policy.Allow)
	s.statement, s.fingerprint = &b.Statements[0], b.Fingerprint
	if !onlyReads(b) {
		s.observe(b)
	}
}

// decided counts a decision that is final, and journals what must be kept.
func (s *Session) decided(b *inspect.Batch, d *policy.Decision) {
	s.count(b.Class, d.Verdict)
	for i := range d.Observed {
		n := s.incidents()
		n.Rules = append(n.Rules, RuleCount{d.Observed[i].Rule, true})
		if d.Observed[i].Refusal != nil {
			e := s.entry(journal.ObservedEntry, b)
			e.Verdict, e.Rule = policy.Refuse.String(), d.Observed[i].Rule
			s.entries = append(s.entries, e)
		}
	}
	if len(b.Statements) > 0 {
		s.statement = &b.Statements[len(b.Statements)-1]
	}
	s.fingerprint = b.Fingerprint
	if d.Verdict == policy.Allow {
		s.tx.opaque = s.tx.opaque || d.Obligations.ReadOnly && b.Class == inspect.Unknown
		return
	}
	n := s.incidents()
	n.Rules = append(n.Rules, RuleCount{d.Rule, false})
	e := s.entry(journal.RefusalEntry, b)
	e.Verdict, e.Rule, e.Outcome = d.Verdict.String(), d.Rule, "refused"
	if d.Refusal != nil {
		e.SQLSTATE, e.Detail = d.Refusal.SQLSTATE, d.Refusal.Detail
	}
	s.entries = append(s.entries, e)
}

// entry begins a journal entry about a batch.
func (s *Session) entry(kind journal.Kind, b *inspect.Batch) journal.Entry {
	e := journal.Entry{
		Time: s.now(), Kind: kind, Session: s.id, ServerPID: s.pid,
		User: s.sub.User, Database: s.sub.Database, Application: s.sub.Application, Address: s.sub.Address,
		Transaction: s.transactionID(),
	}
	if b == nil {
		return e
	}
	e.Text, e.Class = b.Fingerprint, b.Class.String()
	if len(b.Statements) > 0 {
		st := worst(b)
		e.Statement, e.Tables = string(st.Kind), tables(st)
	}
	return e
}

// worst returns the most dangerous statement of a batch.
func worst(b *inspect.Batch) *inspect.Statement {
	w := &b.Statements[0]
	for i := range b.Statements {
		if st := &b.Statements[i]; st.Class != w.Class && inspect.Worse(w.Class, st.Class) == st.Class {
			w = st
		}
	}
	return w
}

// tables names the relations that a statement writes or defines: the text's
// first, then what they lead to.
func tables(st *inspect.Statement) []string {
	var out []string
	for i := range st.Relations {
		r := &st.Relations[i]
		if r.Access&(inspect.AccessWrite|inspect.AccessDefine) == 0 {
			continue
		}
		name := r.Name
		if r.Schema != "" {
			name = r.Schema + "." + r.Name
		}
		out = append(out, name)
	}
	return out
}

// observe learns from an allowed statement what the session is: Odoo's cron
// locks rows of ir_cron, its registry load sets lock_timeout, pg_dump copies
// tables out, pg_basebackup sends BASE_BACKUP. Sources: odoo/addons/base/models/ir_cron.py,
// odoo/modules/loading.py, src/bin/pg_dump/pg_dump.c.
func (s *Session) observe(b *inspect.Batch) {
	if s.catalog != nil {
		s.catalog.Ran(b)
	}
	for i := range b.Statements {
		st := &b.Statements[i]
		switch {
		case st.Set != nil && st.Set.Name == "lock_timeout" && !st.Set.Local && !st.Set.Reset:
			s.behave("migration")
		case st.Hidden&inspect.HiddenRowLock != 0 && locksRowsOf(st, "ir_cron"):
			s.behave("cron")
		case st.Kind == inspect.KindCopyTo && s.sub.Application == "pg_dump", st.Kind == kindBaseBackup:
			s.behave("backup")
		case st.Kind == inspect.KindDiscard && len(s.behaviour) > 0:
			s.behaviour = nil
			s.retag(s.sub.Application)
		}
	}
}

func locksRowsOf(st *inspect.Statement, table string) bool {
	for i := range st.Relations {
		if st.Relations[i].Name == table && st.Relations[i].Access&inspect.AccessLockRows != 0 {
			return true
		}
	}
	return false
}

func (s *Session) behave(tag string) {
	for _, b := range s.behaviour {
		if b == tag {
			return
		}
	}
	s.behaviour = append(s.behaviour, tag)
	s.retag(s.sub.Application)
}

// copyRefusal returns the refusal for the end of COPY data that read-only does
// not let commit; nil when it may.
func (s *Session) copyRefusal() *policy.Refusal {
	return s.pastReadOnly()
}

// refuseToCommit makes a decision a refusal where the message, which ends an
// implicit transaction, would commit what read-only does not let commit any more.
func (s *Session) refuseToCommit(d *policy.Decision) bool {
	if !s.seg.open || !s.seg.writes {
		return false
	}
	refusal := s.pastReadOnly()
	if refusal == nil {
		return false
	}
	*d = policy.Decision{Verdict: policy.Refuse, Rule: readOnlyRule, Refusal: refusal}
	return true
}

// pastReadOnly returns the refusal for what would commit a change of an
// implicit transaction begun before read-only whose time is over; nil when it
// may commit.
func (s *Session) pastReadOnly() *policy.Refusal {
	refusal := s.late()
	if refusal == nil || s.blockAtEnd() {
		return nil
	}
	return refusal
}

// late returns the refusal for a COMMIT where the transaction began before
// read-only and its time is over; nil when it may commit.
func (s *Session) late() *policy.Refusal {
	snap := s.host.Snapshot()
	c := snap.TooLate(s.sub, s.tx.epoch, s.now())
	if c == nil {
		return nil
	}
	return snap.CommitRefusal(c)
}
