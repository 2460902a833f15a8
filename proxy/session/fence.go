package session

import (
	"lockkeeper/inspect"
	"lockkeeper/policy"
)

// fence keeps a READ WRITE transaction block read-only but for changes of the
// tables that may be written: whatever else the client sends stands in a
// subtransaction that is READ ONLY, which nothing inside it can undo, and whose
// end puts back what was before it. COMMIT is made READ ONLY, too, so that
// nothing that was put off writes then: deferred triggers, cursors WITH HOLD.
// Source: check_transaction_read_only in src/backend/commands/variable.c,
// CommitSubTransaction in src/backend/access/transam/xact.c.
//
// Its state is as sent: where something of ours fails, the block is aborted, and
// only the client's ROLLBACK TO leads back into it.
type fence struct {
	begun bool // the open block began behind one
	up    bool // and stands behind it still
	outer bool // our savepoint around all of the client's stands
	inner bool // our READ ONLY savepoint is the innermost
}

// The savepoints of a fence.
const (
	innerSavepoint = policy.SavepointPrefix + "inner"
	outerSavepoint = policy.SavepointPrefix + "outer"
)

// before returns what of ours has to stand directly before a statement of the
// client's, and follows both. aborted says that the block is.
func (f *fence) before(st *inspect.Statement, aborted bool) []string {
	switch st.Kind {
	case inspect.KindSavepoint:
		out := f.open()
		if !f.outer {
			f.outer = true
			out = append(out, "SAVEPOINT "+outerSavepoint)
		}
		return out
	case inspect.KindRelease, inspect.KindRollbackTo:
		f.inner = false
		return nil
	case inspect.KindCommit:
		if aborted {
			return nil
		}
		return append(f.openAll(), setReadOnly)
	case inspect.KindRollback, inspect.KindBegin, inspect.KindStart, inspect.KindSet, inspect.KindReset:
		return nil // SET TRANSACTION does not work in a subtransaction
	case inspect.KindShow: // and may follow it; but what it shows has to be so
		if st.Name != "transaction_read_only" && st.Name != "all" {
			return nil
		}
	}
	return f.close()
}

// close returns what makes the block READ ONLY.
func (f *fence) close() []string {
	if f.inner {
		return nil
	}
	f.inner = true
	return []string{"SAVEPOINT " + innerSavepoint, setReadOnly}
}

// open returns what makes the block READ WRITE at the client's own level.
func (f *fence) open() []string {
	if !f.inner {
		return nil
	}
	f.inner = false
	return []string{"RELEASE " + innerSavepoint}
}

// openAll returns what leads out of all savepoints.
func (f *fence) openAll() []string {
	if !f.outer {
		return f.open()
	}
	f.outer, f.inner = false, false
	return []string{"RELEASE " + outerSavepoint}
}

// fenced reports whether what the obligations are about runs behind a fence.
func (s *Session) fenced(o *policy.Obligations) bool {
	return o.Fence && s.tx.fence.up && !s.tx.armed && s.status() != policy.TxIdle
}

// fences reports whether a batch that is sent now begins a block behind a
// fence: a BEGIN with nothing before it, of a transaction that may write.
func (s *Session) fences(b *inspect.Batch, o *policy.Obligations) bool {
	if !o.Fence || len(b.Statements) != 1 || s.seg.armed {
		return false
	}
	st := &b.Statements[0]
	return (st.Kind == inspect.KindBegin || st.Kind == inspect.KindStart) && !st.AsksReadOnly && s.newBlock(b) == begins
}

// aborted reports whether the block is aborted. Its status is that of the last
// ReadyForQuery: a ROLLBACK TO since then has led out of it, or everything
// behind it is skipped.
func (s *Session) aborted() bool { return s.status() == policy.TxAborted && !s.seg.ended }

// leaveFence is told whether what is sent is to have a fence: a block in which
// something stood without its fence has none any more.
func (s *Session) leaveFence(fenced bool) {
	if !fenced {
		s.tx.fence.up = false
	}
}

// fenceQuery puts what the fence needs before each statement of a Query.
func (s *Session) fenceQuery(q *query) (action, bool) {
	if q.batch.NoPositions && len(q.batch.Statements) > 1 {
		d := policy.Decision{Verdict: policy.Refuse, Rule: readOnlyRule, Refusal: s.readOnlyRefusal()}
		return s.refuseQuery(q.batch, &d), false
	}
	for i := range q.batch.Statements {
		st := &q.batch.Statements[i]
		q.insert(st.Start, i, s.tx.fence.before(st, s.aborted()))
	}
	if s.newBlock(q.batch) != 0 { // AND CHAIN
		q.after = setReadOnly
	}
	return forward, true
}

// insert puts statements of ours before the i-th of the client's.
func (q *query) insert(at, i int, texts []string) {
	if len(texts) == 0 {
		return
	}
	in := insert{at: at, before: i, statements: len(texts)}
	for _, t := range texts {
		in.text += t + ";"
	}
	q.inserts = append(q.inserts, in)
}

// writeQuery lets a Query change a table that may be written, if the server
// agrees that it is plain.
func (s *Session) writeQuery(q *query) (action, bool) {
	if s.out.Len() > 0 {
		return s.waitReplies(), false
	}
	if s.aborted() {
		return forward, true
	}
	why := s.notWritable(q.d)
	if why == "" && s.head.stage == stageNew {
		s.head.stage = stageAsked
		s.answers = s.answers[:0]
		s.ourQuery(proofOf(q.d.Obligations.Write), ours|wantRow|showError|leads)
		return s.waitReplies(), false
	}
	if why = s.unproven(why); why != "" {
		d := s.refuseWrite(q.batch, why)
		return s.refuseQuery(q.batch, &d), false
	}
	if s.fenced(&q.d.Obligations) {
		q.insert(0, 0, s.tx.fence.open())
	}
	return forward, true
}

// writeExecute is writeQuery for the extended protocol. What the names stand for
// was settled at the Bind: nothing may have run since that could change it.
func (s *Session) writeExecute(x *execution) (action, bool) {
	if s.aborted() {
		return forward, true
	}
	why := s.notWritable(x.d)
	if x.bound < s.ran {
		why = "something else ran between its Bind and its Execute; bind it again"
	}
	if why == "" && s.head.stage == stageNew {
		return s.askInPipeline(proofOf(x.d.Obligations.Write)), false
	}
	if s.awaiting > 0 {
		return s.waitReplies(), false
	}
	if why = s.unproven(why); why != "" {
		d := s.refuseWrite(x.batch, why)
		return s.refuseExtended(x.batch, &d, 'E', ""), false
	}
	if s.fenced(&x.d.Obligations) {
		x.before = s.tx.fence.open()
	}
	return forward, true
}

// notWritable says why the transaction at hand is READ ONLY, whatever is
// changed in it; "" when it is not.
func (s *Session) notWritable(d *policy.Decision) string {
	switch {
	case s.status() == policy.TxIdle && s.seg.armed:
		return "what was sent before it in the pipeline runs in the same transaction, which is READ ONLY by now; send BEGIN, or a Sync before it"
	case s.status() == policy.TxIdle, s.fenced(&d.Obligations):
		return ""
	default:
		return "the transaction is READ ONLY; begin another one"
	}
}

// unproven returns why not, or why the server's answer does not let a change through.
func (s *Session) unproven(why string) string {
	switch {
	case why != "":
		return why
	case len(s.answers) != 1:
		return "nobody could ask the server about it"
	default:
		return s.answers[0]
	}
}

func (s *Session) refuseWrite(b *inspect.Batch, why string) policy.Decision {
	snap := s.host.Snapshot()
	return policy.Decision{
		Verdict: policy.Refuse, Rule: readOnlyRule,
		Refusal: snap.PlainWriteRefusal(snap.ReadOnlyFor(s.sub, s.now()), b, why),
	}
}

// unsettled reports whether transaction control is under way in the pipeline:
// which side of a fence comes next is not known before it is answered.
func (s *Session) unsettled(o *policy.Obligations) bool {
	if s.out.Len() == 0 {
		s.seg.control = false
	}
	return o.Fence && s.seg.control
}

// fenceBind makes the transaction READ ONLY before a Bind, which plans what it
// binds and may run functions for that.
func (s *Session) fenceBind(b *inspect.Batch) {
	if onlySettings(b) {
		return
	}
	for _, text := range s.tx.fence.close() {
		s.ourStatement(text, showError)
	}
}
