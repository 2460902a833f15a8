package inspect

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// FrontPlaces bounds the entries of the cache that are found without a lock: so
// many by their key, and so many by their template.
const FrontPlaces = 2048

// templatesPerGroup is how many templates are tried at most for one beginning of
// a text.
const templatesPerGroup = 4

// maxFitted bounds the texts that are compared with templates: of many templates
// each may look through a long list before it does not fit.
const maxFitted = 8 << 10

// front is where the cache is looked into first, without a lock. It knows a text
// that is the same as one before, and one that fits the template of a shape,
// without reading the text's shape; others by their shape.
//
// It holds only what the cache holds, which owns the bytes: an entry comes here
// when it was asked for, and what the cache drops leaves here at once. Entries
// with one place take it from each other, and are found behind the lock then.
// Whoever chooses texts for that gains no more.
type front struct {
	places    [FrontPlaces]atomic.Pointer[entry]
	templates [FrontPlaces / templatesPerGroup][templatesPerGroup]atomic.Pointer[entry]
	turn      atomic.Uint32 // who gives up its place in a full group
}

// text returns the entry of this very text, or nil.
func (f *front) text(text []byte) *entry {
	e := f.places[place(text)].Load()
	if e == nil || !e.isText || e.key != string(text) {
		return nil
	}
	e.use()
	return e
}

// fitting returns the entry of a shape whose template the text fits, or nil.
func (f *front) fitting(text []byte) *entry {
	if len(text) > maxFitted {
		return nil
	}
	groups, n := beginnings(text)
	for n > 0 {
		n--
		group := &f.templates[groups[n]]
		for i := range group {
			if e := group[i].Load(); e != nil && e.template.Fits(text) {
				e.use()
				return e
			}
		}
	}
	return nil
}

// shape returns the entry of a shape, or of one with constants; nil also where
// its template is not here.
func (f *front) shape(key []byte) *entry {
	e := f.places[place(key)].Load()
	if e == nil || e.exact || e.key != string(key) || e.template != nil && !f.holdsTemplate(e) {
		return nil
	}
	e.use()
	return e
}

func (f *front) holdsTemplate(e *entry) bool {
	group := &f.templates[e.group]
	for i := range group {
		if group[i].Load() == e {
			return true
		}
	}
	return false
}

// add is called, as remove is, with the lock of the entry's shard held, so that
// nothing is added that was removed.
func (f *front) add(e *entry) {
	f.places[e.place].Store(e)
	if e.template == nil || f.holdsTemplate(e) {
		return
	}
	group := &f.templates[e.group]
	for i := range group {
		if group[i].CompareAndSwap(nil, e) {
			return
		}
	}
	group[f.turn.Add(1)%templatesPerGroup].Store(e)
}

func (f *front) remove(e *entry) {
	f.places[e.place].CompareAndSwap(e, nil)
	group := &f.templates[e.group]
	for i := range group {
		group[i].CompareAndSwap(e, nil)
	}
}

// odd is 2^64 by the golden ratio, as a multiplier that spreads what it is given.
const odd = 0x9e3779b97f4a7c15

// place returns where a key is. It looks at the key's length and at eight words
// of it, which costs a tenth of what a hash of 1 kB does.
func place(key []byte) uint16 {
	sum, other := uint64(len(key))*odd, uint64(odd)
	if len(key) < 8 {
		for _, c := range key {
			sum = (sum ^ uint64(c)) * odd
		}
		return uint16(sum >> 48 % FrontPlaces)
	}
	step := (len(key) - 8) / 7
	for i := range 4 { // in two rows, which the processor does at a time
		sum = (sum ^ binary.LittleEndian.Uint64(key[i*step:])) * odd
		sum ^= sum >> 32
		other = (other ^ binary.LittleEndian.Uint64(key[len(key)-8-i*step:])) * odd
		other ^= other >> 32
	}
	sum = (sum ^ bits.RotateLeft64(other, 32)) * odd
	return uint16(sum >> 48 % FrontPlaces)
}

// The beginnings of a text by which templates are found have 16 bytes, and twice
// as many each: the longest one that ends before the first constant counts.
const (
	shortestBeginning = 16
	maxBeginnings     = 6
)

// beginnings returns the groups of a text's beginnings, the shortest one first,
// and how many there are.
func beginnings(text []byte) (groups [maxBeginnings]uint16, n int) {
	sum := uint64(odd)
	for end := shortestBeginning; n < maxBeginnings && end <= len(text); end *= 2 {
		sum ^= binary.LittleEndian.Uint64(text[end/4*3-8:])
		sum ^= bits.RotateLeft64(binary.LittleEndian.Uint64(text[end-8:]), 29)
		sum *= odd
		groups[n] = uint16(sum >> 48 % (FrontPlaces / templatesPerGroup))
		n++
	}
	return groups, n
}
