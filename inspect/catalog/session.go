package catalog

import "lockkeeper/inspect"

// Session is one client's use of a database's catalog. Its methods are the
// ones that the path of a statement takes: they do not block. A nil Session
// is one without a catalog. It is not safe for concurrent use.
type Session struct {
	d *Database

	changed bool   // DDL passed in the open transaction
	unseen  bool   // and something that may have run DDL nobody has seen
	needs   uint64 // the load that shows what this session has done; 0 where it has done nothing
}

// Resolve returns the batch with what its relations lead to. It does not
// allocate for batches that it has seen.
func (s *Session) Resolve(b *inspect.Batch) *inspect.Batch {
	if s == nil {
		return b
	}
	v := s.d.view.Load()
	r := v.resolve(b)
	if s.unseen && s.needs != 0 && v != nil && v.number >= s.needs {
		s.unseen, s.needs = false, 0
	}
	if s.unseen && v != nil && v.snap != nil {
		return v.doubt(r)
	}
	return r
}

// Ran is told that a batch is sent to the server.
func (s *Session) Ran(b *inspect.Batch) {
	if s == nil || b.Class != inspect.Define && b.Class != inspect.Unknown {
		return
	}
	s.changed = true
	var more []made
	for i := range b.Statements {
		st := &b.Statements[i]
		s.unseen = s.unseen || st.Class == inspect.Unknown && st.Why != whyUnresolved
		more = append(more, madeBy(st, s)...)
	}
	if s.unseen = s.unseen || b.Why != "" && b.Why != whyUnresolved; s.unseen {
		s.needs = 0
	}
	if len(more) > 0 {
		s.d.made(more)
	}
}

// Ended is told that a transaction has ended: what it did to the catalogs can
// be read now.
func (s *Session) Ended() {
	if s == nil || !s.changed {
		return
	}
	s.changed = false
	s.needs = s.d.ended(s)
}

// Close ends the use.
func (s *Session) Close() {
	if s == nil {
		return
	}
	s.Ended()
	s.d.release()
}

// whyUnresolved is why a statement is Unknown whose table nobody knows.
const whyUnresolved = "its table is not in the catalog, and what ran before in this session may have made it a view"

// doubt makes statements Unknown that change every row of something which is
// not in the catalog, where something ran that may have made it.
func (v *view) doubt(b *inspect.Batch) *inspect.Batch {
	for i := range b.Statements {
		if v.mayBeAnything(&b.Statements[i]) {
			out := *b
			out.Class, out.Words = inspect.Unknown, nil
			out.Statements = append(out.Statements[:0:0], b.Statements...)
			out.Statements[i].Class, out.Statements[i].Why = inspect.Unknown, whyUnresolved
			if out.Why == "" {
				out.Why = whyUnresolved
			}
			return &out
		}
	}
	return b
}

func (v *view) mayBeAnything(st *inspect.Statement) bool {
	for i := range st.Relations {
		r := &st.Relations[i]
		if r.Access&inspect.AccessWrite != 0 && isWide(r.Bound) && r.Schema != "pg_catalog" && len(v.named(r.Schema, r.Name)) == 0 && r.Via == "" {
			return true
		}
	}
	return false
}
