package pgquery

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// What libpg_query writes around names, columns and integers: they are most of a
// tree, and are read as such.
const (
	placeBegins   = `"location":`
	stringBegins  = `{"String":{"sval":"`
	columnBegins  = `{"ColumnRef":{"fields":[`
	columnPlace   = `],"location":`
	integerBegins = `{"A_Const":{"ival":{"ival":`
	integerPlace  = `},"location":`
	plainEnds     = `}}`

	plainLevels = 4 // the objects that are in one another in these, at most
)

// skip passes over what is expected, if it is next.
func (d *decoder) skip(expected string) bool {
	if !strings.HasPrefix(d.json[d.at:], expected) {
		return false
	}
	d.at += len(expected)
	return true
}

// plainString reads a String whose JSON holds no escapes, if it is next.
func (d *decoder) plainString() *pg.Node {
	start := d.at
	if d.depth+plainLevels > maxDecoded || !d.skip(stringBegins) {
		return nil
	}
	end := strings.IndexByte(d.json[d.at:], '"')
	if end < 0 {
		d.at = start
		return nil
	}
	name := d.json[d.at : d.at+end]
	d.at += end + 1
	if strings.IndexByte(name, '\\') >= 0 || !d.skip(plainEnds) {
		d.at = start
		return nil
	}
	b := d.boxes.strings.next()
	b.node.Node, b.is.String_ = &b.is, &b.v
	b.v.Sval = d.names.copyOf(name)
	return &b.node
}

// plainColumn reads a ColumnRef of such names, if it is next.
func (d *decoder) plainColumn() *pg.Node {
	start, before := d.at, len(d.items)
	if d.depth+plainLevels > maxDecoded || !d.skip(columnBegins) {
		return nil
	}
	for {
		n := d.plainString()
		if n == nil {
			break
		}
		d.items = append(d.items, n)
		if !d.skip(",") {
			break
		}
	}
	fields := d.items[before:]
	d.items = d.items[:before]
	if len(fields) == 0 || !d.skip(columnPlace) {
		d.at = start
		return nil
	}
	b := d.boxes.columns.next()
	b.node.Node, b.is.ColumnRef = &b.is, &b.v
	b.v.Location = d.int()
	b.v.Fields = d.place(len(fields))
	copy(b.v.Fields, fields)
	if !d.skip(plainEnds) {
		d.fail()
	}
	return &b.node
}

// plainInteger reads a constant that is a positive integer, if it is next.
func (d *decoder) plainInteger() *pg.Node {
	start := d.at
	if d.depth+plainLevels > maxDecoded || !d.skip(integerBegins) {
		return nil
	}
	value := d.int()
	if !d.skip(integerPlace) {
		d.at = start
		return nil
	}
	place := d.int()
	if d.failed || value <= 0 || !d.skip(plainEnds) {
		d.fail()
		return nil
	}
	n, i := d.boxes.constants.next(), d.boxes.integers.next()
	n.node.Node, n.is.AConst, n.v.Val, n.v.Location = &n.is, &n.v, &i.is, place
	i.is.Ival, i.v.Ival = &i.v, value
	return &n.node
}

// How many names are kept for the texts to come, and how long they may be.
const (
	keptNames    = 256
	maxKeptBytes = 64
)

// names are copies of names. The same ones come again and again, in a text and
// in the next: those of tables and columns.
type names []string

// copyOf returns a copy of a name, which is no part of what s is a part of.
func (n *names) copyOf(s string) string {
	if len(s) == 0 || len(s) > maxKeptBytes {
		return strings.Clone(s)
	}
	if *n == nil {
		*n = make(names, keptNames)
	}
	last := len(s) - 1
	at := (uint(s[0]) + 3*uint(s[last/2]) + 7*uint(s[last]) + 31*uint(s[last*3/4]) + 61*uint(len(s))) % keptNames
	if (*n)[at] != s {
		(*n)[at] = strings.Clone(s)
	}
	return (*n)[at]
}
