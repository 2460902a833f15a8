package inspect

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// locks returns how many look-ups front did not answer.
func locks(i *Inspector) uint64 { return i.cache.locked.Load() }

// TestFrontKnowsWhatWasAskedFor: from the second time on no lock is taken, for
// whatever the facts are kept by.
func TestFrontKnowsWhatWasAskedFor(t *testing.T) {
	for _, test := range []struct {
		name       string
		reading    Reading
		words      []string
		texts      []string
		other      string
		byTemplate bool
	}{
		{"statement without shape", 0, nil, []string{"BEGIN", "BEGIN"}, "BEGIM", false},
		{"shape without constants", 0, nil, []string{"SELECT a FROM t WHERE id = $1", "SELECT a FROM t WHERE id = $1"}, "SELECT a FROM t WHERE id = $2", false},
		{"new constants", 0, nil, []string{"SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = 'x'", "SELECT a FROM t WHERE id = NULL"}, "SELECT a FROM t WHERE ie = 1", true},
		{"a constant that matters", ReadValue, []string{"'x'"}, []string{"SELECT a FROM t WHERE id = 'x'"}, "SELECT a FROM t WHERE id = 'y'", true},
		{"the length of a list", ReadCount, []string{"1, 2"}, []string{"DELETE FROM t WHERE id IN (1, 2)", "DELETE FROM t WHERE id IN (33,-4)"}, "DELETE FROM t WHERE id IN (1, 2, 3)", true},
		{"no template", 0, nil, []string{"SELECT a FROM t WHERE id = 1.5", "SELECT a FROM t WHERE id = 2.5"}, "SELECT a FROM t WHERE ie = 2.5", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int64
			i := NewInspector(Limits{}, telling(&calls, test.reading, test.words...), nil)
			b := i.Inspect(t.Context(), []byte(test.texts[0]), plain)
			i.Lookup([]byte(test.texts[0]), plain)
			before := locks(i)
			for _, text := range test.texts {
				if got := i.Lookup([]byte(text), plain); got != b {
					t.Errorf("%s: %p, want %p", text, got, b)
				}
				if e := i.cache.front.fitting([]byte(text)); e != nil != test.byTemplate {
					t.Errorf("%s fits a template: %v, want %v", text, e != nil, test.byTemplate)
				}
			}
			if locks(i) != before {
				t.Errorf("%d look-ups were behind a lock", locks(i)-before)
			}
			if got := i.Lookup([]byte(test.other), plain); got != nil {
				t.Errorf("%s has the facts of %s", test.other, got.Why)
			}
		})
	}
}

// TestFrontComparesEveryByte: its places look at a few of them only.
func TestFrontComparesEveryByte(t *testing.T) {
	for _, text := range []string{"COMMIT", "SELECT " + strings.Repeat("abc, ", 200) + "d FROM t WHERE e = $1", "SELECT " + strings.Repeat("abc, ", 200) + "d FROM t WHERE e > 10"} {
		var p fakeParser
		i := NewInspector(Limits{}, func(text string) *Batch {
			b := p.parse(text)
			b.Constants = []Constant{}
			return b
		}, nil)
		known := []byte(text)
		i.Inspect(t.Context(), known, plain)
		i.Lookup(known, plain)
		for at := range known {
			if text[at] == '0' || text[at] == '1' {
				continue
			}
			known[at] ^= 3
			if i.Lookup(known, plain) != nil {
				t.Errorf("%q is taken for %q", known, text)
			}
			known[at] = text[at]
		}
		if i.Lookup(known[:len(known)-1], plain) != nil && text[len(text)-1] != '0' || i.Lookup(append(known, 'x'), plain) != nil {
			t.Errorf("a text of another length is taken for %q", text)
		}
	}
}

// TestMarksInTextsAreNoConstants: a text that reads like a shape's key has other
// facts than the shape.
func TestMarksInTextsAreNoConstants(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, telling(&calls, 0), nil)
	for range 3 {
		i.Inspect(t.Context(), []byte("SELECT a FROM t WHERE id > 1"), plain)
	}
	if b := i.Lookup([]byte("SELECT a FROM t WHERE id > \x02"), plain); b != nil {
		t.Errorf("it has the facts of %s", b.Why)
	}
}

// TestFrontHeedsTheLexing: a text that is known is not known to a session that
// reads it otherwise.
func TestFrontHeedsTheLexing(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{}, p.parse, nil)
	for _, text := range []string{`SELECT '\'`, "SELECT 'é'"} {
		for range 3 {
			i.Inspect(t.Context(), []byte(text), plain)
		}
		if i.Lookup([]byte(text), plain) == nil || i.Lookup([]byte(text), LexingFor("", "")) != nil {
			t.Errorf("%s: known to the wrong sessions", text)
		}
	}
}

// checkFront holds that front has nothing that the cache does not hold.
func checkFront(t *testing.T, i *Inspector) (entries int) {
	t.Helper()
	held := map[*entry]bool{}
	for s := range i.cache.shards {
		for _, e := range i.cache.shards[s].lru.Values() {
			held[e] = true
		}
	}
	check := func(e *entry) {
		if e != nil && !held[e] {
			t.Errorf("front holds %q, and the cache does not", e.key)
		}
		if e != nil {
			entries++
		}
	}
	f := &i.cache.front
	for at := range f.places {
		check(f.places[at].Load())
	}
	for group := range f.templates {
		for at := range f.templates[group] {
			check(f.templates[group][at].Load())
		}
	}
	return entries
}

// TestFrontDropsWhatTheCacheDrops, while sessions look up what is dropped and
// comes again, and get their own facts.
func TestFrontDropsWhatTheCacheDrops(t *testing.T) {
	i := NewInspector(Limits{CacheBytes: 300 << 10}, func(text string) *Batch {
		return &Batch{Class: Read, Why: strings.Fields(text)[1], Constants: []Constant{}}
	}, prometheus.NewRegistry())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 3000 {
				id := n * (g + 1) % 1500
				text := fmt.Appendf(nil, "SELECT a%d FROM t_%d WHERE id = %d", id, id, n)
				if n%2 == 0 {
					text = fmt.Appendf(nil, "SHOW a%d", id)
				}
				b := i.Lookup(text, plain)
				if b == nil {
					b = i.Inspect(t.Context(), text, plain)
				}
				if want := strings.Fields(string(text))[1]; b.Why != want {
					t.Errorf("%s has the facts of %s", text, b.Why)
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		i.Inspect(t.Context(), []byte("SHOW a"), plain)
	}
	if entries := checkFront(t, i); entries == 0 {
		t.Error("front is empty")
	}
	for n := range 3000 {
		i.Inspect(t.Context(), fmt.Appendf(nil, "SHOW %d", n), plain)
	}
	if entries := checkFront(t, i); entries != 0 {
		t.Errorf("front holds %d entries that nobody has asked for lately", entries)
	}
}

// TestWhatFrontServesStays: a text that is asked for is not dropped for those
// that come once, although front does not tell the cache.
func TestWhatFrontServesStays(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{CacheBytes: 300 << 10}, telling(&calls, 0), nil)
	served := []string{"COMMIT", "SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = 5 LIMIT 1"}
	for _, text := range served {
		i.Inspect(t.Context(), []byte(text), plain)
	}
	for n := range 5000 {
		for _, text := range served {
			if i.Lookup([]byte(text), plain) == nil {
				t.Fatalf("%s is not known after %d other texts", text, n)
			}
		}
		i.Inspect(t.Context(), fmt.Appendf(nil, "SHOW %d", n), plain)
	}
	if n := calls.Load(); n != 5000+int64(len(served)) {
		t.Errorf("%d parses", n)
	}
}

// TestEntriesInUseAreDroppedAtLast: the search for one that is not in use is
// bounded.
func TestEntriesInUseAreDroppedAtLast(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{CacheBytes: 100 << 10}, p.parse, nil)
	for n := range 1000 {
		text := fmt.Appendf(nil, "SHOW %d", n)
		i.Inspect(t.Context(), text, plain)
		i.Lookup(text, plain)
	}
	if held := i.cache.sizeBytes(); held > 100<<10 || held < 50<<10 {
		t.Errorf("%d bytes", held)
	}
	checkFront(t, i)
}

// TestTemplatesShareAGroup: more shapes with one beginning than a group has
// places for are known all the same, and come back.
func TestTemplatesShareAGroup(t *testing.T) {
	var calls atomic.Int64
	i := NewInspector(Limits{}, telling(&calls, 0), nil)
	text := func(n int) []byte { return fmt.Appendf(nil, "SELECT the_same FROM t WHERE a = $1 AND t%d = 1", n) }
	const shapes = 2 * templatesPerGroup
	for range 3 {
		for n := range shapes {
			if b := i.Inspect(t.Context(), text(n), plain); b.Why != string(text(n)) {
				t.Errorf("%s has the facts of %s", text(n), b.Why)
			}
			i.Lookup(text(n), plain)
			if e := i.cache.front.fitting(text(n)); e == nil || e.batch.Why != string(text(n)) {
				t.Errorf("%s: its template is not found", text(n))
			}
		}
	}
	if checkFront(t, i) != shapes+templatesPerGroup || calls.Load() != shapes {
		t.Errorf("%d parses", calls.Load())
	}
}

// TestKeysAreUsedAgain: by one at a time, and no more than are kept.
func TestKeysAreUsedAgain(t *testing.T) {
	var ks keys
	text := []byte("SELECT 1")
	taken := map[*key]bool{}
	for range keysPerList + 1 {
		taken[ks.get(text)] = true
	}
	for k := range taken {
		ks.put(k, text)
	}
	for range keysPerList {
		if k := ks.get(text); !taken[k] {
			t.Fatal("a new key, and others are free")
		}
	}
	if len(taken) != keysPerList+1 || taken[ks.get(text)] {
		t.Error("one key was given to two")
	}
}

func TestLocksAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	var p fakeParser
	i := NewInspector(Limits{}, p.parse, reg)
	i.Lookup([]byte("BEGIN"), plain)
	if n, err := testutil.GatherAndCount(reg, "lockkeeper_inspect_cache_locks_total"); n != 1 || err != nil || locks(i) != 1 {
		t.Errorf("%d metrics, %v; %d look-ups", n, err, locks(i))
	}
}
