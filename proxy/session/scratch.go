package session

import (
	"sync"

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

	head     head // the client's message being worked on
	clock    clock
	replies  []reply         // the ring of Outstanding
	decision policy.Decision // about the message at hand; here so that it is not allocated
	answers  []string        // first columns of rows that we asked for
}

// spares keeps what idle sessions have given back, so that a statement costs no
// allocation; what nobody needs the garbage collector takes.
var spares = sync.Pool{New: func() any { return &scratch{} }}

// spareReplies is how long a ring may be that is kept for others.
const spareReplies = 64

// wake takes what Rest has given back.
func (s *Session) wake() {
	if s.scratch == nil {
		s.scratch, _ = spares.Get().(*scratch) // nothing else is put in
		s.out.ring = s.scratch.replies
	}
}

// Resting reports whether nothing has happened since Rest has given back what
// an idle session does not need.
func (s *Session) Resting() bool { return s.scratch == nil }

// Rest gives back what an idle session does not need, if it is one. Counts and
// Entries must have been taken.
func (s *Session) Rest() {
	x := s.scratch
	if x == nil || s.out.Len() > 0 || s.awaiting > 0 || !x.head.fresh() {
		return
	}
	if x.replies = s.out.ring; len(x.replies) > spareReplies {
		x.replies = nil
	}
	clear(x.answers)
	x.answers, x.decision, x.head = x.answers[:0], policy.Decision{}, head{}
	s.scratch, s.out.ring = nil, nil
	spares.Put(x)
}
