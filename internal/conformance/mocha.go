package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// nodePackages are pinned at the last versions whose packages hold their tests;
// newer ones leave them out.
const nodePackages = `{"private": true, "dependencies": {"mocha": "10.8.2", "pg": "8.7.3", "pg-cursor": "2.7.3"}}`

// mochaSuite is the tests of a package of npm's.
func mochaSuite(name string) suite {
	return suite{
		name: "node-" + name,
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.installNode(ctx); err != nil {
				return "", err
			}
			b, err := os.ReadFile(s.path("node", "node_modules", name, "package.json"))
			if err != nil {
				return "", err
			}
			var about struct{ Version string }
			if err := json.Unmarshal(b, &about); err != nil {
				return "", err
			}
			return fmt.Sprintf("node.js %s %s", name, about.Version), s.fresh(ctx, "node")
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) {
			report := s.path(t.name + "-" + name + ".json")
			err := s.try(ctx, s.path("node"), libpqEnv(t, "postgres", "node"), "node", "node_modules/.bin/mocha", "--no-config", "--no-package",
				"--exit", "--timeout=30000", "--reporter=json", "--reporter-option=output="+report, filepath.Join("node_modules", name, "test"))
			r, readErr := mochaResults(report)
			if len(r) == 0 {
				return nil, fmt.Errorf("mocha: %w, %w\n%s", err, readErr, s.lastOutput())
			}
			return r, s.alive()
		},
	}
}

func (s *stage) installNode(ctx context.Context) error {
	dir := s.path("node")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(nodePackages), 0o600); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "installing node.js packages")
	return s.command(ctx, dir, nil, "npm", "install", "--no-audit", "--no-fund")
}

// mochaResults reads mocha's report. Two tests may have one name: they are
// counted apart.
func mochaResults(path string) (results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	type test struct{ FullTitle string }
	var report struct{ Passes, Failures, Pending []test }
	if err := json.Unmarshal(b, &report); err != nil {
		return nil, err
	}
	r := results{}
	for _, list := range []struct {
		status status
		tests  []test
	}{{passed, report.Passes}, {failed, report.Failures}, {skipped, report.Pending}} {
		for _, t := range list.tests {
			name := t.FullTitle
			for n := 2; r[name].status != ""; n++ {
				name = fmt.Sprintf("%s (%d)", t.FullTitle, n)
			}
			r[name] = result{status: list.status}
		}
	}
	return r, nil
}
