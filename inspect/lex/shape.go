package lex

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Mark is the byte that stands for a constant in a shape's key. No token
// begins with such a byte, so that two texts with one key have the same
// tokens but for their constants.
type Mark byte

// The marks.
const (
	MarkString  Mark = 1 + iota // a literal of characters
	MarkInteger                 // a number that the grammar takes for Iconst
	MarkNumber                  // any other number
	MarkBits                    // a bit string
	MarkAny                     // where the grammar takes every constant alike: also one with a sign, NULL, TRUE, FALSE
	MarkNumbers                 // a list of numbers, with or without signs
	MarkStrings                 // a list of literals of characters
	MarkRows                    // rows that look alike, one behind the other

	MarkDrawn Mark = 14 // a savepoint's name that was drawn by chance (9 to 13 are white space)
)

// Slot is one constant of a text, or one list of constants.
type Slot struct {
	Start, End int
	Mark       Mark
	Kind       byte // of MarkAny: a Kind of token, or Word for NULL, QuotedWord for TRUE and FALSE
	Count      int  // of lists and rows: how many; 0 for one constant
}

// Unshaped says why a text has no shape; Shaped, the zero value, that it has.
type Unshaped uint8

// The reasons.
const (
	Shaped    Unshaped = iota
	NoQuery            // not SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, WITH, nor about a savepoint with a name that was drawn
	Several            // more than one statement
	Uncertain          // tokens or bytes of which it is not certain how the parser reads them
	Crowded            // too many constants
)

// MaxSlots bounds Shape.Slots.
const MaxSlots = 2048

// Shape is a text without its constants. It is read in one pass; a Shape that
// is used again allocates only for texts longer than those before.
//
// White space, comments, names, operators and keywords stand in the key as
// they stand in the text: a key is what two texts agree in to the byte.
// Constants whose text the parser may refuse, or read in another way than as
// one constant, stand there as well.
type Shape struct {
	Key   []byte
	Slots []Slot

	l      Lexer
	done   int // up to here the text is in the key
	why    Unshaped
	equals bool // the token before is the operator =
	dot    bool // the token before is a point: a name follows, even if it is a keyword
	exact  bool // FLOAT was read: the next number may be its precision
	flat   bool // POSITION was read: IN may stand before something else than a list
	single bool // MERGE was read: VALUES may stand before one row only
	ended  bool // a semicolon was read
}

// Read makes s the shape of text, and keeps text until the next call. A text
// without shape leaves Key and Slots without meaning.
func (s *Shape) Read(text []byte) Unshaped {
	*s = Shape{Key: s.Key[:0], Slots: s.Slots[:0], l: Lexer{Text: text}}
	if !s.isQuery() {
		return s.savepoint()
	}
	if bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
		return Uncertain // the parser ends at a zero byte, and reads all of the text otherwise where one byte is not UTF-8
	}
	s.tokens()
	s.copyTo(len(text))
	s.l.Text = nil
	return s.why
}

// isQuery reads up to the first word and tells whether a statement that
// begins with it is one of the grammar's queries.
func (s *Shape) isQuery() bool {
	s.l.skip()
	for s.l.at(s.l.pos) == '(' {
		s.l.pos++
		s.l.skip()
	}
	start := s.l.pos
	end := start
	for end < len(s.l.Text) && isWordByte(s.l.Text[end]) {
		end++
	}
	switch word := s.l.Text[start:end]; len(word) {
	case 4:
		return isKeyword(word, "with")
	case 5:
		return isKeyword(word, "merge")
	case 6:
		for _, k := range [...]string{"select", "insert", "update", "delete", "values"} {
			if isKeyword(word, k) {
				return true
			}
		}
	}
	return false
}

// isKeyword reports whether a word is the keyword, which has its length and
// is written in lower case.
func isKeyword(word []byte, keyword string) bool {
	for i, c := range word {
		if c|0x20 != keyword[i] {
			return false
		}
	}
	return true
}

// copyTo puts the text up to end in the key.
func (s *Shape) copyTo(end int) {
	s.Key = append(s.Key, s.l.Text[s.done:end]...)
	s.done = end
}

// slot puts a mark in the key, in place of the text from start to end.
func (s *Shape) slot(slot Slot) {
	s.copyTo(slot.Start)
	s.Key = append(s.Key, byte(slot.Mark))
	s.done = slot.End
	s.add(slot)
}

func (s *Shape) add(slot Slot) {
	if len(s.Slots) == MaxSlots {
		s.why = Crowded
		return
	}
	s.Slots = append(s.Slots, slot)
}

// tokens passes over all tokens. It is token, but for what most of a text is
// made of, in its plain form: white space, names, points, brackets, commas,
// operators of one character, numbers and literals are passed over here.
func (s *Shape) tokens() {
	text, pos := s.l.Text, s.l.pos
	equals, dot := false, false
	for pos < len(text) && s.why == Shaped && !s.ended {
		start := pos
		c := text[pos]
		switch steps[c] {
		case spaceStep:
			pos++
			continue
		case markStep:
			pos++
			equals, dot = false, false
			continue
		case quoteStep:
			if pos = quotedNames(text, pos); pos > start {
				equals, dot = false, false
				continue
			}
		case wordStep:
			for pos++; pos < len(text) && wordBytes[text[pos]]; pos++ {
			}
			if !introduces(c, pos-start, equals) && (pos > start+1 || pos < len(text) && text[pos] != '\'' && text[pos] != '&') {
				equals, dot = false, false
				continue
			}
		case pointStep:
			if pos+1 < len(text) && steps[text[pos+1]] < pointStep {
				pos++
				equals, dot = false, true
				continue
			}
		case operatorStep:
			if pos+1 < len(text) && steps[text[pos+1]] != operatorStep && (c != '-' || !equals) {
				pos++
				equals, dot = c == '=', false
				continue
			}
		case digitStep, literalStep:
			if pos = s.plainConstant(c, pos, equals); pos > start {
				equals, dot = false, false
				continue
			}
		case otherStep:
		}
		s.l.pos, s.equals, s.dot = start, equals, dot
		s.token()
		pos, equals, dot = s.l.pos, s.equals, s.dot
	}
	for s.l.pos = pos; s.l.pos < len(text) && s.why == Shaped; {
		s.token()
	}
}

// quotedNames passes over names in quotes that points, or a comma and a space,
// join: "a"."b", "a"."c". It returns where the last one ends, of which something
// is known to follow; or pos, where not even the first one is so, or where it
// holds a quote.
func quotedNames(text []byte, pos int) int {
	for at := pos; ; {
		at++
		for at+8 <= len(text) {
			found := zeroBytes(binary.LittleEndian.Uint64(text[at:]) ^ '"'*everyByte)
			if found != 0 {
				at += bits.TrailingZeros64(found) / 8
				break
			}
			at += 8
		}
		if at+4 >= len(text) || text[at] != '"' || text[at+1] == '"' {
			return pos
		}
		pos = at + 1
		switch {
		case text[at+1] == '.' && text[at+2] == '"':
			at += 2
		case text[at+1] == ',' && text[at+2] == ' ' && text[at+3] == '"':
			at += 3
		default:
			return pos
		}
	}
}

// everyByte times a byte is that byte eight times.
const everyByte = 0x0101010101010101

// zeroBytes returns a word whose lowest bit that is set is the highest one of
// the lowest byte of x that is zero; 0 if none is.
func zeroBytes(x uint64) uint64 { return (x - everyByte) &^ x & (0x80 * everyByte) }

// introduces reports whether a word of n bytes that begins with c may be one
// of those that word looks for.
func introduces(c byte, n int, equals bool) bool {
	if n == 4 {
		return equals
	}
	return n < 16 && introducers[c]>>n&1 != 0
}

// introducers has, for each byte, a bit for each length of the words that begin
// with it and introduce something: IN, FLOAT, MERGE, VALUES, POSITION, FALSE.
var introducers = func() (t [256]uint16) {
	for _, word := range []string{"in", "float", "false", "merge", "values", "position"} {
		t[word[0]] |= 1 << len(word)
		t[word[0]&^0x20] |= 1 << len(word)
	}
	return t
}()

// step is what tokens does with a byte.
type step uint8

const (
	spaceStep step = iota
	markStep
	quoteStep
	wordStep
	operatorStep
	literalStep
	pointStep // the ones before may follow a point that is no more than a point
	digitStep
	otherStep
)

var steps = func() (t [256]step) {
	for c := range t {
		switch classes[c] {
		case spaceClass:
			t[c] = spaceStep
		case letterClass:
			t[c] = wordStep
		case digitClass:
			t[c] = digitStep
		case operatorClass:
			t[c] = operatorStep
		case otherClass:
			t[c] = otherStep
		}
	}
	for _, c := range []byte(",()[]") {
		t[c] = markStep
	}
	t['"'], t['.'], t['\''] = quoteStep, pointStep, literalStep
	return t
}()

var wordBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = isWordByte(byte(c))
	}
	return t
}()

// token passes over one token, or over white space or a comment.
func (s *Shape) token() {
	c := s.l.Text[s.l.pos]
	if classes[c] == spaceClass {
		s.l.pos++
		return
	}
	equals, dot := s.equals, s.dot
	s.equals = false
	if s.comment(c) {
		return
	}
	s.dot = false
	if s.ended && c != ';' {
		s.why = Several
		return
	}
	switch classes[c] {
	case letterClass:
		s.word(equals, dot)
	case digitClass:
		s.number(equals)
	case operatorClass:
		s.operator(equals)
	case otherClass, spaceClass:
		s.other(c, equals)
	}
}

// comment passes over a comment, if one begins with c.
func (s *Shape) comment(c byte) bool {
	switch next := s.l.at(s.l.pos + 1); {
	case c == '-' && next == '-':
		s.l.lineComment()
	case c == '/' && next == '*':
		s.l.comment()
	default:
		return false
	}
	return true
}

// other passes over what begins with no letter, digit or operator.
func (s *Shape) other(c byte, equals bool) {
	start := s.l.pos
	switch c {
	case ',', '(', ')', '[', ']':
		s.l.pos++
	case '\'':
		s.literal(start, equals)
	case '"':
		if s.l.quoted('"', QuotedWord) == Bad {
			s.why = Uncertain
		}
	case '$':
		if kind := s.l.dollar(); kind == DollarString {
			s.constant(Slot{Start: start, End: s.l.pos, Mark: MarkString, Kind: byte(String)}, equals)
		} else if kind != Param {
			s.why = Uncertain
		}
	case '.':
		if classes[s.l.at(start+1)] == digitClass {
			s.number(equals)
			return
		}
		s.l.dot()
		s.dot = s.l.pos == start+1
	case ':':
		s.l.colon()
	case ';':
		s.l.pos++
		s.ended = true
	default:
		s.why = Uncertain
	}
}

// constant adds the slot of one constant; behind = all constants are alike.
func (s *Shape) constant(slot Slot, equals bool) {
	if equals {
		slot.Mark = MarkAny
	}
	s.slot(slot)
}

// operator passes over a run of operator characters up to a comment.
func (s *Shape) operator(equals bool) {
	l := &s.l
	start := l.pos
	for l.pos++; l.pos < len(l.Text); l.pos++ {
		c, next := l.Text[l.pos], l.at(l.pos+1)
		if classes[c] != operatorClass || c == '-' && next == '-' || c == '/' && next == '*' {
			break
		}
	}
	if l.pos != start+1 {
		return
	}
	switch l.Text[start] {
	case '=':
		s.equals = true
	case '-':
		if equals {
			s.signed(start)
		}
	}
}

// word passes over a name or keyword, and over what the keyword introduces.
func (s *Shape) word(equals, dot bool) {
	l := &s.l
	start := l.pos
	l.pos++
	for l.pos < len(l.Text) && isWordByte(l.Text[l.pos]) {
		l.pos++
	}
	if l.pos == start+1 && s.prefixed(start, equals) || dot {
		return
	}
	switch word := l.Text[start:l.pos]; len(word) {
	case 2:
		if isKeyword(word, "in") && !s.flat {
			s.list()
		}
	case 4:
		s.constantWordBehind(equals, start, word)
	case 5:
		s.constantWordBehind(equals, start, word)
		s.exact = s.exact || isKeyword(word, "float")
		s.single = s.single || isKeyword(word, "merge")
	case 6:
		if !s.single && isKeyword(word, "values") {
			s.spaces()
			s.rows()
		}
	case 8:
		s.flat = s.flat || isKeyword(word, "position")
	}
}

// constantWordBehind adds the slot of the word at start behind =, if the word is
// a constant.
func (s *Shape) constantWordBehind(equals bool, start int, word []byte) {
	if !equals {
		return
	}
	if kind := constantWord(word); kind != EOF {
		s.slot(Slot{Start: start, End: start + len(word), Mark: MarkAny, Kind: byte(kind)})
	}
}
