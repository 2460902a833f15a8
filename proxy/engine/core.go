package engine

import (
	"context"
	"sync"
	"time"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// resumer works on after an event that came from neither side. It must not
// block; the mutex is held.
type resumer interface{ resume() }

// core is what both engines have: the session, what is known of it, and what is
// asked of a pair from elsewhere.
type core struct {
	cfg  *Config
	pair resumer

	mu       sync.Mutex // guards everything below, and what an engine has besides
	owner    Owner      // nil until Begin
	s        *session.Session
	granted  int  // bytes of the client's buffer beyond clientBuffer, taken from the budget
	asking   bool // a text in the client's buffer is being inspected
	gone     bool // the client has ended; nothing is read from it any more
	told     bool // the server is to know, or knows
	loggedIn bool
	ended    bool
	cause    string
	timer    *time.Timer
	caught   chan struct{} // closed when the server was given everything; nil: nobody waits for that

	background sync.WaitGroup // what is done aside
}

func (c *core) Do(f func(*session.Session)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.s)
}

func (c *core) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Retag()
	_, _, held := c.s.Held()
	c.s.Resume()
	if held {
		c.pair.resume()
	}
}

func (c *core) Cancel(r *policy.Refusal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.s.Cancel(r)
	if held {
		c.pair.resume()
	}
	return held
}

func (c *core) CancelSent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.CancelSent()
	c.pair.resume()
}

func (c *core) Spared() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Spared()
	c.pair.resume()
}

// because keeps the first cause. The mutex is held, as in all that follows.
func (c *core) because(cause string) {
	if c.cause == "" {
		c.cause = cause
	}
}

// arm sets the timer of a hold.
func (c *core) arm() {
	_, until, held := c.s.Held()
	if !held {
		return
	}
	c.after(until.Sub(c.cfg.Now()), c.Wake)
}

// after replaces what the timer will do.
func (c *core) after(d time.Duration, f func()) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(d, f)
}

// finish ends what is not of one engine.
func (c *core) finish() {
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.release()
}

// conclude tells what is left to tell about a pair that has ended, when nothing
// is done for it any more. The mutex is not held.
func (c *core) conclude() {
	c.background.Wait()
	c.mu.Lock()
	c.s.Lost()
	entries, cause := c.news(), c.cause
	c.mu.Unlock()
	c.record(entries)
	c.owner.Ended(cause)
}

// news ends an event of the session's: it hands the counts to the sink and
// returns the entries for it.
func (c *core) news() []journal.Entry {
	entries := c.s.Rest()
	c.count()
	return entries
}

// count is news whose entries have to wait.
func (c *core) count() {
	if c.s.Stirs() {
		c.cfg.Sink.Count(&c.s.Counts)
		c.s.Leave()
	}
}

// record journals entries; it may block.
func (c *core) record(entries []journal.Entry) {
	if len(entries) == 0 {
		return
	}
	begun := c.cfg.Now()
	c.cfg.Sink.Record(entries)
	c.cfg.Sink.Stage("record", c.cfg.Now().Sub(begun))
}

// release gives what the budget granted back.
func (c *core) release() {
	c.cfg.Budget.give(c.granted)
	c.granted = 0
}

// CatchUpTimeout is how long a cancel request waits for a statement that is being
// inspected.
const CatchUpTimeout = 5 * time.Second

// unsentTimeout is how long it waits for one that the server does not take, which
// may be because of what the server runs: that is to be cancelled, then.
const unsentTimeout = time.Second

// catching returns what is closed when the server was given everything, and how
// long to wait for it.
func (c *core) catching() (caught <-chan struct{}, patience time.Duration) {
	if c.caught == nil {
		c.caught = make(chan struct{})
	}
	if c.s.Owes() {
		return c.caught, unsentTimeout
	}
	return c.caught, CatchUpTimeout
}

// letGo lets the cancel requests go on that wait.
func (c *core) letGo() {
	if c.caught != nil {
		close(c.caught)
		c.caught = nil
	}
}

// wait waits for caught.
func wait(ctx context.Context, caught <-chan struct{}, patience time.Duration) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	select {
	case <-caught:
	case <-ctx.Done():
	}
}
