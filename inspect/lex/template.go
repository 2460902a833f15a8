package lex

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// maxHoles bounds a template's constants: shapes with more have none.
const maxHoles = 128

// Template is a shape to compare texts with: one that fits has this shape, and
// is not read token by token to know that. Not every text of the shape fits, and
// not every shape has a template.
//
// What is between the constants is compared to the byte, and a constant is taken
// in the forms only of which it is certain that Read takes them there, too. Read
// goes from left to right, and looks ahead past a token's end; it does so alike
// in both texts, for behind equal bytes the next constant begins alike, or an =
// is in front of it, past which nothing looks.
type Template struct {
	key   string
	holes []hole
}

// hole is where a constant is in the key.
type hole struct {
	at   int32
	mark Mark
}

// NewTemplate returns the template of the shape that s read in text; nil if it
// has none. It keeps key, which is that of s.
func NewTemplate(s *Shape, text []byte, key string) *Template {
	if len(s.Slots) == 0 || len(s.Slots) > maxHoles || bytes.IndexByte(text, '\\') >= 0 || bytes.Contains(bytes.ToLower(text), []byte("float")) {
		return nil // behind FLOAT numbers are not constants, and texts with backslashes are looked at once more
	}
	t := &Template{key: key, holes: make([]hole, len(s.Slots))}
	longer := 0
	for i, slot := range s.Slots {
		at := slot.Start - longer
		t.holes[i] = hole{int32(at), slot.Mark}
		longer += slot.End - slot.Start - 1
		if at >= len(key) || key[at] != byte(slot.Mark) {
			return nil
		}
	}
	var fill Shape
	if !t.Fill(&fill, text) || !slices.Equal(fill.Slots, s.Slots) {
		return nil
	}
	return t
}

// Begins returns how many bytes all texts that fit begin with.
func (t *Template) Begins() int { return int(t.holes[0].at) }

// Bytes estimates how much memory the template takes, without the key.
func (t *Template) Bytes() int64 { return 48 + 8*int64(len(t.holes)) }

// Fits reports whether the text has the template's shape, as far as it can tell.
func (t *Template) Fits(text []byte) bool { return t.fit(text, nil) }

// Fill is Fits, and makes s what Read would.
func (t *Template) Fill(s *Shape, text []byte) bool {
	*s = Shape{Key: append(s.Key[:0], t.key...), Slots: s.Slots[:0]}
	return t.fit(text, s)
}

func (t *Template) fit(text []byte, s *Shape) bool {
	tail := t.key[t.holes[len(t.holes)-1].at+1:]
	last := len(text) - len(tail)
	if last < 0 || string(text[last:]) != tail {
		return false // at once, and not behind a long list
	}
	from, pos := 0, 0
	for _, h := range t.holes {
		end := pos + int(h.at) - from
		if end >= len(text) || string(text[pos:end]) != t.key[from:h.at] {
			return false
		}
		slot := constantAt(text, end, h.mark)
		if slot.End == 0 {
			return false
		}
		if s != nil {
			s.Slots = append(s.Slots, slot)
		}
		from, pos = int(h.at)+1, slot.End
	}
	return pos == last
}

// constantAt returns the constant of the text at pos which has the mark; or none,
// with End zero, where it is not certain that there is one.
func constantAt(text []byte, pos int, mark Mark) Slot {
	slot := Slot{Start: pos, End: pos, Mark: mark, Kind: byte(Integer)}
	switch c := text[pos]; {
	case mark == MarkNumbers || mark == MarkStrings:
		s := Shape{l: Lexer{Text: text, pos: pos}}
		slot = s.items()
		if slot.Mark != mark || classes[c] == spaceClass || mark == MarkStrings && !isPlain(text[pos:slot.End]) {
			return Slot{} // white space in front of it belongs to the key
		}
	case classes[c] == digitClass && (mark == MarkInteger || mark == MarkAny):
		slot.End = plainInteger(text, pos)
	case c == '\'' && (mark == MarkString || mark == MarkAny):
		slot.End, slot.Kind = literalAt(text, pos), byte(String)
	case mark == MarkAny:
		for slot.End < len(text) && wordBytes[text[slot.End]] {
			slot.End++
		}
		kind := constantWord(text[pos:slot.End])
		if slot.Kind = byte(kind); kind == EOF {
			return Slot{}
		}
	}
	if slot.End == pos {
		return Slot{}
	}
	return slot
}

// literalAt returns where the literal at pos ends; pos if that is not certain, or
// if it is not plain. Most are short and plain.
func literalAt(text []byte, pos int) int {
	end := pos + 1
	for end+8 <= len(text) {
		word := binary.LittleEndian.Uint64(text[end:])
		stops := (word | zeroBytes(word) | zeroBytes(word^'\''*everyByte) | zeroBytes(word^'\\'*everyByte)) & (0x80 * everyByte)
		if stops != 0 {
			end += bits.TrailingZeros64(stops) / 8
			break
		}
		end += 8
	}
	if end < len(text) && text[end] == '\'' && endsPlainly(text, end+1, '\'', '-') {
		return end + 1
	}
	if end = plainQuotes(text, pos); !isPlain(text[pos:end]) {
		return pos
	}
	return end
}

// isPlain reports whether a constant holds nothing for which a text is read in
// another way.
func isPlain(constant []byte) bool {
	return bytes.IndexByte(constant, '\\') < 0 && bytes.IndexByte(constant, 0) < 0 && utf8.Valid(constant)
}
