package main

import (
	"bufio"
	"context"
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

// scenario is one kind of load.
type scenario struct {
	name, says string
	mode       string // pgbench's -M; empty for a stream
	clients    int
	script     string // pgbench's; empty is its own SELECT
	stream     string // a statement whose result is read once
	goal, must float64
}

func scenarioNames() []string {
	var names []string
	for i := range scenarios {
		names = append(names, scenarios[i].name)
	}
	return names
}

var scenarios = []scenario{
	{name: "simple-1", says: "`pgbench -S -M simple`, 1 client", mode: "simple", clients: 1},
	{name: "simple-8", says: "`pgbench -S -M simple`, 8 clients", mode: "simple", clients: 8, goal: .90, must: 1.15},
	{name: "simple-32", says: "`pgbench -S -M simple`, 32 clients", mode: "simple", clients: 32, goal: 1, must: 1.25},
	{name: "extended-8", says: "`pgbench -S -M extended`, 8 clients", mode: "extended", clients: 8, goal: .85, must: 1.05},
	{name: "prepared-8", says: "`pgbench -S -M prepared`, 8 clients", mode: "prepared", clients: 8, goal: .85, must: 1.05},
	{name: "literals-8", says: "statements of 1 kB with random literals in the text, `-M simple`, 8 clients", mode: "simple", clients: 8, script: literals(), goal: 1.05, must: 1.20},
	{name: "select-130mb", says: "a SELECT with a result of 130 MB", stream: "SELECT repeat('x', 1000) FROM generate_series(1, 130000)", goal: .45, must: .70},
	{name: "copy-130mb", says: "COPY of 130 MB to the client", stream: "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 130000)) TO STDOUT", goal: .45, must: .70},
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
	work     int           // transactions, or streams
	cpu      time.Duration // of the proxy, for each
	rate     float64       // per second
	p50, p99 time.Duration
}

func (s *stage) measure(ctx context.Context, sc *scenario, t *target, length time.Duration) (sample, error) {
	before, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	var x sample
	if sc.stream != "" {
		x, err = s.readStream(ctx, sc, t)
	} else {
		x, err = s.bench(ctx, sc, t, length)
	}
	if err != nil {
		return sample{}, err
	}
	after, err := t.cpu()
	if x.work > 0 {
		x.cpu = (after - before) / time.Duration(x.work)
	}
	return x, err
}

// readStream reads the result of one statement and throws it away.
func (s *stage) readStream(ctx context.Context, sc *scenario, t *target) (sample, error) {
	c, err := pgconn.Connect(ctx, t.url())
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = c.Close(ctx) }()
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
	return sample{work: 1, rate: 1 / took.Seconds(), p50: took, p99: took}, err
}

func (t *target) url() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", t.port)
}

// bench runs pgbench and reads its log of transactions.
func (s *stage) bench(ctx context.Context, sc *scenario, t *target, length time.Duration) (sample, error) {
	dir, err := os.MkdirTemp(s.dir, "log-")
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // tearDown does, too
	begun := time.Now()                      //nolint:forbidigo // a measurement
	cmd := s.command(ctx, "pgbench", t, "-n", "-M", sc.mode, "-c", strconv.Itoa(sc.clients), "-j", strconv.Itoa(min(2, sc.clients)),
		"-T", strconv.Itoa(max(1, int(length.Seconds()))), "-l", "--log-prefix="+filepath.Join(dir, "t"))
	if sc.script == "" {
		cmd.Args = append(cmd.Args, "-S")
	} else {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, []byte(sc.script), 0o600); err != nil {
			return sample{}, err
		}
		cmd.Args = append(cmd.Args, "-f", file)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return sample{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	all, err := transactions(dir)
	if err != nil || len(all) == 0 {
		return sample{}, fmt.Errorf("%d transactions: %w", len(all), err)
	}
	took := make([]time.Duration, len(all))
	for i := range all {
		took[i] = all[i].took
	}
	slices.Sort(took)
	return sample{
		work: len(all), rate: float64(len(all)) / time.Since(begun).Seconds(),
		p50: took[len(took)/2], p99: took[len(took)*99/100],
	}, nil
}

// transaction is one line of pgbench's log.
type transaction struct {
	ended time.Time
	took  time.Duration
}

// transactions reads what pgbench -l wrote: client, number, microseconds,
// script, and the end as seconds and microseconds. Source: manual, pgbench,
// "Per-Transaction Logging".
func transactions(dir string) ([]transaction, error) {
	files, err := filepath.Glob(filepath.Join(dir, "t.*"))
	if err != nil {
		return nil, err
	}
	var all []transaction
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			x, err := readTransaction(lines.Text())
			if err != nil {
				return nil, err
			}
			all = append(all, x)
		}
		_ = f.Close() // only read
	}
	return all, nil
}

func readTransaction(line string) (transaction, error) {
	var client, number, script, took, seconds, micros int64
	if _, err := fmt.Sscan(line, &client, &number, &took, &script, &seconds, &micros); err != nil {
		return transaction{}, fmt.Errorf("pgbench's log: %q: %w", line, err)
	}
	return transaction{time.Unix(seconds, micros*1000), time.Duration(took) * time.Microsecond}, nil
}
