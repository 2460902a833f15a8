package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
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

// measure takes one sample of a target.
func (s *stage) measure(ctx context.Context, sc *scenario, t *target, seconds int) (sample, error) {
	user, system, err := t.split()
	if err != nil {
		return sample{}, err
	}
	var x sample
	if sc.stream != "" {
		x, err = s.readStream(ctx, sc, t)
	} else {
		x, err = s.bench(ctx, sc, t, seconds)
	}
	if err != nil {
		return sample{}, err
	}
	x.user, x.system, err = t.split()
	x.user, x.system = x.user-user, x.system-system
	return x, err
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

// attempts is how often a load is tried whose clients were hardly at work.
const attempts = 3

// bench runs pgbench and returns what happened while all its clients worked.
func (s *stage) bench(ctx context.Context, sc *scenario, t *target, seconds int) (x sample, err error) {
	for range attempts {
		if x, err = s.benchOnce(ctx, sc, t, seconds); !errors.Is(err, errTooShort) {
			break
		}
	}
	return x, err
}

func (s *stage) benchOnce(ctx context.Context, sc *scenario, t *target, seconds int) (sample, error) {
	dir, err := os.MkdirTemp(s.dir, "log-")
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // tearDown does, too
	cmd := s.command(ctx, "pgbench", t, "-n", "-M", sc.mode, "-c", strconv.Itoa(sc.clients), "-j", strconv.Itoa(min(2, sc.clients)),
		"-T", strconv.Itoa(seconds), "-l", "--log-prefix="+filepath.Join(dir, logPrefix))
	if sc.script == "" {
		cmd.Args = append(cmd.Args, "-b", cmp.Or(sc.builtin, "select-only"))
	} else {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, []byte(sc.script), 0o600); err != nil {
			return sample{}, err
		}
		cmd.Args = append(cmd.Args, "-f", file)
	}
	m := newMeter(t)
	out, err := cmd.CombinedOutput()
	readings, err2 := m.stop()
	if err != nil {
		return sample{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	all, err3 := transactions(dir)
	if err := errors.Join(err2, err3); err != nil {
		return sample{}, err
	}
	return sum(all, sc.clients, readings)
}

// sum makes a sample of a load's transactions.
func sum(all []transaction, clients int, readings []reading) (sample, error) {
	first, last, err := span(all, clients, readings)
	if err != nil {
		return sample{}, err
	}
	var in []transaction
	for _, x := range all {
		if x.ended.After(first.at) && !x.ended.After(last.at) {
			in = append(in, x)
		}
	}
	if len(in) == 0 {
		return sample{}, errTooShort
	}
	took := durations(in)
	return sample{
		cpu:  (last.cpu - first.cpu) / time.Duration(len(in)),
		rate: float64(len(in)) / last.at.Sub(first.at).Seconds(),
		p50:  percentile(took, .5), p99: percentile(took, .99),
	}, nil
}
