package policy

import "sync/atomic"

// Snapshot is everything that decisions depend on besides the request. It is
// immutable once it was handed to Decider.Replace.
type Snapshot struct {
	Epoch        uint64 // grows with every Replace
	Policy       *Policy
	Containments []Containment
}

// Decider holds the one Snapshot in force. Its zero value refuses every
// statement until the first Replace.
type Decider struct {
	current atomic.Pointer[Snapshot]
}

// Current returns the snapshot in force; nil before the first Replace.
func (d *Decider) Current() *Snapshot { return d.current.Load() }

// Replace puts s in force. Whoever replaces is the only one who does: the
// control service serialises changes.
func (d *Decider) Replace(s *Snapshot) { d.current.Store(s) }
