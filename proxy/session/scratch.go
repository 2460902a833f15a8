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

// Spares keep what idle sessions have given back, so that a statement costs no
// allocation. Nil is those that all share who have none of their own, from which
// the garbage collector takes what nobody needs.
type Spares struct {
	mu   sync.Mutex
	free []*scratch
}

// maxSpares is how many Spares keep of their own.
const maxSpares = 64

var shared = sync.Pool{New: func() any { return &scratch{} }}

func (p *Spares) get() *scratch {
	if p != nil {
		p.mu.Lock()
		if last := len(p.free) - 1; last >= 0 {
			x := p.free[last]
			p.free = p.free[:last]
			p.mu.Unlock()
			return x
		}
		p.mu.Unlock()
	}
	x, _ := shared.Get().(*scratch) // nothing else is put in
	return x
}

func (p *Spares) put(x *scratch) {
	if p != nil {
		p.mu.Lock()
		room := len(p.free) < maxSpares
		if room {
			p.free = append(p.free, x)
		}
		p.mu.Unlock()
		if room {
			return
		}
	}
	shared.Put(x)
}

// spareReplies is how long a ring may be that is kept for others.
const spareReplies = 64

// Wake takes what Rest has given back. Events do so themselves, from what all
// share.
func (s *Session) Wake(from *Spares) {
	if s.scratch == nil {
		s.scratch = from.get()
		s.out.ring = s.scratch.replies
	}
}

func (s *Session) wake() { s.Wake(nil) }

// Resting reports whether nothing has happened since Rest has given back what
// an idle session does not need.
func (s *Session) Resting() bool { return s.scratch == nil }

// Rest gives back what an idle session does not need, if it is one. Counts and
// Entries must have been taken.
func (s *Session) Rest(to *Spares) {
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
	s.scratch, s.out.ring = nil, nil
	to.put(x)
}
