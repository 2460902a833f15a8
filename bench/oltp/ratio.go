package main

import (
	"slices"
	"time"
)

// table is what one scenario gave.
type table struct {
	scenario *scenario
	targets  []string
	samples  map[string][]sample // by target, one for each round
}

// proxies are the targets whose CPU is measured.
func (t *table) proxies() []string {
	return slices.DeleteFunc(slices.Clone(t.targets), func(name string) bool { return name == direct })
}

// of maps the samples of a target.
func (t *table) of(target string, f func(sample) float64) []float64 {
	var out []float64
	for _, x := range t.samples[target] {
		out = append(out, f(x))
	}
	return out
}

func cpuOf(x sample) float64  { return x.cpu.Seconds() }
func rateOf(x sample) float64 { return x.rate }
func p50Of(x sample) float64  { return x.p50.Seconds() }
func p99Of(x sample) float64  { return x.p99.Seconds() }

// ratios pairs a target with another, round by round; nil where there is
// nothing to compare.
func (t *table) ratios(target, to string, f func(sample) float64) []float64 {
	return paired(t.of(target, f), t.of(to, f))
}

// paired divides each of a by its partner in b.
func paired(a, b []float64) []float64 {
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

// added is the latency over direct, of the lowest rounds: what else the machine
// does only ever adds.
func (t *table) added(target string) float64 {
	mine, theirs := t.of(target, p50Of), t.of(direct, p50Of)
	if len(mine) == 0 || len(theirs) == 0 {
		return 0
	}
	return slices.Min(mine) - slices.Min(theirs)
}

// kernel is the share of a target's CPU time that was the kernel's.
func (t *table) kernel(target string) float64 {
	var user, system time.Duration
	for _, x := range t.samples[target] {
		user, system = user+x.user, system+x.system
	}
	if user+system == 0 {
		return 0
	}
	return float64(system) / float64(user+system)
}

// median returns the middle of xs, 0 of nothing.
func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (s[n/2-1] + s[n/2]) / 2
	default:
		return s[n/2]
	}
}

// quartiles returns what half of xs lies between.
func quartiles(xs []float64) (low, high float64) {
	if len(xs) == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(xs))
	return s[len(s)/4], s[len(s)*3/4]
}
