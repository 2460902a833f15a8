package session

import (
	"sort"
	"strings"
	"unicode/utf8"
)

// insert is text of ours that goes into the client's text.
type insert struct {
	at         int    // byte offset in the client's text
	text       string // ASCII
	before     int    // statements of the client's text that stand before it
	statements int    // how many statements of ours it completes
}

// edit says which parts of a rewritten text are ours.
type edit struct {
	ours  []bool // by CommandComplete: whether the statement is ours
	marks []mark
}

// mark is one insert in the rewritten text, in characters.
type mark struct{ start, length int }

// splice puts inserts, which are in order, into text.
func splice(text []byte, inserts []insert, runes bool) (string, *edit) {
	e := &edit{}
	var b strings.Builder
	last, chars, seen := 0, 0, 0
	for _, in := range inserts {
		piece := text[last:in.at]
		b.Write(piece)
		if runes {
			chars += utf8.RuneCount(piece)
		} else {
			chars += len(piece)
		}
		for ; seen < in.before; seen++ {
			e.ours = append(e.ours, false)
		}
		for range in.statements {
			e.ours = append(e.ours, true)
		}
		b.WriteString(in.text)
		e.marks = append(e.marks, mark{chars, len(in.text)})
		chars += len(in.text)
		last = in.at
	}
	b.Write(text[last:])
	return b.String(), e
}

// hides reports whether the n-th CommandComplete is ours.
func (e *edit) hides(n int) bool { return e != nil && n < len(e.ours) && e.ours[n] }

// theirs returns the number, in the client's text, of its n-th statement in
// the rewritten one.
func (e *edit) theirs(n int) int {
	if e == nil {
		return n
	}
	k := 0
	for i := range min(n, len(e.ours)) {
		if !e.ours[i] {
			k++
		}
	}
	return k + max(0, n-len(e.ours))
}

// position turns a position in the rewritten text into one in the client's,
// both in characters from 1; 0 when it is in a part of ours.
func (e *edit) position(p int) int {
	i := sort.Search(len(e.marks), func(i int) bool { return e.marks[i].start >= p })
	shift := 0
	for _, m := range e.marks[:i] {
		if p <= m.start+m.length {
			return 0
		}
		shift += m.length
	}
	return p - shift
}
