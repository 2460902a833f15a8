package proxy

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"lockkeeper/policy"
	"lockkeeper/proxy/session"
	"lockkeeper/proxy/wire"
)

const (
	maxCancels    = 64               // cancel requests passed on at a time; more wait for a place, with the login timeout as their limit
	cancelTimeout = 10 * time.Second // for one of them

	maxCancelFanOut = 8 // addresses that one of them is sent to at a time
)

// cancelled is the refusal that ends a held statement.
func cancelled(why string) *policy.Refusal {
	return &policy.Refusal{
		SQLSTATE: "57014", Message: "canceling statement " + why,
		Detail: "The statement was held by lockkeeper and has not reached the server.",
	}
}

// passCancel handles a CancelRequest: a held statement is ended here, anything
// else is the server's. A key that nobody has here may be another lockkeeper's.
// The client is answered by the end of the connection only, when the server has
// done so: by then the signal was sent.
func (s *Server) passCancel(req *wire.Startup) {
	s.metrics.cancels.Inc()
	ctx, stop := context.WithTimeout(s.ctx, cancelTimeout)
	defer stop()
	select {
	case s.cancels <- struct{}{}:
		defer func() { <-s.cancels }()
	case <-ctx.Done():
		return
	}
	if !s.CancelHere(ctx, req.PID, req.Key) && !s.cancelAtPeers(ctx, req) {
		s.cancelEverywhere(ctx, req)
	}
}

// CancelHere does what a cancel request asks for if its key is one of this
// lockkeeper's sessions or console clients, and reports whether it is.
func (s *Server) CancelHere(ctx context.Context, pid uint32, key []byte) bool {
	if s.deps.Console != nil && s.deps.Console.Cancel(pid, key) {
		return true
	}
	c := s.byKey(pid, key)
	if c == nil {
		return false
	}
	c.pair.CatchUp(ctx)
	if !c.pair.Cancel(cancelled("due to user request")) {
		s.warnCancel(s.cancelOn(ctx, c))
	}
	return true
}

// cancelEverywhere passes on a request whose key no session has, here or at a
// peer: to each address, for the client may have reached any.
func (s *Server) cancelEverywhere(ctx context.Context, req *wire.Startup) {
	var sent errgroup.Group
	sent.SetLimit(maxCancelFanOut)
	for _, t := range s.distinctTargets() {
		all, err := s.endpoints(ctx, t)
		s.warnCancel(err)
		for i := range all {
			sent.Go(func() error {
				s.warnCancel(sendCancel(ctx, t, &all[i], req.PID, req.Key))
				return nil
			})
		}
	}
	_ = sent.Wait() // each has warned
}

func (s *Server) warnCancel(err error) {
	if err != nil {
		s.deps.Logger.LogAttrs(s.ctx, slog.LevelWarn, "cancel request was not passed on", slog.String("cause", err.Error()))
	}
}

// byKey finds the session that was given a cancel key.
func (s *Server) byKey(pid uint32, key []byte) *conn {
	for _, c := range s.all() {
		found := false
		c.pair.Do(func(x *session.Session) {
			p, k := x.BackendKey()
			found = p == pid && p != 0 && subtle.ConstantTimeCompare(k, key) == 1
		})
		if found {
			return c
		}
	}
	return nil
}

// cancelOn cancels what a session's server process runs.
func (s *Server) cancelOn(ctx context.Context, c *conn) error {
	var pid uint32
	var key []byte
	c.pair.Do(func(x *session.Session) {
		p, k := x.BackendKey()
		pid, key = p, bytes.Clone(k)
	})
	if pid == 0 {
		return nil
	}
	t := s.cfg.Servers[c.target]
	at := c.reached.Value()
	return sendCancel(ctx, &t, &at, pid, key)
}

// sendCancel sends a CancelRequest and waits until the server has closed the
// connection. Source: manual, 55.2.8 "Canceling Requests in Progress".
func sendCancel(ctx context.Context, t *Target, e *endpoint, pid uint32, key []byte) error {
	tries := t.attempts(e)
	c, err := t.open(ctx, e, tries[0])
	if err != nil && len(tries) > 1 {
		c, err = t.open(ctx, e, tries[1])
	}
	if err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	defer func() { _ = c.Close() }() // the server closes it, too
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write(wire.AppendCancel(nil, pid, key)); err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	_, _ = io.Copy(io.Discard, c) // up to its end, however it ends
	return nil
}

// distinctTargets returns each configured server once.
func (s *Server) distinctTargets() []*Target {
	seen := map[string]bool{}
	var out []*Target
	for _, key := range sortedKeys(s.cfg.Servers) {
		t := s.cfg.Servers[key]
		if !seen[t.identity()] {
			seen[t.identity()] = true
			out = append(out, &t)
		}
	}
	return out
}
