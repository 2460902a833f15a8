package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// transaction is one line of pgbench's log.
type transaction struct {
	client int
	ended  time.Time
	took   time.Duration // from when it was due, where the load has a rate
}

// transactions reads what pgbench -l wrote into a folder.
func transactions(dir string) ([]transaction, error) {
	files, err := filepath.Glob(filepath.Join(dir, logPrefix+".*"))
	if err != nil {
		return nil, err
	}
	var all []transaction
	for _, name := range files {
		if all, err = appendTransactions(all, name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// logPrefix is what the names of pgbench's logs begin with.
const logPrefix = "t"

func appendTransactions(all []transaction, name string) ([]transaction, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		x, err := readTransaction(lines.Text())
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, lines.Err()
}

// readTransaction reads client, number, microseconds, script, and the end as
// seconds and microseconds; a lag may follow. Source: manual, pgbench,
// "Per-Transaction Logging".
func readTransaction(line string) (transaction, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return transaction{}, fmt.Errorf("pgbench's log: %q", line)
	}
	var n [6]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return transaction{}, fmt.Errorf("pgbench's log: %q: %w", line, err)
		}
	}
	return transaction{int(n[0]), time.Unix(n[4], n[5]*1000), time.Duration(n[2]) * time.Microsecond}, nil
}

// durations returns how long each took, in order of length.
func durations(all []transaction) []time.Duration {
	took := make([]time.Duration, len(all))
	for i := range all {
		took[i] = all[i].took
	}
	slices.Sort(took)
	return took
}

// percentile returns a quantile of sorted whole microseconds, finer than they
// are: what took the same microsecond counts as spread evenly over it. A proxy
// adds about ten of them.
func percentile(sorted []time.Duration, q float64) time.Duration {
	at := q * float64(len(sorted))
	v := sorted[min(int(at), len(sorted)-1)]
	below, _ := slices.BinarySearch(sorted, v)
	upTo, _ := slices.BinarySearch(sorted, v+1)
	return v + time.Duration((at-float64(below))/float64(upTo-below)*float64(time.Microsecond))
}
