package policy

import (
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/sqlstate"
)

// LockLimit is how long a statement may wait for a strong lock on a relation
// where its text does not say that it will.
type LockLimit struct {
	Timeout  time.Duration // 0: as long as it likes
	Rule     string        // that asks for it
	Enforced bool          // false: the wait is only recorded
}

// LockLimit returns the strictest limit that rules put on waiting for a strong
// lock on one of the names that a relation goes by: its own, that of the table
// which it is an index of, those of the tables which it is a partition of. A
// limit that is enforced counts before one that is not.
//
// Rules that name kinds are left out, for nobody knows the kind of what is
// hidden; so are those that name no tables.
func (s *Snapshot) LockLimit(sub *Subject, names []inspect.Relation, now time.Time) LockLimit {
	if s == nil || s.Policy == nil {
		return LockLimit{}
	}
	observing := s.find(ObserveMode, sub, now) != nil
	var best LockLimit
	for _, i := range s.Policy.ddlRules {
		r := &s.Policy.rules[i]
		if !r.limitsHiddenLocks() || !r.subject.matches(sub) || !r.matchesAny(names) {
			continue
		}
		l := LockLimit{Timeout: r.ddl.lockTimeout, Rule: r.name, Enforced: r.enforce && !observing}
		if l.Enforced == best.Enforced && stricter(l.Timeout, best.Timeout) || l.Enforced && !best.Enforced {
			best = l
		}
	}
	return best
}

// ShortestLockLimit returns the shortest of the limits that LockLimit may
// return; 0 where no rule has one.
func (s *Snapshot) ShortestLockLimit() time.Duration {
	if s == nil || s.Policy == nil {
		return 0
	}
	var shortest time.Duration
	for _, i := range s.Policy.ddlRules {
		if r := &s.Policy.rules[i]; r.limitsHiddenLocks() && stricter(r.ddl.lockTimeout, shortest) {
			shortest = r.ddl.lockTimeout
		}
	}
	return shortest
}

// limitsHiddenLocks reports whether the rule limits how long anything may wait
// for the lock of one of its tables, whatever it is called.
func (r *rule) limitsHiddenLocks() bool {
	return r.ddl.lockTimeout > 0 && r.classes.has(inspect.Define) && r.kinds.empty() && r.bounds == 0 &&
		r.tables != nil && !r.tables.empty()
}

func (r *rule) matchesAny(names []inspect.Relation) bool {
	for i := range names {
		if r.tables.matches(names[i].Schema, names[i].Name) {
			return true
		}
	}
	return false
}

// Refusal is what the client receives in place of the server's 57014 when the
// statement is cancelled because of the limit. It waited for a lock of that
// mode on rel.
func (l *LockLimit) Refusal(mode string, rel *inspect.Relation) *Refusal {
	return &Refusal{
		SQLSTATE: sqlstate.LockNotAvailable,
		Message:  "canceling statement due to lock timeout",
		Detail: "Rule " + quoted(l.Rule) + " lets nobody wait for longer than " + shortDuration(l.Timeout) + " for " + mode + " on " + tableName(rel) +
			", and what was running, or a setting in it, knows no such limit.",
		Hint: "Try again when nobody holds the table; \"lockkeeper locks\" shows who does.",
	}
}
