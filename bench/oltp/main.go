// Command oltp measures what lockkeeper costs beside no proxy and its peers: CPU per transaction, latency, throughput, and what two incidents do to everybody else.
//
// Rounds are short and interleaved: each visits every target, in an order that
// rotates, so that what the machine does meanwhile meets all of them. Ratios are
// paired within a round, and their medians are printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "oltp:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds    int
	length    time.Duration // of one measurement
	targets   []string
	scenarios []string
	incidents bool
	program   string
	folder    string // of the results
	machine   string
}

func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("oltp", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 11, "rounds of each scenario")
	flags.DurationVar(&o.length, "length", 2*time.Second, "of one measurement")
	targets := flags.String("targets", strings.Join(targetNames(), ","), "what is measured")
	scenarios := flags.String("scenarios", strings.Join(scenarioNames(), ","), "how; empty for none")
	flags.BoolVar(&o.incidents, "incidents", true, "measure what a lock queue and an unbounded UPDATE do to others, too")
	flags.StringVar(&o.program, "lockkeeper", "bin/lockkeeper", "the program")
	flags.StringVar(&o.folder, "results", "bench/results", "the folder of the results")
	flags.StringVar(&o.machine, "machine", fmt.Sprintf("%s-%s-%dcpu", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), "what the result's file is called by, besides the date")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.program, err = filepath.Abs(o.program); err != nil {
		return o, err
	}
	o.targets, o.scenarios = split(*targets), split(*scenarios)
	for _, name := range o.targets {
		if !slices.Contains(targetNames(), name) {
			return o, fmt.Errorf("no target %q: there are %s", name, strings.Join(targetNames(), ", "))
		}
	}
	for _, name := range o.scenarios {
		if !slices.Contains(scenarioNames(), name) {
			return o, fmt.Errorf("no scenario %q: there are %s", name, strings.Join(scenarioNames(), ", "))
		}
	}
	if o.rounds < 1 || o.length < 100*time.Millisecond {
		return o, errors.New("at least one round, of a tenth of a second or more")
	}
	return o, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	s, err := setUp(ctx, &o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.tearDown()) }()
	r := &results{options: o, versions: s.versions(ctx)}
	for i := range scenarios {
		if !slices.Contains(o.scenarios, scenarios[i].name) {
			continue
		}
		t, err := s.interleave(ctx, &scenarios[i], &o)
		if err != nil {
			return fmt.Errorf("%s: %w", scenarios[i].name, err)
		}
		r.tables = append(r.tables, t)
		t.print(os.Stdout)
	}
	if o.incidents {
		for i := range incidents {
			in, err := s.play(ctx, &incidents[i])
			if err != nil {
				return fmt.Errorf("%s: %w", incidents[i].name, err)
			}
			r.incidents = append(r.incidents, in)
			in.print(os.Stdout)
		}
	}
	return r.write()
}

// interleave visits every target in each round.
func (s *stage) interleave(ctx context.Context, sc *scenario, o *options) (*table, error) {
	t := &table{scenario: sc, targets: o.targets, samples: map[string][]sample{}}
	for round := -1; round < o.rounds; round++ { // the first warms up
		for i := range t.targets {
			name := t.targets[(i+max(round, 0))%len(t.targets)]
			x, err := s.measure(ctx, sc, s.targets[name], o.length)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if round >= 0 {
				t.samples[name] = append(t.samples[name], x)
			}
		}
	}
	return t, nil
}
