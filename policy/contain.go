package policy

import (
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
	return c.Kind == kind && c.Active(now) && c.Scope.Matches(sub) && !c.excepts(sub)
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
