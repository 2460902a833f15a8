package inspect

import "lockkeeper/inspect/lex"

// Gauge tells of a text that is passed on without being inspected whether
// reading it would keep the server busy: see Batch.Costly. It is given the text
// in pieces, keeps none of them, and is not safe for concurrent use.
type Gauge struct {
	i      *Inspector
	meters []*lex.Meter
}

// Gauge returns a gauge for a text too long to be collected, which a session
// reads so.
func (i *Inspector) Gauge(how Lexing) *Gauge {
	i.metrics.tooLong.Inc()
	return i.gauge(how)
}

func (i *Inspector) gauge(how Lexing) *Gauge {
	g := &Gauge{i: i}
	for _, c := range how.ways() {
		g.meters = append(g.meters, lex.NewMeter(c))
	}
	return g
}

// Add measures the next piece. It says why as soon as the text would keep the
// server busy, "" while it would not.
func (g *Gauge) Add(piece []byte) (why string) {
	if why = g.add(piece); why != "" {
		g.i.metrics.costly.Inc()
	}
	return why
}

func (g *Gauge) add(piece []byte) (why string) {
	for _, m := range g.meters {
		m.Add(piece)
		if why = g.i.tooCostly(m.Cost()); why != "" {
			return why
		}
	}
	return ""
}

// ways returns how long characters may be. In those of JOHAB and GB18030 no
// backslash can hide that is not one of the others', too.
func (l Lexing) ways() []lex.Characters {
	if l.Uncertain {
		return []lex.Characters{lex.ASCIISafe, lex.TwoBytes, lex.ShiftJIS}
	}
	return []lex.Characters{l.Characters}
}
