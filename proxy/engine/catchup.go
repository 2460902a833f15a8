package engine

import (
	"context"
	"errors"
	"os"
	"time"
)

func (p *routines) CatchUp(ctx context.Context) {
	caught, patience := p.awaitCaughtUp()
	if caught == nil {
		return
	}
	_ = p.client.SetReadDeadline(time.Unix(1, 0)) // wakes the reader, see readOn
	wait(ctx, caught, patience)
}

// awaitCaughtUp returns what is closed when the server was given everything,
// nil when it has something to cancel.
func (p *routines) awaitCaughtUp() (caught <-chan struct{}, patience time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.gone || p.s.Owes() && !p.aliased() {
		return nil, 0
	}
	return p.catching()
}

// caughtUp lets cancel requests go on when the server has what they are for, or
// nothing is on its way to it.
func (p *routines) caughtUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.caught != nil && !p.aliased() && (p.s.Owes() || !p.asking && !p.entering && !unread(p.client)) {
		p.letGo()
	}
}

// readOn reports whether an error of reading the client is CatchUp's wake-up.
// The deadline goes before caughtUp looks: a wake-up that comes in between is
// for bytes that it sees.
func (p *routines) readOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || p.client.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	p.caughtUp()
	return true
}
