package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// versions says what was measured.
func (s *stage) versions(ctx context.Context) []string {
	all := []string{"lockkeeper" + revision(ctx)}
	number := regexp.MustCompile(`\d+(\.\d+)+`)
	for _, x := range []struct{ name, program, flag string }{
		{"PostgreSQL", filepath.Join(s.pg.BinDir(), "postgres"), "--version"}, {"PgBouncer", "pgbouncer", "--version"}, {"HAProxy", "haproxy", "-v"},
	} {
		for _, path := range []string{x.program, filepath.Join("/usr/sbin", filepath.Base(x.program))} {
			if out, err := exec.CommandContext(ctx, path, x.flag).Output(); err == nil {
				all = append(all, x.name+" "+number.FindString(string(out)))
				break
			}
		}
	}
	return append(all, strings.Replace(runtime.Version(), "go", "Go ", 1))
}

// revision is the commit of the checkout, which "make bench" builds from.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "" // no git, or sources without it
	}
	return " " + strings.TrimSpace(string(out))
}

// machine says what it was measured on, as far as Linux tells.
func machine() string {
	parts := []string{fmt.Sprintf("%d processors", runtime.NumCPU())}
	if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindStringSubmatch(fileText("/proc/cpuinfo")); m != nil {
		parts[0] += " (" + m[1] + ")"
	}
	if release := regexp.MustCompile(`^\d+\.\d+`).FindString(fileText("/proc/sys/kernel/osrelease")); release != "" {
		parts = append(parts, "Linux "+release)
	}
	return strings.Join(parts, ", ")
}

// load is the load average of the last minute.
func load() string {
	first, _, _ := strings.Cut(fileText("/proc/loadavg"), " ")
	if first == "" {
		return "unknown"
	}
	return first
}

// tooMuch is the stolen share from which on ratios are not to be trusted.
const tooMuch = .1

// processorTime is what the processors were wanted for since the start, and what
// of it a hypervisor has given to others; zero where nothing tells.
type processorTime struct{ wanted, stolen float64 }

// readProcessorTime reads the first line of /proc/stat. Source: proc_stat(5):
// user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
func readProcessorTime(stat string) (t processorTime) {
	first, _, _ := strings.Cut(stat, "\n")
	for i, field := range strings.Fields(first) {
		n, err := strconv.ParseFloat(field, 64)
		if i == 0 || i == 4 || i == 5 || i > 8 || err != nil {
			continue
		}
		t.wanted += n
		if i == 8 {
			t.stolen = n
		}
	}
	return t
}

// stolenSince is the share of the wanted time that was stolen.
func (t processorTime) stolenSince(before processorTime) float64 {
	if t.wanted <= before.wanted {
		return 0
	}
	return (t.stolen - before.stolen) / (t.wanted - before.wanted)
}

// fileText is empty where there is no such file.
func fileText(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
