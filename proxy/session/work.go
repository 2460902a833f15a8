package session

import (
	"time"

	"lockkeeper/policy"
)

// Work is what a session has done for its client, with the meanings of
// PgBouncer's SHOW STATS: a query is what one ReadyForQuery ends, and its time
// begins when the server is sent it.
type Work struct {
	Transactions, Queries                int64
	TransactionTime, QueryTime, WaitTime time.Duration
	Parses, Binds                        int64 // of statements with a name
}

// working is Work that goes on.
type working struct {
	done  Work
	query time.Time // begin of the exchange with the server; zero while there is none
	tx    time.Time // begin of its transaction, which may outlast it
	asked time.Time // begin of the last exchange
	busy  time.Time // since when the server owes something: a Flush may end that before the exchange ends
}

// clock is the time at which bytes were heard. It is read at most once for each
// call of FromClient and FromServer: what one of them carries came together.
type clock struct {
	hearing bool
	read    time.Time
}

// now returns the time.
func (s *Session) now() time.Time {
	if s.scratch == nil || !s.clock.hearing {
		return s.host.Now()
	}
	c := &s.clock
	if c.read.IsZero() {
		c.read = s.host.Now()
	}
	return c.read
}

// origin is what the times of replies are measured from: a time.Time is three
// words long.
var origin = time.Now()

// sinceOrigin returns the time, since origin.
func (s *Session) sinceOrigin() time.Duration { return s.now().Sub(origin) }

// begin notes that the server is sent something and has owed nothing before.
func (w *working) begin(now time.Time) {
	w.busy = now
	if !w.query.IsZero() {
		return
	}
	w.query, w.asked = now, now
	w.done.Queries++
	if w.tx.IsZero() {
		w.tx = now
		w.done.Transactions++
	}
}

// exchangeEnds is told that the client sees a ReadyForQuery. What it has sent
// behind that begins now.
func (s *Session) exchangeEnds(now time.Time, status policy.TxStatus) {
	w := &s.work
	if w.query.IsZero() {
		return
	}
	w.done.QueryTime += now.Sub(w.query)
	w.query = time.Time{}
	if status == policy.TxIdle {
		w.done.TransactionTime += now.Sub(w.tx)
		w.tx = time.Time{}
	}
	if !s.settled() {
		w.begin(now)
	}
	if s.cancelling == 0 {
		s.overdue = nil
	}
}

// Work returns what the session has done.
func (s *Session) Work() Work { return s.work.done }

// Overdue is told that what the server runs takes too long and is about to be
// cancelled: its client gets r for an answer. Until CancelSent nothing more is
// sent to the server, or the cancel might hit that.
func (s *Session) Overdue(r *policy.Refusal) { s.overdue = r; s.cancelling++ }

// CancelSent ends Overdue. The engine offers the client's bytes again.
func (s *Session) CancelSent() {
	s.cancelling--
	if s.cancelling == 0 && s.settled() {
		s.overdue = nil
	}
}

// Spared ends Overdue where no cancel request was sent after all.
func (s *Session) Spared() {
	s.cancelling--
	if s.cancelling == 0 {
		s.overdue = nil
	}
}
