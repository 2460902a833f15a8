package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lockkeeper/policy"
)

const architecture = "docs/architecture.md"

// TestCodeMap compares the code map with the packages and the first sentences
// of their comments. UPDATE_GOLDEN=1 writes it.
func TestCodeMap(t *testing.T) {
	want := codeMap(t)
	text := read(t, architecture)
	got := between(t, text, "code-map")
	if got == want {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf("the code map of %s is not what the packages say (make golden writes it):\n--- is\n%s--- should be\n%s", architecture, got, want)
	}
	text = strings.Replace(text, "code-map:begin -->\n"+got, "code-map:begin -->\n"+want, 1)
	if err := os.WriteFile(inRoot(architecture), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func codeMap(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| package | what it is |\n|---|---|\n")
	for _, p := range packages(t) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", p.dir(), sentence(t, p))
	}
	b.WriteString("\n")
	return b.String()
}

// sentence is the package comment's first sentence without the words that every
// such comment begins with.
func sentence(t *testing.T, p goPackage) string {
	t.Helper()
	if p.Doc == "" {
		t.Errorf("package %s has no comment", p.dir())
		return ""
	}
	text := strings.Join(strings.Fields(p.Doc), " ")
	text = strings.TrimPrefix(text, "Package "+p.Name+" ")
	if p.Name == "main" {
		text = strings.TrimPrefix(text, "Command "+path.Base(p.ImportPath)+" ")
	}
	return text
}

// between returns what stands between <!-- name:begin --> and <!-- name:end -->.
func between(t *testing.T, text, name string) string {
	t.Helper()
	_, rest, ok1 := strings.Cut(text, "<!-- "+name+":begin -->\n")
	body, _, ok2 := strings.Cut(rest, "<!-- "+name+":end -->")
	if !ok1 || !ok2 {
		t.Fatalf("no %s:begin and %s:end", name, name)
	}
	return body
}

// TestPromisesAreGuarded checks that every promise names a test, or says what
// of it is not there yet, and that the tests exist.
func TestPromisesAreGuarded(t *testing.T) {
	exists := testNames(t)
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]*)`")
	rows := regexp.MustCompile(`(?m)^\| (P\d+) \| (.*?) \| (.*?) \|$`).FindAllStringSubmatch(read(t, architecture), -1)
	if len(rows) != 10 {
		t.Errorf("%d promises in %s, want P1 to P10", len(rows), architecture)
	}
	for _, row := range rows {
		guards := name.FindAllStringSubmatch(row[3], -1)
		if len(guards) == 0 && !strings.Contains(row[3], "not yet") {
			t.Errorf("%s: no test guards it, and it does not say \"not yet\"", row[1])
		}
		for _, guard := range guards {
			if !exists[guard[1]] {
				t.Errorf("%s: there is no %s", row[1], guard[1])
			}
		}
	}
}

// testNames returns the names of all Test and Fuzz functions of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, file := range filesWith(t, "_test.go") {
		tree, err := parser.ParseFile(token.NewFileSet(), inRoot(file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, d := range tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// machineFile matches paths that mean something on one machine only.
var machineFile = regexp.MustCompile(`(?:^|[^A-Za-z0-9._/-])/(?:` + strings.Join([]string{"work", "root", "home", "Users"}, "|") + `)/`)

func TestNoPathsOfOneMachine(t *testing.T) {
	for _, file := range tracked(t) {
		if strings.HasSuffix(file, ".gz") || covers("internal/testdata/...", file) || covers("internal/repotest/...", file) {
			continue
		}
		for i, line := range strings.Split(read(t, file), "\n") {
			if m := machineFile.FindString(line); m != "" {
				t.Errorf("%s:%d: names a path of one machine (%s)", file, i+1, m)
			}
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	for _, file := range filesWith(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := os.Stat(inRoot(path.Join(path.Dir(file), m[1]))); err != nil {
				t.Errorf("%s: link to %s, which is not there", file, m[1])
			}
		}
	}
}

func TestDecisionsAreListed(t *testing.T) {
	text := read(t, architecture)
	for _, file := range filesWith(t, ".md") {
		if name, ok := strings.CutPrefix(file, "docs/"); ok && strings.HasPrefix(name, "decisions/") && !strings.Contains(text, "("+name+")") {
			t.Errorf("%s does not link to %s", architecture, name)
		}
	}
}

// fence is one fenced block of a document, with the words after the backticks.
type fence struct {
	file string
	line int
	info []string
	text string
}

func fences(t *testing.T) []fence {
	t.Helper()
	var all []fence
	for _, file := range filesWith(t, ".md") {
		var open *fence
		for i, line := range strings.Split(read(t, file), "\n") {
			info, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case isFence && open == nil:
				open = &fence{file: file, line: i + 1, info: strings.Fields(info)}
			case isFence:
				all, open = append(all, *open), nil
			case open != nil:
				open.text += line + "\n"
			}
		}
		if open != nil {
			t.Errorf("%s:%d: the block is not closed", file, open.line)
		}
	}
	return all
}

// isPolicy reports whether a block is a policy: all YAML is on the pages about
// policies, elsewhere it is marked.
func (f fence) isPolicy() bool {
	if f.file == "docs/policy.md" || covers("docs/checks/...", f.file) {
		return slices.Equal(f.info, []string{"yaml"})
	}
	return slices.Equal(f.info, []string{"yaml", "policy"})
}

// TestPoliciesInDocumentsLoad loads every policy that the documents show.
func TestPoliciesInDocumentsLoad(t *testing.T) {
	found := 0
	for _, f := range fences(t) {
		if !f.isPolicy() {
			continue
		}
		found++
		if _, err := policy.Parse([]byte(f.text), fmt.Sprintf("%s:%d", f.file, f.line)); err != nil {
			t.Errorf("%v", err)
		}
	}
	if found == 0 {
		t.Error("no document shows a policy")
	}
}

// TestYAMLInDocumentsIsMarked makes an author say what a block of YAML is, for
// otherwise no test loads it.
func TestYAMLInDocumentsIsMarked(t *testing.T) {
	for _, f := range fences(t) {
		if covers("docs/reference/...", f.file) {
			continue // printed by the program, and tested where it is printed
		}
		if len(f.info) > 0 && f.info[0] == "yaml" && !f.isPolicy() && !slices.Equal(f.info, []string{"yaml", "config"}) {
			t.Errorf("%s:%d: mark the block \"yaml policy\" or \"yaml config\"", f.file, f.line)
		}
	}
}
