package proxy

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"lockkeeper/internal/sqlstate"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// sweepEvery is how exact the timeouts of sessions are.
const sweepEvery = time.Second

// CancelGrace is how long a statement may go on after it was cancelled, before
// its session is ended: the server looks for cancels between the rows of a
// query, and not while it waits for COPY data.
const CancelGrace = 10 * time.Second

// timeouts are those of one session; zero is none.
type timeouts struct{ idle, idleInTransaction, transaction, statement time.Duration }

func (t *timeouts) longest() time.Duration {
	return max(t.idle, t.idleInTransaction, t.transaction, t.statement)
}

// timeoutsOfAll are those where nothing is configured for a name.
func (l *Limits) timeoutsOfAll() timeouts {
	return timeouts{l.IdleTimeout, l.IdleInTransactionTimeout, l.TransactionTimeout, l.StatementTimeout}
}

// timeoutsOf returns the timeouts of a session.
func (l *Limits) timeoutsOf(user, database string) timeouts {
	ofDatabase, ofUser := l.Databases[database], l.Users[user]
	return ofUser.in(ofDatabase.in(l.timeoutsOfAll()))
}

// timed reports whether any session may have a timeout.
func (l *Limits) timed() bool {
	t := l.timeoutsOfAll()
	longest := t.longest()
	for _, named := range []map[string]NamedLimits{l.Users, l.Databases} {
		for _, n := range named {
			t := n.in(timeouts{})
			longest = max(longest, t.longest())
		}
	}
	return longest > 0
}

// sweepLoop ends what has taken too long, until stop is closed.
func (s *Server) sweepLoop(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	if !s.cfg.Limits.timed() {
		return
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			s.sweep()
		}
	}
}

// sweep looks at every session once. Cancel requests are sent for many at a
// time and each within cancelTimeout, so that a server that does not answer
// delays the next sweep for a bounded time.
func (s *Server) sweep() {
	var cancels errgroup.Group
	cancels.SetLimit(maxCancels)
	for _, c := range s.all() {
		if limits := c.timeouts.Value(); limits.longest() == 0 {
			continue
		}
		var over *expiry
		c.pair.Do(func(x *session.Session) { over = c.expired(x, s.deps.Now()) })
		if over == nil {
			continue
		}
		s.metrics.timeouts.WithLabelValues(over.cause).Inc()
		cancels.Go(func() error {
			s.expire(c, over)
			return nil
		})
	}
	_ = cancels.Wait() // each has warned
}

// expire carries out what was found.
func (s *Server) expire(c *conn, over *expiry) {
	if !over.idle {
		ctx, stop := context.WithTimeout(s.ctx, cancelTimeout)
		s.warnCancel(s.cancelOn(ctx, c)) // or the server process would go on for nobody
		stop()
	}
	if over.statement {
		c.pair.CancelSent()
		return
	}
	c.pair.Fail(over.refusal)
}

// watched is what the sweeper has done about what runs.
type watched struct {
	since     time.Duration // State.Running
	cancelled time.Time     // zero: not yet
}

// expiry is a timeout that is over.
type expiry struct {
	cause     string
	refusal   *policy.Refusal
	idle      bool // nothing runs: no cancel is needed
	statement bool // only the statement is ended
}

// terminating is an expiry that ends the session with PostgreSQL's words.
func terminating(cause, code, what string, idle bool) *expiry {
	r := &policy.Refusal{SQLSTATE: code, Message: "terminating connection due to " + what + " timeout", Hint: "The timeout is lockkeeper's."}
	return &expiry{cause: cause, refusal: r, idle: idle}
}

// moment is a session's state at one time.
type moment struct {
	session.State
	now     time.Time
	elapsed time.Duration // Host.Elapsed
}

func (st *moment) over(since time.Time, limit time.Duration) bool {
	return limit > 0 && !since.IsZero() && st.now.Sub(since) >= limit
}

// expired returns what has taken too long in a session, and begins to act on
// it where that has to be in one step with finding it out.
func (c *conn) expired(x *session.Session, now time.Time) *expiry {
	st, limits := &moment{x.State(), now, c.s.elapsed()}, c.timeouts.Value()
	over := limits.expired(st)
	if over == nil && st.State.State == "active" && !st.Replicating {
		over = c.lateStatement(st, limits.statement)
	}
	switch {
	case over == nil:
	case over.statement:
		c.watched.cancelled = now
		x.Overdue(over.refusal)
	case over.idle:
		x.Fail(over.refusal) // here, for it may not be idle any more a moment later
	}
	return over
}

// expired returns the timeout of a session, not of a statement, that is over.
func (t *timeouts) expired(st *moment) *expiry {
	switch st.State.State {
	case "idle":
		if st.over(st.Since, t.idle) {
			return terminating("idle", sqlstate.IdleSessionTimeout, "idle-session", true)
		}
	case "idle in transaction", "idle in transaction (aborted)":
		if st.over(st.Since, t.idleInTransaction) {
			return terminating("idle_in_transaction", sqlstate.IdleInTransactionTimeout, "idle-in-transaction", true)
		}
	case "login":
		return nil
	}
	if st.over(st.TxSince, t.transaction) {
		return terminating("transaction", sqlstate.TransactionTimeout, "transaction", st.State.State != "active")
	}
	return nil
}

// lateStatement returns what becomes of a statement that runs for too long: it
// is cancelled, and where that does not end it its session is. Several in one
// text, or before one Sync, are one: the server sends its answers to them
// together, so that nobody can tell when the next has begun.
func (c *conn) lateStatement(st *moment, limit time.Duration) *expiry {
	if limit == 0 || st.Running == 0 || st.elapsed-st.Running < limit {
		return nil
	}
	if c.watched == nil || c.watched.since != st.Running {
		c.watched = &watched{since: st.Running}
	}
	switch {
	case c.watched.cancelled.IsZero():
		return &expiry{cause: "statement", statement: true, refusal: &policy.Refusal{
			SQLSTATE: sqlstate.QueryCanceled, Message: "canceling statement due to lockkeeper's statement timeout",
			Detail: fmt.Sprintf("The server has worked on it for more than the %s of limits.statement_timeout, or of what limits.users or limits.databases has in its place.", limit),
			Hint:   "Make it do less at a time, or have the limit raised in lockkeeper.yaml.",
		}}
	case st.now.Sub(c.watched.cancelled) >= CancelGrace:
		over := terminating("statement_kill", sqlstate.QueryCanceled, "statement", false)
		over.refusal.Detail = fmt.Sprintf("The statement was cancelled and has not ended within %s.", CancelGrace)
		return over
	}
	return nil
}
