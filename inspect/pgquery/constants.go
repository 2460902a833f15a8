package pgquery

import (
	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// The facts of one text are used for others that differ from it in constants
// only. So each look at a constant is noted, with what was looked at; nothing
// but this file reads A_Const in a query's tree.

// note notes what was read of a constant.
func (s *search) note(c *pg.A_Const, what inspect.Reading) {
	if c == nil {
		return
	}
	if c.Location < 0 {
		s.blind = true // no constant of the text's
		return
	}
	if s.constants == nil {
		s.constants = make(map[int32]inspect.Reading)
	}
	s.constants[c.Location] = max(s.constants[c.Location], what)
}

// counted notes that the length of a list was read, or may have been.
func (s *search) counted(items []*pg.Node) {
	if len(items) > 0 {
		s.note(items[0].GetAConst(), inspect.ReadCount)
	}
}

// countedRows is counted for rows of VALUES. Rows that count as one in a shape
// hold constants only, with a cast or without.
func (s *search) countedRows(rows []*pg.Node) {
	for _, row := range rows {
		for _, n := range listOf(row) {
			if c := n.GetTypeCast(); c != nil {
				n = c.Arg
			}
			s.note(n.GetAConst(), inspect.ReadCount)
		}
	}
}

// isAnyConstant reports whether n is a constant, of whatever kind: that is so in all
// texts of a shape, or in none, and needs no note.
func isAnyConstant(n *pg.Node) bool { return n.GetAConst() != nil }

// isNull reports whether n is the constant NULL.
func (s *search) isNull(n *pg.Node) bool {
	s.note(n.GetAConst(), inspect.ReadKind)
	return n.GetAConst().GetIsnull()
}

// literal returns the text of a literal; false when n is none.
func (s *search) literal(n *pg.Node) (text string, ok bool) {
	c := n.GetAConst()
	s.note(c, inspect.ReadKind)
	if c.GetSval() == nil {
		return "", false
	}
	s.note(c, inspect.ReadValue)
	return c.GetSval().GetSval(), true
}

// constant is where a value comes from that nobody has looked at yet.
type constant struct {
	search *search
	node   *pg.A_Const
}

// foldConst returns a constant's value. Its kind is known with it; the rest
// is read when somebody asks.
func (k *folder) foldConst(c *pg.A_Const) value {
	k.search.note(c, inspect.ReadKind)
	from := &constant{k.search, c}
	if c.Isnull {
		return nullValue
	}
	switch c.Val.(type) {
	case *pg.A_Const_Ival, *pg.A_Const_Fval:
		return value{kind: valueNumber, notNull: true, from: from}
	case *pg.A_Const_Boolval:
		return value{kind: valueBool, notNull: true, from: from}
	case *pg.A_Const_Sval:
		return value{kind: valueText, notNull: true, from: from}
	default:
		return someValue
	}
}

// read returns the value with its content.
func (v value) read() value {
	if v.from == nil {
		return v
	}
	v.from.search.note(v.from.node, inspect.ReadValue)
	switch c := v.from.node.Val.(type) {
	case *pg.A_Const_Ival:
		return numberValue(float64(c.Ival.GetIval()))
	case *pg.A_Const_Fval:
		return numberValue(textValue(c.Fval.GetFval()).number())
	case *pg.A_Const_Boolval:
		return boolValue(c.Boolval.GetBoolval())
	case *pg.A_Const_Sval:
		return textValue(c.Sval.GetSval())
	default:
		return someValue
	}
}

// mayBeNumber reports whether number may be something else than NaN, without
// a look at the content.
func (v value) mayBeNumber() bool { return v.kind == valueNumber || v.kind == valueText }

// isText reports whether the value is this text.
func (v value) isText(s string) bool { return v.kind == valueText && v.read().s == s }

// equal reports whether two trees are the same but for where they stand in
// the text.
func (s *search) equal(a, b *pg.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	if x, y := a.ProtoReflect(), b.ProtoReflect(); x.WhichOneof(nodeKinds) != y.WhichOneof(nodeKinds) {
		return false
	}
	s.readAll(a)
	s.readAll(b)
	return equalMessages(a.ProtoReflect(), b.ProtoReflect())
}

// nodeKinds is what tells nodes of one kind from those of another.
var nodeKinds = (&pg.Node{}).ProtoReflect().Descriptor().Oneofs().Get(0)

// readAll notes that all constants of a tree were read.
func (s *search) readAll(n *pg.Node) {
	s.node(n, func(n *pg.Node) bool {
		s.note(n.GetAConst(), inspect.ReadValue)
		return false
	})
}

// readings returns what was read, or nil where that is not known for certain.
func (s *search) readings() []inspect.Constant {
	if s.blind || s.visits > maxVisits {
		return nil
	}
	list := make([]inspect.Constant, 0, len(s.constants))
	for at, what := range s.constants {
		list = append(list, inspect.Constant{Offset: int(at), Reading: what})
	}
	return list
}
