package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestTour plays the whole demo, smaller: every act checks what it tells.
func TestTour(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(filepath.Join("..", ".."))
	var out strings.Builder
	args := []string{"--exit", "--rows", "2000", "--dir", filepath.Join(dir, "demo"), "--bin", filepath.Join(dir, "bin")}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
}
