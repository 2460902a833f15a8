package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"lockkeeper/inspect/pgquery"
)

// evasionVariable is the environment variable that asks for every disguise,
// simple and extended, and for docs/evasion.md to be written.
const evasionVariable = "LOCKKEEPER_EVASION"

// someOf is how many of our own disguises there are for one that every run of
// the tests looks at.
const someOf = 7

// Other disguises of the corpus's classes, which it does not have.
func TestDisguisesOfOurOwn(t *testing.T) {
	j := evasionJudge(t)
	for i, c := range readDisguises(t, "evasion-own.jsonl") {
		if i%someOf != 0 || left[c.ID] != "" {
			continue
		}
		if why := j.judge(&c); why != "" {
			t.Errorf("%s (%s %s, %s): %s", c.ID, c.Intent, c.Grade, c.Why, why)
		}
	}
}

func evasionJudge(t *testing.T) *judge {
	t.Helper()
	return newJudge(t, newGuard(t, catalogued, func(s *setup) {
		s.pg = evasionServer(t)
		s.policy = impatient(t)
	}))
}

// left says, of each disguise that is not held, why no text shows it.
var left = map[string]string{
	"ub-gray-002":     "a range that holds every id there is: the text bounds it, the data do not",
	"ub-gray-004":     "a range that holds every id there is: the text bounds it, the data do not",
	"ub-gray-006":     "a list of all states there are: only the data say so",
	"ub-gray-007":     "as many keys as a subselect of the table itself finds, up to its LIMIT",
	"own-ub-072":      "a pattern that is a parameter: the text is planned for any",
	"ub-indirect-016": "the check of a domain writes",
	"ub-indirect-018": "a foreign key cascades from another table",
	"ub-indirect-019": "dblink writes over a connection of its own, which no count of this session sees",
}

// tally counts what is held of one class, simple and extended.
type tally struct{ held, all [2]int }

// TestEvasionTable runs every disguise in both protocols and writes the page.
func TestEvasionTable(t *testing.T) {
	if os.Getenv(evasionVariable) == "" {
		t.Skip("it takes many minutes: make evasion")
	}
	j := evasionJudge(t)
	classes, open := map[string]*tally{}, map[string][]string{}
	for _, c := range allDisguises(t) {
		key := c.Intent + " | " + c.Grade
		if classes[key] == nil {
			classes[key] = &tally{}
		}
		for column, variant := range variants(&c) {
			if variant == nil {
				continue
			}
			classes[key].all[column]++
			why := j.judge(variant)
			if why == "" {
				classes[key].held[column]++
				continue
			}
			t.Logf("%s %s (%s, %s): %s", protocols[column], c.ID, key, c.Why, why)
			if left[c.ID] == "" {
				t.Errorf("%s, %s, is not held and nobody says why", c.ID, protocols[column])
			}
			open[c.ID] = append(open[c.ID], protocols[column])
		}
	}
	if err := os.WriteFile(evasionPage, []byte(evasionTable(classes, open, allDisguises(t))), 0o644); err != nil {
		t.Fatal(err)
	}
}

var evasionPage = filepath.Join("..", "docs", "evasion.md")

// The page is about the disguises there are.
func TestEvasionPageIsOfTheseDisguises(t *testing.T) {
	page, err := os.ReadFile(evasionPage)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]*tally{}
	for _, c := range allDisguises(t) {
		key := c.Intent + " | " + c.Grade
		if counts[key] == nil {
			counts[key] = &tally{}
		}
		for column, variant := range variants(&c) {
			if variant != nil {
				counts[key].all[column]++
			}
		}
	}
	for key, n := range counts {
		found := false
		for line := range strings.Lines(string(page)) {
			cells := strings.Split(line, " | ")
			found = found || strings.HasPrefix(line, "| "+key+" | ") && len(cells) == 4 &&
				strings.HasSuffix(cells[2], fmt.Sprintf(" of %d", n.all[0])) && strings.HasSuffix(strings.TrimRight(cells[3], " |\n"), fmt.Sprintf(" of %d", n.all[1]))
		}
		if !found {
			t.Errorf("docs/evasion.md has no row of %s with %v cases: make evasion writes it anew", key, n.all)
		}
	}
}

func allDisguises(t *testing.T) []disguise {
	t.Helper()
	return append(readDisguises(t, "evasion-dev.jsonl"), readDisguises(t, "evasion-own.jsonl")...)
}

var protocols = [2]string{"simple", "extended"}

// variants are a disguise in the simple and in the extended protocol; nil where
// it can only be the other.
func variants(c *disguise) (out [2]*disguise) {
	for _, change := range []func(disguiseStep) disguiseStep{asSimple, asExtended} {
		v := *c
		v.Steps = make([]disguiseStep, len(c.Steps))
		column := 0
		for i, s := range c.Steps {
			v.Steps[i] = change(s)
			if p := v.Steps[i].Protocol; p != "simple" && p != "copyin" {
				column = 1
			}
		}
		out[column] = &v
	}
	return out
}

func asSimple(s disguiseStep) disguiseStep {
	if s.Protocol == "extended" && len(s.Params) == 0 {
		s.Protocol = "simple"
	}
	return s
}

// asExtended changes a text of one statement; any other cannot be prepared.
func asExtended(s disguiseStep) disguiseStep {
	if s.Protocol != "simple" || s.Hex != "" || len(s.Parts) > 0 || !utf8.ValidString(s.SQL) {
		return s
	}
	if b := pgquery.Parse(s.SQL); len(b.Statements) == 1 && b.Why == "" {
		s.Protocol = "extended"
	}
	return s
}

// evasionTable writes the page.
func evasionTable(classes map[string]*tally, open map[string][]string, all []disguise) string {
	var b strings.Builder
	b.WriteString(evasionIntro)
	keys := make([]string, 0, len(classes))
	for key := range classes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		c := classes[key]
		fmt.Fprintf(&b, "| %s | %d of %d | %d of %d |\n", key, c.held[0], c.all[0], c.held[1], c.all[1])
	}
	b.WriteString(evasionLeft)
	for i := range all {
		if in := open[all[i].ID]; len(in) > 0 {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", all[i].ID, left[all[i].ID], strings.Join(in, ", "))
		}
	}
	return b.String()
}

const evasionIntro = `<!-- Written by "make evasion"; do not edit. -->

# Disguises

Each case is a statement that is not what it seems: it is run through lockkeeper, with the default policy of profile odoo and a live catalog, against a
real PostgreSQL, and judged by its effect. An unbounded write on a critical table must change no row, a write in read-only nothing at all,
DDL must not wait behind a lock, and what is harmless must do the same as without lockkeeper. Texts of one statement are sent in
the simple and in the extended protocol; what is bound to one, as a text of several statements is, in that one only.

| intent | class of disguise | simple | extended |
|---|---|---|---|
`

const evasionLeft = `
## What is left

What no text shows is counted at the commit gate, which is not built yet. These cases change rows today:

| case | why its text does not show it | not held |
|---|---|---|
`
