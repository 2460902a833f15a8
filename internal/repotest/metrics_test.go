package repotest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`\blockkeeper_[a-z_]+[a-z]\b`)

// TestMetricsExist checks that the metrics that alerts and documents speak of
// are in the code, and that the document speaks of all that are.
func TestMetricsExist(t *testing.T) {
	code := metricsInCode(t)
	for _, file := range append(filesWith(t, ".md"), "deploy/alerts.yaml") {
		for _, name := range metricName.FindAllString(read(t, file), -1) {
			if !code.has(name) {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
	text := read(t, "docs/metrics.md")
	for name := range code.whole {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/metrics.md does not mention %s", name)
		}
	}
}

// literals are the strings of the program that may be metric names: whole ones,
// and the parts of those that are put together in one file.
type literals struct {
	whole map[string]bool
	files []map[string]bool
}

// has reports whether name is one of the literals, or two of one file put
// together; a histogram's series count as the histogram.
func (l literals) has(name string) bool {
	for _, series := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, series); ok && l.has(base) {
			return true
		}
	}
	if l.whole[name] {
		return true
	}
	for _, file := range l.files {
		for prefix := range file {
			if rest, ok := strings.CutPrefix(name, prefix); ok && strings.HasPrefix(prefix, "lockkeeper_") && file[rest] {
				return true
			}
		}
	}
	return false
}

func metricsInCode(t *testing.T) literals {
	t.Helper()
	found := literals{whole: map[string]bool{}}
	for _, file := range filesWith(t, ".go") {
		if strings.HasSuffix(file, "_test.go") || !strings.Contains(read(t, file), "prometheus.") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), inRoot(file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		all := map[string]bool{}
		ast.Inspect(tree, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all[s] = true
					found.whole[s] = found.whole[s] || metricName.FindString(s) == s && s != ""
				}
			}
			return true
		})
		found.files = append(found.files, all)
	}
	for name, is := range found.whole {
		if !is {
			delete(found.whole, name)
		}
	}
	return found
}
