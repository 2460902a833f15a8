package repotest

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// metrics returns the labels of every metric of the program: its own page about
// them, which a test of cmd/lockkeeper compares with what is registered.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `(lockkeeper_[a-z_]+)` \\| ([^|]*) \\|")
	label := regexp.MustCompile("`([a-z_]+)`")
	all := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		all[m[1]] = nil
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			all[m[1]] = append(all[m[1]], l[1])
		}
	}
	if len(all) == 0 {
		t.Fatal("docs/reference/metrics.md has no metrics")
	}
	return all
}

// TestMetricsExist checks that the metrics that documents and alerts speak of
// exist, with the labels that alerts select by.
func TestMetricsExist(t *testing.T) {
	all := metrics(t)
	mention := regexp.MustCompile(`\b(lockkeeper_[a-z_]+[a-z])\b(?:\{([^}]*)\})?`)
	selected := regexp.MustCompile(`([a-z_]+)(?:=~|!=|!~|=)"`)
	for _, file := range append(filesWith(t, ".md"), "deploy/alerts.yaml") {
		for _, m := range mention.FindAllStringSubmatch(read(t, file), -1) {
			labels, ok := all[metricOf(m[1], all)]
			if !ok {
				t.Errorf("%s: there is no metric %s", file, m[1])
			}
			for _, l := range selected.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: %s has no label %s", file, m[1], l[1])
				}
			}
		}
	}
}

// metricOf is the metric that a series belongs to: a histogram has several.
func metricOf(series string, all map[string][]string) string {
	if _, ok := all[series]; ok {
		return series
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(series, suffix); ok {
			return base
		}
	}
	return series
}
