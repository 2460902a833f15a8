package lex

import (
	"bytes"
	"hash/maphash"
)

// reading follows a text byte by byte, as far as its cost depends on it: it
// knows comments, what hides them, and runs of operator characters.
type reading struct {
	escapes bool // in plain literals
	cost    Cost
	run     run
	depth   int // of comments

	place     place
	held      byte // '-', '/' or '*', which may begin a mark of two, the '&' of U&, a backslash; 0 for none
	first     byte // of a word of one letter, in lower case; 0 where there are more
	literal   place
	lineBreak bool // behind a literal: a quote would continue it

	tag tag
}

// place is what the next byte is part of.
type place uint8

const (
	code      place = iota
	word            // a name or keyword
	number          // digits; an exponent may follow
	exponentE       // the E behind digits
	exponentSign
	digits // of an exponent or a parameter
	colon
	lineComment
	comment
	plainLiteral // 'a''b'
	escapeLiteral
	bitLiteral
	quotedName
	behind        // a literal, which may go on
	behindComment // the same, in a comment to the end of the line
	dollar        // a dollar sign that may begin a tag
	dollarTag
	dollarLiteral
)

// tag recognises the tag that ends a dollar-quoted literal, of any length, by
// the length and a hash of what is between its dollar signs.
type tag struct {
	hash   maphash.Hash
	length int // bytes hashed; -1 where no dollar sign has begun a tag
	wanted int
	sum    uint64
}

func (t *tag) begin() { t.hash.Reset(); t.length = 0 }

func (t *tag) add(b byte) {
	_ = t.hash.WriteByte(b) // never fails
	t.length++
}

// run is a run of operator characters, comments within it included. Each mark
// in it, the beginning of a token or of a comment, makes the server read the
// rest of the run again.
type run struct {
	marks int
	// An operator ends before the plus and minus signs at its end, which are
	// operators each, unless a character that no SQL operator has is among it.
	started bool // an operator was
	special bool // it has such a character
	signs   int  // at its end so far, its first character not counted
	rescans int  // that they cost if they stay at its end
}

// total returns the cost so far, as if the text ended here.
func (r *reading) total() Cost {
	last := r.run
	if r.held == '/' && r.place != comment {
		last.operator(r.held)
	}
	return Cost{r.cost.Nesting, r.cost.Rescans + last.rescans}
}

func (r *reading) read(text []byte) {
	for len(text) > 0 {
		if r.held == 0 {
			if n := r.skip(text); n > 0 {
				text = text[n:]
				continue
			}
		}
		r.step(text[0])
		text = text[1:]
	}
}

// skip returns how many bytes lead nowhere else.
func (r *reading) skip(text []byte) int {
	i := 0
	switch r.place {
	case code:
		for r.run.marks == 0 && i < len(text) && leadsNowhere(text[i]) {
			i++
		}
		return i
	case word:
		for i < len(text) && isWordByte(text[i]) {
			i, r.first = i+1, 0
		}
		return i
	case comment:
		for r.run.marks == 0 && i < len(text) && text[i] != '/' && text[i] != '*' {
			i++
		}
		return i
	case plainLiteral, bitLiteral:
		i = bytes.IndexByte(text, '\'')
	case escapeLiteral:
		for i < len(text) && text[i] != '\'' && text[i] != '\\' {
			i++
		}
		return i
	case quotedName:
		i = bytes.IndexByte(text, '"')
	case dollarLiteral:
		if r.tag.length < 0 {
			i = bytes.IndexByte(text, '$')
		}
	case number, exponentE, exponentSign, digits, colon, lineComment, behind, behindComment, dollar, dollarTag:
	}
	if i < 0 {
		return len(text)
	}
	return i
}

// leadsNowhere reports whether a byte is white space between tokens, or a token
// by itself that nothing depends on.
func leadsNowhere(c byte) bool {
	k := classes[c]
	return k == spaceClass || k == otherClass && c != '\'' && c != '"' && c != '$' && c != ':'
}

func (r *reading) step(c byte) {
	if held := r.held; held != 0 {
		r.held = 0
		if r.pair(held, c) {
			r.account(c)
			return
		}
	}
	r.account(c)
	r.next(c)
}

// account counts what a byte costs that stands in a run, and ends the run at
// any other.
func (r *reading) account(c byte) {
	switch {
	case r.run.marks == 0:
	case classes[c] == operatorClass:
		r.cost.Rescans += r.run.marks
		r.run.rescans += r.run.signs
	default:
		r.cost.Rescans += r.run.rescans
		r.run = run{}
	}
}

// endOperator ends an operator where a comment begins in the same run.
func (u *run) endOperator() (rescans int) {
	rescans = u.rescans
	*u = run{marks: u.marks + u.signs}
	return rescans
}

// operator takes a character for a part of an operator.
func (u *run) operator(c byte) {
	switch {
	case !u.started:
		u.started, u.special = true, isSpecial(c)
		u.marks++
	case u.special:
	case c == '+' || c == '-':
		u.signs++
	default:
		u.special = isSpecial(c)
		u.signs, u.rescans = 0, 0
	}
}

// isSpecial reports whether an operator that ends with a sign may have such a
// character.
func isSpecial(c byte) bool { return bytes.IndexByte([]byte("~!@#^&|`?%"), c) >= 0 }

// pair reports whether a byte that was held and the next one belong together,
// and goes where they lead. Where not, the byte that was held is an operator's.
func (r *reading) pair(held, c byte) bool {
	switch {
	case held == '\\':
		return true
	case held == '/' && c == '*':
		r.cost.Rescans += r.run.endOperator()
		r.run.marks++
		r.depth++
		r.cost.Nesting = max(r.cost.Nesting, r.depth)
		r.place = comment
		return true
	case held == '*' && c == '/':
		r.depth--
		if r.depth == 0 {
			r.place = code
		}
		return true
	case r.place == comment:
		return false
	case held == '-' && c == '-':
		r.cost.Rescans += r.run.endOperator()
		if r.place == behind {
			r.place = behindComment
		} else {
			r.place = lineComment
		}
		return true
	case held == '&' && c == '\'':
		r.place = plainLiteral
		return true
	case held == '&' && c == '"':
		r.place = quotedName
		return true
	}
	r.place = code
	r.run.operator(held)
	return false
}

// next goes from one place to the next.
func (r *reading) next(c byte) {
	switch r.place {
	case code:
		r.begin(c)
	case word:
		r.inWord(c)
	case number, exponentE, exponentSign, digits:
		r.inNumber(c)
	case colon:
		r.place = code
		if c != '=' && c != ':' {
			r.begin(c)
		}
	case lineComment, behindComment:
		r.inLineComment(c)
	case comment:
		if c == '/' || c == '*' {
			r.held = c
		}
	case plainLiteral, escapeLiteral, bitLiteral, quotedName:
		r.inLiteral(c)
	case behind:
		r.behindLiteral(c)
	case dollar, dollarTag, dollarLiteral:
		r.inDollar(c)
	}
}

// begin begins a token.
func (r *reading) begin(c byte) {
	switch classes[c] {
	case letterClass:
		r.place, r.first = word, c|0x20
	case digitClass:
		r.place = number
	case operatorClass:
		if c == '-' || c == '/' {
			r.held = c
			return
		}
		r.run.operator(c)
	case spaceClass, otherClass:
		switch {
		case c == '\'' && r.escapes:
			r.place = escapeLiteral
		case c == '\'':
			r.place = plainLiteral
		case c == '"':
			r.place = quotedName
		case c == '$':
			r.place = dollar
		case c == ':':
			r.place = colon
		}
	}
}

// inWord ends a word, which may turn out to be what a literal begins with.
func (r *reading) inWord(c byte) {
	first := r.first
	r.first = 0
	switch {
	case isWordByte(c):
		return
	case c == '\'' && first == 'e':
		r.place = escapeLiteral
		return
	case c == '\'' && (first == 'b' || first == 'x'):
		r.place = bitLiteral
		return
	case c == '&' && first == 'u':
		r.held = c
		return
	}
	r.place = code
	r.begin(c)
}

func (r *reading) inNumber(c byte) {
	digit := classes[c] == digitClass
	switch {
	case r.place == number && (digit || c == '.'):
	case r.place == number && c|0x20 == 'e':
		r.place = exponentE
	case digit:
		r.place = digits
	case r.place == exponentE && (c == '+' || c == '-'):
		r.place = exponentSign
	case r.place == exponentE: // the E begins a word
		r.place, r.first = word, 'e'
		r.inWord(c)
	default:
		r.place = code
		r.begin(c)
	}
}

func (r *reading) inLineComment(c byte) {
	if c != '\n' && c != '\r' {
		return
	}
	if r.place == lineComment {
		r.place = code
		return
	}
	r.place, r.lineBreak = behind, true
}

func (r *reading) inLiteral(c byte) {
	switch {
	case c == '\\' && r.place == escapeLiteral:
		r.held = c
	case c == '\'' && r.place != quotedName, c == '"' && r.place == quotedName:
		r.literal, r.place, r.lineBreak = r.place, behind, false
		r.first = c // another one goes on with the literal, but for bit strings
		if r.literal == bitLiteral {
			r.first = 0
		}
	}
}

// behindLiteral looks for what goes on with a literal: a quote behind the
// quote, or behind white space with a line break in it.
func (r *reading) behindLiteral(c byte) {
	doubled := r.first != 0 && r.first == c
	r.first = 0
	switch {
	case doubled:
		r.place = r.literal
	case r.literal == quotedName:
		r.place = code
		r.begin(c)
	case classes[c] == spaceClass:
		r.lineBreak = r.lineBreak || c == '\n' || c == '\r'
	case c == '\'' && r.lineBreak:
		r.place = r.literal
	case c == '-':
		r.held = c
	default:
		r.place = code
		r.begin(c)
	}
}

func (r *reading) inDollar(c byte) {
	switch {
	case r.place == dollarLiteral:
		r.inDollarLiteral(c)
	case c == '$':
		if r.place == dollar {
			r.tag.begin()
		}
		r.tag.wanted, r.tag.sum, r.tag.length = r.tag.length, r.tag.hash.Sum64(), -1
		r.place = dollarLiteral
	case classes[c] == letterClass && r.place == dollar:
		r.place, r.first = dollarTag, c|0x20
		r.tag.begin()
		r.tag.add(c)
	case r.place == dollarTag && (classes[c] == letterClass || classes[c] == digitClass):
		r.first = 0
		r.tag.add(c)
	case r.place == dollarTag: // a stray sign before a word
		r.place = word
		r.inWord(c)
	case classes[c] == digitClass:
		r.place = digits
	default:
		r.place = code
		r.begin(c)
	}
}

func (r *reading) inDollarLiteral(c byte) {
	t := &r.tag
	switch {
	case c == '$' && t.length == t.wanted && t.hash.Sum64() == t.sum:
		r.place = code
	case c == '$':
		t.begin()
	case t.length >= 0 && t.length < t.wanted:
		t.add(c)
	default:
		t.length = -1
	}
}
