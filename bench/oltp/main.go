// Command oltp measures what lockkeeper costs beside no proxy and its peers: CPU per transaction, latency, throughput, memory, system calls, and what two incidents do to everybody else.
//
// In a round every target works in turns of a fifth of a second, in an order that
// rotates, so that what the machine does meanwhile meets all of them. Ratios are
// paired within a round, and their medians are printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	runtime.LockOSThread() // see processAttributes
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "oltp:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds   int
	seconds  int // that each target works in a round
	targets  []string
	parts    []string
	program  string
	folder   string // of the results
	machine  string
	complete bool // everything, and in enough rounds: a result to keep
}

// enoughRounds is how many a result to keep has.
const enoughRounds = 11

func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("oltp", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", enoughRounds, "rounds of each scenario")
	flags.IntVar(&o.seconds, "seconds", 3, "that each target works in a round")
	targets := flags.String("targets", strings.Join(targetNames(), ","), "what is measured")
	scenarios := flags.String("scenarios", strings.Join(partNames(), ","), "how")
	flags.StringVar(&o.program, "lockkeeper", "bin/lockkeeper", "the program")
	flags.StringVar(&o.folder, "results", resultsFolder, "the folder of the results; in this one a complete result goes into README.md, too")
	flags.StringVar(&o.machine, "machine", fmt.Sprintf("%s-%s-%dcpu", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), "what the result's file is called by, besides the date")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.program, err = filepath.Abs(o.program); err != nil {
		return o, err
	}
	if o.targets, err = choose("target", *targets, targetNames()); err != nil {
		return o, err
	}
	if o.parts, err = choose("scenario", *scenarios, partNames()); err != nil {
		return o, err
	}
	if o.rounds < 1 || o.seconds < 1 {
		return o, errors.New("at least one round, of a second or more")
	}
	o.complete = len(o.targets) == len(targetNames()) && len(o.parts) == len(partNames()) && o.rounds >= enoughRounds
	return o, nil
}

// choose reads a list of names, which come back in the order of all.
func choose(kind, list string, all []string) ([]string, error) {
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("no %s %q: there are %s", kind, name, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !slices.Contains(wanted, name) }), nil
}

// part is something that is measured, prints what came of it and keeps it for
// the page.
type part struct {
	name string
	run  func(context.Context, *stage, *results) (printed, error)
}

type printed interface{ print(io.Writer) }

// parts are all of them, in their order.
func parts() []part {
	var all []part
	for i := range scenarios {
		all = append(all, part{scenarios[i].name, func(ctx context.Context, s *stage, r *results) (printed, error) {
			t, err := s.interleave(ctx, &scenarios[i], &r.options)
			if err == nil {
				r.tables = append(r.tables, t)
			}
			return t, err
		}})
	}
	all = append(all, part{"system-calls", func(ctx context.Context, s *stage, r *results) (_ printed, err error) {
		r.calls, err = s.countCalls(ctx, r.options.targets)
		return r.calls, err
	}})
	for i := range incidents {
		all = append(all, part{incidents[i].name, func(ctx context.Context, s *stage, r *results) (printed, error) {
			c, err := s.play(ctx, &incidents[i])
			if err == nil {
				r.incidents = append(r.incidents, c)
			}
			return c, err
		}})
	}
	return append(all, part{"memory", func(ctx context.Context, s *stage, r *results) (_ printed, err error) {
		r.memory, err = s.measureMemory(ctx, r.options.program)
		return r.memory, err
	}}, part{"decisions", func(ctx context.Context, s *stage, r *results) (_ printed, err error) {
		r.benchmarks, err = s.runBenchmarks(ctx, r.options.rounds)
		return r.benchmarks, err
	}}, part{"code", func(_ context.Context, _ *stage, r *results) (_ printed, err error) {
		r.code, err = countCode(".")
		return r.code, err
	}})
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// run measures all parts that are wanted. One that fails does not lose the
// others; the result is kept as a part of one then.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	r := &results{options: o, begun: time.Now(), load: load(), before: readProcessorTime(fileText("/proc/stat"))} //nolint:forbidigo // a measurement
	s, err := setUp(ctx, &o)
	if err != nil {
		return fmt.Errorf("what was started has been ended: %w", err)
	}
	r.versions = s.versions(ctx)
	failed := r.measure(ctx, s, out)
	if ctx.Err() != nil {
		failed = append(failed, errors.New("interrupted: the rest was not measured, and what was started has been ended"))
	}
	failed = append(failed, s.tearDown())
	r.stolen = readProcessorTime(fileText("/proc/stat")).stolenSince(r.before)
	err = errors.Join(failed...)
	r.options.complete = o.complete && err == nil
	page, err2 := r.write()
	if err2 == nil {
		fmt.Fprint(out, "\n")
		r.printGoals(out)
		fmt.Fprintf(out, "\n%s, after %s\n", page, time.Since(r.begun).Round(time.Second))
	}
	return errors.Join(err, err2)
}

// measure runs the parts.
func (r *results) measure(ctx context.Context, s *stage, out io.Writer) (failed []error) {
	for _, p := range parts() {
		if ctx.Err() != nil {
			return failed
		}
		if !slices.Contains(r.options.parts, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), p.name) //nolint:forbidigo // a measurement
		got, err := p.run(ctx, s, r)
		if err != nil {
			err = fmt.Errorf("%s: %w", p.name, err)
			fmt.Fprintln(os.Stderr, err)
			failed = append(failed, err)
			continue
		}
		got.print(out)
	}
	return failed
}

// interleave lets every target take part in each round, in an order that
// rotates.
func (s *stage) interleave(ctx context.Context, sc *scenario, o *options) (*table, error) {
	t := &table{scenario: sc, targets: o.targets, samples: map[string][]sample{}}
	for round := -1; round < o.rounds; round++ { // the first warms up
		first := max(round, 0) % len(t.targets)
		got, err := s.round(ctx, sc, slices.Concat(t.targets[first:], t.targets[:first]), o.seconds)
		if err != nil {
			return nil, err
		}
		for name, x := range got {
			if round >= 0 {
				t.samples[name] = append(t.samples[name], x)
			}
		}
	}
	return t, nil
}
