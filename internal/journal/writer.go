package journal

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sqlite3 "modernc.org/sqlite/lib"
)

// writer is the goroutine that commits batches until Close.
func (j *Journal) writer() {
	defer close(j.ended)
	prune := time.NewTimer(0)
	defer prune.Stop()
	for {
		select {
		case i := <-j.reserved:
			j.commit(j.gather(i))
		case i := <-j.normal:
			j.commit(j.gather(i))
		case <-prune.C:
			prune.Reset(j.prune())
		case <-j.quit:
			j.flush()
			return
		}
	}
}

// gather collects a batch. It waits a moment for more, unless somebody waits
// for an entry of it. Statements do not wake it meanwhile, where their queue has
// room for what comes between two looks: that would cost each a wake-up.
func (j *Journal) gather(first item) []item {
	batch := append(make([]item, 0, min(1+len(j.reserved)+len(j.normal), batchEntries)), first)
	enough, again := time.NewTimer(gatherTime), time.NewTicker(lookTime)
	defer enough.Stop()
	defer again.Stop()
	normal := j.normal
	if cap(normal) >= batchEntries {
		normal = nil
	}
	for {
		batch = j.fill(batch)
		if len(batch) >= batchEntries || slices.ContainsFunc(batch, func(i item) bool { return i.done != nil }) {
			return batch
		}
		select {
		case i := <-j.reserved:
			batch = append(batch, i)
		case i := <-normal:
			batch = append(batch, i)
		case <-again.C:
		case <-enough.C:
			return j.fill(batch)
		case <-j.quit:
			return batch
		}
	}
}

// commit writes a batch, and tries again until it succeeds or the journal is
// closed. Those who wait learn the first result.
func (j *Journal) commit(batch []item) {
	for {
		err := j.attempt(batch)
		answer(batch, err)
		if err == nil {
			return
		}
		if !j.pause() {
			j.giveUp(batch, err)
			return
		}
		// Refusals and actions of a long batch should not wait in its shadow
		// while their own queue fills, nor statements occupy memory for them.
		batch = j.shed(batch)
	}
}

// answer tells those who wait for an entry of the batch, once.
func answer(batch []item, err error) {
	for i := range batch {
		if batch[i].done != nil {
			batch[i].done <- err
			batch[i].done = nil
		}
	}
}

// attempt writes the batch and what is missing before it in one transaction.
func (j *Journal) attempt(batch []item) error {
	entries := make([]Entry, 0, len(batch)+1)
	gap, missing := j.takeGap()
	if missing {
		entries = append(entries, gap)
	}
	for i := range batch {
		batch[i].entry.settle()
		entries = append(entries, batch[i].entry)
	}
	timer := prometheus.NewTimer(j.metrics.seconds)
	err := j.put(entries)
	timer.ObserveDuration()
	switch {
	case err == nil:
		j.metrics.written.Add(float64(len(entries)))
		if missing {
			j.metrics.gaps.Inc()
		}
	case missing:
		j.putBackGap(&gap)
	}
	j.remember(err)
	return err
}

// put writes entries; where the file turns out to be damaged, or full, it is
// seen to first and tried once more.
func (j *Journal) put(entries []Entry) error {
	ctx := context.Background()
	if j.db == nil {
		if err := j.replace(ctx); err != nil {
			return err
		}
	}
	err := j.db.put(ctx, entries)
	switch {
	case damaged(err):
		if e := j.replace(ctx); e != nil {
			return e
		}
		return j.db.put(ctx, entries)
	case code(err) == sqlite3.SQLITE_FULL:
		if n, e := j.db.makeRoom(ctx, j.cfg.MaxBytes); e != nil || n == 0 {
			return err
		}
		return j.db.put(ctx, entries)
	}
	return err
}

// replace sets a database aside that was found damaged while in use. Where
// that fails there is no database until the next attempt.
func (j *Journal) replace(ctx context.Context) error {
	j.dbMu.Lock()
	defer j.dbMu.Unlock()
	if j.db != nil {
		if err := j.db.close(); err != nil {
			j.log.LogAttrs(ctx, slog.LevelWarn, "damaged journal did not close", slog.String("cause", err.Error()))
		}
		j.db = nil
	}
	return j.openOrBeginNew(ctx)
}

// remember notes whether writing works, and logs when that changes.
func (j *Journal) remember(err error) {
	switch was := j.failing.Swap(err != nil); {
	case err != nil && !was:
		j.log.LogAttrs(context.Background(), slog.LevelError, "journal cannot be written, statements go on",
			slog.String("path", j.cfg.Path), slog.String("cause", err.Error()))
	case err == nil && was:
		j.log.LogAttrs(context.Background(), slog.LevelInfo, "journal can be written again", slog.String("path", j.cfg.Path))
	}
}

// pause waits before the next attempt; false when the journal is closing.
func (j *Journal) pause() bool {
	wait := time.NewTimer(retryWait)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-j.quit:
		return false
	}
}

// shed answers those who began to wait while nothing can be written, by
// taking in what fits of the reserved queue. Their entries stay in the batch.
func (j *Journal) shed(batch []item) []item {
	for len(batch) < batchEntries {
		select {
		case i := <-j.reserved:
			batch = append(batch, i)
		default:
			return batch
		}
	}
	return batch
}

// giveUp is for a journal that is closed while nothing can be written.
func (j *Journal) giveUp(batch []item, cause error) {
	for i := range batch {
		e := &batch[i].entry
		if e.Kind == RefusalEntry || e.Kind == ActionEntry {
			j.logEntry(context.Background(), e, cause)
			continue
		}
		j.drop(1, e.Time)
	}
}

// flush writes what is queued when the journal is closed, until the first
// failure or the end of its time.
func (j *Journal) flush() {
	deadline := time.NewTimer(flushTime)
	defer deadline.Stop()
	for {
		batch := j.fill(nil)
		if len(batch) == 0 && !j.missing() {
			return
		}
		err := context.DeadlineExceeded
		select {
		case <-deadline.C:
			deadline.Reset(0) // for the batches that follow
		default:
			err = j.attempt(batch)
		}
		answer(batch, err)
		if err != nil {
			j.giveUp(batch, err)
		}
		if len(batch) == 0 {
			return
		}
	}
}

// fill adds what waits to a batch, as far as it has room, without waiting. It
// takes from both queues alike: a flood of refusals must not keep statements out.
func (j *Journal) fill(batch []item) []item {
	for len(batch) < batchEntries {
		select {
		case i := <-j.reserved:
			batch = append(batch, i)
		case i := <-j.normal:
			batch = append(batch, i)
		default:
			return batch
		}
	}
	return batch
}

// prune removes what is too old, and makes room in a full file. It returns
// when to do so again: soon, where there was more than it may remove at once.
func (j *Journal) prune() time.Duration {
	if j.db == nil {
		return pruneInterval
	}
	ctx := context.Background()
	before := j.cfg.Now().Add(-j.cfg.Retention)
	removed, err := j.db.prune(ctx, before)
	if err == nil {
		var n int64
		n, err = j.db.makeRoom(ctx, j.cfg.MaxBytes)
		removed += n
	}
	if err != nil {
		j.log.LogAttrs(ctx, slog.LevelWarn, "journal not pruned", slog.String("cause", err.Error()))
		return pruneInterval
	}
	if removed > 0 {
		j.log.LogAttrs(ctx, slog.LevelDebug, "journal pruned", slog.Int64("entries", removed))
	}
	if removed >= pruneEntries {
		return pruneAgain
	}
	return pruneInterval
}
