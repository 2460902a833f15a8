package proxy

import (
	"runtime/debug"
	"time"
)

// How memory is given back to the system that a crowd of sessions has used to
// log in, or while it was there. The garbage collector would keep it: it looks
// again only when the heap has doubled, and idle sessions need no more.
const (
	giveBackEvery = 5 * time.Second
	crowd         = 100 // sessions that have come or gone
)

// traffic is how many sessions have come, and how many there are.
type traffic struct{ begun, here int64 }

// since returns how many have come or gone.
func (t traffic) since(before traffic) int64 {
	begun := t.begun - before.begun
	gone := begun - (t.here - before.here)
	return begun + gone
}

// giveBackLoop gives memory back when a crowd has come or gone and few do so
// any more, until stop is closed.
func (s *Server) giveBackLoop(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	given := s.traffic()
	for last := given; ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := s.traffic()
		if all := now.since(given); all >= crowd && now.since(last) <= all/10 {
			debug.FreeOSMemory()
			given = now
		}
		last = now
	}
}

func (s *Server) traffic() traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return traffic{begun: int64(s.lastID.Load()), here: int64(len(s.sessions))} //nolint:gosec // ids grow by one
}
