package inspect

import (
	"encoding/binary"
	"sync/atomic"
)

// FrontPlaces bounds the entries of the cache that are found without a lock.
const FrontPlaces = 2048

// front is where the cache is looked into first, without a lock: at the one
// place that a sample of the key leads to. It finds a text that is the same as
// one before without its shape being read, and others by their shape.
//
// It holds only what the cache holds, which owns the bytes: an entry comes here
// when it was asked for, and what the cache drops leaves here at once. Two
// entries with one place take it from each other, and are found behind the
// lock then. Whoever chooses texts for that gains no more.
type front [FrontPlaces]atomic.Pointer[entry]

// text returns the entry of this very text, or nil.
func (f *front) text(text []byte) *entry {
	e := f[place(text)].Load()
	if e == nil || !e.isText || e.key != string(text) {
		return nil
	}
	e.use()
	return e
}

// shape returns the entry of a shape, or of one with constants, or nil.
func (f *front) shape(key []byte) *entry {
	e := f[place(key)].Load()
	if e == nil || e.exact || e.key != string(key) {
		return nil
	}
	e.use()
	return e
}

// add and remove are called with the lock of the entry's shard held, so that
// none is added that was removed.
func (f *front) add(e *entry)    { f[e.place].Store(e) }
func (f *front) remove(e *entry) { f[e.place].CompareAndSwap(e, nil) }

// sampled is how many words of a key are looked at for its place.
const sampled = 8

// place returns where a key is. It looks at the key's length and at a few words
// of it, which costs a tenth of what a hash of 1 kB does.
func place(key []byte) uint16 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
	sum := uint64(len(key)) * odd
	if len(key) < 8 {
		for _, c := range key {
			sum = (sum ^ uint64(c)) * odd
		}
		return uint16(sum >> 48 % FrontPlaces)
	}
	step := (len(key) - 8) / (sampled - 1)
	for i := range sampled {
		sum ^= sum >> 32
		sum = (sum ^ binary.LittleEndian.Uint64(key[i*step:])) * odd
	}
	return uint16(sum >> 48 % FrontPlaces)
}
