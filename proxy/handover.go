package proxy

import (
	"context"
	"net"
	"slices"
)

// Listener is a listening socket with the address that the configuration has
// for it: "" where systemd has opened it.
type Listener struct {
	net.Listener
	Configured string
}

// sessionBlock parts the session ids of processes that run beside each other: a
// process begins at a multiple of it.
const sessionBlock = 1_000_000

// LastSessionOfBlock returns an id that is larger than any that this process
// will give to a session while another begins to take over from it.
func (s *Server) LastSessionOfBlock() uint64 {
	return (s.lastID.Load()+sessionBlock/2)/sessionBlock*sessionBlock + sessionBlock
}

// Inherit is Listen where another process has listening sockets already. Those
// that systemd has opened take the place of what is configured. Otherwise those
// that are configured are taken, what is missing is opened, and what is left is
// closed.
func (s *Server) Inherit(ctx context.Context, from []Listener) error {
	rest := slices.DeleteFunc(slices.Clone(from), func(l Listener) bool {
		if l.Configured == "" {
			s.add(l)
		}
		return l.Configured == ""
	})
	defer func() {
		for _, l := range rest {
			_ = l.Close() // the other process has it, too
		}
	}()
	if len(rest) < len(from) {
		return nil
	}
	take := func(network, address string) bool {
		i := slices.IndexFunc(rest, func(l Listener) bool { return l.Configured == address && l.Addr().Network() == network })
		if i < 0 {
			return false
		}
		s.add(rest[i])
		rest = slices.Delete(rest, i, i+1)
		return true
	}
	for _, address := range s.cfg.Listen.TCP {
		if take("tcp", address) {
			continue
		}
		if err := s.listenTCP(ctx, address); err != nil {
			return err
		}
	}
	for _, path := range s.cfg.Listen.Unix {
		if take("unix", path) {
			continue
		}
		if err := s.listenUnix(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// Listeners returns the listening sockets.
func (s *Server) Listeners() []Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.listeners)
}

// OwnSockets makes the server remove the files of its unix sockets at its end,
// as it does with those that it has opened itself.
func (s *Server) OwnSockets() {
	for _, l := range s.Listeners() {
		if u, ok := l.Listener.(*net.UnixListener); ok && l.Configured != "" {
			u.SetUnlinkOnClose(true)
		}
	}
}

// HandOver stops accepting: another process does so on the same sockets, which
// stay open there. Clients that were accepted are served. It returns when there
// will be no more of them.
func (s *Server) HandOver() {
	s.mu.Lock()
	s.handedOver = true
	for _, l := range s.listeners {
		if u, ok := l.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	}
	s.mu.Unlock()
	s.processes.keepFile()
	s.closeListeners(func(net.Addr) bool { return true })
	s.acceptors.Wait()
}

// Left is closed when no client is left. It is for a server that accepts no
// more.
func (s *Server) Left() <-chan struct{} {
	done := make(chan struct{})
	go s.waitClients(done)
	return done
}

// AbsorbProcesses takes over what another process has noted of server
// processes: they may go on without it.
func (s *Server) AbsorbProcesses(path string) error { return s.processes.absorb(path) }

func (s *Server) isHandedOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handedOver
}
