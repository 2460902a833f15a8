package policy

import (
	"strings"
	"time"

	"lockkeeper/inspect"
)

// DefaultMaxHold is how long a pause holds a new transaction where the
// containment does not say.
const DefaultMaxHold = 30 * time.Second

func (c *Containment) maxHold() time.Duration {
	if c.MaxHold <= 0 {
		return DefaultMaxHold
	}
	return time.Duration(c.MaxHold)
}

// inForce reports whether the containment is one of that kind and holds for
// the subject at now.
func (c *Containment) inForce(kind ContainmentKind, sub *Subject, now time.Time) bool {
	return c.Kind == kind && c.Active(now) && c.Scope.Matches(sub)
}

// find returns the first containment of a kind that is in force; nil when
// there is none.
func (s *Snapshot) find(kind ContainmentKind, sub *Subject, now time.Time) *Containment {
	for i := range s.Containments {
		if c := &s.Containments[i]; c.inForce(kind, sub, now) {
			return c
		}
	}
	return nil
}

// ReadOnlyFor returns the read-only containment in force for the subject; nil
// when there is none.
func (s *Snapshot) ReadOnlyFor(sub *Subject, now time.Time) *Containment {
	if s == nil {
		return nil
	}
	return s.find(ReadOnlyMode, sub, now)
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

// readOnlyStage returns the strictest stage that a containment means for the
// request, and that containment.
func (s *Snapshot) readOnlyStage(r *Request) (strictest stage, by *Containment) {
	for i := range s.Containments {
		c := &s.Containments[i]
		if !c.inForce(ReadOnlyMode, r.Subject, r.Now) {
			continue
		}
		if st := c.stageOf(r); st > strictest {
			strictest, by = st, c
		}
	}
	return strictest, by
}

func (c *Containment) stageOf(r *Request) stage {
	switch {
	case r.Tx == TxIdle || r.TxEpoch >= c.Epoch:
		return readOnly
	case c.InFlight != RefuseCommit && r.Now.Before(c.DrainUntil):
		return draining
	default:
		return gated
	}
}

// contain applies the containments. It returns a refusal and the name of what
// refused, or nil and the obligations that they add.
func (s *Snapshot) contain(r *Request, o *Obligations) (*Refusal, string) {
	if len(s.Containments) == 0 {
		return nil, ""
	}
	if refusal := s.applyReadOnly(r, o); refusal != nil {
		return refusal, CheckReadOnly
	}
	if c := s.find(FreezeDDL, r.Subject, r.Now); c != nil {
		if refusal := s.Policy.frozen(c, r.Batch); refusal != nil {
			return refusal, CheckFreeze
		}
	}
	if c := s.find(Pause, r.Subject, r.Now); c != nil && r.Tx == TxIdle && beginsWork(r.Batch) {
		if c.Refuse {
			return pauseRefusal(c), CheckPause
		}
		o.Hold = &Hold{Containment: c.ID, Max: c.maxHold(), Refusal: pauseRefusal(c)}
	}
	return nil, ""
}

// applyReadOnly is contain for read-only.
func (s *Snapshot) applyReadOnly(r *Request, o *Obligations) *Refusal {
	st, c := s.readOnlyStage(r)
	if st == notReadOnly {
		return nil
	}
	if !controlIsFollowable(r.Batch) {
		return s.Policy.mixedRefusal(c)
	}
	if st == draining {
		o.ReadOnly = chains(r.Batch)
		return nil
	}
	o.ReadOnly = true
	if what, why := readOnlyObjection(r.Batch); why != "" {
		return s.Policy.readOnlyRefusal(c, what, why)
	}
	o.GateCommit = st == gated && commits(r.Batch)
	return nil
}

// readOnlyObjection says what of a batch may change something in spite of a
// read-only transaction, or would fail in it; "" when nothing does.
func readOnlyObjection(b *inspect.Batch) (what, why string) {
	if b.Why != "" {
		return "unclassified text", "Nobody can tell what it would do: " + sentence(b.Why)
	}
	for i := range b.Statements {
		if s := &b.Statements[i]; s.Class != inspect.Read || s.Hidden != 0 {
			if why := statementObjection(s); why != "" {
				return deed(s, worst(s)), why
			}
		}
	}
	return "", ""
}

func statementObjection(s *inspect.Statement) string {
	switch {
	case s.Class == inspect.Unknown:
		return "Nobody can tell what it would do."
	case s.Class == inspect.Write:
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
	default:
		return ""
	}
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

// frozen returns the refusal of a batch while DDL is frozen; nil when it may
// pass.
func (p *Policy) frozen(c *Containment, b *inspect.Batch) *Refusal {
	if b.Why != "" {
		if p.unknown == allowUnknown {
			return nil
		}
		return p.freezeRefusal(c, "unclassified text", "It may be DDL: "+sentence(b.Why))
	}
	for i := range b.Statements {
		if why := p.freezeObjection(&b.Statements[i]); why != "" {
			s := &b.Statements[i]
			return p.freezeRefusal(c, deed(s, worst(s)), why)
		}
	}
	return nil
}

func (p *Policy) freezeObjection(s *inspect.Statement) string {
	switch {
	case s.Class == inspect.Unknown && p.unknown != allowUnknown:
		return "It may run DDL."
	case s.Class == inspect.Define && !harmlessInFreeze(s):
		return "It is DDL or takes a strong lock."
	case s.Kind == inspect.KindTruncate:
		return "It takes a strong lock."
	default:
		return ""
	}
}

// harmlessInFreeze reports whether a Define statement changes no schema and
// takes no lock that readers or writers wait for: LOCK TABLE in a mode that
// queries take anyway, ANALYZE, VACUUM of named tables without FULL, and
// anything about the session's own temporary tables.
func harmlessInFreeze(s *inspect.Statement) bool {
	if locksWeakly(s, inspect.RowExclusive) || s.Kind == "ANALYZE" {
		return true
	}
	vacuum := s.Kind == "VACUUM" && len(s.Relations) > 0
	for i := range s.Relations {
		rel := &s.Relations[i]
		vacuum = vacuum && rel.Lock != inspect.NoLock && rel.Lock <= inspect.ShareUpdateExclusive
	}
	return vacuum || definesOnlyTemporary(s)
}

func definesOnlyTemporary(s *inspect.Statement) bool {
	temporary := false
	for i := range s.Relations {
		rel := &s.Relations[i]
		if rel.Access&inspect.AccessDefine == 0 && rel.Lock == inspect.NoLock {
			continue
		}
		if rel.Schema != tempSchema {
			return false
		}
		temporary = true
	}
	return temporary
}

// beginsWork reports whether the batch begins what a pause is to hold: a
// transaction, or a statement in its own one. Settings, and a ROLLBACK for
// safety's sake as poolers send it, pass.
func beginsWork(b *inspect.Batch) bool {
	if b.Why != "" {
		return true
	}
	for i := range b.Statements {
		s := &b.Statements[i]
		if s.Class != inspect.Session && (s.Class != inspect.Control || beginsTransaction(s)) {
			return true
		}
	}
	return false
}
