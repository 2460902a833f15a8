package policy

import "time"

// Decide says what becomes of a request. It never blocks and never fails.
func (s *Snapshot) Decide(r *Request) Decision {
	d := Decision{Verdict: Allow}
	d.Obligations.ReadOnly = s.ReadOnlyFor(r.Subject, r.Now) != nil
	return d
}

// ReadOnlyFor returns the read-only containment in force for the subject; nil
// when there is none.
func (s *Snapshot) ReadOnlyFor(sub *Subject, now time.Time) *Containment {
	for i := range s.Containments {
		if c := &s.Containments[i]; c.Kind == ReadOnlyMode && c.Active(now) {
			return c
		}
	}
	return nil
}

// ServerReadOnlyRefusal is what the client receives in place of the server's
// own 25006 while a transaction is read-only because of c.
func (s *Snapshot) ServerReadOnlyRefusal(c *Containment) *Refusal {
	return &Refusal{SQLSTATE: "25006", Message: "read-only: " + c.Reason}
}
