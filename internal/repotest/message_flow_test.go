package repotest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const messageFlow = "docs/message-flow.md"

// flowRule is one rule of the manual's chapter "Message Flow".
type flowRule struct {
	id, text  string
	tests     []string // that guard it besides scenarios
	none      string   // why nothing does
	scenarios []string
}

// TestMessageFlow compares the table of docs/message-flow.md with the rules and
// the scenarios that cite them: every rule has a scenario, a test or a reason,
// and every scenario a rule. UPDATE_GOLDEN=1 writes the table.
func TestMessageFlow(t *testing.T) {
	sections, rules := flowRules(t)
	citeScenarios(t, rules)
	exists := testNames(t)
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n| rule | | guarded by |\n|---|---|---|\n", s.title)
		for _, r := range s.rules {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r.id, r.text, r.guards(t, exists))
		}
	}
	b.WriteString("\n")
	text := read(t, messageFlow)
	got := between(t, text, "message-flow")
	if got == b.String() {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf("the table of %s is not what the scenarios say (make golden writes it)", messageFlow)
	}
	text = strings.Replace(text, "message-flow:begin -->\n"+got, "message-flow:begin -->\n"+b.String(), 1)
	if err := os.WriteFile(inRoot(messageFlow), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

type flowSection struct {
	title string
	rules []*flowRule
}

// flowRules reads the list of rules.
func flowRules(t *testing.T) (sections []flowSection, byID map[string]*flowRule) {
	t.Helper()
	heading := regexp.MustCompile(`^(55\.2[0-9.]*) (.+)$`)
	rule := regexp.MustCompile(`^(\d+) ([^|]+?)(?: \| (test|none:) (.+))?$`)
	byID = map[string]*flowRule{}
	for _, line := range strings.Split(read(t, "proxy/testdata/message-flow.txt"), "\n") {
		switch m := heading.FindStringSubmatch(line); {
		case line == "" || line[0] == '#':
			continue
		case m != nil:
			sections = append(sections, flowSection{title: line})
			continue
		}
		m := rule.FindStringSubmatch(line)
		if m == nil || len(sections) == 0 {
			t.Fatalf("no rule: %q", line)
		}
		s := &sections[len(sections)-1]
		number, _, _ := strings.Cut(s.title, " ")
		r := &flowRule{id: number + "/" + m[1], text: m[2]}
		switch m[3] {
		case "test":
			r.tests = strings.Split(m[4], ", ")
		case "none:":
			r.none = m[4]
		}
		if m[1] != fmt.Sprint(len(s.rules)+1) {
			t.Errorf("%s is out of order", r.id)
		}
		s.rules = append(s.rules, r)
		byID[r.id] = r
	}
	return sections, byID
}

// citeScenarios adds each scenario to the rules that it cites.
func citeScenarios(t *testing.T, rules map[string]*flowRule) {
	t.Helper()
	files, err := filepath.Glob(inRoot("proxy/testdata/scenarios/*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	slices.Sort(files)
	cites := regexp.MustCompile(`(?m)^# cites (.+)$`)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		m := cites.FindStringSubmatch(read(t, "proxy/testdata/scenarios/"+filepath.Base(file)))
		if m == nil {
			t.Errorf("scenario %s cites no rule: give it a line \"# cites 55.2.3/1\"", name)
			continue
		}
		for _, id := range strings.Split(m[1], ", ") {
			if rules[id] == nil {
				t.Errorf("scenario %s cites %q, which is no rule", name, id)
				continue
			}
			rules[id].scenarios = append(rules[id].scenarios, name)
		}
	}
}

// guards is the last cell of a rule's row.
func (r *flowRule) guards(t *testing.T, exists map[string]bool) string {
	t.Helper()
	var out []string
	for _, s := range r.scenarios {
		out = append(out, fmt.Sprintf("[%s](../proxy/testdata/scenarios/%s.txt)", s, s))
	}
	for _, name := range r.tests {
		if !exists[name] {
			t.Errorf("%s: there is no %s", r.id, name)
		}
		out = append(out, "`"+name+"`")
	}
	switch {
	case len(out) == 0 && r.none == "":
		t.Errorf("%s has no scenario: %s", r.id, r.text)
	case len(out) > 0 && r.none != "":
		t.Errorf("%s is guarded, and says that nothing does", r.id)
	case r.none != "":
		return "not to be: " + r.none
	}
	return strings.Join(out, ", ")
}
