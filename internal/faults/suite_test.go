package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait.
const patience = 60 * time.Second

// pageVariable names the file that the rows are written to; it makes the slow
// tests run.
const pageVariable = "LOCKKEEPER_FAULTS"

// row is what one test has observed.
type row struct{ fault, client, server, recovery, memory string }

var table struct {
	mu   sync.Mutex
	rows []row
}

func TestMain(m *testing.M) {
	code := m.Run()
	if page := os.Getenv(pageVariable); page != "" && code == 0 {
		if err := writePage(page); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if dir, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(dir))
	}
	os.Exit(code)
}

// pageWanted reports whether make faults runs.
func pageWanted() bool { return os.Getenv(pageVariable) != "" }

// slow skips a test that takes longer than a newcomer wants to wait.
func slow(t *testing.T) {
	t.Helper()
	if !pageWanted() {
		t.Skip("slow: make faults runs it")
	}
}

// aside lets a test that mostly waits run beside others, where no row depends on
// the order.
func aside(t *testing.T) {
	t.Helper()
	if !pageWanted() {
		t.Parallel()
	}
}

// program is lockkeeper, built for these tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lockkeeper-faults-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "lockkeeper")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "lockkeeper/cmd/lockkeeper")...)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build lockkeeper: %w\n%s", err, out)
	}
	return path, nil
})

const pageHead = `<!-- Written by "make faults"; do not edit. -->

# Faults

Each row is a test in internal/faults that puts a fault around a real lockkeeper process in front of a real PostgreSQL, or a
fake one where the fault is the server's; what the row says is what the test has observed and asserted. "Server left with" is what
pg_stat_activity, pg_locks and pg_prepared_xacts have of the sessions that the fault was about. "Recovers" means, where it is not said
otherwise: without help a new session works on the same path, another session has gone on meanwhile, and goroutines and file
descriptors are back where they were. RSS is the lockkeeper process's, in MiB: before, highest, after.

| fault | client sees | server left with | lockkeeper recovers | RSS |
|---|---|---|---|---|
`

func writePage(path string) error {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, r := range table.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.fault, r.client, r.server, r.recovery, r.memory)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// settle waits until a condition holds.
func settle(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
