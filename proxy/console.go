package proxy

import (
	"context"
	"fmt"
	"net"

	"lockkeeper/policy"
	"lockkeeper/proxy/session"
	"lockkeeper/proxy/wire"
)

// Console serves the clients that ask for a database of lockkeeper's own.
type Console interface {
	// Database is the name that leads to the console; "" when there is none.
	Database() string
	// ServeConsole serves one client, whose startup packet was read, until it
	// leaves or ctx ends. What is wrong it tells the client itself.
	ServeConsole(ctx context.Context, c net.Conn, startup *wire.Startup, tls bool) error
	// Cancel ends what the console's client of that key waits for, and
	// reports whether there is such a client.
	Cancel(pid uint32, key []byte) bool
}

// mustEncrypt reports whether the client is refused for coming in the clear.
func (s *Server) mustEncrypt(h *hello) bool {
	return !h.tls && s.tls.required() && h.conn.LocalAddr().Network() != "unix"
}

// staysOpen reports whether a listener is open while a shutdown waits.
func (s *Server) staysOpen(a net.Addr) bool {
	return a.Network() == "unix" && s.deps.Console != nil && s.deps.Console.Database() != ""
}

// wantsConsole reports whether the client asks for the console.
func (s *Server) wantsConsole(startup *wire.Startup) bool {
	if s.deps.Console == nil {
		return false
	}
	name := s.deps.Console.Database()
	return name != "" && startup.Get("database") == name
}

// serveConsole lets the console serve the client. It is no session: neither
// limits.sessions counts it, nor does a shutdown wait for it.
func (s *Server) serveConsole(h *hello) error {
	if s.mustEncrypt(h) {
		return &fatal{sqlstate: "28000", message: "lockkeeper accepts encrypted connections only", hint: "Connect with sslmode=require."}
	}
	s.others.Add(1)
	h.group.Done()
	h.group = &s.others
	s.accepted.Add(-1)
	defer s.accepted.Add(1)
	if err := s.deps.Console.ServeConsole(s.ctx, h.conn, h.startup, h.tls); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return nil
}

// EndQuietSession ends a session that loses nothing by it: it is outside a
// transaction and owes nothing. It reports whether the session was busy.
func (s *Server) EndQuietSession(id uint64) (busy bool) {
	c, err := s.session(id)
	if err != nil {
		return false
	}
	c.pair.Do(func(x *session.Session) { busy = !x.Quiet() })
	if !busy {
		c.pair.Fail(&policy.Refusal{
			SQLSTATE: "57P01", Message: "terminating connection due to administrator command",
			Hint: "An operator of lockkeeper has asked for new connections. Connect again.",
		})
	}
	return busy
}
