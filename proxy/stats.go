package proxy

import (
	"maps"
	"time"

	"lockkeeper/proxy/session"
)

// Tally is what sessions have done, added up. Units and meanings are those of
// PgBouncer's SHOW STATS.
type Tally struct {
	session.Work

	Sessions          int64 // that have logged in
	BytesIn, BytesOut int64 // from clients, to clients
	RowsWritten       int64
}

func (t *Tally) add(o *Tally) {
	t.Transactions += o.Transactions
	t.Queries += o.Queries
	t.TransactionTime += o.TransactionTime
	t.QueryTime += o.QueryTime
	t.WaitTime += o.WaitTime
	t.Parses += o.Parses
	t.Binds += o.Binds
	t.Sessions += o.Sessions
	t.BytesIn += o.BytesIn
	t.BytesOut += o.BytesOut
	t.RowsWritten += o.RowsWritten
}

// per returns what was added since old, in a time, as averages: counts and
// WaitTime by the second, TransactionTime by the transaction and QueryTime by
// the query. Source: calc_average in PgBouncer 1.18's src/stats.c.
func (t *Tally) per(old *Tally, d time.Duration) Tally {
	if d <= 0 {
		return Tally{}
	}
	rate := func(now, before int64) int64 { return int64(float64(now-before) / d.Seconds()) }
	each := func(now, before time.Duration, n int64) time.Duration {
		return (now - before) / time.Duration(max(n, 1))
	}
	return Tally{
		Work: session.Work{
			Transactions: rate(t.Transactions, old.Transactions), Queries: rate(t.Queries, old.Queries),
			TransactionTime: each(t.TransactionTime, old.TransactionTime, t.Transactions-old.Transactions),
			QueryTime:       each(t.QueryTime, old.QueryTime, t.Queries-old.Queries),
			WaitTime:        time.Duration(rate(int64(t.WaitTime), int64(old.WaitTime))),
			Parses:          rate(t.Parses, old.Parses), Binds: rate(t.Binds, old.Binds),
		},
		Sessions: rate(t.Sessions, old.Sessions), BytesIn: rate(t.BytesIn, old.BytesIn), BytesOut: rate(t.BytesOut, old.BytesOut),
		RowsWritten: rate(t.RowsWritten, old.RowsWritten),
	}
}

// MaxStatsDatabases bounds the databases that are counted each on its own, for
// "*" leaves their names to the clients. Those of the configuration always are.
const MaxStatsDatabases = 1000

// OtherDatabases is the name under which the rest is counted.
const OtherDatabases = "(other databases)"

// StatsPeriod is how often the beginning of the averages moves on: they are
// over the last one to two periods. It is PgBouncer's stats_period.
const StatsPeriod = time.Minute

// tallies are the sums of each database.
type tallies map[string]Tally

// add adds to a database, or to the others where there are too many.
func (ts tallies) add(name string, t *Tally, configured map[string]Target) {
	if _, known := ts[name]; !known {
		if _, own := configured[name]; !own && len(ts) >= MaxStatsDatabases {
			name = OtherDatabases
		}
	}
	sum := ts[name]
	sum.add(t)
	ts[name] = sum
}

// stats are what there was to count since the start. Sessions count in their
// own state while they live and are added when they end. The server's mutex
// guards all of it.
type stats struct {
	ended          tallies
	older, newer   tallies // as they stood at:
	olderAt, newAt time.Time
}

// period begins a new period of the averages.
func (x *stats) period(sums tallies, now time.Time) {
	x.older, x.olderAt = x.newer, x.newAt
	x.newer, x.newAt = sums, now
}

// DatabaseStats are a database's sums since the start, and the averages.
type DatabaseStats struct {
	Database       string
	Total, Average Tally
}

// Stats returns what the sessions of each database have done, by name. Their
// last is the sum, whose name is empty.
func (s *Server) Stats() []DatabaseStats {
	sums := s.sums()
	s.mu.Lock()
	older, since := s.stats.older, s.stats.olderAt
	s.mu.Unlock()
	age := s.deps.Now().Sub(since)
	var out []DatabaseStats
	var all, before Tally
	for _, name := range sortedKeys(sums) {
		now, old := sums[name], older[name]
		out = append(out, DatabaseStats{Database: name, Total: now, Average: now.per(&old, age)})
		all.add(&now)
		before.add(&old)
	}
	return append(out, DatabaseStats{Total: all, Average: all.per(&before, age)})
}

// sums adds the sessions there are to those that have ended.
func (s *Server) sums() tallies {
	s.mu.Lock()
	sums := maps.Clone(s.stats.ended)
	live := make([]*conn, 0, len(s.sessions))
	for _, c := range s.sessions {
		live = append(live, c)
	}
	s.mu.Unlock()
	for _, c := range live { // one that ends meanwhile keeps what it has
		if t := c.tally(); t.Sessions > 0 {
			sums.add(c.database, &t, s.cfg.Servers)
		}
	}
	return sums
}

// tally is what a session has done; nothing while it has not logged in, for
// until then anybody may have made up the database's name.
func (c *conn) tally() Tally {
	var t Tally
	c.pair.Do(func(x *session.Session) {
		if x.LoggedIn() {
			t.Sessions, t.Work, t.RowsWritten = 1, x.Work(), x.State().RowsWritten
		}
	})
	if t.Sessions == 0 {
		return t
	}
	t.WaitTime += c.waited
	t.BytesIn, t.BytesOut = c.pair.Traffic()
	return t
}

// statsLoop begins the periods, until stop is closed.
func (s *Server) statsLoop(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(StatsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			s.nextPeriod()
		}
	}
}

func (s *Server) nextPeriod() {
	sums := s.sums()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.period(sums, s.deps.Now())
}
