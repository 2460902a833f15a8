package proxy_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
)

// TestTextsThatTakeMuch sends what is long, deep or many. Each gets the verdict
// that it deserves, the server answers the others meanwhile, and the session
// goes on.
func TestTextsThatTakeMuch(t *testing.T) {
	const collected = 1 << 20
	g := newGuard(t, func(s *setup) { s.cfg.Limits.StatementBytes = collected })
	other := g.peer()
	ids := make([]string, 100_000)
	for i := range ids {
		ids[i] = strconv.Itoa(i + 1)
	}
	list := strings.Join(ids, ",")
	brackets := strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000)
	const whole, refused, failed = "C UPDATE 500, Z I", "E 23G01, Z I", "E "
	for name, c := range map[string]struct{ text, want string }{
		"brackets":                     {"select " + brackets, failed},
		"brackets on a critical table": {"update account_move set ref = ref where id = " + brackets, refused},
		"fields":                       {"select " + strings.Repeat("(", 9000) + "a" + strings.Repeat(").b", 9000), failed},
		"fields of a critical table":   {"delete from account_move where " + strings.Repeat("(", 9000) + "a" + strings.Repeat(").b", 9000), refused},
		"operators":                    {"select 1" + strings.Repeat("+ 1", 100_000), failed},
		"semicolons":                   {strings.Repeat(";", 1<<20-1024), "I, Z I"},
		"semicolons before a write":    {strings.Repeat(";", 1<<18) + "delete from account_move", refused},
		"constants":                    {"update account_move set ref = ref where id in (" + list + ")", whole},
		"constants for nothing":        {"update account_move set ref = ref where id in (" + list + ") or true", refused},
		"long":                         {"select length('" + strings.Repeat("x", collected-64) + "')", "T, D " + strconv.Itoa(collected-64) + ", C SELECT 1, Z I"},
		"long before a write":          {"select length('" + strings.Repeat("x", collected-64) + "'); delete from account_move", refused},
		"more than is collected":       {"select length('" + strings.Repeat("x", collected) + "')", refused},
	} {
		p := g.peer()
		p.send(&pgproto3.Query{String: c.text})
		for _, text := range []string{"select 1", "select '" + name + "' <> ''"} {
			if got := other.query(text); len(got) != 4 {
				t.Errorf("%s: another session: %s: %v", name, text, got)
			}
		}
		got := strings.Join(p.until('Z'), ", ")
		if got != c.want && (c.want != failed || !strings.HasPrefix(got, failed)) {
			t.Errorf("%s: got %.200s, want %s", name, got, c.want)
		}
		if got := p.run("Q select 3"); got != "T, D 3, C SELECT 1, Z I" {
			t.Errorf("%s: then %s", name, got)
		}
		p.end()
	}
}

// TestSlowParsesInAllSlots: texts that take the parser long, in all of its slots, hold
// up nobody whose texts are known, and others for no longer than a text may
// wait for a slot; then theirs are unknown.
func TestSlowParsesInAllSlots(t *testing.T) {
	release := make(chan struct{})
	slow := func(text string) *inspect.Batch {
		if strings.Contains(text, "slow") {
			<-release
		}
		return pgquery.Parse(text)
	}
	g := newGuard(t, func(s *setup) { s.parse = slow })
	goOn := sync.OnceFunc(func() { close(release) })
	t.Cleanup(goOn) // or the guard could not end
	other := g.peer()
	other.ok("select 1")
	var hostile []*peer
	for i := range inspect.DefaultLimits().ParseSlots {
		p := g.peer()
		p.send(&pgproto3.Query{String: "select 'slow' as s" + strconv.Itoa(i)}) // of one shape one is parsed
		hostile = append(hostile, p)
	}
	eventually(t, "all slots are taken", func() bool {
		return g.metric(t, "lockkeeper_inspect_parse_slots_used") == float64(len(hostile))
	})
	if got := other.run("Q select 1"); got != "T, D 1, C SELECT 1, Z I" {
		t.Error("a text that is known:", got)
	}
	fresh := g.peer()
	fresh.send(&pgproto3.Query{String: "select 2"})
	waiting := g.peer()
	waiting.send(&pgproto3.Query{String: unbounded})
	if got := strings.Join(fresh.until('Z'), ", "); got != "T, D 2, C SELECT 1, Z I" {
		t.Error("a new text:", got)
	}
	if got := strings.Join(waiting.until('Z'), ", "); got != "E 55P03, Z I" { // try again in a moment
		t.Error("a new text on a critical table:", got)
	}
	goOn()
	for _, p := range hostile {
		if got := strings.Join(p.until('Z'), ", "); !strings.HasSuffix(got, "C SELECT 1, Z I") {
			t.Error("a text that took long:", got)
		}
	}
}
