package lex

import "bytes"

// plain passes over a literal in quotes that begins at pos.
func (l *Lexer) plain() Kind {
	if l.EscapeStrings {
		return l.escaped()
	}
	return l.continued(String)
}

// quoted passes over one pair of quotes; doubled ones in it do not end it.
func (l *Lexer) quoted(quote byte, kind Kind) Kind {
	l.pos++
	for {
		i := bytes.IndexByte(l.Text[l.pos:], quote)
		if i < 0 {
			l.pos = len(l.Text)
			return Bad
		}
		l.pos += i + 1
		if l.at(l.pos) != quote {
			return kind
		}
		l.pos++
	}
}

// continued passes over a literal without escapes, and what continues it.
func (l *Lexer) continued(kind Kind) Kind {
	for {
		if l.quoted('\'', kind) == Bad {
			return Bad
		}
		if !l.continues() {
			return kind
		}
	}
}

// bits passes over a bit string and what continues it. It knows no doubled
// quotes.
func (l *Lexer) bits() Kind {
	for {
		i := bytes.IndexByte(l.Text[l.pos+1:], '\'')
		if i < 0 {
			l.pos = len(l.Text)
			return Bad
		}
		l.pos += i + 2
		if !l.continues() {
			return BitString
		}
	}
}

// escaped passes over a literal in which a backslash escapes, and what
// continues it.
func (l *Lexer) escaped() Kind {
	for {
		if !l.escapedPart() {
			return Bad
		}
		if l.at(l.pos) != '\'' && !l.continues() {
			return EscapeString
		}
	}
}

// escapedPart passes over one pair of quotes, and tells whether it ended.
func (l *Lexer) escapedPart() bool {
	for l.pos++; l.pos < len(l.Text); l.pos++ {
		switch l.Text[l.pos] {
		case '\\':
			l.pos++
		case '\'':
			l.pos++
			return true
		}
	}
	l.pos = len(l.Text)
	return false
}

// continues moves to the quote that continues a literal, if there is one:
// white space with a line break, then a quote. Comments to the end of a line
// count as white space.
func (l *Lexer) continues() bool {
	if c := l.at(l.pos); classes[c] != spaceClass && c != '-' {
		return false
	}
	ahead, lineBreak := Lexer{Text: l.Text, pos: l.pos}, false
	for ahead.pos < len(ahead.Text) {
		switch c := ahead.Text[ahead.pos]; {
		case classes[c] == spaceClass:
			lineBreak = lineBreak || c == '\n' || c == '\r'
			ahead.pos++
		case c == '-' && ahead.at(ahead.pos+1) == '-':
			ahead.lineComment()
		case c == '\'' && lineBreak:
			l.pos = ahead.pos
			return true
		default:
			return false
		}
	}
	return false
}
