package inspect

import (
	"hash/maphash"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// The cache's fixed costs and limits, in bytes.
const (
	cachedTextBytes = 64 << 10 // longer texts are not worth their place
	entryBytes      = 256      // an entry without its text: map, list and header, rounded up
	minShardBytes   = 1 << 20
	maxShards       = 16
)

// cache maps exact texts to batches and is bounded by an estimate of the
// bytes that it holds. It is sharded by a hash of the text; the seed is
// random, so that nobody can choose texts that collide.
type cache struct {
	seed   maphash.Seed
	shards []shard
}

type shard struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[uint64, *entry]
	bytes int64
	limit int64
}

type entry struct {
	text  string
	batch *Batch
	bytes int64
}

func newCache(limit int64) *cache {
	n := max(1, min(maxShards, limit/minShardBytes))
	c := &cache{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = limit / n
		// The number of entries is bounded by their bytes before it can be by
		// this size; NewLRU's only error is a size that is not positive.
		s.lru, _ = simplelru.NewLRU(int(s.limit/entryBytes)+1, func(_ uint64, e *entry) { s.bytes -= e.bytes })
	}
	return c
}

// get returns the batch of a text that was put before, or nil. It does not
// allocate.
func (c *cache) get(text []byte) *Batch {
	if len(text) > cachedTextBytes {
		return nil
	}
	sum := maphash.Bytes(c.seed, text)
	s := &c.shards[sum%uint64(len(c.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.lru.Get(sum); ok && e.text == string(text) {
		return e.batch
	}
	return nil
}

// put keeps a text's batch, at the cost of the ones not used for longest.
func (c *cache) put(text []byte, b *Batch) {
	if len(text) > cachedTextBytes {
		return
	}
	sum := maphash.Bytes(c.seed, text)
	s := &c.shards[sum%uint64(len(c.shards))]
	e := &entry{text: string(text), batch: b, bytes: entryBytes + int64(len(text)) + b.sizeBytes()}
	if e.bytes > s.limit {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(sum) // Add would not tell us what it replaces
	s.bytes += e.bytes
	s.lru.Add(sum, e)
	for s.bytes > s.limit {
		s.lru.RemoveOldest()
	}
}

// sizeBytes returns how much the cache holds.
func (c *cache) sizeBytes() int64 {
	var total int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		total += s.bytes
		s.mu.Unlock()
	}
	return total
}

// The estimated sizes of what a batch holds, in bytes.
const (
	batchBytes     = 96
	statementBytes = 224
	relationBytes  = 96
	needsBytes     = 72
	columnBytes    = 40 // a name, and its part of a list
	settingBytes   = 64
	wordBytes      = 24
)

// sizeBytes estimates what the batch occupies, strings included.
func (b *Batch) sizeBytes() int64 {
	n := batchBytes + len(b.Why)
	for _, w := range b.Words {
		n += wordBytes + len(w)
	}
	for i := range b.Statements {
		n += b.Statements[i].sizeBytes()
	}
	return int64(n)
}

func (s *Statement) sizeBytes() int {
	n := statementBytes + len(s.Name) + len(s.Why)
	for i := range s.Relations {
		n += relationBytes + len(s.Relations[i].Schema) + len(s.Relations[i].Name) + s.Relations[i].Needs.sizeBytes()
	}
	if s.Set != nil {
		n += settingBytes + len(s.Set.Name) + len(s.Set.Value)
	}
	if s.Prepared != nil {
		n += s.Prepared.sizeBytes()
	}
	return n
}

func (n *Needs) sizeBytes() int {
	if n == nil {
		return 0
	}
	size := needsBytes + columnBytes*(len(n.Keys)+len(n.Sets))
	for _, columns := range n.NotNull {
		size += columnBytes * (1 + len(columns))
	}
	return size
}
