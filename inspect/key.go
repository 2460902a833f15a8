package inspect

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"unsafe"

	"lockkeeper/inspect/lex"
)

// maxDepends bounds how many constants of a text may matter to its facts for
// it to be kept by its shape.
const maxDepends = 64

// quickBytes is the length up to which no text has operators enough to keep
// the server busy: see lex.Cost, Rescans grow with the square of their number.
const quickBytes = 16 << 10

// dependence is one constant that facts depend on: a slot of the shape, and
// what of it matters.
type dependence struct {
	slot    int
	reading Reading
}

// key is what a text's facts are kept by: its shape where it has one.
type key struct {
	shape lex.Shape
	why   lex.Unshaped
}

// The keys that are kept for use: so many in each of so many lists. The lists
// are there so that sessions seldom meet at one.
const (
	keyLists    = 16
	keysPerList = 2
)

// keys are keys for use. A sync.Pool would do, but for the allocations after
// each garbage collection.
type keys [keyLists]struct {
	free [keysPerList]atomic.Pointer[key]
	_    [48]byte // a cache line of its own
}

// home is the list for a text. Sessions of one loop read into one buffer, so that
// they use one key, which is in their processor's cache.
func home(text []byte) int {
	const area = 64 << 10
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(text))) / area * 0x9e3779b1 >> 16 % keyLists)
}

// get returns a key.
func (ks *keys) get(text []byte) *key {
	list := &ks[home(text)]
	for at := range list.free {
		if k := list.free[at].Swap(nil); k != nil {
			return k
		}
	}
	return &key{shape: lex.Shape{Key: make([]byte, 0, 2048), Slots: make([]lex.Slot, 0, 32)}}
}

// put takes back a key that was got for the text, where there is place for it.
func (ks *keys) put(k *key, text []byte) {
	list := &ks[home(text)]
	for at := range list.free {
		if list.free[at].CompareAndSwap(nil, k) {
			return
		}
	}
}

// read makes k the key of text, and keeps text.
func (k *key) read(i *Inspector, text []byte) {
	k.why = k.shape.Read(text)
	if k.why == lex.Shaped && bytes.IndexByte(text, '\\') >= 0 && (len(text) > quickBytes || bytes.Contains(text, []byte("/*"))) &&
		i.tooCostly(lex.CostOf(text)) != "" {
		// Read with escapes, what is a literal here may be a costly comment.
		k.why = lex.Uncertain
	}
}

// fill is read for a text that fits a template, and holds no backslash therefore.
func (k *key) fill(t *lex.Template, text []byte) {
	k.why = lex.Shaped
	t.Fill(&k.shape, text)
}

// with returns the shape's key with what of its constants matters, until the
// next call. A zero byte, which no shape has, parts the two.
func (k *key) with(text []byte, depends []dependence) []byte {
	length := len(k.shape.Key)
	full := k.shape.Key
	full = append(full, 0)
	for _, d := range depends {
		slot := &k.shape.Slots[d.slot]
		full = binary.AppendUvarint(full, uint64(d.slot))
		full = append(full, byte(d.reading))
		switch d.reading {
		case ReadCount:
			full = binary.AppendUvarint(full, uint64(slot.Count))
		case ReadKind:
			full = append(full, slot.Kind)
		case ReadValue:
			full = binary.AppendUvarint(full, uint64(slot.End-slot.Start))
			full = append(full, text[slot.Start:slot.End]...)
		}
	}
	k.shape.Key = full[:length]
	return full
}

// depends returns what facts depend on beside the shape, where they were made
// from these constants of the text, together with what others depend on. It
// reports false where that is too much.
func (k *key) depends(text []byte, constants []Constant, others []dependence) ([]dependence, bool) {
	list := slices.Clone(others)
	for _, c := range constants {
		slot, ok := k.slotAt(text, c.Offset)
		if !ok {
			continue // it stands in the key
		}
		reading := matters(k.shape.Slots[slot].Mark, c.Reading)
		if reading == 0 {
			continue
		}
		at, found := slices.BinarySearchFunc(list, slot, func(d dependence, slot int) int { return cmp.Compare(d.slot, slot) })
		if found {
			list[at].reading = max(list[at].reading, reading)
		} else {
			list = slices.Insert(list, at, dependence{slot, reading})
		}
		if len(list) > maxDepends {
			return nil, false
		}
	}
	return list, true
}

// slotAt returns the slot of the constant that the parser places at an
// offset: the one around it; or the next one, for a number's place is that of
// the signs in front; or none, for constants that stand in the key.
func (k *key) slotAt(text []byte, offset int) (slot int, ok bool) {
	slots := k.shape.Slots
	slot, _ = slices.BinarySearchFunc(slots, offset, func(s lex.Slot, offset int) int { return cmp.Compare(s.End-1, offset) })
	if slot == len(slots) {
		return 0, false
	}
	return slot, slots[slot].Start <= offset || !beginsConstant(text[min(offset, len(text)):])
}

// beginsConstant reports whether a constant without a sign begins here.
func beginsConstant(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	switch c := text[0]; c {
	case '\'', '$', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return true
	case 'e', 'E', 'b', 'B', 'x', 'X':
		return len(text) > 1 && text[1] == '\''
	}
	for _, word := range []string{"null", "true", "false", "all"} { // LIMIT ALL
		if len(text) >= len(word) && bytes.EqualFold(text[:len(word)], []byte(word)) {
			return true
		}
	}
	return false
}

// matters returns what of a slot may differ between texts of one shape, of
// what was read; 0 for nothing.
func matters(mark lex.Mark, reading Reading) Reading {
	switch mark {
	case lex.MarkString, lex.MarkInteger, lex.MarkNumber, lex.MarkBits:
		if reading < ReadValue {
			return 0
		}
	case lex.MarkAny:
		if reading < ReadKind {
			return 0
		}
	case lex.MarkNumbers, lex.MarkStrings:
		if reading < ReadValue {
			return ReadCount
		}
	case lex.MarkRows:
		if reading > ReadCount {
			return ReadValue
		}
	case lex.MarkDrawn: // nobody reads it
	}
	return reading
}
