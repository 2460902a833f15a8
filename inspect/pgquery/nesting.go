package pgquery

import "lockkeeper/inspect/lex"

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
	d := depth{levels: []level{{}}}
	l := lex.Lexer{Text: []byte(text)}
	for {
		t := l.Next()
		if t.Kind == lex.EOF {
			break
		}
		d.token(t.Kind, text[t.Start:t.End])
	}
	for len(d.levels) > 1 {
		d.pop()
	}
	return d.levels[0].height()
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

// depth is how deep a text's tree is so far.
type depth struct {
	levels []level
	after  lex.Kind // the token before
	dot    bool     // the token before was a dot: a name follows, even if it is a keyword
}

func (d *depth) top() *level { return &d.levels[len(d.levels)-1] }

func (d *depth) token(kind lex.Kind, text string) {
	switch {
	case kind == lex.Word && !d.dot:
		d.keyword(text)
	case kind == lex.Operator, kind == lex.Cast:
		d.top().operators++
	case kind == lex.Punct:
		d.punctuation(text[0])
	}
	d.after, d.dot = kind, kind == lex.Punct && text[0] == '.'
}

func (d *depth) punctuation(c byte) {
	switch c {
	case '(':
		base := 0
		if isName(d.after) {
			base = bracketLevels
		}
		d.levels = append(d.levels, level{base: base})
	case '[':
		d.levels = append(d.levels, level{base: bracketLevels})
	case ')', ']':
		d.closeBracket()
	case ',':
		d.top().endPart()
		d.top().joined = bracketLevels
	case ';':
		d.endStatement()
	}
}

func (d *depth) closeBracket() {
	for len(d.levels) > 1 && d.top().isCase {
		d.pop()
	}
	d.pop()
}

func (d *depth) endStatement() {
	for len(d.levels) > 1 && d.top().isCase {
		d.pop()
	}
	top := d.top()
	*top = level{base: top.base, ended: top.height()}
}

// pop closes the innermost level; the outermost stays open whatever comes.
func (d *depth) pop() {
	if len(d.levels) == 1 {
		return
	}
	height := d.top().height()
	d.levels = d.levels[:len(d.levels)-1]
	d.top().deepest = max(d.top().deepest, height)
}

func (d *depth) keyword(s string) {
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
	top := d.top()
	switch string(lower) {
	case "is", "isnull", "notnull", "collate", "at", "like", "ilike", "similar", "in", "not", "overlaps", "operator":
		top.operators++
	case "between":
		top.operators++
		top.betweens++
	case "and":
		d.conjunction()
	case "or":
		top.endPart()
		top.joined = max(top.joined, 1)
	case "union", "intersect", "except", "join":
		top.across++
	case "select", "values":
		top.begins = selectLevels
	case "case":
		d.levels = append(d.levels, level{isCase: true, base: bracketLevels})
	case "when", "then", "else":
		if top.isCase {
			top.endPart()
		}
	case "end":
		if top.isCase {
			d.pop()
		}
	}
}

// conjunction is AND: BETWEEN's, or the one that joins conditions.
func (d *depth) conjunction() {
	top := d.top()
	if top.betweens > 0 {
		top.betweens--
		return
	}
	top.endPart()
	top.joined = max(top.joined, 1)
}

// isName reports whether a bracket behind such a token is an argument list.
func isName(k lex.Kind) bool { return k == lex.Word || k == lex.QuotedWord || k == lex.UnicodeWord }
