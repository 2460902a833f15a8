package inspect

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// telling returns a parser that tells of the constants at these words' places
// that they were read; what its batches are of, their Why says.
func telling(calls *atomic.Int64, reading Reading, words ...string) ParseFunc {
	return func(text string) *Batch {
		calls.Add(1)
		b := &Batch{Class: Read, Why: text, Constants: []Constant{}, Statements: []Statement{{Kind: KindSelect}}}
		for _, w := range words {
			if at := strings.Index(text, w); at >= 0 {
				b.Constants = append(b.Constants, Constant{Offset: at, Reading: reading})
			}
		}
		return b
	}
}

func TestFactsAreKeptByShape(t *testing.T) {
	for _, test := range []struct {
		name              string
		reading           Reading
		words             []string
		text, same, other string
	}{
		{"no constant matters", 0, nil, "SELECT 1 = 1, 'a'", "SELECT 2 = NULL, 'bb'", "SELECT 1 = 1, 2"},
		{"content", ReadValue, []string{"'a'"}, "SELECT 1, 'a'", "SELECT 2, 'a'", "SELECT 1, 'b'"},
		{"content behind a sign", ReadValue, []string{"- 5"}, "SELECT - 5, 'a'", "SELECT - 5, 'b'", "SELECT - 6, 'a'"},
		{"kind", ReadKind, []string{"5"}, "SELECT a = 5, 'a'", "SELECT a = 6, 'b'", "SELECT a = NULL, 'a'"},
		{"that it is there", ReadCount, []string{"5"}, "SELECT a = 5", "SELECT a = NULL", "SELECT b = 5"},
		{"length of a list", ReadCount, []string{"1, 2"}, "SELECT a IN (1, 2)", "SELECT a IN (-3, 4)", "SELECT a IN (1)"},
		{"kinds in a list", ReadKind, []string{"1, 2"}, "SELECT a IN (1, 2)", "SELECT a IN (-3, 4)", "SELECT a IN (1)"},
		{"content of a list", ReadValue, []string{"1, 2"}, "SELECT a IN (1, 2), 1", "SELECT a IN (1, 2), 2", "SELECT a IN (1, 3), 1"},
		{"kinds in rows", ReadKind, []string{"7"}, "VALUES (7, 1), (8, 2)", "VALUES (7, 1), (8, 2)", "VALUES (7, 1), (8, 3)"},
		{"a constant of the key", ReadValue, []string{"NULL"}, "SELECT NULL, 1", "SELECT NULL, 2", "SELECT TRUE, 1"},
		{"a place of no constant", ReadValue, []string{"x"}, "SELECT x, 1", "SELECT x, 1", "SELECT x, 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int64
			i := NewInspector(Limits{}, telling(&calls, test.reading, test.words...), nil)
			b := i.Inspect(t.Context(), []byte(test.text), plain)
			if got := i.Lookup([]byte(test.same), plain); got != b {
				t.Errorf("%s: %p, want %p", test.same, got, b)
			}
			if got := i.Lookup([]byte(test.other), plain); got != nil {
				t.Errorf("%s has the facts of %s", test.other, got.Why)
			}
			if calls.Load() != 1 || b.Constants != nil {
				t.Errorf("%d parses, constants %v", calls.Load(), b.Constants)
			}
		})
	}
}

// TestMoreConstantsMatter: what one text's facts depend on becomes a part of
// the key of all texts of its shape.
func TestMoreConstantsMatter(t *testing.T) {
	calls := 0
	i := NewInspector(Limits{}, func(text string) *Batch {
		calls++
		b := &Batch{Class: Read, Why: text, Constants: []Constant{{7, ReadValue}}}
		if text[7] == '7' { // only then is the other one looked at
			b.Constants = append(b.Constants, Constant{10, ReadValue})
		}
		return b
	}, nil)
	for _, test := range []struct {
		text, facts string
		parses      int
	}{
		{"SELECT 1, 1", "SELECT 1, 1", 1},
		{"SELECT 1, 2", "SELECT 1, 1", 1},
		{"SELECT 7, 1", "SELECT 7, 1", 2},
		{"SELECT 7, 2", "SELECT 7, 2", 3},
		{"SELECT 1, 1", "SELECT 1, 1", 4}, // kept under the shorter key before
		{"SELECT 1, 2", "SELECT 1, 2", 5},
		{"SELECT 7, 1", "SELECT 7, 1", 5},
	} {
		b := i.Inspect(t.Context(), []byte(test.text), plain)
		if b.Why != test.facts || calls != test.parses {
			t.Errorf("%s: the facts of %s after %d parses, not %d", test.text, b.Why, calls, test.parses)
		}
	}
}

func TestTooManyConstantsMatter(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, func(text string) *Batch {
		b := telling(&calls, 0)(text)
		for at := range len(text) {
			b.Constants = append(b.Constants, Constant{at, ReadValue})
		}
		return b
	}, nil)
	text := "SELECT 1" + strings.Repeat(", 1", maxDepends)
	b := i.Inspect(t.Context(), []byte(text), plain)
	if i.Lookup([]byte(text), plain) != b || i.Lookup([]byte(text[:len(text)-1]+"2"), plain) != nil {
		t.Error("the text is not kept as a whole")
	}
}

// TestCostlyTextsOfAKnownShape: a literal may hide from the shape what keeps
// a server busy that reads escapes.
func TestCostlyTextsOfAKnownShape(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, telling(&calls, 0), nil)
	i.Inspect(t.Context(), []byte(`SELECT 'a', 'b'`), plain)
	text := []byte(`SELECT '\', '` + strings.Repeat("/*", 1000) + `'`)
	if b := i.Lookup(text, plain); b != nil {
		t.Errorf("known: %+v", b)
	}
	if b := i.Inspect(t.Context(), text, plain); !b.Costly {
		t.Errorf("%+v", b)
	}
}

// TestMissesOfOneShapeWaitForOneParse: and for no longer than for a slot.
func TestMissesOfOneShapeWaitForOneParse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		gate := make(chan struct{})
		reg := prometheus.NewRegistry()
		i := NewInspector(Limits{ParseWait: 3 * time.Second}, func(text string) *Batch {
			<-gate
			return telling(&calls, 0)(text)
		}, reg)
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				if b := i.Inspect(t.Context(), fmt.Appendf(nil, "SELECT %d", n), plain); b.Class != Read {
					t.Errorf("%+v", b)
				}
			})
		}
		synctest.Wait()
		if n := testutil.ToFloat64(i.metrics.shared); n != 19 || len(i.slots) != 1 {
			t.Errorf("%v wait, %d slots are used", n, len(i.slots))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if b := i.Inspect(ctx, []byte("SELECT 99"), plain); b.Why != ReasonCanceled {
			t.Errorf("cancelled: %q", b.Why)
		}
		time.Sleep(time.Second) // of the bubble's clock: the 19 have two seconds left
		start := time.Now()
		wg.Go(func() {
			if b := i.Inspect(t.Context(), []byte("SELECT 100"), plain); b.Class != Read || time.Since(start) != time.Second {
				t.Errorf("%+v after %s", b, time.Since(start))
			}
		})
		time.Sleep(time.Second)
		close(gate)
		wg.Wait()
		if calls.Load() != 1 || len(i.flights.under) != 0 {
			t.Errorf("%d parses, %d left", calls.Load(), len(i.flights.under))
		}
	})
}

func TestWaitingForAnothersParseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parse, release := blockingParser()
		i := NewInspector(Limits{ParseWait: 3 * time.Second}, parse, nil)
		var wg sync.WaitGroup
		wg.Go(func() { i.Inspect(t.Context(), []byte("SELECT 1"), plain) })
		synctest.Wait()
		start := time.Now()
		if b := i.Inspect(t.Context(), []byte("SELECT 2"), plain); b.Why != ReasonBusy || time.Since(start) != 3*time.Second {
			t.Errorf("%q after %s", b.Why, time.Since(start))
		}
		release()
		wg.Wait()
	})
}

// TestWhyTextsAreKeptWhole counts them by reason.
func TestWhyTextsAreKeptWhole(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, telling(&calls, 0), nil)
	for _, test := range []struct{ reason, text string }{
		{"no_query", "BEGIN"},
		{"several", "SELECT 1; SELECT 2"},
		{"uncertain", "SELECT n'x'"},
		{"crowded", "SELECT f(1" + strings.Repeat(",1", 3000) + ")"},
		{"long", "SELECT '" + strings.Repeat("x", MaxCachedText) + "'"},
	} {
		i.Inspect(t.Context(), []byte(test.text), plain)
		if n := testutil.ToFloat64(i.metrics.unshaped(test.reason)); n != 1 {
			t.Errorf("%s: %v", test.reason, n)
		}
		if known := i.Lookup([]byte(test.text), plain) != nil; known != (test.reason != "long") {
			t.Errorf("%s: known %v", test.reason, known)
		}
	}
	var p fakeParser // does not tell of constants
	i = NewInspector(Limits{}, p.parse, nil)
	i.Inspect(t.Context(), []byte("SELECT 1"), plain)
	if n := testutil.ToFloat64(i.metrics.unshaped(unshapedConstants)); n != 1 {
		t.Errorf("constants: %v", n)
	}
	if testutil.ToFloat64(i.metrics.shared) != 0 || i.cache.entries() != 1 {
		t.Error("more than one entry")
	}
}

// TestLookupByShapeDoesNotAllocate guards the hot path, where constants
// matter and where they do not.
func TestLookupByShapeDoesNotAllocate(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, telling(&calls, ReadValue, "'a'"), prometheus.NewRegistry())
	for _, text := range []string{"SELECT 1, 2, 'b' FROM t WHERE a IN (1, 2, 3)", "SELECT 1, 'a'", "BEGIN"} {
		text := []byte(text)
		i.Inspect(t.Context(), text, plain)
		if n := testing.AllocsPerRun(1000, func() {
			if i.Lookup(text, plain) == nil {
				t.Fatal("not known")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
