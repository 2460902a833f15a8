package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// calls are a proxy's system calls for each transaction, by name.
type calls struct {
	target  string
	clients int
	each    map[string]float64
}

// callTables are what strace said, or why it said nothing.
type callTables struct {
	all    []calls
	absent string
}

const (
	countedTransactions = 4000 // of all clients; logins are lost among them
	countingTakes       = 2 * time.Minute
)

// callClients are the numbers of clients that calls are counted with.
var callClients = []int{1, 8}

// countCalls counts the system calls of every proxy, with one client and with
// eight. Tracing slows a proxy several times: it says what it does, not how
// fast.
func (s *stage) countCalls(ctx context.Context, targets []string) (*callTables, error) {
	t := &callTables{}
	for _, clients := range callClients {
		for _, name := range targets {
			if name == direct {
				continue
			}
			each, err := s.trace(ctx, s.targets[name], clients)
			if errors.Is(err, errNoTracing) {
				t.absent = err.Error()
				return t, nil
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			t.all = append(t.all, calls{name, clients, each})
		}
	}
	return t, nil
}

// errNoTracing means that there is no strace, or that it may not trace.
var errNoTracing = errors.New("strace cannot trace here")

func (s *stage) trace(ctx context.Context, t *target, clients int) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, countingTakes)
	defer cancel()
	summary := filepath.Join(s.dir, "strace")
	tracer := exec.CommandContext(ctx, "strace", "-f", "-c", "-o", summary, "-p", strconv.Itoa(t.pid))
	said, err := tracer.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := tracer.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTracing, err)
	}
	if err := attached(said); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTracing, errors.Join(err, tracer.Wait()))
	}
	go func() { _, _ = io.Copy(io.Discard, said) }() // threads that come and go
	out, err := s.command(ctx, "pgbench", t, "-n", "-S", "-M", "simple", "-c", strconv.Itoa(clients), "-j", "1", "-t", strconv.Itoa(countedTransactions/clients)).CombinedOutput()
	_ = tracer.Process.Signal(os.Interrupt) // it sums up and lets go
	_ = tracer.Wait()                       // ends by that signal
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return nil, err
	}
	return readCalls(string(text), countedTransactions)
}

// attached waits until strace says that it has attached.
func attached(said io.Reader) error {
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "attached") {
			return nil
		}
		if line := lines.Text(); strings.Contains(line, "ptrace") || strings.Contains(line, "attach") {
			return errors.New(line)
		}
	}
	return errors.New("it ended")
}

// readCalls reads the table of strace -c: "% time, seconds, usecs/call, calls,
// errors if any, name", and a line of the total.
func readCalls(text string, transactions int) (map[string]float64, error) {
	each := map[string]float64{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[len(fields)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(fields[3]); err == nil {
			each[fields[len(fields)-1]] += float64(n) / float64(transactions)
		}
	}
	if len(each) == 0 {
		return nil, fmt.Errorf("strace's table: %q", text)
	}
	return each, nil
}

func (c *calls) total() float64 {
	var sum float64
	for _, n := range c.each {
		sum += n
	}
	return sum
}

func (t *callTables) print(out io.Writer) {
	fmt.Fprintf(out, "\n## System calls for each transaction\n\n`pgbench -S -M simple`, %d transactions under `strace -f -c`, logins included.\n\n", countedTransactions)
	if t.absent != "" {
		fmt.Fprintf(out, "Not counted: %s.\n", t.absent)
		return
	}
	fmt.Fprintln(out, "| target | clients | calls | of them |\n|---|---|---|---|")
	for i := range t.all {
		fmt.Fprintf(out, "| %s | %d | %.1f | %s |\n", t.all[i].target, t.all[i].clients, t.all[i].total(), t.all[i].most())
	}
}

// most names the calls that matter, the most frequent first.
func (c *calls) most() string {
	names := slices.SortedFunc(maps.Keys(c.each), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.each[b], c.each[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		if c.each[name] >= .05 {
			parts = append(parts, fmt.Sprintf("%s %.1f", name, c.each[name]))
		}
	}
	return strings.Join(parts, ", ")
}
