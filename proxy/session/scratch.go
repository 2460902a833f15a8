package session

import (
	"sync"
	"time"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// scratch is what a session needs only while something is under way. An idle
// one has none: there may be thousands, and few work at a time.
type scratch struct {
	// Counts and Entries are taken by the engine after every event; it calls
	// Rest then. They are there unless the session rests.
	Counts  Counts
	Entries []journal.Entry

	head     head            // the client's message being worked on
	clock    *Clock          // while bytes are heard
	own      Clock           // where no shift has one
	time     time.Time       // at which they are heard; zero until somebody asks
	replies  []reply         // the ring of Outstanding
	decision policy.Decision // about the message at hand; here so that it is not allocated
	answers  []string        // first columns of rows that we asked for
}

// Shift is what the sessions of one engine loop share while it works on them: a
// clock, and what idle ones have given back. It is for one goroutine. Nil is what
// all share who have none.
type Shift struct {
	Clock  Clock
	spares []*scratch
}

// maxSpares is how many a Shift keeps; what is beyond goes to all.
const maxSpares = 64

// shared has spares for whoever has no Shift; what nobody needs the garbage
// collector takes.
var shared = sync.Pool{New: func() any { return &scratch{} }}

func (f *Shift) take() *scratch {
	if f != nil && len(f.spares) > 0 {
		last := len(f.spares) - 1
		x := f.spares[last]
		f.spares = f.spares[:last]
		return x
	}
	x, _ := shared.Get().(*scratch) // nothing else is put in
	return x
}

func (f *Shift) keep(x *scratch) {
	if f != nil && len(f.spares) < maxSpares {
		f.spares = append(f.spares, x)
		return
	}
	shared.Put(x)
}

// spareReplies is how long a ring may be that is kept for others.
const spareReplies = 64

// Wake takes what Rest has given back, before an event in a shift. Outside of
// one, events do so themselves.
func (s *Session) Wake(f *Shift) {
	if s.scratch == nil {
		s.scratch = f.take()
		s.out.ring = s.replies
	}
	if f != nil {
		s.clock = &f.Clock
	}
}

func (s *Session) wake() { s.Wake(nil) }

// hearing takes the time of what is heard, as far as no shift has one.
func (s *Session) hearing() {
	s.wake()
	s.time = time.Time{}
	if s.clock == nil {
		s.own.Reset()
		s.clock = &s.own
	}
}

// Resting reports whether nothing has happened since Rest has given back what
// an idle session does not need.
func (s *Session) Resting() bool { return s.scratch == nil }

// Rest gives back what an idle session does not need, if it is one. Counts and
// Entries must have been taken.
func (s *Session) Rest(f *Shift) {
	x := s.scratch
	if x == nil || s.out.Len() > 0 || s.awaiting > 0 || !x.head.fresh() {
		return
	}
	if x.replies = s.out.ring; len(x.replies) > spareReplies {
		x.replies = nil
	}
	if len(x.answers) > 0 {
		clear(x.answers)
		x.answers = x.answers[:0]
	}
	if x.decision.Verdict == policy.Allow || x.decision.Refusal != nil {
		x.decision = policy.Decision{}
	}
	x.head.paced = false
	x.clock = nil
	s.scratch, s.out.ring = nil, nil
	f.keep(x)
}
