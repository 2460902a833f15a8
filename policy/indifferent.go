package policy

import (
	"sync/atomic"
	"unsafe"

	"lockkeeper/inspect"
)

// Most statements are none of the rules' business, whoever sends them. Which
// ones is remembered, for the rules need not be asked about them again.

// MaxOpinions bounds the batches that a policy remembers an opinion of; another
// one takes the place of the one that stood there.
const MaxOpinions = 2 << placeBits

// placeBits is how many bits the place of a batch has.
const placeBits = 10

// MaxOpinionBytes bounds the batches that are remembered: what they hold, without
// a text of up to inspect.MaxLateText that waits for its fingerprint.
const MaxOpinionBytes = 4 << 10

// opinions are what a policy has found out about batches, by their addresses. A
// batch that is remembered cannot be freed, so that nothing else has its address.
type opinions struct {
	indifferent [1 << placeBits]atomic.Pointer[inspect.Batch] // none of the rules' business
	concerned   [1 << placeBits]atomic.Pointer[inspect.Batch]
}

// placeOf returns where a batch is remembered. It spreads addresses, which are
// all multiples of a batch's size.
func placeOf(b *inspect.Batch) uint64 {
	return uint64(uintptr(unsafe.Pointer(b))) * 0x9e3779b97f4a7c15 >> (64 - placeBits)
}

// Passes reports whether Decide would allow the batch and ask nothing for it,
// whatever else the request says: no containment is in force, and no rule is
// about what the batch does, whoever sends it. It does not allocate.
func (s *Snapshot) Passes(b *inspect.Batch) bool {
	return len(s.Containments) == 0 && s.Policy != nil && s.Policy.isIndifferent(b)
}

// isIndifferent reports whether no rule and no check of the policy is about the
// batch.
func (p *Policy) isIndifferent(b *inspect.Batch) bool {
	if len(b.Statements) != 1 || b.Class == inspect.Unknown || b.Fleeting {
		return false // there are few of them
	}
	at := placeOf(b)
	switch {
	case p.opinions.indifferent[at].Load() == b:
		return true
	case p.opinions.concerned[at].Load() == b || b.Bytes() > MaxOpinionBytes:
		return false
	case p.hasNoRuleFor(b):
		p.opinions.indifferent[at].Store(b)
		return true
	default:
		p.opinions.concerned[at].Store(b)
		return false
	}
}

// hasNoRuleFor asks the rules about a batch of one statement as Decide does, but
// for the subject.
func (p *Policy) hasNoRuleFor(b *inspect.Batch) bool {
	s := &b.Statements[0]
	if b.Costly || b.Why != "" || s.Class == inspect.Unknown || locksTablesUnseen(s) || beginsTransaction(s) && p.paces() {
		return false
	}
	if len(s.Relations) == 0 {
		return !p.hasRuleFor(s, nil)
	}
	for i := range s.Relations {
		if p.hasRuleFor(s, &s.Relations[i]) {
			return false
		}
	}
	return true
}

func (p *Policy) hasRuleFor(s *inspect.Statement, rel *inspect.Relation) bool {
	var lists ruleLists
	p.byTable.lists(&lists, s.Class, rel)
	for l := range lists {
		for _, i := range lists[l] {
			if p.rules[i].matchesStatement(s, rel) {
				return true
			}
		}
	}
	return false
}

// paces reports whether a rule has a throttle.
func (p *Policy) paces() bool {
	for i := range p.rules {
		if p.rules[i].throttle != nil {
			return true
		}
	}
	return false
}
