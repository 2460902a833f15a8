package pgquery

import "strings"

// maxNesting bounds how deep the tree of a text may become. libpg_query turns
// the tree into bytes by recursion, on a stack of a fixed size and without a
// check (stack_base_ptr is never set in it), at about half a kilobyte a level:
// one level too many ends the process. This limit needs half of the 2 MB that
// a thread has at least with glibc. PostgreSQL itself gives up at some
// thousands of levels (max_stack_depth); Odoo's statements have up to 80.
const maxNesting = 2_000

// shallowBytes is the length up to which no text can be nested so deep: the
// shortest level takes more than a byte.
const shallowBytes = maxNesting

// What parts of the grammar add to the tree's depth; each is more than what
// they do.
const (
	selectLevels  = 5 // a subselect: SubLink, SelectStmt, ResTarget, lists
	bracketLevels = 2 // a list in brackets: FuncCall, RowExpr, A_ArrayExpr, A_Indices, and their list
)

// tooDeep reports whether the text's tree may be deeper than maxNesting. It
// errs to true and never to false, without knowing the grammar: see nesting.
func tooDeep(text string) bool {
	return len(text) > shallowBytes && nesting(text) > maxNesting
}

// nesting returns an upper bound for the depth of the text's tree. Only what
// recurs makes a tree deep: brackets, CASE, operators (whose left operands
// nest, so that the parser's own stack does not bound them), set operations
// and joins. A tree of n operators over operands of at most m levels has at
// most n + m levels; so operators are counted, for each bracket, since the
// last comma, AND or OR, which bind weaker than all others. (AND and OR
// themselves become flat lists.)
func nesting(text string) int {
	l := depthLexer{text: text, levels: []level{{}}}
	for l.pos < len(l.text) {
		l.next()
	}
	for len(l.levels) > 1 {
		l.pop()
	}
	return l.levels[0].height()
}

// level is what is known of one pair of brackets, or of one CASE … END.
type level struct {
	isCase    bool
	base      int // what the bracket itself adds
	deepest   int // the deepest of the parts that ended
	operators int // since the part began
	across    int // set operations and joins: they do not end with a part
	betweens  int // BETWEENs whose AND is still to come
	joined    int // what a list of parts adds, once there are two
	begins    int // what a SELECT adds, once there is one
	ended     int // the deepest of the statements that ended
}

func (v *level) height() int {
	v.endPart()
	return max(v.ended, v.base+v.begins+v.deepest+v.across+v.joined)
}

func (v *level) endPart() {
	v.deepest = max(v.deepest, v.operators)
	v.operators, v.betweens = 0, 0
}

// depthLexer reads a text as far as its depth needs. It follows the rules of
// src/backend/parser/scan.l with standard_conforming_strings on, which is how
// libpg_query reads.
type depthLexer struct {
	text   string
	pos    int
	levels []level
	after  tokenKind // what the token before was
}

// tokenKind is what matters of the token before.
type tokenKind uint8

const (
	otherToken tokenKind = iota
	dotToken             // a name follows, even if it is a keyword
	wordToken            // a bracket after it is an argument list
)

func (l *depthLexer) top() *level { return &l.levels[len(l.levels)-1] }

func (l *depthLexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

// next reads one token, or part of one.
func (l *depthLexer) next() {
	c := l.text[l.pos]
	switch {
	case isSpace(c):
		l.pos++
		return
	case c == '-' && l.at(l.pos+1) == '-':
		l.lineComment()
		return
	case c == '/' && l.at(l.pos+1) == '*':
		l.comment()
		return
	case isIdentStart(c):
		l.word()
		return
	}
	after := otherToken
	switch {
	case c == '\'':
		l.quoted('\'')
	case c == '"':
		l.quoted('"')
		after = wordToken
	case c == '$':
		l.dollar()
	case c >= '0' && c <= '9':
		l.digits()
	case isOperatorByte(c):
		l.operator()
	default:
		l.punctuation(c)
		if c == '.' {
			after = dotToken
		}
	}
	l.after = after
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isIdentStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isOperatorByte(c byte) bool { return strings.IndexByte("~!@#^&|`?+-*/%<>=:", c) >= 0 }

func (l *depthLexer) lineComment() {
	for l.pos < len(l.text) && l.text[l.pos] != '\n' && l.text[l.pos] != '\r' {
		l.pos++
	}
}

// comment passes over a comment in slashes and stars; they nest.
func (l *depthLexer) comment() {
	depth := 0
	for l.pos < len(l.text) {
		switch {
		case l.text[l.pos] == '/' && l.at(l.pos+1) == '*':
			depth++
			l.pos += 2
		case l.text[l.pos] == '*' && l.at(l.pos+1) == '/':
			depth--
			l.pos += 2
		default:
			l.pos++
		}
		if depth == 0 {
			return
		}
	}
}

// quoted passes over a literal or name without escapes; a doubled quote in it
// is the end of one and the beginning of another.
func (l *depthLexer) quoted(quote byte) {
	l.pos++
	for l.pos < len(l.text) && l.text[l.pos] != quote {
		l.pos++
	}
	l.pos++
}

// escaped passes over the inside of E'…' with what continues it: a quote
// after white space with a line break in it.
func (l *depthLexer) escaped() {
	for {
		l.pos++
		for l.pos < len(l.text) && l.text[l.pos] != '\'' {
			if l.text[l.pos] == '\\' {
				l.pos++
			}
			l.pos++
		}
		l.pos++
		next, ok := l.continuation()
		if !ok {
			return
		}
		l.pos = next
	}
}

// continuation returns where the quote stands that continues a literal.
func (l *depthLexer) continuation() (quote int, ok bool) {
	if l.at(l.pos) == '\'' {
		return l.pos, true // doubled
	}
	ahead, lineBreak := *l, false
	for ahead.pos < len(ahead.text) {
		switch c := ahead.text[ahead.pos]; {
		case isSpace(c):
			lineBreak = lineBreak || c == '\n' || c == '\r'
			ahead.pos++
		case c == '-' && ahead.at(ahead.pos+1) == '-':
			ahead.lineComment()
		default:
			return ahead.pos, lineBreak && c == '\''
		}
	}
	return 0, false
}

// dollar passes over a parameter, or a literal between dollar tags.
func (l *depthLexer) dollar() {
	end := l.pos + 1
	if isIdentStart(l.at(end)) {
		for isIdentStart(l.at(end)) || isDigit(l.at(end)) {
			end++
		}
	}
	if l.at(end) != '$' {
		l.pos++
		return
	}
	tag := l.text[l.pos : end+1]
	l.pos = end + 1
	if i := indexFrom(l.text, l.pos, tag); i >= 0 {
		l.pos = i + len(tag)
	} else {
		l.pos = len(l.text)
	}
}

// digits passes over a number. What is glued to it is an error in the parser,
// so that it does not matter what becomes of it here.
func (l *depthLexer) digits() {
	for isDigit(l.at(l.pos)) || isIdentStart(l.at(l.pos)) {
		l.pos++
	}
}

// operator counts operators: a run of operator characters is one, but each
// plus and minus may be one more.
func (l *depthLexer) operator() {
	inRun := false
	for l.pos < len(l.text) && isOperatorByte(l.text[l.pos]) {
		c := l.text[l.pos]
		if c == '-' && l.at(l.pos+1) == '-' || c == '/' && l.at(l.pos+1) == '*' {
			return
		}
		sign := c == '+' || c == '-'
		if sign || !inRun {
			l.top().operators++
		}
		inRun = !sign
		l.pos++
	}
}

func (l *depthLexer) punctuation(c byte) {
	l.pos++
	switch c {
	case '(':
		base := 0
		if l.after == wordToken {
			base = bracketLevels
		}
		l.levels = append(l.levels, level{base: base})
	case '[':
		l.levels = append(l.levels, level{base: bracketLevels})
	case ')', ']':
		l.closeBracket()
	case ',':
		l.top().endPart()
		l.top().joined = bracketLevels
	case ';':
		l.endStatement()
	}
}

func (l *depthLexer) closeBracket() {
	for len(l.levels) > 1 && l.top().isCase {
		l.pop()
	}
	l.pop()
}

func (l *depthLexer) endStatement() {
	for len(l.levels) > 1 && l.top().isCase {
		l.pop()
	}
	top := l.top()
	*top = level{base: top.base, ended: top.height()}
}

// pop closes the innermost level; the outermost stays open whatever comes.
func (l *depthLexer) pop() {
	if len(l.levels) == 1 {
		return
	}
	height := l.top().height()
	l.levels = l.levels[:len(l.levels)-1]
	l.top().deepest = max(l.top().deepest, height)
}

// word reads a keyword or name, or what begins like one: E'…'.
func (l *depthLexer) word() {
	start := l.pos
	if c := l.text[start]; (c == 'e' || c == 'E') && l.at(start+1) == '\'' {
		l.pos++
		l.escaped()
		l.after = otherToken
		return
	}
	for c := l.at(l.pos); isIdentStart(c) || isDigit(c) || c == '$'; c = l.at(l.pos) {
		l.pos++
	}
	if l.after != dotToken {
		l.keyword(l.text[start:l.pos])
	}
	l.after = wordToken
}

func (l *depthLexer) keyword(s string) {
	if len(s) > len("intersect") {
		return
	}
	var buf [len("intersect")]byte
	lower := buf[:0]
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	top := l.top()
	switch string(lower) {
	case "is", "isnull", "notnull", "collate", "at", "like", "ilike", "similar", "in", "not", "overlaps", "operator":
		top.operators++
	case "between":
		top.operators++
		top.betweens++
	case "and":
		l.conjunction()
	case "or":
		top.endPart()
		top.joined = max(top.joined, 1)
	case "union", "intersect", "except", "join":
		top.across++
	case "select", "values":
		top.begins = selectLevels
	case "case":
		l.levels = append(l.levels, level{isCase: true, base: bracketLevels})
	case "when", "then", "else":
		if top.isCase {
			top.endPart()
		}
	case "end":
		if top.isCase {
			l.pop()
		}
	}
}

// conjunction is AND: BETWEEN's, or the one that joins conditions.
func (l *depthLexer) conjunction() {
	top := l.top()
	if top.betweens > 0 {
		top.betweens--
		return
	}
	top.endPart()
	top.joined = max(top.joined, 1)
}

// indexFrom returns where s occurs in text at or after from; -1 if nowhere.
func indexFrom(text string, from int, s string) int {
	i := strings.Index(text[from:], s)
	if i < 0 {
		return -1
	}
	return from + i
}
