package catalog

import (
	"slices"

	"lockkeeper/inspect"
)

// maxPending bounds the DDL that is remembered until a snapshot shows it. Of
// more than that the oldest is forgotten.
const maxPending = 1000

// pending is DDL that passed and that no snapshot shows yet: it is not
// committed, or the catalogs were not read since. It is immutable.
type pending struct{ made []made }

// made is one name that DDL has made or changed, and what the text says of it.
type made struct {
	schema, name string
	leads        []link
	owner        *Session
	until        uint64 // the load that shows it; 0 while its transaction is open
}

// link is a relation that a name leads to.
type link struct {
	schema, name string
	how          linkKind
}

type linkKind uint8

const (
	asView linkKind = iota
	asParent
	asChild
)

// named returns relations that stand for what DDL has made under a name.
func (p *pending) named(s *Snapshot, schema, name string) []*relation {
	if p == nil {
		return nil
	}
	var out []*relation
	for i := range p.made {
		m := &p.made[i]
		if m.name == name && (schema == "" || m.schema == "" || schema == m.schema || schema == tempSchema) {
			out = append(out, m.relation(s))
		}
	}
	return out
}

// relation is what the catalog would hold of it.
func (m *made) relation(s *Snapshot) *relation {
	r := &relation{schema: m.schema, name: m.name, kind: kindTable}
	for _, l := range m.leads {
		to := s.named(l.schema, l.name)
		if len(to) == 0 {
			to = []*relation{{schema: l.schema, name: l.name, kind: kindTable}} // made in the same transaction, perhaps
		}
		switch l.how {
		case asView:
			r.kind, r.bases = kindView, append(r.bases, to...)
		case asParent:
			r.parents = append(r.parents, to...)
		case asChild:
			r.children = append(r.children, to...)
		}
	}
	return r
}

// madeBy returns what a statement of DDL makes or changes, as far as its text
// tells.
func madeBy(st *inspect.Statement, owner *Session) []made {
	if st.Class != inspect.Define || len(st.Relations) == 0 {
		return nil
	}
	defined := st.Relations[:0:0]
	var read []link
	for _, r := range st.Relations {
		switch {
		case r.Via != "": // the text is what is made
		case r.Access&inspect.AccessDefine != 0:
			defined = append(defined, r)
		case st.Kind == "CREATE RULE" && r.Access&inspect.AccessWrite == 0:
		default:
			read = append(read, link{schema: r.Schema, name: r.Name})
		}
	}
	if len(defined) == 0 {
		return nil
	}
	first := made{schema: defined[0].Schema, name: defined[0].Name, owner: owner}
	switch st.Kind {
	case "ALTER TABLE", "ALTER VIEW", "ALTER MATERIALIZED VIEW", "ALTER FOREIGN TABLE", "ALTER INDEX":
		if st.Name != "" { // RENAME TO: the new name leads to the old one
			return []made{{schema: first.schema, name: st.Name, owner: owner, leads: []link{{first.schema, first.name, asView}}}}
		}
	}
	switch st.Kind {
	case "CREATE VIEW", "CREATE RULE":
		first.leads = read
		return []made{first}
	case "CREATE TABLE", "CREATE TABLE AS", "CREATE FOREIGN TABLE", "ALTER TABLE", "CREATE MATERIALIZED VIEW", "SELECT INTO":
	default:
		return nil
	}
	out := []made{first}
	for _, r := range defined[1:] {
		if !ofFamily(r.Lock) || defined[0].Lock != inspect.NoLock && !ofFamily(defined[0].Lock) {
			continue
		}
		parent, child := &out[0], made{schema: r.Schema, name: r.Name, owner: owner}
		// Which of the two is the parent the text's facts do not say: both ways.
		parent.leads = append(parent.leads, link{r.Schema, r.Name, asParent}, link{r.Schema, r.Name, asChild})
		child.leads = []link{{first.schema, first.name, asParent}, {first.schema, first.name, asChild}}
		out = append(out, child)
	}
	return out
}

// ofFamily reports whether a lock is one that inheritance and partitions take
// on both tables: one of a foreign key's is SHARE ROW EXCLUSIVE.
func ofFamily(lock inspect.LockMode) bool {
	return lock == inspect.ShareUpdateExclusive || lock == inspect.AccessExclusive
}

// with returns p and what was made since.
func (p *pending) with(more []made) *pending {
	all := append(slices.Clone(p.list()), more...)
	if len(all) > maxPending {
		all = all[len(all)-maxPending:]
	}
	return &pending{all}
}

// ended returns p with what the owner has made being shown by a load.
func (p *pending) ended(owner *Session, until uint64) *pending {
	all := slices.Clone(p.list())
	for i := range all {
		if all[i].owner == owner && all[i].until == 0 {
			all[i].until, all[i].owner = until, nil
		}
	}
	return &pending{all}
}

// after returns p without what a load shows; nil where nothing is left.
func (p *pending) after(load uint64) *pending {
	all := slices.DeleteFunc(slices.Clone(p.list()), func(m made) bool { return m.until != 0 && m.until <= load })
	if len(all) == 0 {
		return nil
	}
	return &pending{all}
}

func (p *pending) list() []made {
	if p == nil {
		return nil
	}
	return p.made
}
