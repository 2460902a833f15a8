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
	query moment // begin of the exchange with the server; never while there is none
	tx    moment // begin of its transaction, which may outlast it
	asked moment // begin of the last exchange
	busy  moment // since when the server owes something: a Flush may end that before the exchange ends
}

// moment is a time: Host.Elapsed. A time.Time is three times as long, and an idle
// session keeps seven of them.
type moment time.Duration

// never is no moment.
const never moment = 0

// since returns how long before was before.
func (m moment) since(before moment) time.Duration { return max(0, time.Duration(m-before)) }

// timeOf returns a moment as people have it.
func (s *Session) timeOf(m moment) time.Time {
	if m == never {
		return time.Time{}
	}
	return s.host.Now().Add(time.Duration(m) - s.host.Elapsed())
}

// Clock is the moment at which bytes were heard, for durations. It is read when
// somebody first asks for it, and is the same until Reset: what is heard together
// came together. Decisions do not rest on it: a session may come to its event
// when others have looked at a later time.
type Clock struct{ moment moment }

// Reset lets the time go on.
func (c *Clock) Reset() { c.moment = never }

// moment returns the time.
func (s *Session) moment() moment {
	f := s.Shift
	if f == nil || !f.hears {
		return moment(s.host.Elapsed())
	}
	if f.Clock.moment == never {
		f.Clock.moment = moment(s.host.Elapsed())
	}
	return f.Clock.moment
}

// now returns the time as people have it, which decisions rest on: one time for
// what is heard in one call.
func (s *Session) now() time.Time {
	f := s.Shift
	if f == nil || !f.hears {
		return s.host.Now()
	}
	if !f.timed {
		f.time, f.timed = s.host.Now(), true
	}
	return f.time
}

// begin notes that the server is sent something and has owed nothing before.
func (w *working) begin(now moment) {
	w.busy = now
	if w.query != never {
		return
	}
	w.query, w.asked = now, now
	w.done.Queries++
	if w.tx == never {
		w.tx = now
		w.done.Transactions++
	}
}

// exchangeEnds is told that the client sees a ReadyForQuery. What it has sent
// behind that begins now.
func (s *Session) exchangeEnds(now moment, status policy.TxStatus) {
	w := &s.work
	if w.query == never {
		return
	}
	w.done.QueryTime += now.since(w.query)
	w.query = never
	if status == policy.TxIdle {
		w.done.TransactionTime += now.since(w.tx)
		w.tx = never
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
