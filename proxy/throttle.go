package proxy

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"lockkeeper/policy"
)

// pacer counts what throttled subjects do, in all sessions together. A bucket
// is filled at the throttle's rate and may be in debt: rows are known only
// after they were changed, and whoever is in debt waits before the next
// transaction.
type pacer struct {
	buckets *lru.Cache[string, *rate.Limiter]
}

// maxBuckets bounds the buckets kept; the one not used for longest is forgotten,
// with its debt.
const maxBuckets = 10_000

// ceiling is a bucket's size, far above anything that is taken from it: the
// distance to it is the debt.
const ceiling = 1 << 40

func newPacer() *pacer {
	cache, err := lru.New[string, *rate.Limiter](maxBuckets)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &pacer{buckets: cache}
}

// bucket returns the bucket of key, which is filled at perSecond.
func (p *pacer) bucket(key string, perSecond float64) *rate.Limiter {
	if b, ok := p.buckets.Get(key); ok && b.Limit() == rate.Limit(perSecond) {
		return b
	}
	b := rate.NewLimiter(rate.Limit(perSecond), ceiling)
	if old, existed, _ := p.buckets.PeekOrAdd(key, b); existed && old.Limit() == b.Limit() {
		return old
	}
	p.buckets.Add(key, b)
	return b
}

// wait returns how long a statement under these limits has to wait.
func (p *pacer) wait(limits []policy.Throttle, now time.Time) time.Duration {
	var longest time.Duration
	for i := range limits {
		t := &limits[i]
		if t.RowsPerSecond > 0 {
			longest = max(longest, debt(p.bucket(t.Key+"\x00rows", t.RowsPerSecond), t.RowsPerSecond, now))
		}
		if t.StatementsPerSecond > 0 {
			longest = max(longest, debt(p.bucket(t.Key+"\x00statements", t.StatementsPerSecond), t.StatementsPerSecond, now))
		}
	}
	return longest
}

// debt returns how long it takes until a bucket lacks less than what one second
// brings: that much may be taken at once.
func debt(b *rate.Limiter, perSecond float64, now time.Time) time.Duration {
	lacking := ceiling - b.TokensAt(now) - perSecond
	if lacking < 0 {
		return 0
	}
	return time.Duration((lacking + 1) / perSecond * float64(time.Second))
}

// chargeRows takes rows that were changed.
func (p *pacer) chargeRows(limits []policy.Throttle, rows int64, now time.Time) {
	for i := range limits {
		if t := &limits[i]; t.RowsPerSecond > 0 && !t.Begin {
			p.bucket(t.Key+"\x00rows", t.RowsPerSecond).ReserveN(now, int(rows))
		}
	}
}

// chargeStatement takes one statement.
func (p *pacer) chargeStatement(limits []policy.Throttle, now time.Time) {
	for i := range limits {
		if t := &limits[i]; t.StatementsPerSecond > 0 && !t.Begin {
			p.bucket(t.Key+"\x00statements", t.StatementsPerSecond).ReserveN(now, 1)
		}
	}
}
