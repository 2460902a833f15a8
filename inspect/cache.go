package inspect

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"lockkeeper/inspect/lex"
)

// MaxCachedText bounds the texts whose facts are kept; longer ones are not
// worth their place, and are not read on the hot path.
const MaxCachedText = 64 << 10

// MaxConstants bounds the constants of a text whose facts are kept by its
// shape; a list counts as one.
const MaxConstants = lex.MaxSlots

// The cache's fixed costs and limits, in bytes.
const (
	entryBytes      = 256 // an entry without its text: map, list and header, rounded up
	minShardBytes   = 1 << 20
	maxShards       = 16
	dependenceBytes = 16
)

// cache maps keys to batches and is bounded by an estimate of the bytes that
// it holds. It is sharded by a hash of the key; the seed is random, so that
// nobody can choose keys that collide, and keys are compared byte by byte.
//
// Who is looked up is not moved in the list of its shard, but marked, so that
// front can do it, too: what is to be dropped and was marked stays once more.
type cache struct {
	front  front
	seed   maphash.Seed
	shards []shard
	locked atomic.Uint64 // look-ups that front did not know
}

type shard struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[uint64, *entry]
	bytes int64
	limit int64
}

// entry is what is kept under one key: a whole text, a shape, or a shape with
// constants. It is immutable but for its mark.
type entry struct {
	key      string
	batch    *Batch        // nil where depends is not empty
	depends  []dependence  // what the shape's facts depend on beside it: they are kept under the longer key
	template *lex.Template // of a shape; nil where it has none, or is too short to be found by it
	used     atomic.Bool   // since it was put or nearly dropped
	exact    bool          // key is a whole text
	isText   bool          // key is a text: a whole one, or a shape without constants
	place    uint16        // in front
	group    uint16        // in front, of the template
	bytes    int64
}

// use marks the entry, and writes only where it was not marked: sessions on
// other processors read it.
func (e *entry) use() {
	if !e.used.Load() {
		e.used.Store(true)
	}
}

func newCache(limit int64) *cache {
	n := max(1, min(maxShards, limit/minShardBytes))
	c := &cache{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = limit / n
		// The number of entries is bounded by their bytes before it can be by
		// this size; NewLRU's only error is a size that is not positive.
		s.lru, _ = simplelru.NewLRU(int(s.limit/entryBytes)+1, func(_ uint64, e *entry) {
			s.bytes -= e.bytes
			c.front.remove(e)
		})
	}
	return c
}

// sum is the hash of a key.
func (c *cache) sum(key []byte, exact bool) uint64 {
	sum := maphash.Bytes(c.seed, key)
	if exact {
		return ^sum
	}
	return sum
}

func (c *cache) shard(sum uint64) *shard { return &c.shards[sum%uint64(len(c.shards))] }

// get returns what is kept under a key, or nil. It does not allocate.
func (c *cache) get(key []byte, exact bool) *entry {
	c.locked.Add(1)
	sum := c.sum(key, exact)
	s := c.shard(sum)
	s.mu.Lock()
	e, _ := s.lru.Peek(sum)
	if e != nil && e.exact == exact && e.key == string(key) {
		e.use()
		c.front.add(e)
	} else {
		e = nil
	}
	s.mu.Unlock()
	return e
}

// shape is get for the key of a shape, or of one with constants.
func (c *cache) shape(key []byte) *entry {
	if e := c.front.shape(key); e != nil {
		return e
	}
	return c.get(key, false)
}

// put keeps an entry under its key, at the cost of the ones not used for
// longest. Its bytes are those of what only the caller knows of.
func (c *cache) put(e *entry) {
	key := []byte(e.key)
	e.place = place(key)
	e.bytes += entryBytes + int64(len(key)) + dependenceBytes*int64(len(e.depends))
	if e.template != nil {
		groups, n := beginnings(key[:e.template.Begins()])
		e.group = groups[n-1]
		e.bytes += e.template.Bytes()
	}
	if e.batch != nil {
		e.bytes += e.batch.Bytes()
	}
	sum := c.sum(key, e.exact)
	s := c.shard(sum)
	if e.bytes > s.limit {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(sum) // Add would not tell us what it replaces
	for s.bytes+e.bytes > s.limit {
		s.drop() // before e is there, which nobody has used yet
	}
	s.bytes += e.bytes
	s.lru.Add(sum, e)
}

// maxSpared bounds how many entries are passed over for one that is dropped.
const maxSpared = 16

// drop drops the oldest entry that was not used since it was put or passed over
// here; or after a bounded number of used ones the next.
func (s *shard) drop() {
	for range maxSpared {
		sum, e, ok := s.lru.GetOldest()
		if !ok || !e.used.Swap(false) {
			break
		}
		s.lru.Get(sum) // it is the newest now
	}
	s.lru.RemoveOldest()
}

// find returns what is known of a text that front does not know as it is, or
// nil. It does not allocate.
func (c *cache) find(k *key, text []byte) *Batch {
	if k.why == lex.Shaped {
		if e := c.shape(k.shape.Key); e != nil {
			if len(e.depends) == 0 {
				return e.batch
			}
			if e := c.shape(k.with(text, e.depends)); e != nil {
				return e.batch
			}
		}
	}
	if e := c.get(text, true); e != nil {
		return e.batch
	}
	return nil
}

// keep keeps a text's facts: by the text's shape, and what of its constants
// matters to them or to those of others of the shape; or by the whole text.
func (c *cache) keep(k *key, text []byte, b *Batch, constants []Constant) (byShape bool) {
	if k.why == lex.Shaped && constants != nil {
		var others []dependence
		before := c.get(k.shape.Key, false)
		if before != nil {
			others = before.depends
		}
		if depends, ok := k.depends(text, constants, others); ok {
			c.keepShape(k, text, b, depends)
			return true
		}
	}
	c.put(&entry{key: string(text), batch: b, exact: true, isText: true, bytes: b.lateBytes(text)})
	return false
}

// keepShape keeps facts under a shape, or where they depend on constants,
// under the shape with these: then the shape alone leads there.
func (c *cache) keepShape(k *key, text []byte, b *Batch, depends []dependence) {
	shape := &entry{key: string(k.shape.Key), depends: depends, isText: len(k.shape.Slots) == 0}
	shape.template = lex.NewTemplate(&k.shape, text, shape.key)
	if shape.template != nil && shape.template.Begins() < shortestBeginning {
		shape.template = nil
	}
	if len(depends) == 0 {
		shape.batch, shape.bytes = b, b.lateBytes(text)
		c.put(shape)
		return
	}
	c.put(shape)
	c.put(&entry{key: string(k.with(text, depends)), batch: b, bytes: b.lateBytes(text)})
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

// entries returns how many entries there are.
func (c *cache) entries() int {
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		total += s.lru.Len()
		s.mu.Unlock()
	}
	return total
}

// The estimated sizes of what a batch holds, in bytes.
const (
	batchBytes     = 160 // with a fingerprint
	statementBytes = 248
	relationBytes  = 104
	callBytes      = 64
	needsBytes     = 96
	strayBytes     = 56
	columnBytes    = 40 // a name, and its part of a list
	settingBytes   = 64
	wordBytes      = 24
)

// Bytes estimates what the batch occupies, strings included, but for a text that
// waits for its fingerprint.
func (b *Batch) Bytes() int64 {
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
	for _, c := range s.Columns {
		n += columnBytes + len(c)
	}
	for i := range s.Relations {
		n += relationBytes + len(s.Relations[i].Schema) + len(s.Relations[i].Name) + s.Relations[i].Needs.sizeBytes()
	}
	for i := range s.Calls {
		n += callBytes + len(s.Calls[i].Schema) + len(s.Calls[i].Name)
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
	for _, c := range n.Strays {
		size += strayBytes + len(c.Schema) + len(c.Table) + len(c.Name)
	}
	return size
}
