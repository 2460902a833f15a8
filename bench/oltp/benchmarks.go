package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// benchmarkSets are the Go benchmarks whose figures have a goal, by package.
var benchmarkSets = []struct{ folder, pattern string }{
	{"cmd/lockkeeper", "Inspect|Rules"},
	{"policy", "Decide"},
}

// The benchmarks that goals are about. Of those with rules in their name, each
// that ends in manyRules is compared with its namesake of oneRule.
const (
	warmBenchmark = "InspectAndDecide/warm"
	coldBenchmark = "InspectAndDecide/cold"
	manyRules     = "/rules=1000"
	oneRule       = "/rules=1"
)

// benchmarkTime is what one benchmark takes in each of its rounds.
const benchmarkTime = "300ms"

// benchmarks are the values of each Go benchmark by unit, one for each round.
type benchmarks map[string]map[string][]float64

// runBenchmarks builds the tests once and runs their benchmarks in rounds.
func (s *stage) runBenchmarks(ctx context.Context, rounds int) (benchmarks, error) {
	b := benchmarks{}
	for _, set := range benchmarkSets {
		binary := filepath.Join(s.dir, strings.ReplaceAll(set.folder, "/", "-")+".test")
		if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+set.folder).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the tests of %s: %w\n%s", set.folder, err, out)
		}
		for range rounds {
			cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench="+set.pattern, "-test.benchmem", "-test.benchtime="+benchmarkTime)
			cmd.Dir = set.folder
			out, err := cmd.CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("benchmarks of %s: %w\n%s", set.folder, err, out)
			}
			b.read(string(out))
		}
	}
	return b, nil
}

// processors ends the name of a benchmark where there are several.
var processors = regexp.MustCompile(`-\d+$`)

// read takes what a test binary prints: the name, iterations, and pairs of value
// and unit.
func (b benchmarks) read(out string) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(line, "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			if b[name] == nil {
				b[name] = map[string][]float64{}
			}
			b[name][fields[i+1]] = append(b[name][fields[i+1]], v)
		}
	}
}

// median returns a benchmark's value, and whether there is one.
func (b benchmarks) median(name, unit string) (float64, bool) {
	all := b[name][unit]
	return median(all), len(all) > 0
}

// manyOverOne returns what 1,000 rules cost over one: the worst benchmark's
// median of ratios.
func (b benchmarks) manyOverOne() (float64, bool) {
	var worst float64
	for name := range b {
		if base, ok := strings.CutSuffix(name, manyRules); ok {
			worst = max(worst, median(paired(b[name]["ns/op"], b[base+oneRule]["ns/op"])))
		}
	}
	return worst, worst > 0
}

func (b benchmarks) print(out io.Writer) {
	fmt.Fprint(out, "\n## A decision alone\n\nGo benchmarks; medians.\n\n| benchmark | time | allocations |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(b)) {
		ns, _ := b.median(name, "ns/op")
		allocs, _ := b.median(name, "allocs/op")
		fmt.Fprintf(out, "| %s | %s | %.0f |\n", name, micros(ns/1e9), allocs)
	}
}
