package session

import (
	"sync"
	"time"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// Shift is what sessions need only while they hear something. The sessions of
// one engine loop share one while it works on them, so that it stays in the
// processor's caches; others take one for themselves. It is for one goroutine.
type Shift struct {
	Clock  Clock
	Counts Counts // of the session that has it; the engine takes them

	hears    bool            // a session hears something, at Clock's time
	timed    bool            // somebody has asked for time
	private  bool            // it was taken for one session, and goes back to all
	time     time.Time       // at which it is heard
	decision policy.Decision // about the message at hand; here so that it is not allocated
	spares   []*scratch      // what idle sessions have given back
}

// scratch is what a session needs only while something is under way. An idle
// one has none: there may be thousands, and few work at a time.
type scratch struct {
	head    head            // the client's message being worked on
	entries []journal.Entry // until Rest
	replies []reply         // the ring of Outstanding
	answers []string        // first columns of rows that we asked for
	heldBy  string          // what holds the message; "" where nothing does
}

// maxSpares is how many scratches a Shift keeps; what is beyond goes to all.
const maxSpares = 64

// What whoever has no Shift shares; what nobody needs the garbage collector
// takes.
var (
	shared  = sync.Pool{New: func() any { return &scratch{} }}
	private = sync.Pool{New: func() any { return &Shift{private: true} }}
)

func (f *Shift) take() *scratch {
	if n := len(f.spares); n > 0 {
		x := f.spares[n-1]
		f.spares = f.spares[:n-1]
		return x
	}
	x, _ := shared.Get().(*scratch) // nothing else is put in
	return x
}

func (f *Shift) keep(x *scratch) {
	if f != nil && !f.private && len(f.spares) < maxSpares {
		f.spares = append(f.spares, x)
		return
	}
	shared.Put(x)
}

// spareReplies is how long a ring may be that is kept for others.
const spareReplies = 64

// Wake begins an event in a shift, which lasts until Leave or Rest. Outside of
// one, events do so themselves.
func (s *Session) Wake(f *Shift) {
	if s.Shift == nil {
		if f == nil {
			f, _ = private.Get().(*Shift) // nothing else is put in
		}
		s.Shift = f
	}
	if s.scratch == nil {
		s.scratch = s.take()
		s.out.ring = s.replies
	}
}

func (s *Session) wake() { s.Wake(nil) }

// hearing begins a time of what is heard, as far as no shift has one.
func (s *Session) hearing() {
	if s.Shift == nil || s.scratch == nil {
		s.wake()
	}
	f := s.Shift
	if f.private {
		f.Clock.Reset()
	}
	f.hears, f.timed = true, false
}

// Stirs reports whether something has happened since Leave, and may have left
// Counts to be taken.
func (s *Session) Stirs() bool { return s.Shift != nil }

// Leave ends an event, of which Counts were taken.
func (s *Session) Leave() {
	f := s.Shift
	s.Shift = nil
	if f == nil {
		return
	}
	f.Counts = Counts{}
	if f.private {
		private.Put(f)
	}
}

// Resting reports whether nothing has happened since Rest has given back what
// an idle session does not need.
func (s *Session) Resting() bool { return s.scratch == nil }

// Rest returns what is to be journaled, which nobody else knows of then. It
// gives back what an idle session does not need, if it is one: to the shift,
// where Leave comes behind it.
func (s *Session) Rest() []journal.Entry {
	x := s.scratch
	if x == nil {
		return nil
	}
	entries := x.entries
	x.entries = nil
	if s.out.Len() == 0 && s.awaiting == 0 && x.head.fresh() {
		s.giveBack(x)
	}
	return entries
}

func (s *Session) giveBack(x *scratch) {
	if x.replies = s.out.ring; len(x.replies) > spareReplies {
		x.replies = nil
	}
	if len(x.answers) > 0 {
		clear(x.answers)
		x.answers = x.answers[:0]
	}
	x.head.paced, x.heldBy = false, ""
	s.scratch, s.out.ring = nil, nil
	s.keep(x)
}
