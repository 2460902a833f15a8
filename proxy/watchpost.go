package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// post is where one server is watched from. Only the look that is under way
// uses it, but for what is atomic.
type post struct {
	s      *Server
	target *Target
	at     endpoint

	conn       *pgconn.PgConn
	connected  atomic.Bool // conn is not nil
	failing    atomic.Bool // the last look has failed, or missed something
	busy       atomic.Bool // a look is under way
	used       time.Time   // only the watchdog's loop uses it
	pauseUntil time.Time
	asked      int                         // relations whose names this look has asked for
	names      map[relationKey][]tableName // of what is waited for
	observed   map[wait]bool               // what was recorded and goes on
	barred     map[string]time.Time        // databases that could not be asked, and until when they are not again
}

// relationKey names a relation of a server.
type relationKey struct{ database, relation string }

// tableName is one of the names that a relation goes by.
type tableName struct {
	schema, name string
	itself       bool
	kind         string // as in pg_class.relkind
}

// wait is a server process that waits for a lock on a relation. It is
// comparable: an equal one is the same process, still waiting as before.
type wait struct {
	pid, started, user string // who: started is backend_start, in seconds
	relationKey
	mode  string // as in pg_locks
	since string // waitstart, in seconds
}

// waits lists the server processes among some that wait for locks on relations,
// those for strong ones first. Source: manual, 53.13 "pg_locks"; waitstart is there since 14.
const waits = `SELECT l.pid, COALESCE(pg_catalog.date_part('epoch', a.backend_start)::pg_catalog.text, ''), COALESCE(a.usename::pg_catalog.text, ''),
 a.datname, l.relation, l.mode, pg_catalog.date_part('epoch', l.waitstart),
 pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.-) pg_catalog.date_part('epoch', l.waitstart)
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid AND a.datid OPERATOR(pg_catalog.=) l.database
WHERE NOT l.granted AND l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.waitstart IS NOT NULL AND l.pid OPERATOR(pg_catalog.=) ANY ('{%s}')
ORDER BY l.mode OPERATOR(pg_catalog.=) ANY ('{AccessShareLock,RowShareLock,RowExclusiveLock}'), l.waitstart
LIMIT %d`

// look looks once for suspects that wait for a lock for too long, and ends
// their waits.
func (p *post) look(suspects []suspect) {
	if p.s.deps.Now().Before(p.pauseUntil) {
		return
	}
	ctx, stop := context.WithTimeout(p.s.ctx, watchTime)
	defer stop()
	if !p.enter(ctx) {
		return
	}
	p.s.metrics.watchLooks.Inc()
	byPID := make(map[string]*suspect, len(suspects))
	for i := range suspects {
		byPID[strconv.FormatUint(uint64(suspects[i].PID), 10)] = &suspects[i]
	}
	found, err := p.waits(ctx, sortedKeys(byPID))
	if err != nil {
		p.failed(ctx, "query", err)
		return
	}
	p.forget(found)
	blind := len(p.barred) > 0
	for w, waited := range found {
		if err := p.judge(ctx, byPID[w.pid], &w, waited); err != nil { // others may be in another database
			p.barred[w.database] = p.s.deps.Now().Add(watchPause)
			p.missed(ctx, "names", err)
			blind = true
		}
	}
	if p.conn != nil { // it was not lost on the way
		p.failing.Store(blind)
	}
}

// enter connects, unless a connection is there; false where it cannot.
func (p *post) enter(ctx context.Context) bool {
	if p.conn != nil {
		return true
	}
	if p.target.Control == "" {
		p.failed(ctx, "no_control", errNoControl)
		return false
	}
	c, err := p.connect(ctx, "")
	if err != nil {
		p.failed(ctx, "connect", err)
		return false
	}
	p.conn = c
	p.connected.Store(true)
	return true
}

// connect opens a connection to the server; to the control login's own
// database where database is empty.
func (p *post) connect(ctx context.Context, database string) (*pgconn.PgConn, error) {
	return connectControl(ctx, p.target, &p.at, func(cfg *pgconn.Config) {
		if database != "" {
			cfg.Database = database
		}
		cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(watchTime.Milliseconds(), 10)
		cfg.RuntimeParams["default_transaction_read_only"] = "on"
	})
}

func (p *post) leave() {
	if p.conn == nil {
		return
	}
	closeControl(p.s.ctx, p.conn)
	p.conn = nil
	p.connected.Store(false)
}

// errLookEnded says that the connection was lost earlier in the same look.
var errLookEnded = errors.New("the connection to look on was lost")

// waits asks the server which of the processes wait for locks, and for how long
// each has.
func (p *post) waits(ctx context.Context, pids []string) (map[wait]time.Duration, error) {
	if p.conn == nil {
		return nil, errLookEnded
	}
	results, err := p.conn.Exec(ctx, fmt.Sprintf(waits, strings.Join(pids, ","), WatchedWaits)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("look for processes that wait for locks: %w", err)
	}
	found := map[wait]time.Duration{}
	for _, row := range results[0].Rows {
		seconds, err := strconv.ParseFloat(string(row[7]), 64)
		if err != nil {
			return nil, fmt.Errorf("read for how long a process has waited: %w", err)
		}
		found[wait{
			pid: string(row[0]), started: string(row[1]), user: string(row[2]),
			relationKey: relationKey{string(row[3]), string(row[4])}, mode: string(row[5]), since: string(row[6]),
		}] = time.Duration(seconds * float64(time.Second))
	}
	return found, nil
}

// forget drops what was kept about waits that are over.
func (p *post) forget(found map[wait]time.Duration) {
	goOn := map[relationKey][]tableName{}
	for w := range found {
		if names, known := p.names[w.relationKey]; known {
			goOn[w.relationKey] = names
		}
	}
	p.names, p.asked = goOn, 0
	maps.DeleteFunc(p.barred, func(_ string, until time.Time) bool { return !p.s.deps.Now().Before(until) })
	for w := range p.observed {
		if _, waits := found[w]; !waits {
			delete(p.observed, w)
		}
	}
}

// judge ends a suspect's wait where it is one that a rule limits. An error is
// that of finding out what the relation is.
func (p *post) judge(ctx context.Context, x *suspect, w *wait, waited time.Duration) error {
	shortest := p.s.deps.Decider.Current().ShortestLockLimit()
	if mode := lockMode(w.mode); x == nil || mode < x.Weakest || x.Concurrent && mode != inspect.ShareUpdateExclusive || waited < shortest+WatchMargin {
		return nil
	}
	record := process{PID: x.PID, User: x.conn.user, Since: x.conn.connected}
	if !record.is(w.user, w.started) { // somebody else's process of that number: a pooler stands in between
		return nil
	}
	names, err := p.namesOf(ctx, w.relationKey)
	if err != nil || len(names) == 0 {
		return err
	}
	if x.Concurrent && (!names[0].itself || !strings.Contains("rpm", names[0].kind)) {
		return nil
	}
	relations := make([]inspect.Relation, len(names))
	for i := range names {
		relations[i] = inspect.Relation{Schema: names[i].schema, Name: names[i].name}
	}
	limit := p.s.deps.Decider.Current().LockLimit(x.sub, relations, p.s.deps.Now())
	if limit.Timeout == 0 || waited < limit.Timeout+WatchMargin {
		return nil
	}
	p.end(ctx, x, w, &limit, &relations[0])
	return nil
}

// end cancels what a suspect runs, or only records that it would have been.
func (p *post) end(ctx context.Context, x *suspect, w *wait, limit *policy.LockLimit, rel *inspect.Relation) {
	kind := journal.RefusalEntry
	if !limit.Enforced {
		if p.observed[*w] {
			return
		}
		p.observed[*w] = true
		kind = journal.ObservedEntry
	}
	refusal := limit.Refusal(lockMode(w.mode).String(), rel)
	var e journal.Entry
	same := false
	x.conn.pair.Do(func(s *session.Session) {
		same = s.Running() == x.Running
		if e = s.LockWait(kind, rel.Schema+"."+rel.Name); same && limit.Enforced {
			s.Overdue(refusal) // nothing more is sent to the server until the cancel request was
		}
	})
	if !same {
		p.s.metrics.watchWaits.WithLabelValues("over").Inc()
		return
	}
	e.Verdict, e.Rule, e.Detail = policy.Refuse.String(), limit.Rule, refusal.Detail
	outcome := "observed"
	if limit.Enforced {
		e.SQLSTATE, e.Outcome = refusal.SQLSTATE, "refused"
		outcome = p.cancel(ctx, x, w)
	}
	p.s.metrics.watchWaits.WithLabelValues(outcome).Inc()
	if outcome == "over" || outcome == "failed" {
		return
	}
	p.s.metrics.rules.WithLabelValues(limit.Rule, strconv.FormatBool(limit.Enforced)).Inc()
	p.s.deps.Journal.Submit(e)
}

// cancel cancels what the session runs if it still waits as it did, and says
// what came of that. The request carries the session's own key, so that it can
// meet no process but the session's, and one of a superuser, too.
func (p *post) cancel(ctx context.Context, x *suspect, w *wait) string {
	again, err := p.waits(ctx, []string{w.pid})
	if _, waits := again[*w]; err != nil || !waits {
		x.conn.pair.Spared()
		if err != nil {
			p.failed(ctx, "query", err)
		}
		return "over"
	}
	if err := p.s.cancelOn(ctx, x.conn); err != nil {
		x.conn.pair.Spared()
		p.s.deps.Logger.LogAttrs(ctx, slog.LevelWarn, "cancel request was not passed on", slog.String("cause", err.Error()))
		return "failed"
	}
	x.conn.pair.CancelSent()
	return "cancelled"
}

// namesQuery returns the names that a relation goes by: its own first, those of
// the tables that it is an index or the TOAST table of, and those of their
// parents.
const namesQuery = `WITH RECURSIVE up(oid) AS (
 SELECT %[1]s::pg_catalog.oid
 UNION
 SELECT p.oid FROM up JOIN LATERAL (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid OPERATOR(pg_catalog.=) up.oid
  UNION ALL SELECT x.indrelid FROM pg_catalog.pg_index AS x WHERE x.indexrelid OPERATOR(pg_catalog.=) up.oid
  UNION ALL SELECT c.oid FROM pg_catalog.pg_class AS c WHERE c.reltoastrelid OPERATOR(pg_catalog.=) up.oid
 ) AS p(oid) ON true)
SELECT n.nspname, c.relname, c.oid OPERATOR(pg_catalog.=) %[1]s::pg_catalog.oid, c.relkind
FROM up JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) up.oid
 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY 3 DESC`

// namesOf returns the names of a relation, asked on a connection to its
// database and kept while it is waited for.
func (p *post) namesOf(ctx context.Context, key relationKey) ([]tableName, error) {
	if names, known := p.names[key]; known || p.asked >= WatchedNames || !p.barred[key.database].IsZero() {
		return names, nil
	}
	p.asked++
	c, err := p.connect(ctx, key.database)
	if err != nil {
		return nil, fmt.Errorf("find out which table is waited for in database %s: %w", key.database, err)
	}
	defer closeControl(ctx, c)
	results, err := c.Exec(ctx, fmt.Sprintf(namesQuery, key.relation)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("find out which table is waited for in database %s: %w", key.database, err)
	}
	var names []tableName
	for _, row := range results[0].Rows {
		names = append(names, tableName{schema: string(row[0]), name: string(row[1]), itself: string(row[2]) == "t", kind: string(row[3])})
	}
	p.names[key] = names
	return names, nil
}

// lockMode turns pg_locks' name of a mode into the mode.
func lockMode(name string) inspect.LockMode {
	for m := inspect.AccessShare; m <= inspect.AccessExclusive; m++ {
		if strings.EqualFold(strings.ReplaceAll(m.String(), " ", "")+"Lock", name) {
			return m
		}
	}
	return inspect.NoLock
}
