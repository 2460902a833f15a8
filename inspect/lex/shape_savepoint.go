package lex

// savepoint is Read for what is no query: SAVEPOINT, RELEASE and ROLLBACK TO
// have a shape where the savepoint's name was drawn, for no two texts would be
// the same. Such a text holds nothing else but white space and a semicolon.
func (s *Shape) savepoint() Unshaped {
	s.l.pos = 0
	s.l.skip()
	if !s.savepointWords() || s.l.at(s.l.pos) != '"' {
		return NoQuery
	}
	start := s.l.pos + 1
	if s.l.quoted('"', QuotedWord) == Bad || !IsDrawn(s.l.Text[start:s.l.pos-1]) {
		return NoQuery
	}
	slot := Slot{Start: start, End: s.l.pos - 1, Mark: MarkDrawn}
	s.spaces()
	if s.l.at(s.l.pos) == ';' {
		s.l.pos++
		s.spaces()
	}
	if s.l.pos < len(s.l.Text) {
		return NoQuery
	}
	s.slot(slot)
	s.copyTo(len(s.l.Text))
	s.l.Text = nil
	return Shaped
}

// savepointWords passes over the words in front of a savepoint's name.
func (s *Shape) savepointWords() bool {
	switch {
	case s.keyword("savepoint"):
		return true
	case s.keyword("release"):
		s.keyword("savepoint")
		return true
	case s.keyword("rollback"):
		if !s.keyword("work") {
			s.keyword("transaction")
		}
		if s.keyword("to") {
			s.keyword("savepoint")
			return true
		}
	}
	return false
}

// keyword passes over the keyword and white space behind it, if it is next.
func (s *Shape) keyword(keyword string) bool {
	before := s.l.pos
	word := s.nextWord()
	if len(word) != len(keyword) || !isKeyword(word, keyword) {
		s.l.pos = before
		return false
	}
	s.spaces()
	return true
}

// minDrawn and maxDrawn are how long a name is that was drawn: a UUID has 32
// digits, and the server cuts names to 63 bytes (NAMEDATALEN).
const minDrawn, maxDrawn = 32, 63

// IsDrawn reports whether a savepoint's name looks like one that was drawn by
// chance, as Odoo's UUIDs are: it consists of hexadecimal digits and dashes. It
// says nothing then, and facts do not hold it.
func IsDrawn[T []byte | string](name T) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && classes[c] != digitClass && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return len(name) >= minDrawn && len(name) <= maxDrawn
}
