package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lockkeeper/inspect"
)

// headings are what every check's page has, in this order.
var headings = []string{"What", "Why it hurts Odoo", "Configuration", "Example", "Exceptions"}

func TestEveryCheckHasItsPage(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^## (.*)$`)
	for _, c := range Checks() {
		if c.Name == CheckNoPolicy {
			continue // it lasts for an instant at the start, and nobody can configure it
		}
		text, err := os.ReadFile("../docs/checks/" + c.Name + ".md")
		if err != nil {
			t.Error(err)
			continue
		}
		var got []string
		for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, headings) {
			t.Errorf("%s: headings %q", c.Name, got)
		}
	}
}

func TestEveryPageHasItsCheck(t *testing.T) {
	pages, err := os.ReadDir("../docs/checks")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if !slices.ContainsFunc(Checks(), func(c Check) bool { return c.Name+".md" == p.Name() }) {
			t.Errorf("%s is about no check", p.Name())
		}
	}
}

// examples are the situations that the pages show.
func examples(t *testing.T) []told {
	until := readOnlySince(Finish, now)
	until.Until = now.Add(time.Hour)
	freeze := Containment{ID: "f7", Kind: FreezeDDL, Reason: "release week", Author: "bob", Since: now, Until: now.Add(24 * time.Hour)}
	pause := Containment{ID: "p1", Kind: Pause, Reason: "restore of a table", Author: "bob", Since: now, Until: now.Add(10 * time.Minute)}
	remove := statement(inspect.Write, inspect.KindDelete, rel("account_move", inspect.AccessDelete, inspect.BoundNone))
	block := do("account_move")
	block.Statements[0].Why = "DO runs a block in another language"
	importer := outside(batch(insertInto("account_move")))
	importer.Subject.Application = "import-1"
	page, err := os.ReadFile("../docs/checks/throttle.md")
	if err != nil {
		t.Fatal(err)
	}
	throttled := &Snapshot{Policy: parse(t, fenced(string(page), "yaml")[0])}
	return []told{
		{"unbounded-write", contained(t), outside(batch(remove))},
		{"costly-text", contained(t), outside(&inspect.Batch{Why: inspect.ReasonNesting, Costly: true})},
		{"unknown-text", contained(t), outside(block)},
		{"read-only", contained(t, until), outside(batch(update("res_partner", inspect.BoundKeyed)))},
		{"freeze", contained(t, freeze), outside(batch(alterTable("sale_order")))},
		{"pause", contained(t, pause), outside(batch(selectFrom("x")))},
		{"throttle", throttled, importer},
	}
}

// TestThePagesShowWhatIsSaid compares the refusals in the examples with those
// that clients receive. The server's own words are its own.
func TestThePagesShowWhatIsSaid(t *testing.T) {
	for _, c := range examples(t) {
		d := c.s.Decide(c.r)
		said := d.Refusal
		if d.Obligations.Hold != nil {
			said = d.Obligations.Hold.Refusal
		}
		if len(d.Obligations.Throttles) > 0 {
			said = d.Obligations.Throttles[0].Refusal
		}
		text, err := os.ReadFile(filepath.Join("../docs/checks", c.name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"ERROR:  " + said.Message, "DETAIL:  " + said.Detail, "HINT:  " + said.Hint} {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s does not show: %s", c.name, line)
			}
		}
	}
}
