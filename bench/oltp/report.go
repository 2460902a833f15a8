package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// table is what one scenario gave.
type table struct {
	scenario *scenario
	targets  []string
	samples  map[string][]sample // by target, one for each round
}

// median returns the middle of xs, which it sorts.
func median(xs []float64) float64 {
	slices.Sort(xs)
	if n := len(xs); n%2 == 0 && n > 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	} else if n > 0 {
		return xs[n/2]
	}
	return 0
}

// of maps the samples of a target.
func (t *table) of(target string, f func(sample) float64) []float64 {
	var out []float64
	for _, x := range t.samples[target] {
		out = append(out, f(x))
	}
	return out
}

// ratios pairs a target with another, round by round; nil where there is
// nothing to compare.
func (t *table) ratios(target, to string, f func(sample) float64) []float64 {
	a, b := t.of(target, f), t.of(to, f)
	if len(a) != len(b) {
		return nil
	}
	var out []float64
	for i := range a {
		if b[i] > 0 && a[i] > 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

func cpuOf(x sample) float64  { return x.cpu.Seconds() }
func rateOf(x sample) float64 { return x.rate }
func p50Of(x sample) float64  { return x.p50.Seconds() }
func p99Of(x sample) float64  { return x.p99.Seconds() }

// added is the latency over direct, of the lowest rounds: what else the machine
// does only ever adds.
func (t *table) added(target string) float64 {
	mine, theirs := t.of(target, p50Of), t.of(direct, p50Of)
	if len(mine) == 0 || len(theirs) == 0 {
		return 0
	}
	return slices.Min(mine) - slices.Min(theirs)
}

func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", t.scenario.name, t.scenario.says)
	fmt.Fprintln(out, "| target | proxy CPU, lowest | proxy CPU, median | CPU ÷ PgBouncer, paired | quartiles | rate ÷ direct | p50 | p99 | p50 over direct, lowest |\n|---|---|---|---|---|---|---|---|---|")
	for _, name := range t.targets {
		cpu, ratio := t.of(name, cpuOf), t.ratios(name, pgbouncer, cpuOf)
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, micros(slices.Min(cpu)), micros(median(cpu)),
			number(median(ratio)), quartiles(ratio), number(median(t.ratios(name, direct, rateOf))),
			micros(median(t.of(name, p50Of))), micros(median(t.of(name, p99Of))), micros(t.added(name)))
	}
	if line := t.verdict(); line != "" {
		fmt.Fprintf(out, "\n%s\n", line)
	}
}

// verdict compares with the goal, which is about lockkeeper's default engine.
func (t *table) verdict() string {
	ratio := t.ratios(poll, pgbouncer, cpuOf)
	if t.scenario.goal == 0 || len(ratio) == 0 {
		return ""
	}
	got := median(ratio)
	met := "missed, and the limit of " + number(t.scenario.must) + ", too"
	switch {
	case got <= t.scenario.goal:
		met = "met"
	case got <= t.scenario.must:
		met = "missed, within the limit of " + number(t.scenario.must)
	}
	return fmt.Sprintf("Goal: CPU at most %s of PgBouncer's; %s: %s.", number(t.scenario.goal), number(got), met)
}

func number(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
}

func micros(seconds float64) string {
	if seconds == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f µs", seconds*1e6)
}

func quartiles(sorted []float64) string {
	if len(sorted) < 4 {
		return "–"
	}
	return fmt.Sprintf("%.2f–%.2f", sorted[len(sorted)/4], sorted[len(sorted)*3/4])
}

// results are all that a run gave.
type results struct {
	options   options
	versions  []string
	tables    []*table
	incidents []*chronicle
}

const introduction = `<!-- Written by "make bench"; do not edit. -->

# What lockkeeper costs, %s

%s; %s, client, proxy and server on one machine. %d rounds of %s for each target, interleaved; every target over TCP, without TLS.
lockkeeper has the full default policy of profile odoo, journal and metrics on; PgBouncer is in session mode without logging, HAProxy in
TCP mode with one thread. CPU is what the proxy's process used, user and system, for each transaction (each stream). Ratios are paired
within a round, and their medians are given. On a machine with so few processors rates say little: clients, server and proxy share them.
`

// write writes the page and its pictures.
func (r *results) write() error {
	if err := os.MkdirAll(r.options.folder, 0o755); err != nil { //nolint:gosec // pages for everybody
		return err
	}
	today := time.Now().Format(time.DateOnly) //nolint:forbidigo // a measurement
	name := today + "-" + r.options.machine
	var b bytes.Buffer
	fmt.Fprintf(&b, introduction, today, r.options.machine, strings.Join(r.versions, ", "), r.options.rounds, r.options.length)
	if len(r.tables) > 0 {
		fmt.Fprintf(&b, "\n![CPU of each proxy, relative to PgBouncer's](%s-cpu.svg)\n", name)
		if err := r.picture(name+"-cpu.svg", bars(r.tables)); err != nil {
			return err
		}
	}
	for _, t := range r.tables {
		t.print(&b)
	}
	for _, c := range r.incidents {
		c.print(&b)
		file := name + "-" + c.incident.name + ".svg"
		fmt.Fprintf(&b, "\n![The longest transaction of the others over time](%s)\n", file)
		if err := r.picture(file, lines(c)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(r.options.folder, name+".md"), b.Bytes(), 0o644) //nolint:gosec // a page for everybody
}

func (r *results) picture(name, svg string) error {
	return os.WriteFile(filepath.Join(r.options.folder, name), []byte(svg), 0o644) //nolint:gosec // a picture for everybody
}
