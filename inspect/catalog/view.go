package catalog

import (
	"slices"
	"sync"
	"sync/atomic"

	"lockkeeper/inspect"
)

// MaxResolved bounds the batches that a view remembers; then it begins anew.
const MaxResolved = 4096

// view is a snapshot as statements see it now: with the DDL that was seen
// since, and with whether it may be believed. It is replaced whole, so that
// reading it takes no lock.
type view struct {
	snap    *Snapshot
	pending *pending
	number  uint64 // of the load that it comes from; loads are numbered as they begin
	fresh   bool   // it was read, or found unchanged, a moment ago

	resolved sync.Map // *inspect.Batch → *inspect.Batch
	count    atomic.Int64
}

// resolve returns the batch with what its relations lead to: the same one
// where that is nothing. What is known already costs no allocation.
func (v *view) resolve(b *inspect.Batch) *inspect.Batch {
	if v == nil || v.snap == nil || len(b.Statements) == 0 && b.Words == nil {
		return b
	}
	if b.Fleeting {
		return v.work(b)
	}
	if known, ok := v.resolved.Load(b); ok {
		if r, is := known.(*inspect.Batch); is {
			return r
		}
	}
	r := v.work(b)
	if v.count.Add(1) > MaxResolved {
		v.resolved.Clear()
		v.count.Store(1)
	}
	v.resolved.Store(b, r)
	return r
}

func (v *view) work(b *inspect.Batch) *inspect.Batch {
	out, changed := *b, false
	now := v // with what the text itself makes
	for i := range b.Statements {
		st, leads := (&resolver{from: now.named, snap: v.snap, st: &b.Statements[i], fresh: v.fresh}).statement()
		if leads && !changed {
			out.Statements, changed = slices.Clone(b.Statements), true
		}
		if leads {
			out.Statements[i] = st
			out.Class = inspect.Worse(out.Class, st.Class)
		}
		if more := madeBy(&b.Statements[i], nil); len(more) > 0 && i+1 < len(b.Statements) {
			now = &view{snap: v.snap, pending: now.pending.with(more)}
		}
	}
	if b.Class != inspect.Unknown {
		return pick(b, &out, changed)
	}
	words, opaque := v.snap.words(b.Words)
	if out.Words = words; opaque && b.Words != nil && b.Why == "" {
		out.Why = whyOpaque
	}
	if len(b.Statements) > 1 {
		return v.doubt(&out) // one of them may make what another names
	}
	return pick(b, &out, changed || len(words) != len(b.Words))
}

// whyOpaque is why a text is Unknown whose words are known.
const whyOpaque = "the source of a function that it names cannot be read"

// pick returns the batch itself where nothing is to be said beyond it.
func pick(b, out *inspect.Batch, changed bool) *inspect.Batch {
	if !changed {
		return b
	}
	return out
}

// named returns what a name may mean: in the snapshot, and by DDL since.
func (v *view) named(schema, name string) []*relation {
	known := v.snap.named(schema, name)
	if p := v.pending.named(v.snap, schema, name); len(p) > 0 {
		return append(known[:len(known):len(known)], p...)
	}
	return known
}
