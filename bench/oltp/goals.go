package main

import (
	"fmt"
	"io"
	"math"
)

// goal is a figure that lockkeeper is to reach, and one that it has to.
type goal struct {
	figure     string
	goal, must float64
	show       func(float64) string
	of         func(r *results, target string) (float64, bool)
}

// goals are all of them. Ratios are to PgBouncer in session mode.
var goals = []goal{
	{"CPU for each transaction, simple, 8 clients ÷ PgBouncer", .90, 1.15, times, cpuIn("simple-8")},
	{"the same, 32 clients", 1, 1.25, times, cpuIn("simple-32")},
	{"extended, 8 clients", .85, 1.05, times, cpuIn("extended-8")},
	{"prepared, 8 clients", .85, 1.05, times, cpuIn("prepared-8")},
	{"1 kB with random literals, 8 clients", 1.05, 1.20, times, cpuIn("literals-8")},
	{"CPU for a SELECT of 130 MB ÷ PgBouncer", .45, .70, times, cpuIn("select-130mb")},
	{"CPU for a COPY of 130 MB ÷ PgBouncer", .45, .70, times, cpuIn("copy-130mb")},
	{"median latency added, 1 client ÷ PgBouncer's", 1, 2, times, latencyIn("simple-1")},
	{"memory of each of 9,000 idle sessions", 1200, 2300, kilobytes, memoryOf},
	{"inspect and decide, 1 kB, shape known", 1000, 2000, nanos, benchmarkOf(warmBenchmark, "ns/op")},
	{"allocations of it", 0, 0, count, benchmarkOf(warmBenchmark, "allocs/op")},
	{"inspect and decide, 1 kB, never seen", 50_000, 120_000, nanos, benchmarkOf(coldBenchmark, "ns/op")},
	{"a decision with 1,000 rules more ÷ with one more", 1.1, 1.5, times, func(r *results, _ string) (float64, bool) { return r.benchmarks.manyOverOne() }},
}

func times(x float64) string     { return fmt.Sprintf("%.2f", x) }
func kilobytes(x float64) string { return fmt.Sprintf("%.2f kB", x/1000) }
func nanos(x float64) string     { return fmt.Sprintf("%.2f µs", x/1000) }
func count(x float64) string     { return fmt.Sprintf("%.0f", x) }

func cpuIn(scenario string) func(*results, string) (float64, bool) {
	return func(r *results, target string) (float64, bool) {
		t := r.table(scenario)
		if t == nil {
			return 0, false
		}
		all := t.ratios(target, pgbouncer, cpuOf)
		return median(all), len(all) > 0
	}
}

// latencyIn compares what lockkeeper adds with what PgBouncer does; nothing
// where the machine was so busy that PgBouncer seems to add none.
func latencyIn(scenario string) func(*results, string) (float64, bool) {
	return func(r *results, target string) (float64, bool) {
		t := r.table(scenario)
		if t == nil || len(t.samples[target]) == 0 || t.added(pgbouncer) <= 0 {
			return 0, false
		}
		return t.added(target) / t.added(pgbouncer), true
	}
}

func memoryOf(r *results, target string) (float64, bool) {
	if r.memory == nil {
		return 0, false
	}
	bytes, ok := r.memory.each[engineOf[target]][idleSessions[len(idleSessions)-1]]
	return bytes, ok
}

func benchmarkOf(name, unit string) func(*results, string) (float64, bool) {
	return func(r *results, _ string) (float64, bool) { return r.benchmarks.median(name, unit) }
}

// verdict says how far got is from the goal.
func (g *goal) verdict(got float64) string {
	switch {
	case got <= g.goal:
		return "met"
	case got <= g.must:
		return "goal missed by " + g.over(got, g.goal) + ", must met"
	default:
		return "**missed**: " + g.over(got, g.must) + " over the must"
	}
}

func (g *goal) over(got, limit float64) string {
	if limit == 0 {
		return g.show(got)
	}
	return fmt.Sprintf("%.1f %%", (got/limit-1)*100)
}

// printGoals prints every figure beside its goal, for both engines; of a run in
// part, those that were measured.
func (r *results) printGoals(out io.Writer) {
	if r.stolen >= tooMuch {
		fmt.Fprintf(out, "**The host gave %.0f %% of this machine's time to others meanwhile: the verdicts say little. Measure again when it is quiet.**\n\n", 100*r.stolen)
	}
	head := fmt.Sprintf("| figure | goal | must | %s | %s | verdict on %s |\n|---|---|---|---|---|---|\n", poll, goroutines, poll)
	for i := range goals {
		g := &goals[i]
		verdict := "not measured"
		if got, ok := g.of(r, poll); ok {
			verdict = g.verdict(got)
		} else if !r.options.complete {
			continue
		}
		fmt.Fprintf(out, "%s| %s | ≤ %s | ≤ %s | %s | %s | %s |\n", head, g.figure, g.show(g.goal), g.show(g.must), g.cell(r, poll), g.cell(r, goroutines), verdict)
		head = ""
	}
}

func (g *goal) cell(r *results, target string) string {
	if got, ok := g.of(r, target); ok {
		return g.show(got)
	}
	return "–"
}

// shares draws every figure as a part of its must.
func (r *results) shares() *chart {
	c := &chart{title: "Each figure as a part of what it must not exceed", unit: "÷ must", series: []string{poll, goroutines}, marks: []float64{1}}
	for i := range goals {
		g := &goals[i]
		if g.must == 0 {
			continue
		}
		bars := make([]float64, len(c.series))
		for j, target := range c.series {
			if got, ok := g.of(r, target); ok {
				bars[j] = math.Max(got, 0) / g.must
			}
		}
		c.groups = append(c.groups, group{name: g.figure, bars: bars})
	}
	return c
}
