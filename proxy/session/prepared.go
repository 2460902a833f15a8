package session

import "lockkeeper/inspect"

// slot is what a prepared statement or portal stands for, and the reply that
// will confirm it. A batch of nil means that there is none, or none we saw.
type slot struct {
	batch *inspect.Batch
	seq   uint64 // of the Parse or Bind; 0 when it was confirmed or made by SQL
}

// maxPreparedBytes bounds the names kept for one session; statements beyond it
// are classed Unknown when they are executed.
const maxPreparedBytes = 1 << 20

// named is what one name stands for.
type named struct {
	name string
	slot
}

// Prepared holds the names of prepared statements and portals and the batch
// behind each. SQL's PREPARE and the protocol's Parse share one name space.
type Prepared struct {
	statement, portal   slot              // the unnamed ones
	statements, portals map[string]*named // nil until a name is used
	recent              *named            // the statement that was asked for last; nil: none of those there are
	bytes               int               // of names
	overflown           bool              // there are statements or portals whose names were not kept
}

// names is either the statements or the portals.
type names struct {
	p       *Prepared
	portals bool
}

func (p *Prepared) of(portals bool) names { return names{p, portals} }

func (n names) unnamed() *slot {
	if n.portals {
		return &n.p.portal
	}
	return &n.p.statement
}

func (n names) named() *map[string]*named {
	if n.portals {
		return &n.p.portals
	}
	return &n.p.statements
}

// get returns what name stands for.
func (n names) get(name []byte) slot {
	if len(name) == 0 {
		return *n.unnamed()
	}
	if r := n.p.recent; r != nil && !n.portals && r.name == string(name) {
		return r.slot
	}
	v := (*n.named())[string(name)]
	if v == nil {
		return slot{}
	}
	if !n.portals {
		n.p.recent = v
	}
	return v.slot
}

// remove forgets a name.
func (n names) remove(v *named) {
	delete(*n.named(), v.name)
	n.p.bytes -= len(v.name)
	if n.p.recent == v {
		n.p.recent = nil
	}
}

// set makes name stand for v and returns what it stood for.
func (n names) set(name string, v slot) (old slot) {
	if name == "" {
		u := n.unnamed()
		old, *u = *u, v
		return old
	}
	m := n.named()
	if known := (*m)[name]; known != nil {
		old = known.slot
		if v.batch == nil && v.seq == 0 {
			n.remove(known)
		} else {
			known.slot = v
		}
		return old
	}
	switch {
	case v.batch == nil && v.seq == 0:
		return slot{}
	case n.p.bytes+len(name) > maxPreparedBytes:
		n.p.overflown = n.p.overflown || v.batch != nil
		return slot{}
	}
	n.p.bytes += len(name)
	if *m == nil {
		*m = make(map[string]*named)
	}
	(*m)[name] = &named{name, v}
	return slot{}
}

// closed is told that a Close, with reply seq, has been confirmed.
func (n names) closed(name string, seq uint64) {
	if v := n.get([]byte(name)); v.batch == nil && v.seq == seq {
		n.set(name, slot{})
	}
}

// forgetStatements drops every prepared statement that is older than reply seq:
// DEALLOCATE ALL, DISCARD ALL.
func (p *Prepared) forgetStatements(seq uint64) {
	for _, v := range p.statements {
		if v.seq <= seq {
			p.of(false).remove(v)
		}
	}
}

// forgetPortals drops every portal that is older than reply seq, which has
// ended their transaction.
func (p *Prepared) forgetPortals(seq uint64) {
	if p.portal.seq < seq {
		p.portal = slot{}
	}
	if len(p.portals) == 0 {
		return // as in most sessions
	}
	for _, v := range p.portals {
		if v.seq < seq {
			p.of(true).remove(v)
		}
	}
}
