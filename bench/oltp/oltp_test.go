package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestATransactionOfPgbenchsLogIsRead(t *testing.T) {
	for _, line := range []string{"3 199 2241 0 1175850568 995598", "3 199 2241 0 1175850568 995598 17"} { // with a rate there is a lag
		x, err := readTransaction(line)
		if err != nil || x.client != 3 || x.took != 2241*time.Microsecond || !x.ended.Equal(time.Unix(1175850568, 995598000)) {
			t.Errorf("%s: %+v, %v", line, x, err)
		}
	}
	for _, line := range []string{"progress: 1.0 s", "", "0 1 failed 0 1175850568 995598"} {
		if _, err := readTransaction(line); err == nil {
			t.Errorf("%q is read", line)
		}
	}
}

func TestPercentilesAreFinerThanMicroseconds(t *testing.T) {
	const us = time.Microsecond
	if got := percentile([]time.Duration{40 * us, 41 * us, 41 * us, 41 * us, 41 * us, 60 * us}, .5); got != 41*us+us/2 {
		t.Errorf("%v", got)
	}
	if got := percentile([]time.Duration{7 * us}, .99); got < 7*us || got > 8*us {
		t.Errorf("%v", got)
	}
}

// at is a moment of a load.
func at(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestOnlyTurnsInWhichAllClientsWorkCount(t *testing.T) {
	var all []transaction
	for ms := 1; ms <= 1000; ms++ {
		if ms%200 > 100 { // another one's turn
			continue
		}
		took := time.Millisecond
		if ms%200 == 1 { // it has waited for its turn
			took = 101 * time.Millisecond
		}
		all = append(all, transaction{0, at(ms), took})
		if ms > 250 {
			all = append(all, transaction{1, at(ms), took})
		}
	}
	var turns []turn
	for ms := 0; ms < 1000; ms += 200 {
		cpu := time.Duration(ms) * 10 * time.Microsecond // 10 µs for each transaction of two clients
		turns = append(turns, turn{reading{at(ms), cpu}, reading{at(ms + 100), cpu + 2*time.Millisecond}})
	}
	turns[1].over.cpu += time.Second // a login
	x, err := sum(all, 2, turns)
	if err != nil || x.cpu.Round(time.Microsecond) != 10*time.Microsecond || x.rate != 2000 || x.p50/time.Millisecond != 1 || x.p99/time.Millisecond != 1 {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := sum(all, 3, turns); !errors.Is(err, errTooShort) {
		t.Errorf("with a client that did nothing: %v", err)
	}
	if _, err := sum(all, 2, turns[:3]); !errors.Is(err, errTooShort) {
		t.Errorf("with too few turns: %v", err)
	}
}

// two has PgBouncer at 10 µs and lockkeeper at twice that in one round, at half
// of it in another.
func two() *table {
	const us = time.Microsecond
	return &table{
		scenario: &scenarios[0], targets: []string{direct, pgbouncer, poll},
		samples: map[string][]sample{
			direct:    {{rate: 100, p50: 50 * us}, {rate: 200, p50: 40 * us}},
			pgbouncer: {{cpu: 10 * us, rate: 50, p50: 70 * us}, {cpu: 40 * us, rate: 50, p50: 60 * us}},
			poll:      {{cpu: 20 * us, user: 1, system: 1, rate: 50, p50: 55 * us}, {cpu: 20 * us, user: 1, system: 5, rate: 100, p50: 70 * us}},
		},
	}
}

func TestRatiosArePairedWithinARound(t *testing.T) {
	x := two()
	if got := median(x.ratios(poll, pgbouncer, cpuOf)); got != 1.25 { // of 2 and 0.5; of the medians it would be 0.8
		t.Errorf("median of the ratios: %v", got)
	}
	if got := x.added(poll); got < 14.9e-6 || got > 15.1e-6 {
		t.Errorf("added to the latency: %v", got)
	}
	if got := x.kernel(poll); got != .75 {
		t.Errorf("the kernel's share: %v", got)
	}
	if low, high := quartiles([]float64{4, 1, 3, 2}); low != 2 || high != 4 {
		t.Errorf("quartiles: %v, %v", low, high)
	}
	if got := paired([]float64{1, 2}, []float64{1}); got != nil {
		t.Errorf("pairs of what has none: %v", got)
	}
}

func TestStolenTimeIsAShareOfWhatWasWanted(t *testing.T) {
	before := readProcessorTime("cpu  100 10 50 1000 20 5 5 30 7 1\ncpu0 50 5 25 500 10 3 2 15 3 1\n")
	after := readProcessorTime("cpu  160 20 60 9000 90 10 10 60 9 1\n")
	if want := (processorTime{wanted: 200, stolen: 30}); before != want {
		t.Errorf("before: %+v", before)
	}
	if got := after.stolenSince(before); got != .25 {
		t.Errorf("%v of the time was stolen, want a quarter", got)
	}
	if got := readProcessorTime("").stolenSince(readProcessorTime("")); got != 0 {
		t.Errorf("%v where nothing tells", got)
	}
}

func TestVerdictsOfABusyHostSayLittle(t *testing.T) {
	r := whole(t)
	for stolen, want := range map[float64]bool{.03: false, .3: true} {
		r.stolen = stolen
		var b strings.Builder
		if r.printGoals(&b); strings.Contains(b.String(), "the verdicts say little") != want {
			t.Errorf("%v of the time stolen:\n%s", stolen, b.String())
		}
	}
}

func TestVerdicts(t *testing.T) {
	g := goal{goal: .9, must: 1.15, show: times}
	for got, want := range map[float64]string{.9: "met", 1: "goal missed by 11.1 %, must met", 1.15: "must met", 1.38: "**missed**: 20.0 % over the must"} {
		if !strings.Contains(g.verdict(got), want) {
			t.Errorf("%v: %s", got, g.verdict(got))
		}
	}
	none := goal{show: count}
	if got := none.verdict(0); got != "met" {
		t.Errorf("no allocation: %s", got)
	}
	if got := none.verdict(3); got != "**missed**: 3 over the must" {
		t.Errorf("3 allocations: %s", got)
	}
}

const benchmarkOutput = `goos: linux
BenchmarkInspectAndDecide/warm-2   	  1000	      1500 ns/op	 600.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkInspectAndDecide/cold-2   	  1000	    130000 ns/op	     900 B/op	      12 allocs/op
BenchmarkDecide/read/rules=1-2     	  1000	       100 ns/op	       0 B/op	       0 allocs/op
BenchmarkDecide/read/rules=1000-2  	  1000	       105 ns/op	       0 B/op	       0 allocs/op
BenchmarkDecide/join/rules=1       	  1000	       200 ns/op	       0 B/op	       0 allocs/op
BenchmarkDecide/join/rules=1000    	  1000	       240 ns/op	       0 B/op	       0 allocs/op
PASS
`

const idleOutput = `# What idle sessions cost

| clients | engine | idle sessions | RSS, MiB | bytes for each (RSS) | goroutines |
|---|---|---|---|---|---|
| TCP | goroutines | 0 | 29.2 | – | 17 |
| TCP | goroutines | 9000 | 264.2 | 27381 | 18017 |
| TCP | poll | 9000 | 60.2 | 1100 | 30 |
`

const straceOutput = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.111111           4     20000           sendto
 40.00    0.111111           4     24000      4000 recvfrom
  0.00    0.000000           0         1         1 bind
------ ----------- ----------- --------- --------- ----------------
100.00    0.222222           4     44001      4001 total
`

// whole is a result with something of everything.
func whole(t *testing.T) *results {
	t.Helper()
	m, err := readMemory(idleOutput)
	if err != nil {
		t.Fatal(err)
	}
	each, err := readCalls(straceOutput, 10000)
	if err != nil {
		t.Fatal(err)
	}
	c := &chronicle{incident: &incidents[0]}
	for i := range c.incident.variants {
		x := course{variant: &c.incident.variants[i], outcome: "done"}
		x.count([]transaction{{0, at(9000), 7 * time.Second}, {0, at(3000), time.Second}}, at(0))
		c.courses = append(c.courses, x)
	}
	r := &results{
		options: options{targets: []string{direct, pgbouncer, poll}, complete: true, machine: "test", rounds: 2, seconds: 1, folder: filepath.Join(t.TempDir(), "results")},
		begun:   at(0), tables: []*table{two()}, incidents: []*chronicle{c}, memory: m, benchmarks: benchmarks{},
		calls: &callTables{all: []calls{{poll, 1, each}}}, code: &code{},
	}
	r.benchmarks.read(benchmarkOutput)
	return r
}

func TestGoalsAreFoundInWhatIsMeasured(t *testing.T) {
	r := whole(t)
	var b strings.Builder
	r.printGoals(&b)
	for _, want := range []string{
		"added, 1 client ÷ PgBouncer's | ≤ 1.00 | ≤ 2.00 | 0.75 | – | met |",
		"9,000 idle sessions | ≤ 1.20 kB | ≤ 2.30 kB | 1.10 kB | 27.38 kB | met |",
		"shape known | ≤ 1.00 µs | ≤ 2.00 µs | 1.50 µs | 1.50 µs | goal missed by 50.0 %, must met |",
		"allocations of it | ≤ 0 | ≤ 0 | 0 | 0 | met |",
		"never seen | ≤ 50.00 µs | ≤ 120.00 µs | 130.00 µs | 130.00 µs | **missed**: 8.3 % over the must |",
		"with one more | ≤ 1.10 | ≤ 1.50 | 1.20 | 1.20 | goal missed by 9.1 %, must met |",
		"simple, 8 clients ÷ PgBouncer | ≤ 0.90 | ≤ 1.15 | – | – | not measured |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line with %q in\n%s", want, b.String())
		}
	}
	if c := r.calls.all[0]; c.most() != "recvfrom 2.4, sendto 2.0" || c.total() < 4.4 || c.total() > 4.41 {
		t.Errorf("calls: %s, %v", c.most(), c.total())
	}
	if x := r.incidents[0].courses[0]; x.slow != 1 || x.longest != 7*time.Second || x.silence != 6*time.Second {
		t.Errorf("incident: %+v", x)
	}
}

func TestWhatIsNotATableIsAnError(t *testing.T) {
	if _, err := readCalls("strace: attach: no\n", 1); err == nil {
		t.Error("calls are read from nothing")
	}
	if _, err := readMemory("| engine | sessions |\n|---|---|\n| poll | 3 |\n"); err == nil {
		t.Error("memory is read from another table")
	}
	if err := attached(strings.NewReader("strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted\n")); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("attached: %v", err)
	}
}

func TestPicturesAreWellFormed(t *testing.T) {
	r, bare := whole(t), whole(t)
	bare.tables = []*table{{scenario: &scenarios[0], targets: []string{direct}, samples: two().samples}} // no bar at all
	for kind, svg := range bare.pictures() {
		wellFormed(t, kind, svg)
	}
	for kind, svg := range r.pictures() {
		if again := r.pictures()[kind]; again != svg {
			t.Errorf("%s differs from time to time", kind)
		}
		wellFormed(t, kind, svg)
	}
}

func wellFormed(t *testing.T, kind, svg string) {
	t.Helper()
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("%s: a place that is no number\n%s", kind, svg)
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, svg)
		}
	}
}

func TestARunInPartOverwritesNothing(t *testing.T) {
	r := whole(t)
	if _, err := r.write(); err != nil {
		t.Fatal(err)
	}
	result := filepath.Join(r.options.folder, r.begun.Format(time.DateOnly)+"-test.md")
	before, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	r.options.complete, r.tables = false, nil
	if said, err := r.write(); err != nil || !strings.Contains(said, "partial.md") {
		t.Errorf("%s, %v", said, err)
	}
	if after, err := os.ReadFile(result); err != nil || string(after) != string(before) {
		t.Errorf("the result is another one: %v", err)
	}
	for _, link := range []string{"-cpu.svg", "-lock-queue.svg"} {
		if _, err := os.Stat(strings.TrimSuffix(result, ".md") + link); err != nil || !strings.Contains(string(before), link) {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-targets", "direct,odyssey"}, {"-scenarios", "all"}, {"-rounds", "0"}, {"-seconds", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	for _, tt := range []struct {
		args     string
		complete bool
	}{{"-seconds=1", true}, {"-rounds=10", false}, {"-scenarios=memory,simple-8", false}, {"-targets=pgbouncer,direct", false}} {
		if o, err := parse([]string{tt.args}); err != nil || o.complete != tt.complete {
			t.Errorf("%s: complete is %v, %v", tt.args, o.complete, err)
		}
	}
	if o, err := parse([]string{"-scenarios=memory,simple-8"}); err != nil || !slices.Equal(o.parts, []string{"simple-8", "memory"}) {
		t.Errorf("%v, %v", o.parts, err)
	}
}

// TestEnginesAreCounted holds what is counted against the sources as they are.
func TestEnginesAreCounted(t *testing.T) {
	c, err := countCode(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if c.tests == 0 {
		t.Error("no test runs on both engines")
	}
	for _, e := range c.engines {
		if e.lines == 0 {
			t.Errorf("%s has no code", e.engine)
		}
	}
	if got := codeLines([]byte("package p\n\n// comment\nfunc f() { // comment\n\tg(1,\n\t\t2)\n}\n")); got != 5 {
		t.Errorf("%d lines", got)
	}
}

func TestTheSummaryGoesFromThePageIntoReadme(t *testing.T) {
	r := whole(t)
	_, summary, _, err := cutSummary(string(r.page("x")))
	if err != nil || summary != r.summary("x") {
		t.Fatalf("%v: of the page: %s", err, summary)
	}
	before := "# lockkeeper\n\n" + summaryBegin + "old\n" + summaryEnd + "\n\nmore\n"
	after, err := withSummary(before, summary)
	if err != nil || !strings.HasPrefix(after, "# lockkeeper\n\n"+summaryBegin) || !strings.HasSuffix(after, summaryEnd+"\n\nmore\n") ||
		strings.Contains(after, "old") || !strings.Contains(after, "](bench/results/x-cpu.svg)") {
		t.Errorf("%v:\n%s", err, after)
	}
	if _, err := withSummary("# lockkeeper\n", summary); err == nil {
		t.Error("a page without a place for it is taken")
	}
}

// TestReadmeShowsTheNewestResult compares README with the page of the newest day
// that is kept, or those, if several machines have one.
func TestReadmeShowsTheNewestResult(t *testing.T) {
	root := filepath.Join("..", "..")
	_, shown, _, err := cutSummary(text(t, filepath.Join(root, readme)))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, resultsFolder, "20??-??-??-*.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) == 0 {
		if want := summaryBegin + "No result is kept yet; `make bench` writes it here.\n" + summaryEnd; shown != want {
			t.Errorf("%s shows\n%s\nin place of\n%s", readme, shown, want)
		}
		return
	}
	day := slices.Max(pages)[:len(filepath.Join(root, resultsFolder))+len("/2006-01-02")]
	if !slices.ContainsFunc(pages, func(page string) bool {
		_, summary, _, err := cutSummary(text(t, page))
		return err == nil && strings.HasPrefix(page, day) && shown == linkedFromRoot(summary)
	}) {
		t.Errorf("%s does not show the summary of %s*.md:\n%s", readme, day, shown)
	}
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
