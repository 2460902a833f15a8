package engine

import "sync/atomic"

// Budget bounds the bytes that all sessions together collect beyond their
// initial buffers. Its zero value grants nothing.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns the bytes granted now.
func (b *Budget) Used() int64 { return b.used.Load() }

// take takes n bytes if there are as many. It never takes more for a moment:
// others would be refused, and the metric would tell of it.
func (b *Budget) take(n int) bool {
	for {
		used := b.used.Load()
		if used+int64(n) > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+int64(n)) {
			return true
		}
	}
}

// has reports whether n bytes are left.
func (b *Budget) has(n int) bool { return b.used.Load()+int64(n) <= b.limit }

func (b *Budget) give(n int) { b.used.Add(-int64(n)) }

// force takes n bytes whatever the limit: they are there already.
func (b *Budget) force(n int) { b.used.Add(int64(n)) }
