package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/wire"
)

// How long lockkeeper waits between two rounds through a target's addresses,
// and how often it looks whether the client is still there.
const (
	minRetryPause = 100 * time.Millisecond
	maxRetryPause = time.Second
	gonePoll      = 250 * time.Millisecond
)

// login is what a server is told by a client, or in its place.
type login struct {
	startup    []byte           // the client's packet
	credential *auth.Credential // nil: the client logs in itself
}

// errClientGone says that nobody waits any more.
var errClientGone = errors.New("client closed the connection before a server was reached")

// notReady is a server that answered that it is starting up or shutting down.
type notReady struct {
	answer []byte // the error
	said   []byte // all that the client is told
}

// Error returns what the server said.
func (n *notReady) Error() string {
	return "the server does not accept connections now: " + string(wire.Field(n.answer[wire.HeaderLen:], 'M'))
}

// dial connects a client to its server. Where another address may take over, a
// client is held for limits.connect_hold until one can be reached.
func (s *Server) dial(h *hello, t *Target, l login) (*connected, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	watched := make(chan struct{})
	go watchClient(ctx, cancel, h.conn, watched)
	defer func() { cancel(); <-watched }()
	begun := s.deps.Now()
	server, err := s.dialHeld(ctx, t, l, begun)
	s.metrics.stages.WithLabelValues("connect").Observe(s.deps.Now().Sub(begun).Seconds())
	if err == nil {
		return server, nil
	}
	if ctx.Err() != nil && s.ctx.Err() == nil {
		return nil, errClientGone
	}
	s.metrics.connectFailures.Inc()
	if f, ok := errors.AsType[*fatal](err); ok {
		return nil, f
	}
	if n, ok := errors.AsType[*notReady](err); ok {
		return nil, &fatal{sqlstate: "57P03", message: n.Error(), raw: n.said}
	}
	return nil, &fatal{
		sqlstate: "08001", message: "lockkeeper cannot connect to the server", cause: err,
		hint: "See lockkeeper's log; check that the server runs and accepts lockkeeper's address.",
	}
}

// watchClient cancels when the client ends.
func watchClient(ctx context.Context, cancel context.CancelFunc, client net.Conn, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	for !gone(client) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	cancel()
}

// dialHeld goes round the target's addresses until one will do, or the hold is
// over.
func (s *Server) dialHeld(ctx context.Context, t *Target, l login, begun time.Time) (*connected, error) {
	pause := minRetryPause
	for {
		server, err := s.round(ctx, t, l)
		if err == nil {
			return server, nil
		}
		left := s.cfg.Limits.ConnectHold - s.deps.Now().Sub(begun)
		if final(err) || ctx.Err() != nil || !t.failsOver() || left <= 0 || s.isClosing() {
			return nil, err
		}
		if pause == minRetryPause {
			s.deps.Logger.LogAttrs(ctx, slog.LevelWarn, "no server can be reached, holding a client",
				slog.String("server", t.identity()), slog.String("cause", err.Error()))
			s.held.Add(1)
			defer s.held.Add(-1)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(min(pause, left)):
		}
		s.metrics.connectRetries.Inc()
		pause = min(2*pause, maxRetryPause)
	}
}

// round tries each address once; for prefer-standby, twice.
func (s *Server) round(ctx context.Context, t *Target, l login) (*connected, error) {
	all, err := s.endpoints(ctx, t)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, want := range t.wants().rounds() {
		errs = errs[:0]
		for i := range all {
			server, err := s.reach(ctx, t, &all[i], want, l)
			if err == nil {
				return server, nil
			}
			if final(err) {
				return nil, err
			}
			errs = append(errs, err)
		}
	}
	return nil, oneLine(errs)
}

// final reports whether trying again, or another address, would be of no use.
func final(err error) bool {
	_, is := errors.AsType[*fatal](err)
	return is
}

// reach connects to one address, if that is what is wanted.
func (s *Server) reach(ctx context.Context, t *Target, e *endpoint, want sessionAttr, l login) (*connected, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.ConnectTimeout)
	defer cancel()
	if want != sessionAny && t.Control != "" {
		r, err := s.roleOf(ctx, t, e)
		if err != nil {
			s.down.note(e.address, s.deps.Now(), true)
			return nil, fmt.Errorf("%s: %w", e.address, err)
		}
		if !r.fits(want) {
			s.metrics.wrongRole.Inc()
			return nil, fmt.Errorf("%s %w", e.address, errRole)
		}
	}
	c, err := t.connect(ctx, e, l.startup)
	s.down.note(e.address, s.deps.Now(), err != nil)
	if err != nil {
		return nil, err
	}
	c.reached = *e
	if l.credential != nil {
		if err := c.login(ctx, l.credential); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("%s: %w", e.address, err)
		}
	}
	if err := s.suits(ctx, c, t, want); err != nil {
		_ = c.Close() // it has not been told anything that lasts
		return nil, fmt.Errorf("%s: %w", e.address, err)
	}
	return c, nil
}

// suits looks at what the server has said so far.
func (s *Server) suits(ctx context.Context, c *connected, t *Target, want sessionAttr) error {
	if starting(c.first) {
		return &notReady{c.first, c.said()}
	}
	if want == sessionAny || t.Control != "" || c.first[0] == 'E' {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	r, err := c.readRole()
	switch {
	case errors.Is(err, errServerRefuses):
		return nil
	case err != nil:
		return err
	case !r.fits(want):
		s.metrics.wrongRole.Inc()
		return errRole
	}
	return nil
}

// starting reports whether the server's first message is that it does not
// accept connections yet, or any more.
func starting(first []byte) bool {
	return len(first) > wire.HeaderLen && first[0] == 'E' && string(wire.Field(first[wire.HeaderLen:], 'C')) == "57P03"
}
