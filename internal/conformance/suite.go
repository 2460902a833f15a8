package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// suite is a set of tests that can be pointed at a server.
type suite struct {
	name    string                                        // for -only and the log
	prepare func(context.Context, *stage) (string, error) // fetches and builds; returns title and version
	run     func(context.Context, *stage, target) (results, error)
	ways    func(*stage) []target // nil: directly, and through lockkeeper under each policy
}

// target is where a suite is pointed at.
type target struct {
	name string // of a folder, too
	says string // in the page
	host string
	port int
}

// status is what a test came to.
type status string

// The statuses. A test that was skipped says why in its own suite.
const (
	passed  status = "passed"
	failed  status = "failed"
	skipped status = "skipped"
)

// result is what one test came to, and what it printed, as far as two runs
// against the same server print the same.
type result struct {
	status status
	output string
}

// results are those of one run, by the test's name.
type results map[string]result

func (r results) count(want status) (n int) {
	for _, one := range r {
		if one.status == want {
			n++
		}
	}
	return n
}

func (r results) named(want status) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if r[name].status == want {
			names = append(names, name)
		}
	}
	return names
}

// differing lists the tests whose result or output is not the same in both.
func differing(direct, through results) []string {
	names := map[string]bool{}
	for name, d := range direct {
		if t, ok := through[name]; !ok || t != d {
			names[name] = true
		}
	}
	for name := range through {
		if _, ok := direct[name]; !ok {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// row is a suite's line in the page.
type row struct {
	suite  suite
	title  string
	direct results
	ways   []way
}

// way is one run through lockkeeper.
type way struct {
	target  target
	results results
	differ  []string // in both of two runs
	once    []string // in one of two runs only: the test is not steady
}

// runSuites runs each and keeps its record, so that a run which is interrupted
// is not lost.
func runSuites(ctx context.Context, s *stage, suites []suite, keep func(*record) error) error {
	var errs []error
	for _, u := range suites {
		r, err := runSuite(ctx, s, u)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s: %w", u.name, err))...)
		}
		rec := r.record(s.version, s.day)
		errs = append(errs, keep(rec), rec.verdict())
	}
	return errors.Join(errs...)
}

func runSuite(ctx context.Context, s *stage, u suite) (row, error) {
	r := row{suite: u}
	var err error
	if r.title, err = u.prepare(ctx, s); err != nil {
		return r, err
	}
	targets := s.targets()
	if u.ways != nil {
		targets = u.ways(s)
	}
	if r.direct, err = s.once(ctx, u, targets[0]); err != nil {
		return r, err
	}
	if r.direct.count(passed) == 0 {
		return r, fmt.Errorf("nothing passed directly: the suite does not run here\n%s", s.lastOutput())
	}
	for _, t := range targets[1:] {
		w, err := runWay(ctx, s, u, r.direct, t, targets[0])
		if err != nil {
			return r, err
		}
		r.ways = append(r.ways, w)
	}
	return r, nil
}

// runWay runs a suite through lockkeeper. Where something differs both runs are
// repeated, because suites have tests that do not come out the same every time;
// those that agreed once are told apart, not left out.
func runWay(ctx context.Context, s *stage, u suite, direct results, t, oracle target) (way, error) {
	w := way{target: t}
	var err error
	if w.results, err = s.once(ctx, u, t); err != nil {
		return w, err
	}
	w.differ = differing(direct, w.results)
	if len(w.differ) == 0 {
		return w, nil
	}
	fmt.Fprintf(s.out, "  differs: %v; once more\n", w.differ)
	again, err := s.once(ctx, u, oracle)
	if err != nil {
		return w, err
	}
	repeated, err := s.once(ctx, u, t)
	if err != nil {
		return w, err
	}
	second := differing(again, repeated)
	var steady []string
	for _, name := range w.differ {
		if slices.Contains(second, name) {
			steady = append(steady, name)
		} else {
			w.once = append(w.once, name)
		}
	}
	w.differ = steady
	return w, nil
}

// once runs a suite one time, in a folder of its own.
func (s *stage) once(ctx context.Context, u suite, t target) (results, error) {
	fmt.Fprintf(s.out, "%s: %s\n", u.name, t.says)
	r, err := u.run(ctx, s, t)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.says, err)
	}
	fmt.Fprintf(s.out, "  %d passed, %d failed, %d skipped\n", r.count(passed), r.count(failed), r.count(skipped))
	return r, ctx.Err()
}
