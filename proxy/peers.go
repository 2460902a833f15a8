package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lockkeeper/proxy/wire"
)

const (
	maxPeers    = 16
	peerTimeout = 2 * time.Second // for a peer to answer
)

func validatePeers(list []string) error {
	var all []error
	if len(list) > maxPeers {
		all = append(all, fmt.Errorf("peers: %d are more than %d", len(list), maxPeers))
	}
	for _, address := range list {
		if _, _, err := net.SplitHostPort(address); err != nil && !filepath.IsAbs(address) {
			all = append(all, fmt.Errorf("peers: %q is neither host:port nor the path of a socket", address))
		}
	}
	return errors.Join(all...)
}

// Peer is another lockkeeper, whose sessions' cancel requests may come here.
type Peer interface {
	// Cancel does what a cancel request asks for if the key is one of the
	// peer's own sessions, and reports whether it is. It asks no one else.
	Cancel(ctx context.Context, pid uint32, key []byte) (known bool, err error)
}

// peers are those that are asked.
type peers struct {
	mu  sync.Mutex
	all []Peer
}

func (p *peers) configure(addresses []string) {
	for _, a := range addresses {
		p.all = append(p.all, remote(a))
	}
}

func (p *peers) list() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// AddPeer lets cancel requests reach another lockkeeper, until remove is called.
func (s *Server) AddPeer(one Peer) (remove func()) {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	s.peers.all = append(s.peers.all, one)
	return func() {
		s.peers.mu.Lock()
		defer s.peers.mu.Unlock()
		s.peers.all = slices.DeleteFunc(s.peers.all, func(p Peer) bool { return p == one })
	}
}

// cancelAtPeers asks every peer at once, and reports whether one of them knows
// the key. The servers are not asked meanwhile: the peer cancels there, and a
// second cancel could hit the next statement.
func (s *Server) cancelAtPeers(ctx context.Context, req *wire.Startup) bool {
	all := s.peers.list()
	if len(all) == 0 {
		return false
	}
	ctx, stop := context.WithTimeout(ctx, peerTimeout)
	defer stop()
	answers := make(chan bool, len(all))
	for _, p := range all {
		go func() { answers <- s.askPeer(ctx, p, req) }()
	}
	known := false
	for range all {
		if <-answers {
			known = true
			stop() // nobody else has it
		}
	}
	return known
}

func (s *Server) askPeer(ctx context.Context, p Peer, req *wire.Startup) bool {
	known, err := p.Cancel(ctx, req.PID, req.Key)
	switch {
	case known:
		s.metrics.peerCancels.WithLabelValues("known").Inc()
	case err == nil, errors.Is(ctx.Err(), context.Canceled): // another has it
		s.metrics.peerCancels.WithLabelValues("unknown").Inc()
	default:
		s.metrics.peerCancels.WithLabelValues("failed").Inc()
		s.deps.Logger.LogAttrs(ctx, slog.LevelWarn, "a peer was not reached with a cancel request", slog.String("cause", err.Error()))
	}
	return known
}

// answerPeer handles a cancel request that another lockkeeper has passed on. It
// is never passed on again, so that it cannot go round.
func (s *Server) answerPeer(h *hello) {
	s.metrics.cancels.Inc()
	ctx, stop := context.WithTimeout(s.ctx, cancelTimeout)
	defer stop()
	select {
	case s.forwarded <- struct{}{}:
		defer func() { <-s.forwarded }()
	case <-ctx.Done():
		return
	}
	answer := byte(wire.PeerKnowsNot)
	if s.CancelHere(ctx, h.startup.PID, h.startup.Key) {
		answer = wire.PeerKnows
	}
	_ = h.conn.SetWriteDeadline(s.deps.Now().Add(time.Second)) // who does not read is not waited for
	_, _ = h.conn.Write([]byte{answer})                        // it may be gone
}

// remote is a peer with an address.
type remote string

// Cancel sends the request and reads the answer. The connection is encrypted
// where the peer offers that and asks for no certificate, as that of a client
// would be that does not insist.
func (r remote) Cancel(ctx context.Context, pid uint32, key []byte) (known bool, err error) {
	t, e := r.target()
	for _, a := range t.attempts(e) {
		if known, err = t.askToCancel(ctx, e, a, pid, key); err == nil {
			return known, nil
		}
	}
	return false, fmt.Errorf("peer %s: %w", string(r), err)
}

func (t *Target) askToCancel(ctx context.Context, e *endpoint, a attempt, pid uint32, key []byte) (known bool, err error) {
	c, err := t.open(ctx, e, a)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }() // the peer closes it, too
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write(wire.AppendPeerCancel(nil, pid, key)); err != nil {
		return false, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return false, err
	}
	if answer[0] != wire.PeerKnows && answer[0] != wire.PeerKnowsNot {
		return false, errors.New("its answer is not a lockkeeper's")
	}
	return answer[0] == wire.PeerKnows, nil
}

func (r remote) target() (*Target, *endpoint) {
	address := string(r)
	if strings.HasPrefix(address, "/") {
		return &Target{SSLMode: "disable"}, &endpoint{network: "unix", address: address}
	}
	return &Target{SSLMode: "prefer"}, &endpoint{network: "tcp", address: address}
}
