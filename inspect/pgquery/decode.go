package pgquery

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pganalyze/pg_query_go/v5/parser"
)

// tree is the tree of a text. Whoever has it calls release when it was read.
type tree struct {
	stmts   []*pg.RawStmt
	slow    bool // it was read the slow way
	release func()
}

// parseTree parses a text. libpg_query writes a tree as protobuf, which
// pg.Parse reads, or as JSON. JSON is the fast way, for what queries consist
// of; all else, and what JSON does not tell, is read from protobuf. See
// decision 0021.
func parseTree(utf string) (tree, error) {
	if len(utf) <= maxFastText {
		out, err := parser.ParseToJSON(utf)
		if err != nil {
			return tree{}, err
		}
		if t, ok := decode(out, utf); ok {
			return t, nil
		}
	}
	result, err := pg.Parse(utf)
	if err != nil {
		return tree{}, err
	}
	return tree{stmts: result.Stmts, slow: true, release: func() {}}, nil
}

// maxFastText bounds the texts whose tree is read from JSON. A character of a
// literal is up to six of JSON, and libpg_query ends the process when it would
// write more than a gigabyte (MaxAllocSize), which protobuf's buffer may be.
const maxFastText = 16 << 20

// maxDecoded bounds the objects that are in one another in a tree that is read
// from JSON. Each is a message of protobuf's, whose decoder takes 10,000 and
// decides about what is deeper.
const maxDecoded = 9_000

// decoder reads the tree of one text from libpg_query's JSON into the structs
// that pg.Parse fills. It knows the kinds of node that queries consist of, and
// their fields; another one ends it, as everything does that libpg_query does
// not write. Fields may be missing: those that are zero are.
type decoder struct {
	json   string
	at     int    // what is before it was read
	failed bool   // then at is the end, where nothing is found any more
	name   string // of the field that field has come to
	depth  int
	text   string // that was parsed: it tells what the JSON does not

	items []*pg.Node // of the lists that are not read to their end
	memory
}

// memory is what a decoder's trees are made in. It is used again for the next
// text: nobody may look at a tree after that.
type memory struct {
	boxes boxes
	lists []*pg.Node
	used  int // of lists
	names names
}

// decoders are those at rest, with their memory.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decode returns the tree of a text, whose JSON this is; false where it is not
// known to be the one that pg.Parse would return.
func decode(json, text string) (tree, bool) {
	if !utf8.ValidString(json) {
		return tree{}, false // for protobuf it is an error
	}
	d := decoders.Get().(*decoder)
	d.json, d.text = json, text
	stmts := d.statements()
	if d.failed || d.at != len(json) {
		d.release()
		return tree{}, false
	}
	return tree{stmts: stmts, release: d.release}, true
}

// release gives back the decoder, with the memory of its tree.
func (d *decoder) release() {
	d.memory.reset()
	*d = decoder{memory: d.memory}
	decoders.Put(d)
}

// fail ends the reading: no function finds anything any more.
func (d *decoder) fail() {
	d.failed = true
	d.at = len(d.json)
}

// take reads the byte c if it is next.
func (d *decoder) take(c byte) bool {
	if d.at < len(d.json) && d.json[d.at] == c {
		d.at++
		return true
	}
	return false
}

// object begins an object; field is for its fields and its end.
func (d *decoder) object() {
	d.depth++
	if d.depth > maxDecoded || !d.take('{') {
		d.fail()
	}
}

// field comes to an object's next field, whose name is d.name until another
// one is read; or past the object's end.
func (d *decoder) field() bool {
	if d.take('}') {
		d.depth--
		return false
	}
	d.take(',')
	if d.skip(placeBegins) { // most of the fields
		d.name = "location"
		return !d.failed
	}
	d.name = d.quoted()
	if !d.take(':') {
		d.fail()
	}
	return !d.failed
}

// array begins a list; more is for its items and its end.
func (d *decoder) array() {
	if !d.take('[') {
		d.fail()
	}
}

// more comes to a list's next item, or past the list's end.
func (d *decoder) more() bool {
	if d.take(']') {
		return false
	}
	d.take(',')
	return !d.failed
}

// quoted reads what is in quotes and holds no escapes. It is a part of the
// JSON.
func (d *decoder) quoted() string {
	if !d.take('"') {
		d.fail()
		return ""
	}
	rest := d.json[d.at:]
	end := strings.IndexByte(rest, '"')
	if end < 0 {
		d.fail()
		return ""
	}
	d.at += end + 1
	return rest[:end]
}

// int reads a number.
func (d *decoder) int() int32 {
	negative := d.take('-')
	start, n := d.at, int64(0)
	for d.at < len(d.json) && d.json[d.at] >= '0' && d.json[d.at] <= '9' && d.at < start+10 {
		n = 10*n + int64(d.json[d.at]-'0')
		d.at++
	}
	if negative {
		n = -n
	}
	if d.at == start || int64(int32(n)) != n {
		d.fail()
	}
	return int32(n)
}

func (d *decoder) bool() bool {
	rest := d.json[d.at:]
	for _, value := range []string{"true", "false"} {
		if strings.HasPrefix(rest, value) {
			d.at += len(value)
			return value == "true"
		}
	}
	d.fail()
	return false
}

// enum reads a member of an enumeration, by the numbers of its members.
func (d *decoder) enum(numbers map[string]int32) int32 {
	n, ok := numbers[d.quoted()]
	if !ok {
		d.fail()
	}
	return n
}

// word reads a string that is a name, of which there is a copy.
func (d *decoder) word() string {
	start := d.at
	s := d.quoted()
	if strings.IndexByte(s, '\\') < 0 {
		return d.names.copyOf(s)
	}
	d.at = start
	return d.string()
}

// string reads a string. It is a copy: facts are kept for longer than the
// JSON.
func (d *decoder) string() string {
	start := d.at
	s := d.quoted()
	if strings.IndexByte(s, '\\') < 0 {
		return strings.Clone(s)
	}
	d.at = start + 1
	var out []byte
	for !d.take('"') {
		rest := d.json[d.at:]
		end := strings.IndexAny(rest, `"\`)
		if end < 0 {
			d.fail()
			return ""
		}
		out = append(out, rest[:end]...)
		d.at += end
		if d.take('\\') {
			out = append(out, d.escape())
		}
	}
	return string(out)
}

// escape reads what is behind a backslash. Source: _outToken in
// pg_query_json_helper.c, which escapes nothing but ASCII.
func (d *decoder) escape() byte {
	const escapes, meanings = `bfnrt"\`, "\b\f\n\r\t\"\\"
	rest := d.json[d.at:]
	if len(rest) < 1 {
		d.fail()
		return 0
	}
	if i := strings.IndexByte(escapes, rest[0]); i >= 0 {
		d.at++
		return meanings[i]
	}
	if rest[0] == 'u' && len(rest) >= 5 {
		if n, err := strconv.ParseUint(rest[1:5], 16, 7); err == nil {
			d.at += 5
			return byte(n)
		}
	}
	d.fail()
	return 0
}

// nodes reads a list of nodes.
func (d *decoder) nodes() []*pg.Node {
	before := len(d.items)
	for d.array(); d.more(); {
		d.items = append(d.items, d.node())
	}
	list := d.place(len(d.items) - before)
	copy(list, d.items[before:])
	d.items = d.items[:before]
	return list
}

// listPlaces is for how many nodes in lists there is room that is kept.
const listPlaces = 512

// place returns room for a list.
func (m *memory) place(n int) []*pg.Node {
	if m.lists == nil {
		m.lists = make([]*pg.Node, listPlaces)
	}
	if n > len(m.lists)-m.used {
		return make([]*pg.Node, n)
	}
	m.used += n
	return m.lists[m.used-n : m.used : m.used]
}

func (m *memory) reset() {
	m.boxes.reset()
	clear(m.lists[:m.used])
	m.used = 0
}
