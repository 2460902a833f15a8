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

func (b *Budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.limit {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *Budget) give(n int) { b.used.Add(-int64(n)) }

// force takes n bytes whatever the limit: they are there already.
func (b *Budget) force(n int) { b.used.Add(int64(n)) }
