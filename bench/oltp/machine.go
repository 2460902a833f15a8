package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// versions says what was measured.
func (s *stage) versions(ctx context.Context, program string) []string {
	all := []string{"lockkeeper " + revision(program)}
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

// revision is the commit that a program was built from.
func revision(program string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "of unknown origin"
	}
	commit, changed := "of unknown commit", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			commit = setting.Value[:min(len(setting.Value), 12)]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			changed = " with changes"
		}
	}
	return commit + changed
}

// machine says what it was measured on, as far as Linux tells.
func machine() string {
	parts := []string{fmt.Sprintf("%d processors", runtime.NumCPU())}
	if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindStringSubmatch(fileText("/proc/cpuinfo")); m != nil {
		parts[0] += " (" + m[1] + ")"
	}
	if release := fileText("/proc/sys/kernel/osrelease"); release != "" {
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

// fileText is empty where there is no such file.
func fileText(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
