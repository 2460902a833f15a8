package session

import (
	"hash/maphash"
	"slices"
	"sync/atomic"

	"lockkeeper/policy"
)

// SharedSubjects is how many subjects are kept for sessions to share.
const SharedSubjects = 256

// subjects are those that sessions were made lately, by what they are: a pool's
// connections are the same to a policy, and share one.
var (
	subjects    [SharedSubjects]atomic.Pointer[policy.Subject]
	subjectSeed = maphash.MakeSeed()
)

// share returns a subject that is equal to sub and never changes.
func share(sub *policy.Subject) *policy.Subject {
	names := [...]string{sub.User, sub.Database, sub.Application, sub.Address}
	place := &subjects[maphash.Comparable(subjectSeed, names)%SharedSubjects]
	if known := place.Load(); known != nil && slices.Equal(known.Tags, sub.Tags) && names == [...]string{known.User, known.Database, known.Application, known.Address} {
		return known
	}
	place.Store(sub)
	return sub
}
