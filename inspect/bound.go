package inspect

import "fmt"

// Bound says how the rows that UPDATE, DELETE, MERGE or TRUNCATE may change in
// one relation are limited by the text alone.
type Bound uint8

// The bounds, from the least limited to the most. NotApplicable (zero) is for
// statements that change no existing rows.
const (
	NotApplicable  Bound = iota
	BoundNone            // no WHERE at all; TRUNCATE
	BoundVacuous         // a WHERE that is true for every row whatever the data
	BoundPredicate       // any other condition
	BoundCursor          // WHERE CURRENT OF
	BoundKeyed           // a list of n constants or parameters on a key column, or a join to VALUES(n) on it
)

var boundNames = [...]string{"", "none", "vacuous", "predicate", "cursor", "keyed"}

// String returns the name used in policies and docs.
func (b Bound) String() string {
	if int(b) < len(boundNames) {
		return boundNames[b]
	}
	return boundNames[BoundNone]
}

// ParseBound is the inverse of String for the bounds a policy may name.
func ParseBound(s string) (Bound, error) {
	for i, n := range boundNames {
		if i > 0 && n == s {
			return Bound(i), nil
		}
	}
	return BoundNone, fmt.Errorf("unknown bound %q: want one of none, vacuous, predicate, cursor, keyed", s)
}

// Wider returns the bound that lets more rows be changed; NotApplicable loses
// against everything.
func Wider(a, b Bound) Bound {
	switch {
	case a == NotApplicable:
		return b
	case b == NotApplicable, a < b:
		return a
	default:
		return b
	}
}
