package proxy_test

import (
	"strings"
	"testing"
)

// What is too long to be inspected is unknown, and unknown is not allowed where
// a critical table may be meant.
func TestTextsThatAreTooLongAreRefused(t *testing.T) {
	for name, change := range map[string]func(*setup){
		"statement_bytes": func(s *setup) { s.cfg.Limits.StatementBytes = 64 << 10 },
		"collected_bytes": func(s *setup) { s.cfg.Limits.CollectedBytes = 32 << 10 },
	} {
		g := newGuard(t, change)
		before := g.rowsLeft()
		p := g.peer()
		long := "/* " + strings.Repeat("x", 300<<10) + " */ " + unbounded
		for _, send := range []string{"Q " + long, "P - " + long + " ; B - - ; E - ; S", "P - select 1 ; B - - ; E - ; P - " + long + " ; B - - ; E - ; S"} {
			if got := p.run(send); !strings.HasSuffix(got, "E 23G01, Z I") {
				t.Errorf("%s: %.20s…: %s", name, send, got)
			}
			if got := p.run("Q select 2"); got != "T, D 2, C SELECT 1, Z I" {
				t.Errorf("%s: afterwards %s", name, got)
			}
		}
		p.ok("begin")
		if got := p.run("Q " + long + " ; Q select 1 ; Q rollback"); got != "E 23G01, Z E, E 25P02, Z E, C ROLLBACK, Z I" {
			t.Errorf("%s: in a transaction: %s", name, got)
		}
		if after := g.rowsLeft(); after != before {
			t.Errorf("%s: %s rows before, %s after", name, before, after)
		}
		eventually(t, name+": what was collected is given back", func() bool { return g.metric(t, "lockkeeper_collected_bytes") == 0 })
	}
}

// Names of statements are kept up to a limit; what is beyond it is unknown when
// it is run.
func TestStatementsWhoseNamesWereNotKept(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	p := g.peer()
	observing(g)
	const each, many = 63, 16_700 // more than a mebibyte of names
	var all strings.Builder
	for i := range many {
		name := "n" + strings.Repeat("0", each-5) + string(rune('a'+i/26/26/26%26)) + string(rune('a'+i/26/26%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26))
		if all.Len() > 0 {
			all.WriteString(" ; ")
		}
		all.WriteString("P " + name + " select 1")
	}
	p.run(all.String() + " ; S")
	last := strings.Repeat("l", each)
	p.run("P " + last + " " + unbounded + " ; S")
	g.contain()
	if got := p.run("B - " + last + " ; E - ; S"); got != "E 23G01, Z I" {
		t.Error(got)
	}
	// They are not what the unnamed statement is, either.
	if got := p.run("P - select 1 ; B - " + last + " ; E - ; S"); got != "1, E 23G01, Z I" {
		t.Error(got)
	}
	if got := p.run("Q execute " + last); got != "E 23G01, Z I" {
		t.Error(got)
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}

// A prepared EXECUTE of DDL gets the timeouts of the DDL; what an EXECUTE runs
// that is itself run by an EXECUTE is not looked for.
func TestAnExecuteOfAnExecute(t *testing.T) {
	p := newGuard(t).peer()
	if got := p.run("P ddl alter table sale_order alter note set default 'x' ; P once execute ddl ; S"); got != "1, 1, Z I" {
		t.Fatal(got)
	}
	if got := p.run("B - once ; E - ; S"); got != "2, C ALTER TABLE, Z I" {
		t.Error(got)
	}
	for _, twice := range []string{"Q execute once", "P - execute once ; S"} {
		if got := p.run(twice); got != "E 23G01, Z I" {
			t.Errorf("%s: %s", twice, got)
		}
	}
}
