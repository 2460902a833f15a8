package proxy_test

import (
	"strings"
	"testing"
)

// TestTextThatWouldKeepTheServerBusy sends comments that would cost the
// server's lexer minutes: they are refused wherever they stand, and the
// session goes on.
func TestTextThatWouldKeepTheServerBusy(t *testing.T) {
	g := newGuard(t)
	nested := strings.Repeat("/*", 100_000) + strings.Repeat("*/", 100_000) + "select(1)"
	signs := "select" + strings.Repeat("+", 100_000) + "1"
	few := strings.Repeat("/*", 64) + strings.Repeat("*/", 64) + "select(1)"
	for name, c := range map[string]struct{ send, want string }{
		"Query":                  {"Q " + nested, "E 54001, Z I"},
		"Parse":                  {"P - " + nested + " ; B - - ; E - ; S", "E 54001, Z I"},
		"in a transaction":       {"Q begin ; Q " + nested + " ; Q rollback", "C BEGIN, Z T, E 54001, Z E, C ROLLBACK, Z I"},
		"in a failed one":        {"Q begin ; Q select 1/0 ; Q " + nested + " ; Q rollback", "C BEGIN, Z T, E 22012, Z E, E 25P02, Z E, C ROLLBACK, Z I"},
		"operators":              {"Q " + signs, "E 54001, Z I"},
		"as many as are allowed": {"Q " + few, "T, D 1, C SELECT 1, Z I"},
	} {
		p := g.peer()
		if got := p.run(c.send); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if got := p.run("Q select 3"); got != "T, D 3, C SELECT 1, Z I" {
			t.Errorf("%s: then %s", name, got)
		}
		p.end()
	}
}
