package lex

import "bytes"

// list passes over the constants behind IN, if all that stands there is
// numbers or all is literals. Otherwise it leaves the lexer where it is.
func (s *Shape) list() {
	before := s.l.pos
	s.spaces()
	if s.l.at(s.l.pos) != '(' {
		return
	}
	s.l.pos++
	s.spaces()
	if s.l.at(s.l.pos) == '(' {
		s.rows()
		return
	}
	if list := s.items(); list.Count > 0 {
		s.slot(list)
		return
	}
	s.l.pos = before
}

// items passes over constants of one mark up to a closing bracket. Of anything
// else it returns no list.
func (s *Shape) items() Slot {
	list := Slot{Start: s.l.pos}
	for {
		mark := s.item()
		if mark == 0 || list.Mark != 0 && list.Mark != mark {
			return Slot{}
		}
		list.Mark, list.End = mark, s.l.pos
		list.Count++
		s.spaces()
		switch s.l.at(s.l.pos) {
		case ',':
			s.l.pos++
			s.spaces()
		case ')':
			return list
		default:
			return Slot{}
		}
	}
}

// item passes over one constant and returns the mark of a list of such; zero
// for anything else.
func (s *Shape) item() Mark {
	start := s.l.pos
	if s.l.pos = plainDigits(s.l.Text, start); s.l.pos > start {
		return MarkNumbers
	}
	switch c := s.l.at(start); {
	case c == '\'', c|0x20 == 'e' && s.l.at(start+1) == '\'':
		if c != '\'' {
			s.l.pos++
		}
		if s.quotes(start) == String {
			return MarkStrings
		}
	case c == '-':
		s.l.pos++
		if s.numberAhead() && s.digits() != Bad {
			return MarkNumbers
		}
	case s.numberAhead() && s.digits() != Bad:
		return MarkNumbers
	}
	return 0
}

// rows passes over rows of constants, as in VALUES (1, 'a'), (2, NULL), as
// far as they are such. Rows that look like the one before add to its count.
func (s *Shape) rows() {
	if s.l.at(s.l.pos) != '(' {
		return
	}
	s.copyTo(s.l.pos)
	last := -1 // where in the key the row before begins
	for {
		at, start := len(s.Key), s.l.pos
		if !s.row() {
			s.Key, s.l.pos = s.Key[:at], start
			break
		}
		s.take(last, at, start)
		if last < 0 || len(s.Key) > at {
			last = at
		}
		s.done = s.l.pos
		s.spaces()
		if s.l.at(s.l.pos) != ',' {
			break
		}
		s.l.pos++
		s.spaces()
		if s.l.at(s.l.pos) != '(' {
			break
		}
	}
	s.l.pos = s.done
}

// take adds the row that was just read, which stands in the key from at and
// in the text from start, to the slot of the rows before or to one of its own.
func (s *Shape) take(last, at, start int) {
	if last >= 0 && bytes.Equal(s.Key[last:at], s.Key[at:]) {
		slot := &s.Slots[len(s.Slots)-1]
		slot.Count, slot.End = slot.Count+1, s.l.pos
		s.Key = s.Key[:at]
		return
	}
	s.add(Slot{Start: start, End: s.l.pos, Mark: MarkRows, Count: 1})
}

// row passes over one row and puts it in the key, without its constants and
// its white space. It reports false where there is none, or one that holds
// something else than constants.
func (s *Shape) row() bool {
	s.Key = append(s.Key, byte(MarkRows), '(')
	s.l.pos++
	constants := 0
	for {
		s.spaces()
		if s.element() {
			constants++
		} else if !s.defaultWord() {
			return false
		}
		s.spaces()
		switch c := s.l.at(s.l.pos); c {
		case ',':
			s.l.pos++
			s.Key = append(s.Key, ',')
		case ')':
			s.l.pos++
			s.Key = append(s.Key, ')')
			return constants > 0
		default:
			return false
		}
	}
}

// element passes over one constant in a row, with a cast or without.
func (s *Shape) element() bool {
	start := s.l.pos
	isWord := classes[s.l.at(start)] == letterClass && s.l.at(start+1) != '\''
	if isWord && !s.constantWord() || !isWord && s.item() == 0 {
		s.l.pos = start
		return false
	}
	s.Key = append(s.Key, byte(MarkAny))
	if s.l.at(s.l.pos) == ':' {
		return s.l.Text[start] != '-' && s.cast()
	}
	return true
}

// cast passes over :: and a type of one word, which may be an array's.
func (s *Shape) cast() bool {
	start := s.l.pos
	if s.l.colon() != Cast || !isWordStart(s.l.at(s.l.pos)) {
		return false
	}
	s.nextWord()
	if s.l.at(s.l.pos) == '[' && s.l.at(s.l.pos+1) == ']' {
		s.l.pos += 2
	}
	s.Key = append(s.Key, s.l.Text[start:s.l.pos]...)
	return true
}

// nextWord passes over the word at the lexer's position.
func (s *Shape) nextWord() []byte {
	start := s.l.pos
	for s.l.pos < len(s.l.Text) && isWordByte(s.l.Text[s.l.pos]) {
		s.l.pos++
	}
	return s.l.Text[start:s.l.pos]
}

func (s *Shape) constantWord() bool { return constantWord(s.nextWord()) != EOF }

// constantWord returns the kind that a slot of MarkAny has for the word; EOF for
// a word that is no constant.
func constantWord(word []byte) Kind {
	switch {
	case len(word) == 4 && isKeyword(word, "null"):
		return Word
	case len(word) == 4 && isKeyword(word, "true"), len(word) == 5 && isKeyword(word, "false"):
		return QuotedWord
	default:
		return EOF
	}
}

func (s *Shape) defaultWord() bool {
	word := s.nextWord()
	if len(word) != len("default") || !isKeyword(word, "default") {
		return false
	}
	s.Key = append(s.Key, word...)
	return true
}
