package session

import (
	"encoding/binary"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// query handles a Query: one text of any number of statements, one implicit
// transaction where none is open. Source: manual, 55.2.2 "Simple Query".
func (s *Session) query(m []byte, size int) action {
	if len(m) < size && size <= s.statementBytes && !s.head.noRoom {
		return s.needMore(size)
	}
	if s.head.failure != nil { // something of ours before it failed, and the client has the error
		s.settings = nil
		return discard
	}
	text := stringOf(m[wire.HeaderLen:])
	raw, act := s.facts(text, len(m) == size)
	if raw == nil {
		return act
	}
	b, passes, act := s.vet(raw)
	if b == nil {
		return act
	}
	if passes {
		s.passed(b)
		s.closeLeftovers()
		s.pushQuery(b)
		return forward
	}
	d, act := s.decide(b)
	if act != forward {
		return act
	}
	if act, goOn := s.hold(d); !goOn {
		return act
	}
	if d.Verdict == policy.Allow {
		s.refuseToCommit(d)
	}
	if d.Verdict != policy.Allow {
		return s.refuseQuery(b, d)
	}
	q := &query{batch: b, text: text, d: d, whole: len(m) == size}
	if act, goOn := s.prepareQuery(q); !goOn {
		return act
	}
	return s.sendQuery(q)
}

// query is a Query that may go to the server, and what has to go with it.
type query struct {
	batch *inspect.Batch
	text  []byte // aliases the client's buffer
	d     *policy.Decision
	whole bool // all of the text is at hand

	inserts []insert // text of ours that goes into the client's
	after   string   // a statement of ours that follows in the same exchange
	fences  bool     // it begins a block behind a fence
}

// prepareQuery finds out what has to be known before a query is sent and how
// it is bracketed. It reports whether the query can be sent now.
func (s *Session) prepareQuery(q *query) (action, bool) {
	o := &q.d.Obligations
	switch {
	case o.GateCommit:
		return s.gateQuery(q)
	case o.Write != nil:
		return s.writeQuery(q)
	case o.ReadOnly:
		return s.armQuery(q)
	case o.LockTimeout > 0 || o.StatementTimeout > 0:
		return s.bracketQuery(q)
	default:
		return forward, true
	}
}

// sendQuery sends the query with everything that belongs to it.
func (s *Session) sendQuery(q *query) action {
	s.decided(q.batch, q.d)
	s.observe(q.batch)
	s.closeLeftovers()
	var began flag
	if q.after != "" {
		began = s.newBlock(q.batch)
	}
	s.leaveFence(q.d.Obligations.Fence)
	r := s.pushQuery(q.batch)
	if q.fences {
		r.flags |= begins
		r.rare().epoch = s.tx.epoch
	}
	s.throttled(r, q.d.Obligations.Throttles)
	if q.d.Obligations.ReadOnly {
		r.flags |= readOnly
	}
	act := forward
	if len(q.inserts) > 0 {
		text, e := splice(q.text, q.inserts, s.utf8)
		r.rare().edit = e
		s.ToServer.Forward(wire.Append(make([]byte, 0, len(text)+wire.HeaderLen+1), 'Q', text, "\x00"))
		act = discard
	} else if q.after != "" || s.settings != nil {
		// What follows must not overtake the client's message.
		s.ToServer.Forward(wire.Append(make([]byte, 0, len(q.text)+wire.HeaderLen+1), 'Q', string(q.text), "\x00"))
		act = discard
	}
	if q.after != "" {
		r.flags |= hideReady
		s.ourQuery(q.after, hideBody|showError|arms|began) // after is setReadOnly
	}
	s.restoreSettings()
	return act
}

// endOfSegment returns ends where what is sent now ends a pipeline that may have
// written.
func (s *Session) endOfSegment() flag {
	if s.seg.writes {
		return ends
	}
	return 0
}

// pushQuery notes that the replies to a Query are owed.
func (s *Session) pushQuery(b *inspect.Batch) *reply {
	r := s.out.push('Q', s.endOfSegment())
	s.out.runs(r, b)
	r.began, s.ran = s.moment(), r.seq
	s.tx.mixed = s.tx.mixed || s.seg.open
	s.seg = segment{} // a Query ends what a Sync would have ended
	return r
}

// refuseQuery puts a text that fails in the server in place of the client's.
func (s *Session) refuseQuery(b *inspect.Batch, d *policy.Decision) action {
	s.decided(b, d)
	if d.Verdict == policy.Disconnect {
		return s.disconnect(d)
	}
	s.closeLeftovers()
	s.substituteQuery(d.Refusal, d.Rule)
	s.restoreSettings()
	return discard
}

// disconnect ends the session with the decision's words.
func (s *Session) disconnect(d *policy.Decision) action {
	s.fail(d.Refusal.SQLSTATE, d.Refusal.Message, d.Refusal.Hint)
	return discard
}

// substituteQuery sends a Query that fails.
func (s *Session) substituteQuery(refusal *policy.Refusal, rule string) {
	s.owe('Q', refusal, rule)
	s.ToServer.Forward(wire.Append(nil, 'Q', substituteText(rule), "\x00"))
}

// substituteCall sends a FunctionCall that fails: int4abs of a text that is no
// number. A Query would destroy the client's unnamed statement and portal.
func (s *Session) substituteCall(refusal *policy.Refusal, rule string) {
	s.owe('F', refusal, rule)
	text := refusedText(rule)
	size := string(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
	s.ToServer.Forward(wire.Append(nil, 'F', int4abs, "\x00\x00\x00\x01", size, text, "\x00\x00"))
}

// int4abs is the number of a function of an int4, as FunctionCall has it.
// Source: src/include/catalog/pg_proc.dat.
const int4abs = "\x00\x00\x05\x75"

// owe notes that the refusal takes the place of the answer to a message of kind.
func (s *Session) owe(kind byte, refusal *policy.Refusal, rule string) {
	r := s.out.push(kind, refuse)
	r.few = &rarities{refusal: refusal, rule: rule}
	r.began = s.moment()
	s.tx.mixed = s.tx.mixed || s.seg.open
	s.seg = segment{}
}

// substituteText fails in every server, for every user, at Parse and at Query
// alike, and says in the server's log why. Source: int4in raises 22P02.
func substituteText(rule string) string {
	return "SELECT '" + refusedText(rule) + "'::pg_catalog.int4"
}

// refusedText says why something is refused, for the server's log.
func refusedText(rule string) string {
	clean := make([]byte, 0, len(rule))
	for i := range min(len(rule), 100) {
		if c := rule[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' {
			clean = append(clean, c)
		}
	}
	return "lockkeeper: refused by rule " + string(clean)
}

// functionCall handles a FunctionCall. Its function is a number: nothing is
// known of it. Source: manual, 55.2.5 "Function Call".
func (s *Session) functionCall(m []byte, size int) action {
	const oidEnd = wire.HeaderLen + 4
	if len(m) < min(size, oidEnd) {
		return s.needMore(min(size, oidEnd))
	}
	b := systemCallFacts
	if len(m) < oidEnd || binary.BigEndian.Uint32(m[wire.HeaderLen:]) >= firstUserObject {
		b = userCallFacts
	}
	d, act := s.decide(b)
	if act != forward {
		return act
	}
	if act, goOn := s.hold(d); !goOn {
		return act
	}
	if d.Verdict == policy.Allow && d.Obligations.ReadOnly && s.status() == policy.TxIdle {
		// In its own transaction, which nothing of ours can make READ ONLY.
		d.Verdict = policy.Refuse
		d.Refusal = s.readOnlyRefusal()
		d.Rule = readOnlyRule
	}
	if d.Verdict == policy.Allow && d.Obligations.ReadOnly && !s.tx.armed && s.status() == policy.TxActive {
		if s.head.failure != nil {
			return discard // and the client has the error
		}
		if s.out.Len() == 0 {
			s.arm()
		}
		return s.waitReplies()
	}
	s.decided(b, d)
	if d.Verdict == policy.Disconnect {
		return s.disconnect(d)
	}
	s.closeLeftovers()
	if d.Verdict == policy.Refuse {
		s.substituteCall(d.Refusal, d.Rule)
		return discard
	}
	r := s.out.push('F', 0)
	s.out.runs(r, b)
	r.began, s.ran = s.moment(), r.seq
	if d.Obligations.ReadOnly {
		r.flags |= readOnly
	}
	s.tx.mixed = s.tx.mixed || s.seg.open
	s.seg = segment{}
	return forward
}

// firstUserObject is the number from which objects are not built in. Source:
// FirstNormalObjectId in src/include/access/transam.h.
const firstUserObject = 16384

// readOnlyRefusal returns the words for a write under the read-only in force.
func (s *Session) readOnlyRefusal() *policy.Refusal {
	snap := s.host.Snapshot()
	return snap.ServerReadOnlyRefusal(snap.ReadOnlyFor(s.sub, s.now()))
}

// commitRefusal returns the words for a COMMIT under the read-only in force.
func (s *Session) commitRefusal() *policy.Refusal {
	snap := s.host.Snapshot()
	c := snap.ReadOnlyFor(s.sub, s.now())
	switch {
	case c != nil && s.tx.opaque:
		return snap.OpaqueCommitRefusal(c)
	case c != nil:
		return snap.CommitRefusal(c)
	}
	return s.readOnlyRefusal()
}

// ourQuery sends a Query of our own.
func (s *Session) ourQuery(text string, flags flag) *reply {
	r := s.out.push('Q', flags)
	s.noteEpoch(r)
	s.ToServer.Forward(wire.Append(nil, 'Q', text, "\x00"))
	return r
}

// Our own texts. Every name in them is schema-qualified or has no schema.
const (
	setReadOnly   = "SET TRANSACTION READ ONLY"
	rollbackBlock = "ROLLBACK"

	// showXID asks for the transaction's id, which only one has that has changed
	// something, or for the name of a cursor WITH HOLD whose query COMMIT would
	// run to its end, in whatever mode the transaction is then. Source:
	// PreCommit_Portals in src/backend/utils/mmgr/portalmem.c.
	showXID = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable AND " +
		"creation_time OPERATOR(pg_catalog.>=) pg_catalog.transaction_timestamp()) THEN 'a cursor' " +
		"ELSE pg_catalog.txid_current_if_assigned()::pg_catalog.text END"
)

// armQuery sees to it that a query runs in a READ ONLY transaction.
func (s *Session) armQuery(q *query) (action, bool) {
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	switch {
	case s.fenced(&q.d.Obligations):
		return s.fenceQuery(q)
	case s.status() == policy.TxAborted, len(q.batch.Statements) == 0:
		return forward, true
	case !s.seg.open && s.fences(q.batch, &q.d.Obligations):
		q.fences = true
		return forward, true
	case beginsBlock(q.batch):
		q.after = setReadOnly
		return forward, true
	case s.status() == policy.TxActive:
		if s.tx.armed {
			return forward, true
		}
		s.arm() // a transaction in flight: from here on it only reads
		return s.waitReplies(), false
	case onlySettings(q.batch):
		return forward, true
	default:
		q.inserts = []insert{{at: 0, text: setReadOnly + ";", statements: 1}}
		return forward, true
	}
}

// arm makes the open transaction READ ONLY; an error is the client's.
func (s *Session) arm() {
	s.ourQuery(setReadOnly, ours|showError|arms|leads)
}

// beginsBlock reports whether a batch of control statements leaves a
// transaction open that was not open before.
func beginsBlock(b *inspect.Batch) bool {
	for i := range b.Statements {
		st := &b.Statements[i]
		switch st.Kind {
		case inspect.KindBegin, inspect.KindStart:
			return true
		case inspect.KindCommit, inspect.KindRollback:
			if st.Chain {
				return true
			}
		}
	}
	return false
}

// onlySettings reports whether a batch consists of statements that change
// nothing but the session, or end a transaction: they need no READ ONLY, and
// some (DISCARD ALL) cannot run in a transaction block.
func onlySettings(b *inspect.Batch) bool {
	for i := range b.Statements {
		if c := b.Statements[i].Class; c != inspect.Session && c != inspect.Control {
			return false
		}
	}
	return true
}

// gateQuery lets a COMMIT through if the transaction has changed nothing. A
// transaction that has written has a transaction id. Source: manual, 9.27.9,
// txid_current_if_assigned.
func (s *Session) gateQuery(q *query) (action, bool) {
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	if beginsBlock(q.batch) { // AND CHAIN
		q.after = setReadOnly
	}
	if s.status() != policy.TxActive {
		return forward, true
	}
	if s.head.stage == stageNew {
		s.head.stage = stageAsked
		s.answers = s.answers[:0]
		s.ourQuery(showXID, ours|wantRow|showError|leads)
		return s.waitReplies(), false
	}
	if len(s.answers) == 1 && s.answers[0] == "" {
		return forward, true
	}
	d := policy.Decision{Verdict: policy.Refuse, Rule: readOnlyRule, Refusal: s.commitRefusal()}
	s.decided(q.batch, &d)
	s.ourQuery(rollbackBlock, ours)
	s.substituteQuery(d.Refusal, d.Rule)
	return discard, false
}
