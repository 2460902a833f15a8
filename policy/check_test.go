package policy

import (
	"os"
	"regexp"
	"slices"
	"testing"
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
