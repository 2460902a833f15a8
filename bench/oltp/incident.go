package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// incident is something that one client does, and what the others feel of it.
type incident struct {
	name, says string
	script     string // pgbench's built-in one for everybody else
	variants   []variant
	held       bool // a transaction that only reads holds the table meanwhile
	statement  string
	undo       []string // so that every variant finds the same
}

// variant is how the statement comes to PostgreSQL.
type variant struct {
	says, target string
	set          string // settings of the statement's session
	colour       string
}

var incidents = []incident{
	{
		name: "lock-queue", says: "ALTER TABLE waits behind a transaction that has read the table and stays open",
		script: "select-only", held: true,
		statement: "ALTER TABLE pgbench_accounts ADD COLUMN note int", undo: []string{"ALTER TABLE pgbench_accounts DROP COLUMN IF EXISTS note"},
		variants: []variant{
			{"direct", direct, "", "#6b7280"}, {"direct, lock_timeout 5 s", direct, "SET lock_timeout = '5s'", "#d97706"}, {"through lockkeeper", poll, "", "#1d4ed8"},
		},
	},
	{
		name: "write-storm", says: "UPDATE without WHERE of every row",
		script:    "simple-update",
		statement: "UPDATE pgbench_accounts SET abalance = 0", undo: []string{"VACUUM FULL pgbench_accounts", "CHECKPOINT"},
		variants: []variant{{"direct", direct, "", "#6b7280"}, {"through lockkeeper", poll, "", "#1d4ed8"}},
	},
}

// The times of an incident, from the begin of the load.
const (
	holdAt     = 1 * time.Second
	strikeAt   = 2 * time.Second
	releaseAt  = 10 * time.Second
	loadEnds   = 13 * time.Second
	loadRate   = 400 // transactions a second, of all clients
	loadPeople = 8   // clients
	bucket     = 250 * time.Millisecond
	perSecond  = float64(time.Second / bucket)
)

// course is how one variant went.
type course struct {
	variant  *variant
	outcome  string        // of the statement
	took     time.Duration // the statement
	n        int           // transactions of the others
	slow     int           // of them longer than a second
	p50, p99 time.Duration
	longest  time.Duration
	silence  time.Duration // the longest time without any that ended
	series   []beat        // by bucket of time
}

// beat is what ended in one bucket of time.
type beat struct {
	n       int
	longest time.Duration
}

// chronicle is one incident in all its variants.
type chronicle struct {
	incident *incident
	courses  []course
}

// play lets every variant of an incident happen once.
func (s *stage) play(ctx context.Context, in *incident) (*chronicle, error) {
	c := &chronicle{incident: in}
	for i := range in.variants {
		v := &in.variants[i]
		if s.targets[v.target] == nil {
			continue
		}
		x, err := s.strike(ctx, in, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.says, err)
		}
		c.courses = append(c.courses, x)
		for _, sql := range in.undo {
			if err := s.pg.Exec(ctx, "postgres", sql); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// strike runs the load, and the statement in the middle of it.
func (s *stage) strike(ctx context.Context, in *incident, v *variant) (course, error) {
	dir, err := os.MkdirTemp(s.dir, "log-")
	if err != nil {
		return course{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // tearDown does, too
	load := s.command(ctx, "pgbench", s.targets[v.target], "-n", "-b", in.script, "-c", strconv.Itoa(loadPeople), "-j", "2", "-R", strconv.Itoa(loadRate),
		"-T", strconv.Itoa(int(loadEnds.Seconds())), "-l", "--log-prefix="+filepath.Join(dir, logPrefix))
	begun := time.Now() //nolint:forbidigo // a measurement
	if err := load.Start(); err != nil {
		return course{}, err
	}
	out, err := s.happen(ctx, in, v, begun)
	if err := errors.Join(err, load.Wait()); err != nil {
		return course{}, err
	}
	all, err := transactions(dir)
	if err != nil {
		return course{}, err
	}
	if len(all) == 0 {
		return course{}, errTooShort
	}
	out.count(all, begun)
	return out, nil
}

// happen holds the table where that is part of it, and runs the statement.
func (s *stage) happen(ctx context.Context, in *incident, v *variant, begun time.Time) (course, error) {
	c := course{variant: v}
	holder, err := pgconn.Connect(ctx, s.targets[direct].url())
	if err != nil {
		return c, err
	}
	defer func() { _ = holder.Close(ctx) }()
	who, err := pgconn.Connect(ctx, s.targets[v.target].url())
	if err != nil {
		return c, err
	}
	defer func() { _ = who.Close(ctx) }()
	if v.set != "" {
		if err := who.Exec(ctx, v.set).Close(); err != nil {
			return c, err
		}
	}
	time.Sleep(time.Until(begun.Add(holdAt)))
	if in.held {
		if err := holder.Exec(ctx, "BEGIN; SELECT FROM pgbench_accounts LIMIT 1").Close(); err != nil {
			return c, err
		}
	}
	time.Sleep(time.Until(begun.Add(strikeAt)))
	done := make(chan error, 1)
	go func() {
		struck := time.Now() //nolint:forbidigo // a measurement
		err := who.Exec(ctx, in.statement).Close()
		c.took = time.Since(struck)
		done <- err
	}()
	time.Sleep(time.Until(begun.Add(releaseAt)))
	if in.held {
		if err := holder.Exec(ctx, "COMMIT").Close(); err != nil {
			return c, err
		}
	}
	err = <-done
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		c.outcome = refused.Code + " " + refused.Message
	case err != nil:
		return c, err
	default:
		c.outcome = "done"
	}
	return c, nil
}

// count sums the transactions of the others up.
func (c *course) count(all []transaction, begun time.Time) {
	slices.SortFunc(all, func(a, b transaction) int { return a.ended.Compare(b.ended) })
	for i, t := range all {
		if t.took > time.Second {
			c.slow++
		}
		if i > 0 {
			c.silence = max(c.silence, t.ended.Sub(all[i-1].ended))
		}
		at := max(int(t.ended.Sub(begun)/bucket), 0)
		c.series = append(c.series, make([]beat, max(0, at+1-len(c.series)))...)
		c.series[at].n++
		c.series[at].longest = max(c.series[at].longest, t.took)
	}
	took := durations(all)
	c.n, c.longest = len(took), took[len(took)-1]
	c.p50, c.p99 = percentile(took, .5), percentile(took, .99)
}

func (c *chronicle) print(out io.Writer) {
	fmt.Fprintf(out, "\n## %s\n\n%s; %d clients with %d transactions a second meanwhile (`pgbench -b %s`), which take their time from when they were due.\n\n",
		c.incident.name, c.incident.says, loadPeople, loadRate, c.incident.script)
	fmt.Fprintln(out, "| way | the statement | it took | transactions of the others | p50 | p99 | longest | longest silence | longer than 1 s |\n|---|---|---|---|---|---|---|---|---|")
	for i := range c.courses {
		x := &c.courses[i]
		fmt.Fprintf(out, "| %s | %s | %s | %d | %s | %s | %s | %s | %d |\n", x.variant.says, strings.ReplaceAll(x.outcome, "|", "¦"), micros(x.took.Seconds()), x.n,
			micros(x.p50.Seconds()), micros(x.p99.Seconds()), micros(x.longest.Seconds()), micros(x.silence.Seconds()), x.slow)
	}
}
