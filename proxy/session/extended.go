package session

import (
	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// parse handles Parse: the text is inspected and decided here, and again when
// it is executed. Source: manual, 55.2.3 "Extended Query".
func (s *Session) parse(m []byte, size int) action {
	if len(m) < size && size <= s.statementBytes && !s.head.noRoom {
		return s.needMore(size)
	}
	name, rest, ok := wire.CString(m[wire.HeaderLen:])
	if !ok && len(m) < size {
		return s.longName()
	}
	text := stringOf(rest)
	raw, act := s.facts(text, len(m) == size)
	if raw == nil {
		return act
	}
	b, passes, act := s.vet(raw)
	if b == nil {
		return act
	}
	if !passes {
		d, act := s.decide(b)
		if act != forward {
			return act
		}
		if act, goOn := s.hold(d); !goOn {
			return act
		}
		if d.Verdict != policy.Allow {
			return s.refuseExtended(b, d, 'P', string(name))
		}
	}
	s.openSegment()
	r := s.out.push('P', 0)
	r.old = s.prep.of(false).get(name)
	if len(name) == 0 {
		s.prep.statement = slot{raw, r.seq}
	} else {
		r.rare().name = string(name)
		s.prep.of(false).set(r.few.name, slot{raw, r.seq})
		s.work.done.Parses++
	}
	return forward
}

// openSegment notes that an implicit transaction or pipeline has begun.
func (s *Session) openSegment() {
	if s.seg.open {
		return
	}
	s.closeLeftovers()
	s.seg = segment{open: true}
}

// refuseExtended sends a Parse that fails in place of a message of kind. A
// refused Parse keeps its name; anything else is replaced by a named one, for
// an unnamed one would destroy the client's statement. The server discards the
// rest until Sync.
func (s *Session) refuseExtended(b *inspect.Batch, d *policy.Decision, kind byte, name string) action {
	s.decided(b, d)
	if d.Verdict == policy.Disconnect {
		return s.disconnect(d)
	}
	s.openSegment()
	if kind != 'P' {
		s.names++
		name = ourName(s.names)
	}
	r := s.out.push('P', refuse)
	r.few = &rarities{refusal: d.Refusal, rule: d.Rule, name: name}
	r.began = s.moment()
	if kind == 'P' {
		r.old = s.prep.of(false).get([]byte(name))
		s.prep.of(false).set(name, slot{nil, r.seq})
	}
	s.ToServer.Forward(wire.Append(nil, 'P', name, "\x00", substituteText(d.Rule), "\x00\x00\x00"))
	return discard
}

// bind handles Bind, which plans a statement: the last moment before anything
// of the client's runs in the implicit transaction.
func (s *Session) bind(m []byte, size int) action {
	portal, rest, ok := wire.CString(m[wire.HeaderLen:])
	name, _, ok2 := wire.CString(rest)
	if (!ok || !ok2) && len(m) < size {
		if len(m) > maxNames || s.head.noRoom {
			return s.longName()
		}
		return s.needMore(min(size, max(1024, 2*len(m))))
	}
	stmt := s.prep.of(false).get(name)
	if s.pendingAcross(stmt) || s.renaming() {
		return s.waitNames()
	}
	raw := s.behind(stmt)
	if act, goOn := s.beforeRun(raw); !goOn {
		return act
	}
	s.openSegment()
	s.seg.executed = true
	r := s.out.push('B', 0)
	if !harmless(raw) && !s.seg.armed { // functions in it may be run to plan it
		s.seg.writes = true
		r.flags |= plans
	}
	if len(name) > 0 {
		s.work.done.Binds++
	}
	r.old = s.prep.of(true).get(portal)
	if len(portal) == 0 {
		s.prep.portal = slot{raw, r.seq}
	} else {
		r.rare().name = string(portal)
		s.prep.of(true).set(r.few.name, slot{raw, r.seq})
	}
	return forward
}

// maxNames bounds the names at the beginning of a Bind, in bytes.
const maxNames = 1 << 20

// longName ends a session that uses a name no server would keep.
func (s *Session) longName() action {
	s.fail("54000", "the name of a prepared statement or portal is too long", "Use names of at most 63 bytes.")
	return discard
}

// renaming reports whether SQL that gives or takes names of statements is
// under way.
func (s *Session) renaming() bool { return s.out.renamers > 0 }

// waitNames waits until it is known what a name stands for.
func (s *Session) waitNames() action {
	if s.seg.open {
		return s.waitReplies()
	}
	return s.waitReplies()
}

// beforeRun does what has to come before a Bind: a refusal, a hold, session
// settings, READ ONLY. It reports whether the Bind may be sent.
func (s *Session) beforeRun(raw *inspect.Batch) (action, bool) {
	b, passes, act := s.vet(raw)
	if b == nil {
		return act, false
	}
	if passes {
		s.leaveFence(false)
		return forward, true
	}
	d, act := s.decide(b)
	if act != forward {
		return act, false
	}
	if act, goOn := s.hold(d); !goOn {
		return act, false
	}
	if d.Verdict != policy.Allow {
		return s.refuseExtended(b, d, 'B', ""), false
	}
	o := &d.Obligations
	if s.unsettled(o) {
		return s.waitReplies(), false
	}
	s.leaveFence(o.Fence)
	if s.fenced(o) && o.ReadOnly {
		s.openSegment()
		s.fenceBind(b)
		return forward, true
	}
	armed := s.seg.armed || s.tx.armed && s.status() == policy.TxActive && !s.seg.ended
	if o.ReadOnly && !o.GateCommit && !armed && !onlySettings(b) {
		s.openSegment()
		s.seg.armed = true
		s.ourStatement(setReadOnly, showError|arms)
	}
	if _, alone := anyBracketed(b); alone && (o.LockTimeout > 0 || o.StatementTimeout > 0) && s.settings == nil {
		return s.beforeAlone(b, d)
	}
	return forward, true
}

// beforeAlone lowers session settings before the Bind of a statement that
// cannot run in a transaction block. It is possible while nothing but Parse
// was sent since the last Sync; elsewhere the server refuses the statement.
func (s *Session) beforeAlone(b *inspect.Batch, d *policy.Decision) (action, bool) {
	if s.head.failure != nil {
		s.settings = nil
		failed := policy.Decision{Verdict: policy.Refuse, Rule: d.Obligations.Timeouts, Refusal: s.head.failure}
		return s.refuseExtended(b, &failed, 'B', ""), false
	}
	if s.seg.open {
		if s.seg.executed || s.status() != policy.TxIdle {
			return forward, true
		}
		s.out.push('S', ours) // ends an implicit transaction that has done nothing
		s.ToServer.Forward(syncMessage)
		s.seg = segment{}
	}
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	if s.status() != policy.TxIdle {
		return forward, true
	}
	return s.setForSession(timeouts(&d.Obligations), ours|leads)
}

var syncMessage = []byte{'S', 0, 0, 0, 4} // never written to

// execute handles Execute: the decision is made again, for a containment may
// have begun since Parse.
func (s *Session) execute(m wire.Message) action {
	name, _, _ := wire.CString(m.Body())
	portal := s.prep.of(true).get(name)
	if s.pendingAcross(portal) {
		return s.waitNames()
	}
	raw := s.behind(portal)
	b, passes, act := s.vet(raw)
	if b == nil {
		return act
	}
	if passes {
		s.passed(b)
		s.pushExecute(b)
		return forward
	}
	if s.head.failure != nil {
		return forward // the server discards it
	}
	d, act := s.decide(b)
	if act != forward {
		return act
	}
	if s.unsettled(&d.Obligations) {
		return s.waitReplies()
	}
	if d.Obligations.Hold != nil || s.head.held != nil { // with no Bind before it: a portal of SQL
		if act, goOn := s.hold(d); !goOn {
			return act
		}
	}
	if d.Verdict == policy.Allow && commits(b) && s.seg.writes && s.late() != nil {
		d.Obligations.GateCommit = true // a block that was made of what the pipeline has written
	}
	if d.Verdict != policy.Allow {
		if portal.seq < s.out.boundary && s.out.boundaries > 0 {
			return s.waitReplies() // the portal may end with its transaction
		}
		return s.refuseExtended(b, d, 'E', "")
	}
	x := &execution{batch: b, d: d, bound: portal.seq}
	if act, goOn := s.prepareExecute(x); !goOn {
		return act
	}
	return s.sendExecute(m, x)
}

// execution is an Execute that may go to the server, and what goes with it.
type execution struct {
	batch         *inspect.Batch
	d             *policy.Decision
	bound         uint64   // the Bind's reply
	before, after []string // statements of ours
	afterFlags    flag
	fences        bool // it begins a block behind a fence
}

// prepareExecute finds out what has to be known first. It reports whether the
// Execute can be sent now.
func (s *Session) prepareExecute(x *execution) (action, bool) {
	o := &x.d.Obligations
	switch {
	case o.GateCommit:
		return s.gateExecute(x)
	case o.Write != nil:
		return s.writeExecute(x)
	case o.ReadOnly:
		s.armExecute(x)
		return forward, true
	case o.LockTimeout > 0 || o.StatementTimeout > 0:
		return s.bracketExecute(x)
	default:
		return forward, true
	}
}

// armExecute sees to it that an Execute runs in a READ ONLY transaction, as far
// as its Bind has not, and so does what runs in the transaction that it begins.
func (s *Session) armExecute(x *execution) {
	switch {
	case s.fenced(&x.d.Obligations):
		for i := range x.batch.Statements {
			x.before = append(x.before, s.tx.fence.before(&x.batch.Statements[i], s.aborted())...)
		}
		if s.newBlock(x.batch) != 0 { // AND CHAIN
			s.armAfter(x)
		}
	case s.fences(x.batch, &x.d.Obligations):
		x.fences = true
	default:
		s.armAfter(x)
	}
}

// armAfter makes the transaction that an Execute begins READ ONLY.
func (s *Session) armAfter(x *execution) {
	if beginsBlock(x.batch) {
		x.after, x.afterFlags = []string{setReadOnly}, showError|arms|s.newBlock(x.batch)
	}
}

// newBlock returns begins where a batch that is sent now leaves a transaction
// open that begins in it. A BEGIN inside a block begins nothing, and in a
// pipeline that has written it makes a block of what was written.
func (s *Session) newBlock(b *inspect.Batch) flag {
	block, written, fresh := s.blockAtEnd(), s.seg.writes, false
	for i := range b.Statements {
		st := &b.Statements[i]
		switch st.Kind {
		case inspect.KindBegin, inspect.KindStart:
			fresh = fresh || !block && !written
			block = true
		case inspect.KindCommit, inspect.KindRollback:
			block, fresh, written = st.Chain && block, st.Chain && block, false
		}
	}
	if !fresh {
		return 0
	}
	return begins
}

// askInPipeline sends statements of ours whose rows are wanted, and waits.
func (s *Session) askInPipeline(texts ...string) action {
	s.head.stage, s.head.flushed = stageAsked, false
	s.answers = s.answers[:0]
	s.openSegment()
	for _, t := range texts {
		s.ourStatement(t, showError|wantRow|awaited)
	}
	return s.waitReplies()
}

// gateExecute is gateQuery for the extended protocol.
func (s *Session) gateExecute(x *execution) (action, bool) {
	s.armAfter(x)
	if s.status() == policy.TxAborted {
		return forward, true // ends with ROLLBACK
	}
	if s.head.stage == stageNew {
		return s.askInPipeline(showXID), false
	}
	if s.awaiting > 0 {
		return s.waitReplies(), false
	}
	if len(s.answers) == 1 && s.answers[0] == "" {
		return forward, true
	}
	s.ourStatement(rollbackBlock, 0)
	d := policy.Decision{Verdict: policy.Refuse, Rule: readOnlyRule, Refusal: s.commitRefusal()}
	return s.refuseExtended(x.batch, &d, 'E', ""), false
}

// bracketExecute surrounds the Execute of DDL with SET LOCAL: inside a
// transaction block and in an implicit transaction alike it lasts until it is
// set back.
func (s *Session) bracketExecute(x *execution) (action, bool) {
	some, alone := anyBracketed(x.batch)
	if !some || alone || x.batch.Statements[0].Kind == inspect.KindLockTable && s.status() == policy.TxIdle {
		return forward, true
	}
	want := timeouts(&x.d.Obligations)
	if s.head.stage == stageNew {
		var ask []string
		for i := range want {
			ask = append(ask, "SHOW "+want[i].name)
		}
		return s.askInPipeline(ask...), false
	}
	if s.awaiting > 0 {
		return s.waitReplies(), false
	}
	if len(s.answers) != len(want) {
		return forward, true // an error before it: the server discards it
	}
	for i := range want {
		have, _ := parseTimeout(s.answers[i])
		if d, changed := lower(have, want[i].want); changed {
			x.before = append(x.before, "SET LOCAL "+want[i].name+" = '"+formatTimeout(d)+"'")
			x.after = append(x.after, "SET LOCAL "+want[i].name+" = "+value(s.answers[i]))
		}
	}
	x.afterFlags = showError
	return forward, true
}

// sendExecute sends an Execute with everything that belongs to it.
func (s *Session) sendExecute(m wire.Message, x *execution) action {
	s.decided(x.batch, x.d)
	s.observe(x.batch)
	s.openSegment()
	s.leaveFence(x.d.Obligations.Fence)
	for _, text := range x.before {
		s.ourStatement(text, showError)
	}
	r := s.pushExecute(x.batch)
	if r == nil {
		return forward
	}
	s.throttled(r, x.d.Obligations.Throttles)
	if x.d.Obligations.ReadOnly {
		r.flags |= readOnly
	}
	if x.fences {
		r.flags |= begins
		r.rare().epoch = s.tx.epoch
	}
	if len(x.after) == 0 {
		return forward
	}
	s.ToServer.Forward(append([]byte(nil), m...))
	for _, text := range x.after {
		s.ourStatement(text, x.afterFlags)
	}
	return discard
}

// pushExecute notes what an Execute of b does to the pipeline, and that its
// reply is owed: nil when the server will discard it.
func (s *Session) pushExecute(b *inspect.Batch) *reply {
	s.openSegment()
	plain := onlyReads(b)
	if !plain {
		s.seg.writes = s.seg.writes || !harmless(b) && !s.seg.armed
		s.seg.lexing = s.seg.lexing || s.mayChangeLexing(b)
	}
	r := s.out.push('E', 0)
	if r == nil {
		return nil
	}
	s.out.runs(r, b)
	r.began, s.ran = s.moment(), r.seq
	if plain {
		return r
	}
	s.seg.control = s.seg.control || controls(b)
	if endsBlock(b) {
		s.seg.armed, s.seg.ended = false, true
		s.seg.writes = s.seg.writes && leavesBlock(true, b)
	}
	return r
}

// controls reports whether a batch holds transaction control.
func controls(b *inspect.Batch) bool {
	for i := range b.Statements {
		if b.Statements[i].Class == inspect.Control {
			return true
		}
	}
	return false
}

// endsBlock reports whether a batch ends a transaction, or goes back behind
// the point where it was made READ ONLY.
func endsBlock(b *inspect.Batch) bool {
	for i := range b.Statements {
		switch b.Statements[i].Kind {
		case inspect.KindCommit, inspect.KindRollback, inspect.KindPrepareTransaction, inspect.KindRollbackTo, inspect.KindRelease:
			return true
		}
	}
	return false
}

// describe relays Describe.
func (s *Session) describe() action {
	s.openSegment()
	s.out.push('D', 0)
	return forward
}

// closeName relays Close and forgets the name.
func (s *Session) closeName(m wire.Message) action {
	s.openSegment()
	r := s.out.push('C', 0)
	body := m.Body()
	if len(body) < 2 {
		return forward
	}
	n := s.prep.of(body[0] == 'P')
	name := stringOf(body[1:])
	r.portal = body[0] == 'P'
	r.old = n.get(name)
	r.rare().name = string(name)
	n.set(r.few.name, slot{nil, r.seq})
	return forward
}

// sync relays Sync, which commits an implicit transaction.
func (s *Session) sync() action {
	if d := (policy.Decision{}); !s.out.skipping && s.refuseToCommit(&d) {
		s.refuseExtended(unseenFacts, &d, 'S', "")
	}
	s.closeLeftovers()
	s.out.push('S', s.endOfSegment())
	s.seg = segment{}
	if s.settings == nil {
		return forward
	}
	s.ToServer.Forward(syncMessage)
	s.restoreSettings()
	return discard
}
