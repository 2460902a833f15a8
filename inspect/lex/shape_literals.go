package lex

import "bytes"

// signed passes over a number behind = and -, if there is one. The sign
// belongs to it where nothing follows that binds more strongly.
func (s *Shape) signed(start int) {
	if !s.numberAhead() {
		return
	}
	behind := s.l.pos
	if s.digits() != Bad {
		end := s.l.pos
		s.spaces()
		switch c := s.l.at(s.l.pos); {
		case s.l.pos == len(s.l.Text), c == ',', c == ')', c == ';', classes[c] == letterClass:
			s.l.pos = end
			s.slot(Slot{Start: start, End: end, Mark: MarkAny, Kind: byte(Integer)})
			return
		}
	}
	s.l.pos = behind
}

// numberAhead reports whether a number follows, behind white space.
func (s *Shape) numberAhead() bool {
	before := s.l.pos
	s.spaces()
	c := s.l.at(s.l.pos)
	if classes[c] == digitClass || c == '.' && classes[s.l.at(s.l.pos+1)] == digitClass {
		return true
	}
	s.l.pos = before
	return false
}

func (s *Shape) spaces() {
	for s.l.pos < len(s.l.Text) && classes[s.l.Text[s.l.pos]] == spaceClass {
		s.l.pos++
	}
}

// digits passes over a number.
func (s *Shape) digits() Kind {
	if s.l.Text[s.l.pos] == '.' {
		return s.l.dot()
	}
	return s.l.number()
}

// plainConstant is number and literal for a constant at pos that needs no second
// look, which begins with c. It returns where the constant ends, or pos.
func (s *Shape) plainConstant(c byte, pos int, equals bool) int {
	text := s.l.Text
	slot := Slot{Start: pos, Mark: MarkString, Kind: byte(String)}
	switch {
	case c == '\'':
		slot.End = plainQuotes(text, pos)
	case s.exact:
		return pos
	default:
		slot.End, slot.Mark, slot.Kind = plainInteger(text, pos), MarkInteger, byte(Integer)
	}
	if slot.End > pos {
		s.constant(slot, equals)
	}
	return slot.End
}

// plainQuotes returns where the literal at pos ends, if it consists of one part
// without quotes in it; pos if that is not certain.
func plainQuotes(text []byte, pos int) int {
	end := pos + 2 + bytes.IndexByte(text[pos+1:], '\'')
	if end == pos+1 || !endsPlainly(text, end, '\'', '-') {
		return pos
	}
	return end
}

// plainInteger is plainDigits for a number that is no array's bound.
func plainInteger(text []byte, pos int) int {
	end := plainDigits(text, pos)
	if end == pos || !endsPlainly(text, end, ']', ']') {
		return pos
	}
	return end
}

// endsPlainly reports whether it is certain that neither a nor b follows behind
// white space.
func endsPlainly(text []byte, end int, a, b byte) bool {
	if end < len(text) && text[end] == ' ' {
		end++
	}
	return end >= len(text) || text[end] != a && text[end] != b && classes[text[end]] != spaceClass
}

// plainDigits returns where the digits at pos end, if they are an Iconst whatever
// their value and no other token may begin within them; pos if not.
func plainDigits(text []byte, pos int) int {
	end := pos
	for end < len(text) && classes[text[end]] == digitClass {
		end++
	}
	if end > pos+9 || end < len(text) && (wordBytes[text[end]] || text[end] == '.') {
		return pos
	}
	return end
}

// number adds the slot of a number. Whether one without a point is an Iconst
// depends on its value; where zeros in front hide that, it stays in the key.
// Source: process_integer_literal in scan.l.
func (s *Shape) number(equals bool) {
	start := s.l.pos
	kind := s.digits()
	digits := s.l.Text[start:s.l.pos]
	slot := Slot{Start: start, End: s.l.pos, Mark: MarkNumber, Kind: byte(Integer)}
	switch {
	case kind == Bad:
		s.why = Uncertain
		return
	case s.exact:
		s.exact = false
		return
	case s.isArrayBound(start):
		return
	case kind != Integer:
	case len(digits) > 9 && digits[0] == '0':
		return
	case len(digits) < 10, len(digits) == 10 && string(digits) <= "2147483647":
		slot.Mark = MarkInteger
	}
	s.constant(slot, equals)
}

// isArrayBound reports whether the number that begins at start and has just been
// read may be the bound in a type, as in int[3]: fingerprints tell such types
// apart. It may as well be a subscript; the element of ARRAY[3] it is not.
func (s *Shape) isArrayBound(start int) bool {
	end := s.l.pos
	s.spaces()
	closed := s.l.at(s.l.pos) == ']'
	s.l.pos = end
	if !closed {
		return false
	}
	before := bytes.TrimRight(s.l.Text[:start], " \t\r\n\f\v")
	if len(before) == 0 || before[len(before)-1] != '[' {
		return false
	}
	before = bytes.TrimRight(before[:len(before)-1], " \t\r\n\f\v")
	return len(before) < len("array") || !isKeyword(before[len(before)-len("array"):], "array")
}

// prefixed passes over the literal that a letter at start is the prefix of,
// and reports whether there is one.
func (s *Shape) prefixed(start int, equals bool) bool {
	next := s.l.at(s.l.pos)
	if next != '\'' && next != '&' {
		return false
	}
	switch s.l.Text[start] | 0x20 {
	case 'u':
		if behind := s.l.at(s.l.pos + 1); next == '\'' || behind != '\'' && behind != '"' {
			return false
		}
		s.why = Uncertain // UESCAPE may follow
	case 'n':
		if next != '\'' {
			return false
		}
		s.why = Uncertain // NCHAR, unlike n 'x'
	case 'e':
		if next != '\'' {
			return false
		}
		s.literal(start, equals)
	case 'b', 'x':
		if next != '\'' {
			return false
		}
		if s.l.bits() == Bad {
			s.why = Uncertain
			return true
		}
		if !bytes.ContainsAny(s.l.Text[start:s.l.pos], "\r\n") { // it may consist of parts
			s.slot(Slot{Start: start, End: s.l.pos, Mark: MarkBits})
		}
	default:
		return false
	}
	return true
}

// literal adds the slot of the literal whose first quote is at the lexer's
// position, behind a prefix or not. One that the parser may refuse stays in
// the key.
func (s *Shape) literal(start int, equals bool) {
	if kind := s.quotes(start); kind == Bad {
		s.why = Uncertain
	} else if kind == String {
		s.constant(Slot{Start: start, End: s.l.pos, Mark: MarkString, Kind: byte(String)}, equals)
	}
}

// quotes passes over a literal. It returns String for one that every parser
// takes, EscapeString for one that may hold something invalid or that comes
// in parts, and Bad.
func (s *Shape) quotes(start int) Kind {
	if s.l.pos == start {
		if s.l.quoted('\'', String) == Bad {
			return Bad
		}
		if s.l.continues() {
			if s.l.continued(String) == Bad {
				return Bad
			}
			return EscapeString
		}
		return String
	}
	return s.escapedQuotes(start)
}

// escapedQuotes is quotes for a literal in which a backslash escapes.
func (s *Shape) escapedQuotes(start int) Kind {
	kind := String
	for {
		if !s.l.escapedPart() {
			return Bad
		}
		if s.l.at(s.l.pos) == '\'' {
			continue
		}
		if !s.l.continues() {
			break
		}
		kind = EscapeString
	}
	if hasCode(s.l.Text[start:s.l.pos]) {
		return EscapeString
	}
	return kind
}

// hasCode reports whether a literal with escapes has one that spells a byte
// or character by its number, which may be invalid.
func hasCode(lit []byte) bool {
	for i := 0; i+1 < len(lit); i++ {
		if lit[i] != '\\' {
			continue
		}
		i++
		if c := lit[i]; classes[c] == digitClass || c == 'x' || c|0x20 == 'u' {
			return true
		}
	}
	return false
}
