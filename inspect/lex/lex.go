// Package lex reads SQL text as far as its tokens, by the rules of PostgreSQL's own lexer.
package lex

import "bytes"

// Kind is what a token is.
type Kind uint8

// The kinds.
const (
	EOF           Kind = iota
	Word               // a keyword or a name without quotes
	QuotedWord         // "name"
	UnicodeWord        // U&"name", without its UESCAPE
	String             // 'literal'
	EscapeString       // E'literal', and 'literal' where the session reads escapes in it
	UnicodeString      // U&'literal', without its UESCAPE
	BitString          // B'0101', X'1F'
	DollarString       // $tag$literal$tag$
	Integer            // digits
	Number             // any other number
	Param              // $1
	Operator           // an operator of any length but the ones that stand alone
	Punct              // one of , ( ) [ ] . ; :
	Cast               // ::
	Bad                // what no grammar takes: a literal without end, digits with letters behind them
)

// Token is one token of a text: bytes Start to End.
type Token struct {
	Kind       Kind
	Start, End int
}

// Lexer reads a text token by token, without comments and white space. The
// zero value with Text set is ready. It allocates nothing and needs no more
// than a few steps for each byte.
//
// The rules are those of src/backend/parser/scan.l from version 14 to 18.
// Versions differ in what may stand behind digits: such a run is one token
// here, Number or Bad.
type Lexer struct {
	Text          []byte
	EscapeStrings bool // standard_conforming_strings is off

	pos  int
	part part // the run of operator characters around pos, where one has been measured
}

// Next returns the next token; EOF at the end, and again thereafter.
func (l *Lexer) Next() Token {
	l.skip()
	start := l.pos
	if start >= len(l.Text) {
		return Token{EOF, len(l.Text), len(l.Text)}
	}
	kind := l.read(l.Text[start])
	return Token{kind, start, l.pos}
}

// read passes over the token that begins with c.
func (l *Lexer) read(c byte) Kind {
	switch classes[c] {
	case letterClass:
		return l.word(c)
	case digitClass:
		return l.number()
	case operatorClass:
		return l.operator()
	case otherClass, spaceClass:
	}
	switch c {
	case '\'':
		return l.plain()
	case '"':
		return l.quoted('"', QuotedWord)
	case '$':
		return l.dollar()
	case '.':
		return l.dot()
	case ':':
		return l.colon()
	case ',', '(', ')', '[', ']', ';':
		l.pos++
		return Punct
	}
	l.pos++
	return Bad
}

// class tells what a token that begins with a byte may be.
type class uint8

const (
	otherClass class = iota
	spaceClass
	letterClass
	digitClass
	operatorClass
)

var classes = func() (t [256]class) {
	for c := range t {
		switch b := byte(c); {
		case b == ' ' || b >= '\t' && b <= '\r':
			t[c] = spaceClass
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '_', b >= 0x80:
			t[c] = letterClass
		case b >= '0' && b <= '9':
			t[c] = digitClass
		}
	}
	for _, b := range []byte("~!@#^&|`?+-*/%<>=") {
		t[b] = operatorClass
	}
	return t
}()

func (l *Lexer) at(i int) byte {
	if i < len(l.Text) {
		return l.Text[i]
	}
	return 0
}

// skip passes over white space and comments.
func (l *Lexer) skip() {
	for l.pos < len(l.Text) {
		c := l.Text[l.pos]
		switch {
		case classes[c] == spaceClass:
			l.pos++
		case c == '-' && l.at(l.pos+1) == '-':
			l.lineComment()
		case c == '/' && l.at(l.pos+1) == '*':
			l.comment()
		default:
			return
		}
	}
}

func (l *Lexer) lineComment() {
	for l.pos < len(l.Text) && l.Text[l.pos] != '\n' && l.Text[l.pos] != '\r' {
		l.pos++
	}
}

// comment passes over a comment in slashes and stars; they nest. One without
// end takes the rest of the text, and the server refuses that.
func (l *Lexer) comment() {
	depth := 0
	for l.pos < len(l.Text) {
		switch {
		case l.Text[l.pos] == '/' && l.at(l.pos+1) == '*':
			depth++
			l.pos += 2
		case l.Text[l.pos] == '*' && l.at(l.pos+1) == '/':
			depth--
			l.pos += 2
		default:
			l.pos++
		}
		if depth == 0 {
			return
		}
	}
	l.pos = len(l.Text)
}

// word passes over a name or keyword, or what begins like one: E'…', U&"…".
func (l *Lexer) word(c byte) Kind {
	switch c {
	case 'e', 'E':
		if l.at(l.pos+1) == '\'' {
			l.pos++
			return l.escaped()
		}
	case 'b', 'B', 'x', 'X':
		if l.at(l.pos+1) == '\'' {
			l.pos++
			return l.bits()
		}
	case 'n', 'N':
		if l.at(l.pos+1) == '\'' { // NCHAR, and a literal behind it
			l.pos++
			return Word
		}
	case 'u', 'U':
		if l.at(l.pos+1) == '&' {
			switch l.at(l.pos + 2) {
			case '\'':
				l.pos += 2
				return l.continued(UnicodeString)
			case '"':
				l.pos += 2
				return l.quoted('"', UnicodeWord)
			}
		}
	}
	l.pos++
	for l.pos < len(l.Text) && isWordByte(l.Text[l.pos]) {
		l.pos++
	}
	return Word
}

func isWordByte(c byte) bool {
	k := classes[c]
	return k == letterClass || k == digitClass || c == '$'
}

// number passes over digits and what belongs to them. Versions before 15 end
// a number where a letter begins, and later ones call that an error; versions
// from 16 know 0x1F and 1_000: all such runs are Bad, but for the exponent.
func (l *Lexer) number() Kind {
	kind := Integer
	l.digits()
	if l.at(l.pos) == '.' && l.at(l.pos+1) != '.' {
		kind = Number
		l.pos++
		l.digits()
	}
	return l.exponent(kind)
}

func (l *Lexer) digits() {
	for classes[l.at(l.pos)] == digitClass {
		l.pos++
	}
}

// exponent passes over what follows a number's digits.
func (l *Lexer) exponent(kind Kind) Kind {
	if c := l.at(l.pos); c == 'e' || c == 'E' {
		sign := 1
		if s := l.at(l.pos + 1); s == '+' || s == '-' {
			sign = 2
		}
		if classes[l.at(l.pos+sign)] == digitClass {
			l.pos += sign
			l.digits()
			kind = Number
		}
	}
	if !isWordStart(l.at(l.pos)) {
		return kind
	}
	for isWordByte(l.at(l.pos)) {
		l.pos++
	}
	return Bad
}

func isWordStart(c byte) bool { return classes[c] == letterClass }

// dot passes over a number that begins with its point, two points of a loop,
// or one point.
func (l *Lexer) dot() Kind {
	l.pos++
	switch {
	case classes[l.at(l.pos)] == digitClass:
		l.digits()
		return l.exponent(Number)
	case l.at(l.pos) == '.':
		l.pos++
		return Operator
	default:
		return Punct
	}
}

func (l *Lexer) colon() Kind {
	l.pos++
	switch l.at(l.pos) {
	case ':':
		l.pos++
		return Cast
	case '=':
		l.pos++
		return Operator
	default:
		return Punct
	}
}

// dollar passes over a parameter, or a literal between dollar tags.
func (l *Lexer) dollar() Kind {
	end := l.pos + 1
	if classes[l.at(end)] == digitClass {
		l.pos++
		l.digits()
		if !isWordStart(l.at(l.pos)) {
			return Param
		}
		for isWordByte(l.at(l.pos)) {
			l.pos++
		}
		return Bad
	}
	for isWordStart(l.at(end)) || end > l.pos+1 && classes[l.at(end)] == digitClass {
		end++
	}
	if l.at(end) != '$' {
		l.pos++
		return Bad
	}
	tag := l.Text[l.pos : end+1]
	l.pos = end + 1
	i := bytes.Index(l.Text[l.pos:], tag)
	if i < 0 {
		l.pos = len(l.Text)
		return Bad
	}
	l.pos += i + len(tag)
	return DollarString
}

// operator passes over one operator: a run of operator characters up to a
// comment, without the plus and minus signs at its end unless one of the
// characters that no SQL operator has is among them.
func (l *Lexer) operator() Kind {
	if l.pos >= l.part.end {
		l.measure()
	}
	switch {
	case l.part.special >= l.pos:
		l.pos = l.part.end
	case l.part.unsigned >= l.pos:
		l.pos = l.part.unsigned + 1
	default:
		l.pos++
	}
	return Operator
}

// part is a run of operator characters that begins at a token, up to a comment
// or to its end, and what its tokens depend on. It is measured once for all of
// them.
type part struct {
	end      int
	special  int // the last character that no SQL operator has; -1 for none
	unsigned int // the last character but plus and minus; -1 for none
}

func (l *Lexer) measure() {
	l.part = part{special: -1, unsigned: -1}
	end := l.pos
	for end < len(l.Text) && classes[l.Text[end]] == operatorClass {
		c := l.Text[end]
		if end > l.pos && (c == '-' && l.at(end+1) == '-' || c == '/' && l.at(end+1) == '*') {
			break
		}
		switch c {
		case '+', '-':
		case '~', '!', '@', '#', '^', '&', '|', '`', '?', '%':
			l.part.special, l.part.unsigned = end, end
		default:
			l.part.unsigned = end
		}
		end++
	}
	l.part.end = end
}
