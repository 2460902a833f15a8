package pgquery

import (
	"fmt"
	"strings"

	"lockkeeper/inspect/lex"
)

// maxNesting bounds how deep the tree of a text may become, and levelsAllowed
// does where stacks are small. libpg_query turns the tree into bytes by
// recursion, on the thread's stack and without a check (its check_stack_depth
// does nothing, for stack_base_ptr is never set in it), at less than half a
// kilobyte a level: one level too many ends the process. PostgreSQL itself
// gives up at some thousands of levels (max_stack_depth); Odoo's statements
// have up to 80. The grammar's own stack is on the heap and ends at 10,000
// (YYMAXDEPTH), and fingerprints end at 100 levels.
const maxNesting = 2_000

// What parts of the grammar add to the tree's depth; each is more than what
// they do.
const (
	selectLevels  = 5 // a subselect: SubLink, SelectStmt, ResTarget, lists
	bracketLevels = 2 // a list in brackets: FuncCall, RowExpr, A_ArrayExpr, A_Indices, and their list
)

// What parsing a text may take, beside its length: a parse slot must come free
// again, and no text may cost all memory. Both are far above what Odoo sends.
const (
	// maxTokens bounds memory: a token may cost 400 bytes in the tree, its
	// encoding and the tree again.
	maxTokens = 1 << 20
	// repeatedBytes of a token that is repeated count as one more, so that long
	// literals are no way around maxTokens.
	repeatedBytes = 64
	// maxWork bounds time, in bytes times levels: the tree's encoder measures
	// each node once for each level above it.
	maxWork = 1 << 28
)

// Bounds says in a few words what texts the parser is given.
func Bounds() string {
	return fmt.Sprintf("%d levels of nesting, or one for each kB of a thread's stack if that is less; %d tokens, at up to 400 bytes each; %d MiB times levels",
		maxNesting, maxTokens, maxWork>>20)
}

// refused says why a text is not given to the parser; "" if it is.
func refused(text string) (why string) {
	if len(text) <= levelsAllowed() && !repeats(text) {
		return "" // the shortest level takes more than a byte
	}
	switch l := loadOf(text); {
	case l.levels > levelsAllowed():
		return whyNesting
	case l.tokens > maxTokens, l.work > maxWork:
		return whyLimit
	default:
		return ""
	}
}

// repeats reports whether there may be more in a text's tree than in the text,
// of which only SET (a, b) = … is known.
func repeats(text string) bool {
	for i := range len(text) - 2 {
		if text[i]|0x20 == 's' && strings.EqualFold(text[i:i+3], "set") && (i == 0 || !isWordByte(text[i-1])) {
			return true
		}
	}
	return false
}

// isWordByte reports whether c is in names that need no quotes.
func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// isDeep reports whether a text that is parsed comes near the limit of levels:
// another of its shape may be beyond it. The other limits are beyond the length
// of all texts that are kept by their shape.
func isDeep(text string) bool {
	near := levelsAllowed() / 2
	return len(text) > near && loadOf(text).levels > near
}

// load is what parsing a text takes.
type load struct {
	levels int // an upper bound for the depth of the text's tree
	tokens int // as often as the tree holds what they say
	work   int // the length of each statement, as often as the tree holds it, times its levels
}

// loadOf measures a text without knowing the grammar. It errs to more and
// never to less. Only what recurs makes a tree deep: brackets, CASE, operators
// (whose left operands nest, so that the parser's own stack does not bound
// them), set operations and joins. A tree of n operators over operands of at
// most m levels has at most n + m levels; so operators are counted, for each
// bracket, since the last comma, AND or OR, which bind weaker than all others.
// (AND and OR themselves become flat lists.)
//
// One thing makes a tree larger than its text: of SET (a, b) = source, libpg_query
// writes the source for each column (MultiAssignRef), and sources can be in
// sources.
func loadOf(text string) load {
	d := depth{levels: []level{{}}, times: 1}
	l := lex.Lexer{Text: []byte(text)}
	end := 0
	for {
		t := l.Next()
		if t.Kind == lex.EOF {
			break
		}
		d.size += (t.End - end) * d.times
		d.load.tokens += 1 + (d.times-1)*(1+(t.End-t.Start)/repeatedBytes)
		d.token(t, text[t.Start:t.End])
		end = t.End
	}
	for len(d.levels) > 1 {
		d.pop()
	}
	d.endOfStatement()
	return d.load
}

// level is what is known of one pair of brackets, or of one CASE … END.
type level struct {
	isCase    bool
	base      int // what the bracket itself adds
	deepest   int // the deepest of the parts that ended
	operators int // since the part began
	operand   int // the deepest of the brackets since the part began
	across    int // set operations and joins: they do not end with a part
	betweens  int // BETWEENs whose AND is still to come
	joined    int // what a list of parts adds, once there are two
	begins    int // what a SELECT adds, once there is one
	ended     int // the deepest of the statements in the brackets that ended

	sets    bool // SET was read
	columns int  // in the brackets that ended last
	commas  int
	before  int // what times was before the source that is being read; 0 if none is
}

func (v *level) height() int {
	v.endPart()
	return max(v.ended, v.base+v.begins+v.deepest+v.across+v.joined)
}

func (v *level) endPart() {
	v.deepest = max(v.deepest, v.operators+v.operand)
	v.operators, v.operand, v.betweens = 0, 0, 0
}

// depth is how deep a text's tree is so far.
type depth struct {
	load   load // of the statements that ended
	size   int  // of the one that has not
	levels []level
	times  int      // how often the tree holds what is read
	after  lex.Kind // the token before
	closed bool     // the token before was a closing bracket
	dot    bool     // the token before was a dot: a name follows, even if it is a keyword
}

func (d *depth) top() *level { return &d.levels[len(d.levels)-1] }

func (d *depth) token(t lex.Token, text string) {
	kind := t.Kind
	switch {
	case kind == lex.Word && !d.dot:
		d.keyword(text)
	case kind == lex.Operator, kind == lex.Cast:
		d.top().operators++
		if d.closed && text[0] == '=' && d.top().sets {
			d.source()
		}
	case kind == lex.Punct && text[0] == ';':
		d.semicolon()
	case kind == lex.Punct:
		d.punctuation(text[0])
	}
	punct := kind == lex.Punct
	d.after, d.dot, d.closed = kind, punct && text[0] == '.', punct && text[0] == ')'
}

func (d *depth) punctuation(c byte) {
	if d.closed && (c == '.' || c == '[') {
		d.top().operators++ // (a).b and (a)[1] are above what the brackets hold
	}
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
		d.endSource()
		d.top().endPart()
		d.top().joined = bracketLevels
		d.top().commas++
	}
}

// source begins what the columns in the brackets before it are set to.
func (d *depth) source() {
	d.endSource()
	d.top().before = d.times
	d.times = min(d.times*d.top().columns, maxTokens+1)
}

func (d *depth) endSource() {
	if before := d.top().before; before > 0 {
		d.times, d.top().before = before, 0
	}
}

func (d *depth) closeBracket() {
	for len(d.levels) > 1 && d.top().isCase {
		d.pop()
	}
	d.pop()
}

// semicolon ends a statement, or one of those in a rule's brackets.
func (d *depth) semicolon() {
	for len(d.levels) > 1 && d.top().isCase {
		d.pop()
	}
	if len(d.levels) == 1 {
		d.endOfStatement()
		return
	}
	d.endSource()
	top := d.top()
	*top = level{base: top.base, ended: top.height()}
}

func (d *depth) endOfStatement() {
	d.endSource()
	levels := d.levels[0].height()
	d.load.levels = max(d.load.levels, levels)
	d.load.work += min(d.size, maxWork+1) * levels // which does not overflow so
	d.levels[0], d.size = level{}, 0
}

// pop closes the innermost level; the outermost stays open whatever comes.
func (d *depth) pop() {
	if len(d.levels) == 1 {
		return
	}
	d.endSource()
	height, commas := d.top().height(), d.top().commas
	d.levels = d.levels[:len(d.levels)-1]
	d.top().operand = max(d.top().operand, height)
	d.top().columns = commas + 1
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
	case "set":
		top.sets = true
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
