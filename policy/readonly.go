package policy

import (
	"strings"
	"time"

	"lockkeeper/inspect"
)

// ReadOnlyFor returns the read-only containment in force for the subject, the
// strictest where there are several; nil when there is none.
func (s *Snapshot) ReadOnlyFor(sub *Subject, now time.Time) *Containment {
	if s == nil {
		return nil
	}
	var by *Containment
	for i := range s.Containments {
		if c := &s.Containments[i]; c.inForce(ReadOnlyMode, sub, now) && (by == nil || by.Holds() && !c.Holds()) {
			by = c
		}
	}
	return by
}

// TooLate returns a read-only containment under which a transaction of the
// subject that began in an epoch may not commit a change any more; nil when it
// may.
func (s *Snapshot) TooLate(sub *Subject, epoch uint64, now time.Time) *Containment {
	if s == nil {
		return nil
	}
	for i := range s.Containments {
		if c := &s.Containments[i]; c.inForce(ReadOnlyMode, sub, now) && epoch < c.Epoch && !c.lets(now) {
			return c
		}
	}
	return nil
}

// Covers reports whether a read-only containment that is in force for the
// subject holds what the one of epoch promised.
func (s *Snapshot) Covers(sub *Subject, epoch uint64, now time.Time) bool {
	if s == nil {
		return false
	}
	for i := range s.Containments {
		if c := &s.Containments[i]; c.inForce(ReadOnlyMode, sub, now) && c.Epoch >= epoch {
			return true
		}
	}
	return false
}

// lets reports whether transactions in flight may still go on.
func (c *Containment) lets(now time.Time) bool {
	return c.InFlight != RefuseCommit && now.Before(c.DrainUntil)
}

// stage is what a read-only containment means for one request.
type stage uint8

// The stages of read-only, from the mildest.
const (
	notReadOnly stage = iota
	draining          // the open transaction began before and may end as it likes
	gated             // the open transaction began before and may not change anything any more
	readOnly
)

func (c *Containment) stageOf(r *Request) stage {
	switch {
	case r.Tx == TxIdle || r.TxEpoch >= c.Epoch:
		return readOnly
	case c.lets(r.Now) && !r.Fenced: // one that was not to write anything else is not let do so now
		return draining
	default:
		return gated
	}
}

// readOnlyView is what all read-only containments together mean for a request.
type readOnlyView struct {
	stage stage // the strictest
	by    *Containment
	gated bool // one of them does not let the open transaction commit a change
	fence bool // all of them let some tables be written
	hold  bool // all of them would hold what writes
}

func (s *Snapshot) readOnlyView(r *Request) readOnlyView {
	v := readOnlyView{hold: true, fence: true}
	for i := range s.Containments {
		c := &s.Containments[i]
		if !c.inForce(ReadOnlyMode, r.Subject, r.Now) {
			continue
		}
		st := c.stageOf(r)
		v.gated = v.gated || st == gated
		v.hold = v.hold && c.Holds()
		v.fence = v.fence && len(c.Writable) > 0
		if st > v.stage || st == v.stage && v.by.Holds() && !c.Holds() {
			v.stage, v.by = st, c
		}
	}
	return v
}

// applyReadOnly is contain for read-only.
func (s *Snapshot) applyReadOnly(r *Request, o *Obligations) *Refusal {
	v := s.readOnlyView(r)
	if v.stage == notReadOnly {
		return nil
	}
	if v.holds(r) {
		o.ReadOnly = true
		o.Hold = &Hold{Containment: v.by.ID, Max: v.by.maxHold()}
		return nil
	}
	if !controlIsFollowable(r.Batch) {
		return s.Policy.mixedRefusal(v.by)
	}
	if v.stage == draining {
		o.ReadOnly = chains(r.Batch)
		return nil
	}
	o.Fence = v.fence && v.stage == readOnly
	if o.Fence {
		o.Write = s.plainWrite(r)
	}
	o.ReadOnly = o.Write == nil
	o.GateCommit = (v.gated || r.TxOpaque) && commits(r.Batch)
	if !o.ReadOnly {
		return nil
	}
	return s.objects(r, &v, o.Fence)
}

// holds reports whether the request waits: it may write, has not waited for
// long enough, and no transaction is open that would wait with it.
func (v *readOnlyView) holds(r *Request) bool {
	return v.hold && v.stage == readOnly && r.Tx == TxIdle && !r.Pipelined && r.Waited < v.by.maxHold() && mayWrite(r.Batch)
}

// waited adds to why a statement is refused that it has been held.
func (v *readOnlyView) waited(r *Request, why string) string {
	if r.Waited == 0 {
		return why
	}
	return why + " It was held for " + shortDuration(r.Waited.Round(time.Second)) + "."
}

// mayWrite reports whether a batch, outside a transaction, may change anything
// or begin a transaction that may: what mode hold holds.
func mayWrite(b *inspect.Batch) bool {
	if b.Why != "" {
		return true
	}
	for i := range b.Statements {
		s := &b.Statements[i]
		begins := (s.Kind == inspect.KindBegin || s.Kind == inspect.KindStart) && !s.AsksReadOnly
		if begins || s.Hidden&inspect.HiddenFunction != 0 || statementObjection(s) != "" {
			return true
		}
	}
	return false
}

// objects returns the refusal of a batch of which something may be changed in
// spite of a read-only transaction, or that would fail in it; nil when nothing
// may. fence says that some tables may be written.
func (s *Snapshot) objects(r *Request, v *readOnlyView, fence bool) *Refusal {
	if b := r.Batch; b.Why != "" {
		return s.Policy.readOnlyRefusal(v.by, "unclassified text", v.waited(r, "Nobody can tell what it would do: "+sentence(b.Why)+s.notPlain(r, fence)))
	}
	for i := range r.Batch.Statements {
		st := &r.Batch.Statements[i]
		if st.Class == inspect.Read && st.Hidden == 0 {
			continue
		}
		why := statementObjection(st)
		if rule := s.vouches(r, st); rule != nil && !r.InBlock {
			return s.Policy.blockRefusal(v.by, rule, deed(st, worst(st)))
		} else if rule != nil {
			why = effectObjection(st)
		}
		if why != "" {
			return s.Policy.readOnlyRefusal(v.by, deed(st, worst(st)), v.waited(r, why+s.notPlain(r, fence)))
		}
	}
	return nil
}

// vouches returns the rule by which a DO or CALL may run in read-only; nil when
// there is none. What was read from tokens alone nobody vouches for.
//
// It may run inside a transaction block only. There it cannot end the
// transaction and begin another one, the transaction is READ ONLY and has a
// snapshot, so that PostgreSQL does not make it READ WRITE, and COMMIT has to
// pass through us. Sources: SPI_commit in src/backend/executor/spi.c and
// check_transaction_read_only in src/backend/commands/variable.c.
func (s *Snapshot) vouches(r *Request, st *inspect.Statement) *rule {
	if st.Kind != inspect.KindDo && st.Kind != inspect.KindCall || r.Batch.FromTokens || s.find(ObserveMode, r.Subject, r.Now) != nil {
		return nil
	}
	for i := range s.Policy.rules {
		if one := &s.Policy.rules[i]; one.inReadOnly && one.enforce && one.matches(st, nil, r.Subject) {
			return one
		}
	}
	return nil
}

// statementObjection says why read-only refuses a statement; "" when it does
// not.
func statementObjection(s *inspect.Statement) string {
	if s.Class == inspect.Unknown {
		return "Nobody can tell what it would do."
	}
	return effectObjection(s)
}

// effectObjection is statementObjection as far as it is known what the
// statement does.
func effectObjection(s *inspect.Statement) string {
	switch {
	case s.Class == inspect.Write && !writesOnlyTemporary(s):
		return "It is a write."
	case s.Class == inspect.Define && !locksWeakly(s, inspect.AccessShare):
		return "It is DDL, maintenance, or takes a lock that writers need."
	case s.Kind == "LOAD":
		return "It loads code into the server."
	case s.Hidden&inspect.HiddenServerSide != 0:
		return "It has effects that a read-only transaction does not stop: on files, programs, large objects, replication slots or other connections."
	case s.Hidden&inspect.HiddenRowLock != 0:
		return "It locks rows."
	case s.Kind == inspect.KindPrepareTransaction || s.Kind == inspect.KindCommitPrepared:
		return "Two-phase commit would carry changes past read-only."
	case asksReadWrite(s):
		return "It asks for read-write transactions."
	case takesOurName(s):
		return "The savepoint's name is lockkeeper's own."
	default:
		return ""
	}
}

// writesOnlyTemporary reports whether a statement changes rows of nothing but
// tables that the text says are temporary. PostgreSQL lets that through in a
// READ ONLY transaction, and refuses what else such a statement may do: change
// the table behind a temporary view, TRUNCATE. Source: ExecCheckXactReadOnly in
// src/backend/executor/execMain.c.
func writesOnlyTemporary(s *inspect.Statement) bool {
	for i := range s.Relations {
		r := &s.Relations[i]
		if r.Access&(inspect.AccessTruncate|inspect.AccessDefine) != 0 || r.Access&inspect.AccessWrite != 0 && r.Schema != tempSchema {
			return false
		}
	}
	return len(s.Relations) > 0 && s.Kind != inspect.KindTruncate
}

// locksWeakly reports whether the statement is a LOCK TABLE of no mode
// stronger than most.
func locksWeakly(s *inspect.Statement, most inspect.LockMode) bool {
	if s.Kind != inspect.KindLockTable || len(s.Relations) == 0 {
		return false
	}
	for i := range s.Relations {
		if l := s.Relations[i].Lock; l == inspect.NoLock || l > most {
			return false
		}
	}
	return true
}

// asksReadWrite reports whether the statement would make this or later
// transactions read-write. BEGIN … READ WRITE is not meant: the transaction
// is made read-only right after it.
func asksReadWrite(s *inspect.Statement) bool {
	if s.Kind == inspect.KindBegin || s.Kind == inspect.KindStart {
		return false
	}
	if s.AsksReadWrite {
		return true
	}
	if s.Set == nil {
		return false
	}
	switch s.Set.Name {
	case "transaction_read_only":
		return s.Set.Reset || !saysTrue(s.Set.Value)
	case "default_transaction_read_only":
		return !s.Set.Reset && !saysTrue(s.Set.Value)
	default:
		return false
	}
}

// saysTrue reports whether a boolean setting's value is true. Source:
// parse_bool_with_len in src/backend/utils/adt/bool.c.
func saysTrue(v string) bool {
	v = strings.ToLower(v)
	switch v {
	case "on", "1":
		return true
	default:
		return v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v))
	}
}

// beginsTransaction reports whether a transaction block is open after the
// statement that was not before it.
func beginsTransaction(s *inspect.Statement) bool {
	return s.Kind == inspect.KindBegin || s.Kind == inspect.KindStart || s.Chain
}

// endsTransaction reports whether the statement ends the transaction block.
func endsTransaction(s *inspect.Statement) bool {
	return s.Kind == inspect.KindCommit || s.Kind == inspect.KindRollback || s.Kind == inspect.KindPrepareTransaction
}

// controlIsFollowable reports whether the proxy can make every transaction
// that the text touches read-only by what it puts before and after the text.
// Texts of one statement and texts without BEGIN, COMMIT or ROLLBACK can
// always be followed. Of the others only those that hold nothing but
// transaction control and settings, with nothing but settings after a BEGIN:
// COMMIT; BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE.
func controlIsFollowable(b *inspect.Batch) bool {
	if len(b.Statements) <= 1 {
		return true
	}
	control, others, begun := false, false, false
	for i := range b.Statements {
		s := &b.Statements[i]
		begins, ends := beginsTransaction(s), endsTransaction(s)
		if begun && s.Class != inspect.Session {
			others = true
		}
		if !begins && !ends && s.Class != inspect.Session {
			others = true
		}
		control = control || begins || ends
		begun = begun || begins
	}
	return !control || !others
}

// chains reports whether the text ends a transaction and begins the next one
// in its place.
func chains(b *inspect.Batch) bool {
	for i := range b.Statements {
		if beginsTransaction(&b.Statements[i]) && b.Statements[i].Kind != inspect.KindBegin && b.Statements[i].Kind != inspect.KindStart {
			return true
		}
	}
	return endsThenBegins(b)
}

// endsThenBegins reports whether a text of transaction control ends one
// transaction and begins another.
func endsThenBegins(b *inspect.Batch) bool {
	ended := false
	for i := range b.Statements {
		if s := &b.Statements[i]; endsTransaction(s) {
			ended = true
		} else if ended && beginsTransaction(s) {
			return true
		}
	}
	return false
}

func commits(b *inspect.Batch) bool {
	for i := range b.Statements {
		if b.Statements[i].Kind == inspect.KindCommit {
			return true
		}
	}
	return false
}
