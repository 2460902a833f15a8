package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// record is what a suite came to, as it is kept beside the page: suites may be
// run one at a time, and none is passed off as newer than it is.
type record struct {
	Name   string      `json:"name"`
	Title  string      `json:"title"`
	Server string      `json:"server"` // PostgreSQL's version
	Day    string      `json:"day"`
	Direct counts      `json:"direct"`
	Failed []string    `json:"failed_directly,omitempty"`
	Ways   []wayRecord `json:"ways"`
}

type counts struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

type wayRecord struct {
	Says     string   `json:"through"`
	Counts   counts   `json:"counts"`
	Differ   []differ `json:"differences,omitempty"`
	Unsteady []string `json:"unsteady,omitempty"` // differed in one of two runs
}

type differ struct {
	Test string `json:"test"`
	Why  string `json:"why"` // "" where nobody has said so yet
}

func count(r results) counts { return counts{r.count(passed), r.count(failed), r.count(skipped)} }

func (c counts) String() string { return fmt.Sprintf("%d / %d / %d", c.Passed, c.Failed, c.Skipped) }

// record makes a suite's results fit to be kept.
func (r *row) record(server, day string) *record {
	rec := &record{Name: r.suite.name, Title: r.title, Server: server, Day: day, Direct: count(r.direct), Failed: r.direct.named(failed)}
	for _, w := range r.ways {
		kept := wayRecord{Says: w.target.says, Counts: count(w.results), Unsteady: w.once}
		for _, test := range w.differ {
			kept.Differ = append(kept.Differ, differ{Test: test, Why: explain(r.suite.name, w.target.name, test)})
		}
		rec.Ways = append(rec.Ways, kept)
	}
	return rec
}

// verdict is an error where a difference has no explanation.
func (r *record) verdict() error {
	var errs []error
	for _, w := range r.Ways {
		for _, d := range w.Differ {
			if d.Why == "" {
				errs = append(errs, fmt.Errorf("%s, %s: %s differs, and nothing explains it", r.Name, w.Says, d.Test))
			}
		}
	}
	return errors.Join(errs...)
}

// keep writes a record into the folder.
func (r *record) keep(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Name+".json"), append(b, '\n'), 0o644) //nolint:gosec // a document
}

// kept are the records in the folder, in the order of the suites.
func kept(dir string) ([]*record, error) {
	var list []*record
	for _, u := range fullSuites() {
		b, err := os.ReadFile(filepath.Join(dir, u.name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := &record{}
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", u.name, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// tables are the suites' part of the page.
func tables(records []*record) string {
	var b strings.Builder
	b.WriteString("| suite | server | run on | way | direct: passed / failed / skipped | this way | tests that differ |\n|---|---|---|---|---|---|---|\n")
	for _, r := range records {
		for _, w := range r.Ways {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %d |\n", r.Title, r.Server, r.Day, w.Says, r.Direct, w.Counts, len(w.Differ))
		}
	}
	b.WriteString(differences(records))
	b.WriteString(failures(records))
	return b.String()
}

// differences names each, and says why.
func differences(records []*record) string {
	var b strings.Builder
	for _, r := range records {
		for _, w := range r.Ways {
			for _, d := range w.Differ {
				why := d.Why
				if why == "" {
					why = "not explained yet"
				}
				fmt.Fprintf(&b, "| %s | %s | `%s` | %s |\n", r.Title, w.Says, d.Test, why)
			}
			for _, test := range w.Unsteady {
				fmt.Fprintf(&b, "| %s | %s | `%s` | in one of two runs only: the test is not steady |\n", r.Title, w.Says, test)
			}
		}
	}
	if b.Len() == 0 {
		return "\nNo test differs.\n"
	}
	return "\nWhat differs, and why:\n\n| suite | way | test | why |\n|---|---|---|---|\n" + b.String()
}

// failures names what fails directly: that says something about the suite and
// the machine, and nothing about lockkeeper.
func failures(records []*record) string {
	const most = 20
	var b strings.Builder
	for _, r := range records {
		names := slices.Clone(r.Failed)
		if len(names) == 0 {
			continue
		}
		more := ""
		if len(names) > most {
			names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
		}
		fmt.Fprintf(&b, "* %s: `%s`%s\n", r.Title, strings.Join(names, "`, `"), more)
	}
	if b.Len() == 0 {
		return ""
	}
	return "\nWhat fails directly, too:\n\n" + b.String()
}

const (
	beginMark = "<!-- conformance:begin -->\n"
	endMark   = "<!-- conformance:end -->"
)

// writePage puts the tables between their marks in the page, and leaves the
// rest as it is.
func writePage(page string, records []*record) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := pageWith(string(b), records)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(text), 0o644) //nolint:gosec // a document
}

func pageWith(text string, records []*record) (string, error) {
	before, rest, found := strings.Cut(text, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !found || !ended {
		return "", fmt.Errorf("it has no %q and %q", beginMark, endMark)
	}
	return before + beginMark + "\n" + tables(records) + "\n" + endMark + after, nil
}
