package proxy

import (
	"log/slog"
	"math"
	"syscall"

	"lockkeeper/internal/sqlstate"
)

// ReservedDescriptors are kept for what is no connection of a client or for
// one: the journal, the state file, operators, cancel requests, lockkeeper's
// own logins. Half of all is, where there are few.
const ReservedDescriptors = 128

// descriptors bounds the file descriptors of clients and of the server
// connections for them: when they have used up all, nobody could be told so,
// and no operator could act.
type descriptors struct {
	clients int64 // beyond these no session begins
	all     int64 // beyond these nobody is listened to
}

// descriptorsOf divides the descriptors that the process may have. Go has
// raised the soft limit to the hard one.
func descriptorsOf(limit uint64) descriptors {
	if limit > math.MaxInt32 {
		return descriptors{math.MaxInt64, math.MaxInt64}
	}
	n := int64(limit)
	reserved := min(ReservedDescriptors, n/2)
	return descriptors{clients: n - reserved, all: n - reserved/2}
}

func ownDescriptors() descriptors {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return descriptorsOf(math.MaxUint64) // the kernel's answer to accept is all there is
	}
	return descriptorsOf(l.Cur)
}

// descriptorsUsed is what clients and the server connections for them take.
func (s *Server) descriptorsUsed() int64 {
	sessions, logins := s.places.counts()
	return s.accepted.Load() + int64(sessions) + int64(logins)
}

// listens reports whether a client that was accepted is listened to. Where
// there are too many one that has not said who it is makes room.
func (s *Server) listens() bool {
	if s.descriptorsUsed() < s.descriptors.all {
		return true
	}
	s.metrics.limits.WithLabelValues("descriptors").Inc()
	return s.greetings.evict()
}

// spare reports whether there is a descriptor for one more server connection,
// where there are servers of them; the client has its own. Clients that have
// not said who they are keep nobody out: they make room for those that come.
func (s *Server) spare(servers int) error {
	if s.accepted.Load()-int64(s.greetings.count())+int64(servers) < s.descriptors.clients {
		return nil
	}
	s.metrics.limits.WithLabelValues("descriptors").Inc()
	return &fatal{
		sqlstate: sqlstate.TooManyConnections, message: "lockkeeper has no file descriptors left for another session",
		hint: "Close idle connections, or raise the limit of open files (LimitNOFILE of the unit): each session takes two.",
	}
}

// warnOfDescriptors says before it matters that limits.sessions cannot be
// reached.
func (s *Server) warnOfDescriptors() {
	if most := s.descriptors.clients / 2; most < int64(s.cfg.Limits.Sessions) {
		s.deps.Logger.LogAttrs(s.ctx, slog.LevelWarn, "file descriptors do not suffice for limits.sessions: raise the limit of open files (LimitNOFILE)",
			slog.Int64("suffice_for", most), slog.Int("sessions", s.cfg.Limits.Sessions))
	}
}
