package main

import (
	"fmt"
	"os"
	"strings"
)

// What stands between these lines is the same in the page of the newest result
// and in README, but for the links' folder.
const (
	summaryBegin = "<!-- bench:begin -->\n"
	summaryEnd   = "<!-- bench:end -->"
)

// Where results are kept, and the page that shows the newest.
const (
	resultsFolder = "bench/results"
	readme        = "README.md"
)

// summary is the part of the page that README has, too.
func (r *results) summary(name string) string {
	var b strings.Builder
	b.WriteString(summaryBegin + "\n") // a table begins after an empty line
	r.printGoals(&b)
	fmt.Fprintf(&b, "\n[The whole result](%s.md), measured on %s: %s.\n", name, machine(), strings.Join(r.versions, ", "))
	for _, in := range incidents {
		fmt.Fprintf(&b, "\n![%s](%s)\n", in.says, pictureFile(name, in.name))
	}
	fmt.Fprintf(&b, "\n![CPU of each proxy, relative to PgBouncer's](%s)\n", pictureFile(name, "cpu"))
	b.WriteString(summaryEnd)
	return b.String()
}

// updateReadme replaces the summary in README by another.
func updateReadme(summary string) error {
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	changed, err := withSummary(string(text), summary)
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return os.WriteFile(readme, []byte(changed), 0o644) //nolint:gosec // a page for everybody
}

// withSummary returns a page at the root with another summary.
func withSummary(text, summary string) (string, error) {
	before, _, after, err := cutSummary(text)
	return before + linkedFromRoot(summary) + after, err
}

// linkedFromRoot makes the links of a summary lead into the results' folder.
func linkedFromRoot(summary string) string {
	return strings.ReplaceAll(summary, "](", "]("+resultsFolder+"/")
}

// cutSummary cuts a page into what stands before its summary, the summary with
// the lines around it, and the rest.
func cutSummary(text string) (before, summary, after string, err error) {
	i := strings.Index(text, summaryBegin)
	j := strings.Index(text, summaryEnd)
	if i < 0 || j < i {
		return "", "", "", fmt.Errorf("the lines %q and %q are missing", strings.TrimSpace(summaryBegin), summaryEnd)
	}
	j += len(summaryEnd)
	return text[:i], text[i:j], text[j:], nil
}
