package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// results are all that a run gave.
type results struct {
	options    options
	begun      time.Time
	load       string // of the machine before
	before     processorTime
	stolen     float64 // share of the processors' time that the host gave to others meanwhile
	versions   []string
	tables     []*table
	calls      *callTables
	incidents  []*chronicle
	memory     *memory
	benchmarks benchmarks
	code       *code
}

// table returns a scenario's, nil where it was not measured.
func (r *results) table(scenario string) *table {
	for _, t := range r.tables {
		if t.scenario.name == scenario {
			return t
		}
	}
	return nil
}

func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", t.scenario.name, t.scenario.says)
	fmt.Fprintln(out, "| target | proxy CPU, lowest | median | of it the kernel's | CPU ÷ PgBouncer | quartiles | rate | rate ÷ direct | p50 | p99 | p50 over direct, lowest |\n|---|---|---|---|---|---|---|---|---|---|---|")
	for _, name := range t.targets {
		cpu, ratio := t.of(name, cpuOf), t.ratios(name, pgbouncer, cpuOf)
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, micros(slices.Min(cpu)), micros(median(cpu)), percent(t.kernel(name)),
			number(median(ratio)), between(quartiles(ratio)), perSecondOf(median(t.of(name, rateOf))), number(median(t.ratios(name, direct, rateOf))),
			micros(median(t.of(name, p50Of))), micros(median(t.of(name, p99Of))), micros(t.added(name)))
	}
}

func number(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
}

func micros(seconds float64) string {
	switch size := math.Abs(seconds); {
	case size == 0:
		return "–"
	case size >= 1:
		return fmt.Sprintf("%.2f s", seconds)
	case size >= .01:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	case size < 1e-5:
		return fmt.Sprintf("%.2f µs", seconds*1e6)
	default:
		return fmt.Sprintf("%.1f µs", seconds*1e6)
	}
}

func percent(share float64) string {
	if share == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", share*100)
}

func perSecondOf(rate float64) string { return plain(rate) + "/s" }

// plain shows three digits, or all before the point.
func plain(x float64) string {
	if math.Abs(x) >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

func between(low, high float64) string {
	if high == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f–%.2f", low, high)
}

const introduction = `<!-- Written by "make bench"; do not edit. -->

# What lockkeeper costs, %s

%s. %s. Client, proxy and server are on one machine, whose load average was %s before; the run took %s, in which
the host gave %.1f %% of the time that the processors were wanted for to others.

%d rounds; in each, every target works for %d s, in turns of 200 ms: its clients stay connected, and are stopped while another one
works; what a proxy does in the 50 ms behind a turn belongs to it. Streams are read one after the other. Every target is reached over TCP, without TLS. lockkeeper has the
full default policy of profile odoo, journal and metrics on; PgBouncer is in session mode without logging, HAProxy in TCP mode with one
thread. CPU is what the proxy's process used in its turns, user and system, for each transaction (each stream); logins are not in it. Ratios
are paired within a round, and their medians are given. "Lowest" is the lowest round. Where there are so few processors, rates say little:
clients, server and proxy share them.
`

// partial is what the page of a run is called that is not complete. Git does
// not keep it.
const partial = "partial"

// write writes the page and its pictures, and the summary of a complete result
// into README. A run in part overwrites neither.
func (r *results) write() (page string, err error) {
	if err := os.MkdirAll(r.options.folder, 0o755); err != nil { //nolint:gosec // pages for everybody
		return "", err
	}
	name := partial
	if r.options.complete {
		name = r.begun.Format(time.DateOnly) + "-" + r.options.machine
	}
	for kind, svg := range r.pictures() {
		file := filepath.Join(r.options.folder, pictureFile(name, kind))
		if err := os.WriteFile(file, []byte(svg), 0o644); err != nil { //nolint:gosec // a picture for everybody
			return "", err
		}
	}
	page = filepath.Join(r.options.folder, name+".md")
	if err := os.WriteFile(page, r.page(name), 0o644); err != nil { //nolint:gosec // a page for everybody
		return "", err
	}
	if !r.options.complete {
		return page + " (not everything was measured, or in too few rounds: no result is overwritten)", nil
	}
	if r.options.folder != resultsFolder {
		return page, nil
	}
	return page + ", " + readme, updateReadme(r.summary(name))
}

func pictureFile(name, kind string) string { return name + "-" + kind + ".svg" }

// pictures are those of all that was measured, by kind.
func (r *results) pictures() map[string]string {
	all := map[string]string{}
	for kind, c := range r.charts() {
		all[kind] = c.svg()
	}
	for _, c := range r.incidents {
		all[c.incident.name] = lines(c)
	}
	return all
}

func (r *results) page(name string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, introduction, r.begun.Format(time.DateOnly), machine(), strings.Join(r.versions, ", "), r.load, time.Since(r.begun).Round(time.Minute), 100*r.stolen, r.options.rounds, r.options.seconds)
	if r.options.complete {
		fmt.Fprintf(&b, "\n%s\n", r.summary(name))
	} else {
		fmt.Fprint(&b, "\n**This is a part of a result.** What was not measured is missing.\n\n")
		r.printGoals(&b)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.charts())) {
		fmt.Fprintf(&b, "\n![%s](%s)\n", r.charts()[kind].title, pictureFile(name, kind))
	}
	for _, t := range r.tables {
		t.print(&b)
	}
	for _, c := range r.incidents {
		c.print(&b)
		fmt.Fprintf(&b, "\n![%s](%s)\n", c.incident.says, pictureFile(name, c.incident.name))
	}
	if r.calls != nil {
		r.calls.print(&b)
	}
	if r.memory != nil {
		r.memory.print(&b)
	}
	if r.benchmarks != nil {
		r.benchmarks.print(&b)
	}
	if r.code != nil {
		r.code.print(&b)
	}
	return b.Bytes()
}
