package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// scenario is one kind of load.
type scenario struct {
	name, says string
	mode       string // pgbench's -M; empty for a stream
	clients    int
	builtin    string // pgbench's script; empty is its SELECT
	script     string // one of ours
	stream     string // a statement whose result is read once
}

var scenarios = []scenario{
	{name: "simple-1", says: "`pgbench -S -M simple`, 1 client", mode: "simple", clients: 1},
	{name: "simple-8", says: "`pgbench -S -M simple`, 8 clients", mode: "simple", clients: 8},
	{name: "simple-32", says: "`pgbench -S -M simple`, 32 clients", mode: "simple", clients: 32},
	{name: "extended-8", says: "`pgbench -S -M extended`, 8 clients", mode: "extended", clients: 8},
	{name: "prepared-8", says: "`pgbench -S -M prepared`, 8 clients", mode: "prepared", clients: 8},
	{name: "literals-8", says: "statements of 1 kB with random literals in the text, `-M simple`, 8 clients", mode: "simple", clients: 8, script: literals()},
	{name: "update-8", says: "`pgbench -N -M simple`, 8 clients: writes, which are journalled", mode: "simple", clients: 8, builtin: "simple-update"},
	{name: "select-130mb", says: "a SELECT with a result of 130 MB", stream: "SELECT repeat('x', 1000) FROM generate_series(1, 130000)"},
	{name: "copy-130mb", says: "COPY of 130 MB to the client", stream: "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 130000)) TO STDOUT"},
}

// literals is a script whose SELECT is as long as an ORM's, with literals that
// differ every time.
func literals() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\\set a random(1, %d)\n", 100_000*scale)
	b.WriteString(`SELECT "pgbench_accounts"."aid" AS "id", "pgbench_accounts"."bid" AS "bid", "pgbench_accounts"."abalance" AS "balance"`)
	for i := range 12 {
		fmt.Fprintf(&b, `, "pgbench_accounts"."filler" || 'a column of no use %d' AS "some_long_name_%d"`, i, i)
	}
	b.WriteString(` FROM "pgbench_accounts" WHERE "pgbench_accounts"."aid" IN (:a, :a + 1) AND "pgbench_accounts"."abalance" >= -:a AND "pgbench_accounts"."filler" <> 'x:a' ORDER BY "pgbench_accounts"."aid" LIMIT 80;` + "\n")
	return b.String()
}

// sample is one measurement.
type sample struct {
	cpu          time.Duration // of the proxy, for each transaction or stream
	user, system time.Duration // of the proxy, for all of them and the logins, to ticks
	rate         float64       // per second
	p50, p99     time.Duration
}

// round takes one sample of every target, in the order of names.
func (s *stage) round(ctx context.Context, sc *scenario, names []string, seconds int) (map[string]sample, error) {
	before, err := s.splits(names)
	if err != nil {
		return nil, err
	}
	var out map[string]sample
	if sc.stream != "" {
		out, err = s.readStreams(ctx, sc, names)
	} else {
		out, err = s.bench(ctx, sc, names, seconds)
	}
	if err != nil {
		return nil, err
	}
	after, err := s.splits(names)
	for name, x := range out {
		x.user, x.system = after[name].user-before[name].user, after[name].system-before[name].system
		out[name] = x
	}
	return out, err
}

// share is a proxy's CPU time, to ticks.
type share struct{ user, system time.Duration }

func (s *stage) splits(names []string) (map[string]share, error) {
	out := map[string]share{}
	for _, name := range names {
		user, system, err := s.targets[name].split()
		if err != nil {
			return nil, err
		}
		out[name] = share{user, system}
	}
	return out, nil
}

func (s *stage) readStreams(ctx context.Context, sc *scenario, names []string) (map[string]sample, error) {
	out := map[string]sample{}
	for _, name := range names {
		x, err := s.readStream(ctx, sc, s.targets[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = x
	}
	return out, nil
}

// readStream reads the result of one statement and throws it away.
func (s *stage) readStream(ctx context.Context, sc *scenario, t *target) (sample, error) {
	c, err := pgconn.Connect(ctx, t.url())
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = c.Close(ctx) }()
	before, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now() //nolint:forbidigo // a measurement
	if strings.HasPrefix(sc.stream, "COPY") {
		_, err = c.CopyTo(ctx, io.Discard, sc.stream)
	} else {
		rows := c.Exec(ctx, sc.stream)
		for rows.NextResult() {
			for r := rows.ResultReader(); r.NextRow(); {
			}
		}
		err = rows.Close()
	}
	took := time.Since(begun)
	after, err2 := t.cpu()
	return sample{cpu: after - before, rate: 1 / took.Seconds(), p50: took, p99: took}, errors.Join(err, err2)
}

func (t *target) url() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", t.port)
}
