package catalog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// How the catalogs of one database are read.
const (
	connectTimeout   = 5 * time.Second
	statementTimeout = "5s"
	lockTimeout      = "2s"
	loadTimeout      = 30 * time.Second // of all queries of one load
	minPause         = 200 * time.Millisecond
	maxPause         = 30 * time.Second // between two attempts that fail
	shareOfTime      = 5                // loads take at most this part of the time
	wholeEvery       = 30               // polls, after which the catalogs are read whatever the counters say
	staleAfter       = 3                // polls without an answer
)

// Database keeps the catalog of one database, with one connection while there
// are sessions in it. (One that stays would be in the way of DROP DATABASE and
// CREATE DATABASE … TEMPLATE.)
type Database struct {
	server, name string // for people
	control      string // connection string
	c            *Catalogs
	end          context.CancelFunc

	view  atomic.Pointer[view]
	begun atomic.Uint64 // loads
	wake  chan struct{}
	done  chan struct{} // closed when its goroutine has ended

	mu       sync.Mutex // guards what follows, and writing view
	users    int
	wanted   uint64        // the load that somebody waits for
	failure  string        // of the last attempt; "" when it succeeded
	answered time.Time     // when it last did
	settled  chan struct{} // closed when an attempt ends, and replaced

	conn     *pgx.Conn // its goroutine's own, as what follows
	counter  int64     // of changes, at the last load
	polls    int
	failures int
	took     time.Duration
	loaded   time.Time
}

func newDatabase(c *Catalogs, server, name, control string) *Database {
	return &Database{
		server: server, name: name, control: control, c: c,
		wake: make(chan struct{}, 1), done: make(chan struct{}), settled: make(chan struct{}),
	}
}

// keep reads the catalogs until ctx ends.
func (d *Database) keep(ctx context.Context) {
	defer close(d.done)
	defer d.disconnect(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		timer.Reset(d.turn(ctx))
	}
}

// turn does what there is to do and returns when to look again.
func (d *Database) turn(ctx context.Context) time.Duration {
	poll := d.c.cfg.Poll
	due, inUse := d.due()
	if !inUse {
		d.disconnect(ctx)
		d.age()
		d.took = 0 // who comes next does not wait
		return poll
	}
	if wait := d.pause(); wait > 0 {
		return wait
	}
	err := d.look(ctx, due)
	d.settle(ctx, err)
	if err != nil {
		d.disconnect(ctx)
		d.failures++
		return d.pause()
	}
	d.failures = 0
	return poll
}

// due reports whether somebody waits for a load, and whether there are
// sessions.
func (d *Database) due() (load, inUse bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	return v == nil || v.snap == nil || !v.fresh || v.number < d.wanted, d.users > 0
}

// pause is how long the server is left alone: for a while after failures, and
// so that loads take a small part of the time only.
func (d *Database) pause() time.Duration {
	gap := max(minPause, shareOfTime*d.took)
	if d.failures > 0 {
		gap = min(max(gap, minPause<<min(d.failures, 10)), maxPause)
	}
	return gap - d.c.cfg.Now().Sub(d.loaded)
}

// look asks whether something has changed, and loads if so.
func (d *Database) look(ctx context.Context, due bool) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	begun := d.c.cfg.Now()
	defer func() { d.loaded = d.c.cfg.Now(); d.took = d.loaded.Sub(begun) }()
	if d.conn == nil {
		conn, err := connect(ctx, d.control, d.name)
		if err != nil {
			return err
		}
		d.conn, due = conn, true
	}
	var counter int64
	if err := d.conn.QueryRow(ctx, changes).Scan(&counter); err != nil {
		return err
	}
	if d.polls++; !due && counter == d.counter && d.polls < wholeEvery {
		return nil
	}
	number := d.begun.Add(1)
	o := loading{limit: d.c.cfg.Relations, now: begun, parse: d.c.cfg.Parse}
	if v := d.view.Load(); v != nil {
		o.before = v.snap
	}
	snap, err := load(ctx, d.conn, &o)
	if err != nil {
		return err
	}
	d.counter, d.polls = counter, 0
	d.publish(snap, number)
	d.c.metrics.seconds.Observe(d.c.cfg.Now().Sub(begun).Seconds())
	return nil
}

// publish puts a snapshot in the place of the one before.
func (d *Database) publish(snap *Snapshot, number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var before *pending
	if v := d.view.Load(); v != nil {
		snap.remember(v.snap)
		before = v.pending
	}
	d.view.Store(&view{snap: snap, pending: before.after(number), number: number, fresh: true})
}

// settle notes how an attempt ended and tells who waits for it.
func (d *Database) settle(ctx context.Context, err error) {
	d.mu.Lock()
	now := d.c.cfg.Now()
	was := d.failure
	if d.failure = ""; err != nil {
		d.failure = explain(err)
	} else {
		d.answered = now
	}
	failure := d.failure
	close(d.settled)
	d.settled = make(chan struct{})
	d.mu.Unlock()
	d.c.metrics.count(err)
	attrs := []slog.Attr{slog.String("server", d.server), slog.String("database", d.name)}
	switch {
	case err != nil && was == "":
		d.c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "catalog not read, statements are judged by the names in their text", append(attrs, slog.String("cause", failure))...)
	case err == nil && was != "":
		d.c.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "catalog read again", attrs...)
	}
	if err != nil {
		d.age()
	}
}

// age takes away the belief in a snapshot that nobody could compare with the
// database for a while: what it makes stricter stays.
func (d *Database) age() {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	if v == nil || !v.fresh || d.c.cfg.Now().Sub(d.answered) < staleAfter*d.c.cfg.Poll {
		return
	}
	d.view.Store(&view{snap: v.snap, pending: v.pending, number: v.number})
}

func (d *Database) disconnect(ctx context.Context) {
	if d.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = d.conn.Close(ctx) // it is of no further use, whatever this says
	d.conn = nil
}

// nudge lets the goroutine look.
func (d *Database) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// made notes DDL that passes.
func (d *Database) made(more []made) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	if v == nil {
		v = &view{}
	}
	d.view.Store(&view{snap: v.snap, pending: v.pending.with(more), number: v.number, fresh: v.fresh})
}

// ended notes that a session's transaction has ended, and returns the number
// of the load that will show what it did.
func (d *Database) ended(s *Session) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	load := d.begun.Load() + 1
	d.wanted = load
	if v := d.view.Load(); v != nil && v.pending != nil {
		d.view.Store(&view{snap: v.snap, pending: v.pending.ended(s, load), number: v.number, fresh: v.fresh})
	}
	d.nudge()
	return load
}

// Refresh reads the catalogs now, and returns when that is done.
func (d *Database) Refresh(ctx context.Context) error {
	d.mu.Lock()
	load := d.begun.Load() + 1
	d.wanted = max(d.wanted, load)
	d.mu.Unlock()
	d.nudge()
	return d.await(ctx, func(v *view) bool { return v != nil && v.number >= load })
}

// await waits until the view is as wanted, or an attempt has failed.
func (d *Database) await(ctx context.Context, is func(*view) bool) error {
	for {
		d.mu.Lock()
		settled, v := d.settled, d.view.Load()
		d.mu.Unlock()
		if is(v) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.done:
			return errClosed
		case <-settled:
		}
		d.mu.Lock()
		failed := d.failure != ""
		d.mu.Unlock()
		if failed {
			return errFailed
		}
	}
}

// acquire counts a session.
func (d *Database) acquire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users++
	if d.users == 1 {
		if v := d.view.Load(); v != nil { // nobody has looked for a while
			d.view.Store(&view{snap: v.snap, pending: v.pending, number: v.number})
		}
		d.nudge()
	}
}

// release counts one less; with the last the connection is closed.
func (d *Database) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users--
	if d.users == 0 {
		d.nudge()
	}
}

// retire ends the catalog where nobody is in the database.
func (d *Database) retire() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users > 0 {
		return false
	}
	d.end()
	return true
}

// state describes the catalog for people.
func (d *Database) state() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := State{Server: d.server, Database: d.name, Sessions: d.users, Error: d.failure}
	if v := d.view.Load(); v != nil && v.snap != nil {
		s.Relations, s.Functions, s.Taken, s.Fresh = v.snap.Relations, len(v.snap.functions), v.snap.Taken, v.fresh
	}
	return s
}
