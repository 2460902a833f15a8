package engine

import (
	"sync"
	"testing"
)

// Whoever asks for what is there gets it, also while others ask for too much: a
// text would be Unknown else, and the metric would tell of more than the limit.
func TestBudgetTakesNothingThatItDoesNotGrant(t *testing.T) {
	const limit, rounds = 100, 1_000_000
	b := NewBudget(limit)
	b.force(50)
	var group sync.WaitGroup
	group.Go(func() {
		for range rounds {
			if b.take(60) {
				t.Error("60 were granted where 50 are left at most")
				b.give(60)
			}
		}
	})
	refused := 0
	for range rounds {
		if b.take(50) {
			b.give(50)
		} else {
			refused++
		}
	}
	group.Wait()
	if refused > 0 {
		t.Errorf("50 were refused %d times where 50 are left", refused)
	}
	if b.Used() != 50 || !b.has(50) || b.has(51) {
		t.Errorf("%d are taken, want 50", b.Used())
	}
}
