package inspect

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"lockkeeper/inspect/lex"
)

// plain is how most sessions read: standard strings, UTF-8.
var plain = LexingFor("on", "UTF8")

// fakeParser counts its calls and returns one statement that spans the text.
type fakeParser struct {
	calls atomic.Int64
	texts []string
	mu    sync.Mutex
}

func (p *fakeParser) parse(text string) *Batch {
	p.calls.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.texts = append(p.texts, text)
	return &Batch{Class: Read, Statements: []Statement{{Class: Read, Kind: KindSelect, Len: len(text), Start: 1}}}
}

func TestLimits(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	if got := (Limits{}).withDefaults(); got != DefaultLimits() {
		t.Errorf("zero limits become %+v", got)
	}
	err := Limits{CacheBytes: -1, ParseSlots: -1, ParseBytes: -1, ParseWait: -1}.Validate()
	if err == nil {
		t.Fatal("negative limits are accepted")
	}
	for _, name := range []string{"cache_bytes", "parse_slots", "parse_bytes", "parse_wait"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}

func TestLookupKnowsWhatWasInspected(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{}, p.parse, nil)
	text := []byte("SELECT 1")
	if i.Lookup(text, plain) != nil {
		t.Fatal("a text is known before it was inspected")
	}
	b := i.Inspect(t.Context(), text, plain)
	if got := i.Lookup(text, plain); got != b {
		t.Errorf("Lookup returns %p, Inspect returned %p", got, b)
	}
	if again := i.Inspect(t.Context(), text, plain); again != b || p.calls.Load() != 1 {
		t.Errorf("a known text was parsed again (%d parses)", p.calls.Load())
	}
	text[7] = '2' // the inspector must not have kept the caller's bytes
	if i.Lookup(text, plain) != nil {
		t.Error("another text is taken for the known one")
	}
	if i.Lookup([]byte("SELECT 1"), plain) != b {
		t.Error("the known text was changed by its caller")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{}, p.parse, prometheus.NewRegistry())
	text := []byte(strings.Repeat("SELECT 1 FROM res_partner ", 20))
	i.Inspect(t.Context(), text, plain)
	unknown := []byte("SELECT 2")
	if n := testing.AllocsPerRun(100, func() { i.Lookup(text, plain); i.Lookup(unknown, plain) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCacheHoldsNoMoreThanItsLimit(t *testing.T) {
	var p fakeParser
	const limit = 4 << 20
	i := NewInspector(Limits{CacheBytes: limit}, p.parse, nil)
	for n := range 3000 {
		i.Inspect(t.Context(), fmt.Appendf(nil, "SELECT %d %s", n, strings.Repeat("x", 4000)), plain)
	}
	held := i.cache.sizeBytes()
	if held > limit || held < limit/2 {
		t.Errorf("the cache holds %d bytes, limit %d", held, limit)
	}
	var sum int64
	for s := range i.cache.shards {
		for _, e := range i.cache.shards[s].lru.Values() {
			sum += e.bytes
		}
	}
	if sum != held {
		t.Errorf("entries have %d bytes, counted %d", sum, held)
	}
	if i.Lookup(fmt.Appendf(nil, "SELECT %d %s", 2999, strings.Repeat("x", 4000)), plain) == nil {
		t.Error("the newest text was thrown out")
	}
}

func TestLongTextsAreNotCached(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{}, p.parse, nil)
	text := []byte("SELECT '" + strings.Repeat("x,", MaxCachedText) + "'")
	i.Inspect(t.Context(), text, plain)
	if i.Lookup(text, plain) != nil || i.cache.sizeBytes() != 0 {
		t.Error("a long text was cached")
	}
}

func TestAmbiguousTextsAreUnknown(t *testing.T) {
	unsafeBytes := LexingFor("on", "SJIS")
	tests := []struct {
		name string
		how  Lexing
		text string
		want bool // is it parsed?
	}{
		{"backslash, standard strings", plain, `SELECT '\'`, true},
		{"backslash, strings of an unknown kind", LexingFor("", "UTF8"), `SELECT '\'`, false},
		{"no backslash, escape strings", LexingFor("off", "UTF8"), `SELECT 'x'`, true},
		{"high byte, UTF-8", plain, "SELECT 'é'", true},
		{"high byte, an unknown encoding", LexingFor("on", "KLINGON"), "SELECT '\x83\x5c'", false},
		{"ASCII, SJIS", unsafeBytes, `SELECT '\'`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var p fakeParser
			i := NewInspector(Limits{}, p.parse, nil)
			i.Inspect(t.Context(), []byte(test.text), plain) // known from another session
			b := i.Inspect(t.Context(), []byte(test.text), test.how)
			if parsed := b.Why == ""; parsed != test.want {
				t.Errorf("parsed: %v, want %v (%s)", parsed, test.want, b.Why)
			}
			if b.Class == Unknown && (b.Words != nil || !b.Mentions("anything")) {
				t.Errorf("words of a text that cannot be read: %v", b.Words)
			}
			if known := i.Lookup([]byte(test.text), test.how) != nil; known != test.want {
				t.Errorf("Lookup knows it: %v, want %v", known, test.want)
			}
		})
	}
}

// TestTextsAreReadAsTheServerReadsThem gives the parser the text that means
// the same to it.
func TestTextsAreReadAsTheServerReadsThem(t *testing.T) {
	for _, test := range []struct {
		how          Lexing
		text, parsed string
		moved        bool // are positions unknown?
	}{
		{LexingFor("off", "UTF8"), `SELECT '\', 'x'`, `SELECT  E'\', 'x'`, true},
		{LexingFor("off", "UTF8"), `SELECT 'a\'' --'`, `SELECT  E'a\'' --'`, true},
		{LexingFor("off", "UTF8"), `SELECT N'a\'b', E'\'', $$\$$`, `SELECT NCHAR E'a\'b', E'\'', $$\$$`, true},
		{LexingFor("off", "UTF8"), `SELECT "\", $$'\'$$`, `SELECT "\", $$'\'$$`, false},
		{LexingFor("on", "SJIS"), "SELECT '\x83\x5c', \xb1'\\'", "SELECT '\x83\xdc', \xb1'\\'", false},
		{LexingFor("off", "SJIS"), "SELECT '\x83\x5c'", "SELECT '\x83\xdc'", false},
		{LexingFor("on", "GBK"), "SELECT '\xbf\x5c'", "SELECT '\xbf\xdc'", false},
		{LexingFor("on", "GB18030"), "SELECT '\x81\x30\x81\x30'", "SELECT '\x81\xb0\x81\xb0'", false},
		{LexingFor("on", "JOHAB"), "SELECT '\x8f\x7c\x7d\x88\x41'", "SELECT '\x8f\xfc\xfd\x88\xc1'", false},
		{LexingFor("on", "BIG5"), "SELECT '\xa4", "SELECT '\xa4", false},
	} {
		var p fakeParser
		i := NewInspector(Limits{}, p.parse, nil)
		b := i.Inspect(t.Context(), []byte(test.text), test.how)
		if len(p.texts) != 1 || p.texts[0] != test.parsed || b.NoPositions != test.moved {
			t.Errorf("%q was parsed as %q, want %q; positions %v", test.text, p.texts, test.parsed, !b.NoPositions)
		}
	}
}

func TestLexingFor(t *testing.T) {
	tests := []struct {
		strings, encoding string
		want              Lexing
	}{
		{"on", "UTF8", Lexing{}},
		{"on", "utf-8", Lexing{}},
		{"on", "LATIN1", Lexing{}},
		{"on", "SQL_ASCII", Lexing{}},
		{"on", "WIN1252", Lexing{}},
		{"on", "EUC_JIS_2004", Lexing{}},
		{"off", "UTF8", Lexing{EscapeStrings: true}},
		{"", "UTF8", Lexing{Uncertain: true}},
		{"on", "", Lexing{Uncertain: true}},
		{"on", "KLINGON", Lexing{Uncertain: true}},
		{"on", "SJIS", Lexing{Characters: lex.ShiftJIS}},
		{"on", "Windows-949", Lexing{Characters: lex.TwoBytes}},
		{"on", "GBK", Lexing{Characters: lex.TwoBytes}},
		{"on", "BIG5", Lexing{Characters: lex.TwoBytes}},
		{"off", "UHC", Lexing{EscapeStrings: true, Characters: lex.TwoBytes}},
		{"on", "GB18030", Lexing{Characters: lex.GB18030}},
		{"on", "JOHAB", Lexing{Characters: lex.Johab}},
		{"on", "SHIFT_JIS_2004", Lexing{Characters: lex.ShiftJIS}},
	}
	for _, test := range tests {
		if got := LexingFor(test.strings, test.encoding); got != test.want {
			t.Errorf("LexingFor(%q, %q) = %+v, want %+v", test.strings, test.encoding, got, test.want)
		}
	}
	if !slices.IsSorted(safeEncodings) || !slices.IsSorted(lexingSettings) {
		t.Error("a list that is searched is not sorted")
	}
}

func TestLongRunsAreCutOutOfLongTexts(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{ParseBytes: 4096}, p.parse, nil)
	text := []byte(`INSERT INTO ir_attachment VALUES ('\x` + strings.Repeat("0123456789abcdef", 10_000) + `'::bytea)`)
	b := i.Inspect(t.Context(), text, plain)
	if b.Class != Read || !b.NoPositions || b.Statements[0].Start != 0 || b.Statements[0].Len != 0 {
		t.Errorf("%+v, want a batch without positions", b)
	}
	short := p.texts[0]
	if len(short) > 300 || !strings.HasPrefix(short, `INSERT INTO ir_attachment VALUES ('\x0123`) || !strings.HasSuffix(short, `cdef'::bytea)`) {
		t.Errorf("parsed text: %q", short)
	}
}

func TestTextsTooLongAreUnknown(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{ParseBytes: 100}, p.parse, nil)
	b := i.Inspect(t.Context(), []byte("DELETE FROM account_move WHERE id IN (1"+strings.Repeat(", 1", 100)+")"), plain)
	if b.Class != Unknown || b.Why != ReasonTooLong || p.calls.Load() != 0 {
		t.Errorf("%+v after %d parses", b, p.calls.Load())
	}
	if !b.Mentions("account_move") || b.Mentions("sale_order") {
		t.Errorf("words: %v", b.Words)
	}
}

// blockingParser parses nothing until it is released.
func blockingParser() (parse ParseFunc, release func()) {
	gate := make(chan struct{})
	return func(string) *Batch { <-gate; return &Batch{Class: Read} }, func() { close(gate) }
}

func TestTextsBeyondTheSlotsWaitABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parse, release := blockingParser()
		reg := prometheus.NewRegistry()
		i := NewInspector(Limits{ParseSlots: 2, ParseWait: 3 * time.Second}, parse, reg)
		var wg sync.WaitGroup
		for n := range 2 {
			wg.Go(func() { i.Inspect(t.Context(), fmt.Appendf(nil, "SELECT a%d", n), plain) })
		}
		synctest.Wait()
		start := time.Now()
		b := i.Inspect(t.Context(), []byte("DELETE FROM sale_order"), plain)
		if waited := time.Since(start); b.Why != ReasonBusy || waited != 3*time.Second {
			t.Errorf("%q after %s", b.Why, waited)
		}
		if !b.Mentions("sale_order") || b.Mentions("account_move") {
			t.Errorf("words: %v", b.Words)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if b := i.Inspect(ctx, []byte("SELECT 4"), plain); b.Why != ReasonCanceled {
			t.Errorf("%q, want %q", b.Why, ReasonCanceled)
		}
		release()
		wg.Wait()
		if b := i.Inspect(t.Context(), []byte("DELETE FROM sale_order"), plain); b.Why != "" {
			t.Errorf("still %q when the slots are free", b.Why)
		}
	})
}

func TestMetricsOfInspection(t *testing.T) {
	reg := prometheus.NewRegistry()
	var p fakeParser
	i := NewInspector(Limits{ParseBytes: 200}, p.parse, reg)
	known := []byte("SELECT 1")
	i.Lookup(known, plain)
	i.Inspect(t.Context(), known, plain)
	i.Lookup(known, plain)
	i.Inspect(t.Context(), []byte(`SELECT '\'`), LexingFor("", "UTF8"))
	i.Inspect(t.Context(), []byte(strings.Repeat("SELECT 1;", 100)), plain)
	want := map[string]float64{
		"lockkeeper_inspect_cache_hits_total":   1,
		"lockkeeper_inspect_cache_misses_total": 1,
		"lockkeeper_inspect_slow_parses_total":  0,
		"lockkeeper_inspect_unknown_total":      2,
		"lockkeeper_inspect_parse_slots":        float64(DefaultLimits().ParseSlots),
		"lockkeeper_inspect_parse_slots_used":   0,
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s = %v, want %v", name, v, value)
		}
	}
	if got["lockkeeper_inspect_cache_bytes"] == 0 {
		t.Error("the cache's size is not shown")
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestConcurrentInspection(t *testing.T) {
	var p fakeParser
	i := NewInspector(Limits{CacheBytes: 1 << 20}, p.parse, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 500 {
				text := fmt.Appendf(nil, "SELECT %d", (n*7+g)%300)
				if i.Lookup(text, plain) == nil && i.Inspect(t.Context(), text, plain).Statements[0].Len != len(text) {
					t.Errorf("another text's batch for %s", text)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkLookup is what a known text costs: the same one each time, and one of
// a known shape that was not seen before.
func BenchmarkLookup(b *testing.B) {
	columns := strings.Repeat(`"account_move_line"."journal_id" AS "journal_id", `, 22)
	for _, test := range []struct{ name, text string }{
		{"begin", "BEGIN"},
		{"short", "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"},
		{"short/literals", "SELECT abalance FROM pgbench_accounts WHERE aid = 00000000;"},
		{"rows/literals", `INSERT INTO "res_partner" ("id", "create_uid", "name") VALUES (00000000, 2, 'x') RETURNING "id"`},
		{"1kB", "SELECT " + columns + "id FROM t WHERE aid = $1"},
		{"1kB/literals", "SELECT " + columns + "id FROM t WHERE aid = 00000000"},
	} {
		b.Run(test.name, func(b *testing.B) {
			var calls atomic.Int64
			parse := func(text string) *Batch { b := telling(&calls, 0)(text); b.Why = ""; return b }
			i := NewInspector(Limits{}, parse, prometheus.NewRegistry())
			text := []byte(test.text)
			literal := bytes.Index(text, []byte("00000000"))
			i.Inspect(b.Context(), text, plain)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if literal >= 0 {
					for at, rest := literal+7, n; at >= literal; at, rest = at-1, rest/10 {
						text[at] = byte('0' + rest%10)
					}
				}
				if i.Lookup(text, plain) == nil {
					b.Fatal("not known")
				}
			}
		})
	}
}

func TestSlowTreesAreCounted(t *testing.T) {
	i := NewInspector(Limits{}, func(string) *Batch { return &Batch{SlowTree: true} }, nil)
	b := i.Inspect(t.Context(), []byte("CREATE TABLE a ()"), plain)
	if n := testutil.ToFloat64(i.metrics.slowTrees); n != 1 || b.SlowTree {
		t.Errorf("%v counted, and kept: %t", n, b.SlowTree)
	}
}
