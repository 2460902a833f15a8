package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unique"

	"lockkeeper/policy"
	"lockkeeper/proxy/engine"
	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/session"
	"lockkeeper/proxy/wire"
)

// handle serves a client to its end, or until a session begins that goes on
// without the caller. The server is connected to only after the startup packet:
// half-open clients take none of its slots.
func (s *Server) handle(h *hello) (goesOn bool) {
	begun, c := s.deps.Now(), h.conn
	if err := s.cfg.TCP.apply(c); err != nil { // such as on a socket that systemd has opened for another protocol
		s.deps.Logger.LogAttrs(s.ctx, slog.LevelWarn, "a client is served without the options of tcp", slog.String("cause", err.Error()))
	}
	if err := c.SetReadDeadline(begun.Add(s.cfg.Limits.LoginTimeout)); err != nil {
		return false
	}
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() }) // the end of a shutdown
	err := h.read()
	stop()
	if err != nil {
		h.answer(err)
		return false
	}
	switch {
	case h.startup.Code == wire.CancelCode:
		s.passCancel(h.startup)
	case h.startup.Code == wire.PeerCancelCode:
		s.answerPeer(h)
	case s.wantsConsole(h.startup):
		err = s.serveConsole(h)
	default:
		err = s.serveSession(h, begun)
		goesOn = err == nil
	}
	if err != nil {
		h.answer(err)
	}
	return goesOn
}

// hello is a client that introduces itself.
type hello struct {
	s       *Server
	conn    net.Conn
	from    netip.AddrPort // who the client is, where a balancer has said so
	raw     []byte         // the startup packet, as it came
	startup *wire.Startup
	tls     bool
	group   *sync.WaitGroup // counts it

	binding     []byte         // channel binding data of the client's TLS connection
	authorities *x509.CertPool // who may sign client certificates
}

// fatal is an error that a client which has not logged in is told.
type fatal struct {
	sqlstate, message, hint string
	cause                   error  // for the log
	raw                     []byte // what the client is told in place of all that: a server's own words
}

func (f *fatal) Error() string {
	if f.cause != nil {
		return f.message + ": " + f.cause.Error()
	}
	return f.message
}

func (f *fatal) Unwrap() error { return f.cause }

// bytes returns the message that the client gets.
func (f *fatal) bytes() []byte {
	if f.raw != nil {
		return f.raw
	}
	return wire.AppendError(nil, wire.ErrorFields{Severity: "FATAL", SQLSTATE: f.sqlstate, Message: f.message, Hint: f.hint})
}

// answer tells the client what is wrong, and the log. A client that goes away
// before it says anything is a health check and not worth a line.
func (h *hello) answer(err error) {
	var f *fatal
	if errors.As(err, &f) {
		_ = h.conn.SetWriteDeadline(h.s.deps.Now().Add(time.Second)) // a client that does not read is not waited for
		_, _ = h.conn.Write(f.bytes())                               // it may be gone
	}
	h.s.metrics.loginFailures.Inc()
	level := slog.LevelInfo
	if f == nil {
		level = slog.LevelDebug
	}
	h.s.deps.Logger.LogAttrs(h.s.ctx, level, "login failed", slog.String("address", h.address()), slog.String("cause", err.Error()))
}

// read reads up to the startup packet and answers requests for encryption. It
// reads exactly what it understands: nothing can be smuggled in before TLS.
// Source: manual, 55.2.1 "Start-up" and 55.2.10 "SSL Session Encryption";
// ProcessStartupPacket in src/backend/postmaster/postmaster.c.
func (h *hello) read() error {
	end, evicted := h.s.greetings.begin(h.conn, h.s.cfg.Limits.Logins)
	defer end()
	if evicted {
		h.s.metrics.evicted.Inc()
	}
	if err := h.origin(); err != nil {
		return err
	}
	if err := h.direct(); err != nil {
		return err
	}
	for sslDone, gssDone := false, false; ; {
		if err := h.readPacket(); err != nil {
			return err
		}
		switch {
		case h.startup.Code == wire.SSLCode && !sslDone:
			sslDone = true
			if err := h.secure(); err != nil {
				return err
			}
		case h.startup.Code == wire.GSSENCCode && !gssDone:
			gssDone = true
			if _, err := h.conn.Write([]byte{'N'}); err != nil {
				return fmt.Errorf("refuse GSS encryption: %w", err)
			}
		default:
			h.askAsVersion()
			return nil
		}
	}
}

// askAsVersion prepares a request for encryption that comes a second time: a
// version of the protocol, then, which the server does not know and complains
// of with those that it knows. On its own connection the request would be the
// first, so another version stands for it.
func (h *hello) askAsVersion() {
	if h.startup.Code == wire.SSLCode || h.startup.Code == wire.GSSENCCode {
		binary.BigEndian.PutUint32(h.raw[4:], noVersion)
	}
}

// asAsked puts the client's version back into the server's complaint.
func (h *hello) asAsked(said []byte) []byte {
	if h.startup.Code != wire.SSLCode && h.startup.Code != wire.GSSENCCode {
		return said
	}
	return bytes.ReplaceAll(said, versionText(noVersion), versionText(h.startup.Code)) // of one length: both have eight digits
}

// noVersion is a version that no server knows; its number looks like those of
// the requests for encryption.
const noVersion = 1234<<16 | 5999

func versionText(code uint32) []byte { return fmt.Appendf(nil, "%d.%d", code>>16, code&0xffff) }

func (h *hello) readPacket() error {
	var length [4]byte
	if _, err := io.ReadFull(h.conn, length[:]); err != nil {
		return fmt.Errorf("read startup packet: %w", err)
	}
	size, _, err := wire.StartupSize(length[:])
	if err != nil {
		return err // the server says nothing to that either
	}
	h.raw = make([]byte, size)
	copy(h.raw, length[:])
	if _, err := io.ReadFull(h.conn, h.raw[4:]); err != nil {
		return fmt.Errorf("read startup packet: %w", err)
	}
	h.startup, err = wire.DecodeStartup(h.raw)
	if errors.Is(err, wire.ErrStartup) {
		return err
	}
	if err != nil {
		return &fatal{sqlstate: "08P01", message: err.Error()}
	}
	return nil
}

// secure answers SSLRequest.
func (h *hello) secure() error {
	cfg := h.s.tls.config()
	if cfg == nil || h.tls || h.conn.LocalAddr().Network() == "unix" {
		if _, err := h.conn.Write([]byte{'N'}); err != nil {
			return fmt.Errorf("refuse TLS: %w", err)
		}
		return nil
	}
	if pending(h.conn) {
		return &fatal{
			sqlstate: "08P01", message: "received unencrypted data after SSL request",
			hint: "Either the client does not wait for the answer, or somebody between it and lockkeeper puts data before the encrypted ones.",
		}
	}
	if _, err := h.conn.Write([]byte{'S'}); err != nil {
		return fmt.Errorf("accept TLS: %w", err)
	}
	return h.handshake(cfg)
}

// tlsHandshake is the first byte of a TLS connection, and of no startup packet.
const tlsHandshake = 0x16

// direct begins TLS with a client that does so without asking. It has to say
// by ALPN that it means PostgreSQL, or another protocol's client might be made
// to speak it. A client that may not do so is told nothing, as by the server.
// Source: manual, 55.2.11 "SSL Session Encryption"; ProcessSSLStartup in
// src/backend/tcop/backend_startup.c.
func (h *hello) direct() error {
	first, err := peekFirst(h.conn)
	if err != nil {
		return fmt.Errorf("read startup packet: %w", err)
	}
	if first != tlsHandshake {
		return nil
	}
	cfg := h.s.tls.config()
	if cfg == nil || h.conn.LocalAddr().Network() == "unix" {
		return errors.New("direct TLS from client: TLS is not offered here")
	}
	if err := h.handshake(cfg); err != nil {
		return err
	}
	if t, ok := h.conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("direct TLS from client: it did not say by ALPN that it means PostgreSQL")
	}
	return nil
}

// handshake puts TLS on the connection.
func (h *hello) handshake(cfg *tls.Config) error {
	secured := tls.Server(h.conn, cfg)
	if err := secured.HandshakeContext(h.s.ctx); err != nil {
		return fmt.Errorf("TLS with client: %w", err)
	}
	h.conn, h.tls = secured, true
	h.binding, h.authorities = scram.EndPoint(cfg.Certificates[0].Leaf), cfg.ClientCAs
	return nil
}

// serveSession connects the client to its server and begins their session.
func (s *Server) serveSession(h *hello, begun time.Time) error {
	user := h.startup.Get("user")
	database := h.startup.Get("database")
	if database == "" {
		database = user
	}
	if err := s.admit(h, user); err != nil {
		return err
	}
	subject := policy.Subject{User: user, Database: database, Application: h.startup.Get("application_name"), Address: h.address()}
	if r := s.deps.Decider.Current().Connect(&subject, begun); r != nil {
		return &fatal{sqlstate: r.SQLSTATE, message: r.Message, hint: r.Hint}
	}
	key, target, err := s.target(database)
	if err != nil {
		return err
	}
	if err := s.checkName(h, target, user); err != nil {
		return err
	}
	if target.Database != "" && target.Database != database {
		h.raw = wire.ReplaceParameter(h.raw, "database", target.Database)
	}
	if target.ApplicationNameAddHost {
		h.raw = h.withHost(h.raw)
	}
	c := &conn{
		s: s, group: h.group, user: shared(user), database: shared(database), target: key, connected: begun,
		timeouts: unique.Make(s.cfg.Limits.timeoutsOf(user, database)),
	}
	if err := c.take(); err != nil {
		return err
	}
	if err := c.connect(h, target); err != nil {
		c.leave()
		return err
	}
	c.begin()
	return nil
}

// shared returns a text that is equal, and kept once for all sessions.
func shared(text string) string { return unique.Make(text).Value() }

// connect connects the client to its server.
func (c *conn) connect(h *hello, target *Target) error {
	s := c.s
	credential, err := s.authenticate(h, c.target, target, c.user)
	if err != nil {
		return err
	}
	asked := s.deps.Now()
	server, err := s.dial(h, target, login{h.raw, credential})
	if err != nil {
		return err
	}
	c.id, c.waited = s.lastID.Add(1), s.deps.Now().Sub(asked)
	c.reached, c.ends = unique.Make(server.reached), h.ends(server)
	c.names = s.namesOf(c, target)
	at := c.ends.Value()
	x := session.New(session.Config{
		ID:             c.id,
		Catalog:        c.names.known(),
		Subject:        policy.Subject{User: c.user, Database: c.database, Application: shared(h.startup.Get("application_name")), Address: at.client},
		Replication:    at.replication != "",
		StatementBytes: s.cfg.Limits.StatementBytes,
	}, host{s})
	if err := h.conn.SetReadDeadline(time.Time{}); err != nil {
		_ = server.Close()
		return fmt.Errorf("begin session: %w", err)
	}
	c.pair = engine.New(&s.engine, h.conn, server.Conn, x, h.asAsked(server.said()))
	return nil
}

// admit checks what can be checked before the server is asked.
func (s *Server) admit(h *hello, user string) error {
	switch {
	case s.isClosing() && !s.isHandedOver(): // or else who was accepted before is served
		return &fatal{sqlstate: "57P03", message: "lockkeeper is shutting down"}
	case s.places.full(s.cfg.Limits.Sessions):
		s.metrics.sessionLimit.Inc()
		return &fatal{sqlstate: "53300", message: "lockkeeper has as many sessions as limits.sessions allows", hint: "Close idle connections, or raise limits.sessions."}
	case s.mustEncrypt(h):
		return &fatal{sqlstate: "28000", message: "lockkeeper accepts encrypted connections only", hint: "Connect with sslmode=require."}
	}
	return nil
}

// checkName holds a client to its certificate's name under tls.sslmode
// verify-full. Where certificates authenticate, auth_map has its say, too.
func (s *Server) checkName(h *hello, t *Target, user string) error {
	if s.tls.mode == "verify-full" && h.tls && t.Auth.method() != AuthCert && commonName(h.conn) != user {
		return &fatal{sqlstate: "28000", message: "the certificate's common name is not the user's", hint: "Use a certificate whose CN is the database user."}
	}
	return nil
}

// target chooses the server of a database.
func (s *Server) target(database string) (string, *Target, error) {
	for _, key := range []string{database, "*"} {
		if t, ok := s.cfg.Servers[key]; ok {
			return key, &t, nil
		}
	}
	return "", nil, &fatal{
		sqlstate: "3D000", message: fmt.Sprintf("database %q is not configured in lockkeeper", database),
		hint: "Add it, or \"*\", under server: in lockkeeper.yaml.",
	}
}

// begin registers the session and has its bytes moved.
func (c *conn) begin() {
	s := c.s
	s.mu.Lock()
	s.sessions[c.id] = c
	s.mu.Unlock()
	c.login = time.AfterFunc(s.cfg.Limits.LoginTimeout, c.expireLogin)
	c.pair.Begin(c)
	if s.ctx.Err() != nil { // a shutdown that may have closed the others before this one was there
		c.pair.Close(shutsDown)
	}
}

// shutsDown is why sessions end that a shutdown does not wait for any longer.
const shutsDown = "lockkeeper shuts down"

// LoggedIn is for the engine.
func (c *conn) LoggedIn(pid uint32) {
	c.loginEnds()
	c.s.processes.began(c, pid)
	c.begins()
	c.names.open()
}

// loginEnds does away with the login's timer.
func (c *conn) loginEnds() {
	if c.login != nil {
		c.login.Stop()
		c.login = nil
	}
}

// Ended is for the engine: it forgets the session and logs its end.
func (c *conn) Ended(cause string) {
	s := c.s
	c.loginEnds()
	c.names.close()
	s.metrics.ended(cause)
	done := c.tally()
	s.mu.Lock()
	delete(s.sessions, c.id)
	if done.Sessions > 0 {
		s.stats.ended.add(c.database, &done, s.cfg.Servers)
	}
	s.mu.Unlock()
	var st session.State
	var application string
	quiet := false
	c.pair.Do(func(x *session.Session) { // who listed the sessions a moment ago still has this one
		st, quiet, application = x.State(), x.Quiet(), x.Subject().Application
	})
	s.processes.ended(c, st.PID, quiet || cause == serverClosed)
	in, out := c.pair.Traffic()
	s.deps.Logger.LogAttrs(s.ctx, slog.LevelInfo, "session ended",
		slog.Uint64("session", c.id), slog.String("user", c.user), slog.String("database", c.database),
		slog.String("application", application), slog.String("address", c.ends.Value().client),
		slog.Uint64("server_pid", uint64(st.PID)), slog.Duration("age", s.deps.Now().Sub(c.connected)),
		slog.Int64("bytes_in", in), slog.Int64("bytes_out", out), slog.Int64("rows_written", st.RowsWritten), slog.String("cause", cause))
	c.leave()
	s.left(c.group)
}

// serverClosed is the engine's cause when the server has ended by itself.
const serverClosed = "server closed the connection"

// expireLogin closes a session that has not logged in.
func (c *conn) expireLogin() {
	late := false
	c.pair.Do(func(x *session.Session) { late = !x.LoggedIn() })
	if late {
		c.pair.Close("login timeout")
	}
}

// addressOf returns the client's host, or "local".
func addressOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil || host == "" {
		return "local"
	}
	return host
}

// replication reads the startup parameter as the server does: physical or
// logical replication, "" for neither. Source: manual, 55.4; parse_bool.
func replication(v string) string {
	switch strings.ToLower(v) {
	case "database":
		return "logical"
	case "true", "on", "yes", "1", "t", "tr", "tru", "y", "ye":
		return "physical"
	}
	return ""
}
