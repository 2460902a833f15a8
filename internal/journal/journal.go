// Package journal keeps the evidence: who changed what, what was refused and what operators did.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the journal is closed")

// errNoRoom is returned when even the reserved queue is full.
var errNoRoom = errors.New("the journal's reserved queue is full")

// Journal is an append-only record in an SQLite database. Its methods are
// safe for concurrent use.
//
// Statements, observations and transactions wait in one queue, refusals and
// actions in another that nothing else can fill. When the first is full a
// Submit waits for at most 100 ms, then the entry is dropped and counted; a
// GapEntry with the count is written as soon as there is room. Entries of the
// second are never dropped: when it is full, because nothing could be written
// for long, they are written to the log instead.
type Journal struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	normal   chan item
	reserved chan item
	quit     chan struct{}
	ended    chan struct{}
	failing  atomic.Bool // the last attempt to write failed

	closeMu sync.RWMutex // held by Submit, so that nothing is queued after the writer's last look
	closed  bool

	gapMu    sync.Mutex
	gap      int64
	gapSince time.Time

	dbMu sync.RWMutex // guards db against its replacement
	db   *database
}

// item is an entry in a queue.
type item struct {
	entry Entry
	done  chan<- error // told once whether the entry is on disk; nil when nobody waits
}

// Open opens the journal, and makes it if there is none. A damaged database is
// set aside under another name, which is logged, and a new one begun. reg may
// be nil.
func Open(ctx context.Context, cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{cfg: cfg.WithDefaults(), log: logger, quit: make(chan struct{}), ended: make(chan struct{})}
	j.normal = make(chan item, j.cfg.QueueEntries)
	j.reserved = make(chan item, j.cfg.ReservedEntries)
	if err := j.openOrBeginNew(ctx); err != nil {
		return nil, err
	}
	j.metrics = newMetrics(reg, func() float64 { return float64(len(j.normal) + len(j.reserved)) })
	go j.writer() //nolint:contextcheck // the writer outlives the opening; Close ends it
	return j, nil
}

// openOrBeginNew opens the database; callers hold dbMu or are alone.
func (j *Journal) openOrBeginNew(ctx context.Context) error {
	db, err := openDatabase(ctx, &j.cfg)
	if damaged(err) {
		name, asideErr := setAside(j.cfg.Path, j.cfg.Now())
		if asideErr != nil {
			return errors.Join(err, asideErr)
		}
		j.log.LogAttrs(ctx, slog.LevelError, "damaged journal set aside, a new one begun",
			slog.String("path", j.cfg.Path), slog.String("set_aside_as", name), slog.String("cause", err.Error()))
		db, err = openDatabase(ctx, &j.cfg)
	}
	if err != nil {
		return err
	}
	j.db = db
	return nil
}

// Submit queues an entry. It waits only where the queue is full, and for at
// most 100 ms. An entry without a time gets one.
func (j *Journal) Submit(e Entry) {
	e = j.trim(e)
	j.closeMu.RLock()
	defer j.closeMu.RUnlock()
	if e.Kind == RefusalEntry || e.Kind == ActionEntry {
		if err := j.reserve(item{entry: e}); err != nil {
			j.logEntry(context.Background(), &e, err)
		}
		return
	}
	if j.closed || !j.queue(item{entry: e}) {
		j.drop(1, e.Time)
	}
}

// Roomy reports whether Submit would not wait now: while half of the queue is
// empty, or where nothing is waited for.
func (j *Journal) Roomy() bool { return 2*len(j.normal) <= cap(j.normal) || j.failing.Load() }

// SubmitDurable queues an entry and returns when it is on disk. When it
// returns an error the entry is not lost: it is still queued, or in the log.
func (j *Journal) SubmitDurable(ctx context.Context, e Entry) error {
	e = j.trim(e)
	done := make(chan error, 1)
	j.closeMu.RLock()
	err := j.reserve(item{entry: e, done: done})
	j.closeMu.RUnlock()
	if err != nil {
		j.logEntry(ctx, &e, err)
		return fmt.Errorf("write to the journal: %w", err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the journal: %w", ctx.Err())
	}
}

// trim bounds what an entry may occupy.
func (j *Journal) trim(e Entry) Entry {
	if e.Time.IsZero() {
		e.Time = j.cfg.Now()
	}
	if more := len(e.Tables) - tablesInEntry; more > 0 {
		e.Tables = append(slices.Clone(e.Tables[:tablesInEntry]), fmt.Sprintf("… and %d more", more))
	}
	for _, s := range []*string{&e.User, &e.Database, &e.Application, &e.Address, &e.Reason, &e.Detail} {
		if len(*s) > textBytes {
			*s = (*s)[:textBytes]
		}
	}
	return e
}

// reserve puts an item in the reserved queue at once, or says why not.
func (j *Journal) reserve(i item) error {
	if j.closed {
		return ErrClosed
	}
	select {
	case j.reserved <- i:
		return nil
	default:
		return errNoRoom
	}
}

// queue puts an item in the normal queue. While nothing can be written it
// does not wait: nobody would be helped.
func (j *Journal) queue(i item) bool {
	select {
	case j.normal <- i:
		return true
	default:
	}
	if j.failing.Load() {
		return false
	}
	wait := time.NewTimer(submitWait)
	defer wait.Stop()
	select {
	case j.normal <- i:
		return true
	case <-wait.C:
		return false
	}
}

// Failing reports whether the last attempt to write has failed: the disk may be
// full, or the file gone.
func (j *Journal) Failing() bool { return j.failing.Load() }

// drop counts entries that are missing.
func (j *Journal) drop(n int64, at time.Time) {
	j.metrics.dropped.Add(float64(n))
	j.gapMu.Lock()
	defer j.gapMu.Unlock()
	if j.gap == 0 {
		j.gapSince = at
	}
	j.gap += n
}

// takeGap returns the entry for what is missing so far, and false when
// nothing is.
func (j *Journal) takeGap() (Entry, bool) {
	j.gapMu.Lock()
	defer j.gapMu.Unlock()
	if j.gap == 0 {
		return Entry{}, false
	}
	e := Entry{Time: j.gapSince, Kind: GapEntry, Count: j.gap}
	j.gap = 0
	return e, true
}

// putBackGap undoes takeGap.
func (j *Journal) putBackGap(e *Entry) {
	j.gapMu.Lock()
	defer j.gapMu.Unlock()
	j.gap += e.Count
	j.gapSince = e.Time
}

// missing reports whether there is a gap to be recorded.
func (j *Journal) missing() bool {
	j.gapMu.Lock()
	defer j.gapMu.Unlock()
	return j.gap > 0
}

// logEntry is the last resort for what must not be lost.
func (j *Journal) logEntry(ctx context.Context, e *Entry, cause error) {
	j.metrics.logged.Inc()
	e.settle()
	j.log.LogAttrs(ctx, slog.LevelError, "journal entry kept in the log only",
		slog.String("cause", cause.Error()), slog.Any("entry", *e))
}

// Close writes what is queued, for a bounded time, and closes the database.
// What cannot be written is logged or counted as Submit says.
func (j *Journal) Close() error {
	j.closeMu.Lock()
	if j.closed {
		j.closeMu.Unlock()
		return ErrClosed
	}
	j.closed = true
	j.closeMu.Unlock()
	close(j.quit)
	<-j.ended
	j.dbMu.Lock()
	defer j.dbMu.Unlock()
	if j.db == nil {
		return nil
	}
	return j.db.close()
}
