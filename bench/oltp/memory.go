package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memory is what bench/idle says of idle sessions: its table, and the bytes of
// each session by engine and number.
type memory struct {
	page string
	each map[string]map[int]float64
}

// idleSessions are the steps, the last of which the goal is about.
var idleSessions = []int{1000, 9000}

// measureMemory runs bench/idle for plain sessions that have done nothing.
func (s *stage) measureMemory(ctx context.Context, program string) (*memory, error) {
	binary := filepath.Join(s.dir, "idle")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./bench/idle").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bench/idle: %w\n%s", err, out)
	}
	steps := "0"
	for _, n := range idleSessions {
		steps += "," + strconv.Itoa(n)
	}
	cmd := exec.CommandContext(ctx, binary, "-lockkeeper", program, "-sessions", steps, "-used", "", "-tls", "")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it has children
	cmd.WaitDelay = time.Minute
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("bench/idle: %w", err)
	}
	return readMemory(string(out))
}

// readMemory reads the page of bench/idle.
func readMemory(page string) (*memory, error) {
	m := &memory{each: map[string]map[int]float64{}}
	var heads []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		m.page += line
		cells := cellsOf(line)
		switch {
		case heads == nil:
			heads = cells
		case len(cells) != len(heads):
			return nil, fmt.Errorf("bench/idle's table: %q", line)
		default:
			m.take(heads, cells)
		}
	}
	if len(m.each) == 0 {
		return nil, fmt.Errorf("bench/idle's table has no column %q, %q or %q that is a number:\n%s", idleEngine, idleNumber, idleEach, page)
	}
	return m, nil
}

// Columns of bench/idle's table.
const (
	idleEngine = "engine"
	idleNumber = "idle sessions"
	idleEach   = "bytes for each (RSS)"
)

func (m *memory) take(heads, cells []string) {
	row := map[string]string{}
	for i, head := range heads {
		row[head] = cells[i]
	}
	n, err1 := strconv.Atoi(row[idleNumber])
	bytes, err2 := strconv.ParseFloat(row[idleEach], 64)
	if err1 != nil || err2 != nil || row[idleEngine] == "" {
		return // the line under the heads; no sessions
	}
	if m.each[row[idleEngine]] == nil {
		m.each[row[idleEngine]] = map[int]float64{}
	}
	m.each[row[idleEngine]][n] = bytes
}

// cellsOf splits a line of a Markdown table.
func cellsOf(line string) []string {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

func (m *memory) print(out io.Writer) {
	fmt.Fprintf(out, "\n## Memory of idle sessions\n\nOf lockkeeper's process, against a fake server; buffers of the kernel's sockets are not in it. `make idle` measures more kinds of session.\n\n%s", m.page)
}
