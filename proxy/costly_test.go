package proxy_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
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

// TestLongTextThatWouldKeepTheServerBusy: what is too long to be collected is
// measured on its way. Wherever the comments stand, the server never has all of
// the message, runs nothing of it and rolls back what was open.
func TestLongTextThatWouldKeepTheServerBusy(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.cfg.Limits.StatementBytes = 64 << 10
		s.policy = "profile: odoo\nunknown: allow\n"
	})
	before := g.rowsLeft()
	const long = 300 << 10
	nested := strings.Repeat("/*", 65) + strings.Repeat("*/", 65)
	padding := strings.Repeat("x ", long/2)
	signs := strings.Repeat("+", 1<<15) + " "
	for name, text := range map[string]string{
		"at once":               "/* " + nested + padding + "*/ select 1",
		"late":                  "select 1 /* " + padding + "*/ " + nested,
		"open":                  "select 1 /* " + padding + strings.Repeat("/*", 64),
		"behind a literal":      "select 'it''s " + padding + "', $a$ ' /* $a$" + nested,
		"in an escaped literal": `select '\', '` + padding + nested + "'", // it is none for the server, but might be
		"operators":             "select " + strings.Repeat(signs, 12) + "1",
	} {
		for protocol, messages := range map[string][]pgproto3.FrontendMessage{
			"Query": {&pgproto3.Query{String: text}},
			"Parse": {&pgproto3.Parse{Name: "nested", Query: text}, &pgproto3.Bind{PreparedStatement: "nested"}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		} {
			p := g.peer()
			p.ok("begin")
			p.ok("delete from account_move where id = 1")
			for _, m := range messages {
				p.fe.Send(m)
			}
			flushed := make(chan struct{})
			go func() {
				defer close(flushed)
				_ = p.fe.Flush() // nobody reads it to its end
			}()
			_, err := p.read('Z')
			if err == nil || len(p.errs) != 1 || p.errs[0].Code != "54001" || p.errs[0].Severity != "FATAL" {
				t.Errorf("%s, %s: %v, %v", name, protocol, p.errs, err)
			}
			_ = p.conn.Close()
			<-flushed
		}
	}
	look := g.directPeer()
	eventually(t, "no process of the server is left", func() bool {
		return look.value("select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()") == "0"
	})
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
	refused := g.journal(journal.RefusalEntry)
	if len(refused) != 12 || refused[0].Rule != policy.CheckCostlyText || refused[0].Verdict != "disconnect" || refused[0].SQLSTATE != "54001" {
		t.Errorf("%d refusals in the journal: %+v", len(refused), refused)
	}
	if n := g.labelled(t, "lockkeeper_inspect_unknown_total{reason=costly}"); n != 12 {
		t.Errorf("%v texts were counted", n)
	}
}

// TestLongTextsThatDoNoHarm pass as they did, also where what would do harm is
// in a literal, in another message, or no text.
func TestLongTextsThatDoNoHarm(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.cfg.Limits.StatementBytes = 64 << 10
		s.policy = "profile: odoo\nunknown: allow\n"
	})
	nested := strings.Repeat("/*", 40) + strings.Repeat("*/", 40)
	padding := strings.Repeat("x ", 150<<10)
	name := strings.Repeat("/*", 100)
	p := g.peer()
	for _, c := range []struct{ send, want string }{
		{"Q select 1 /* " + padding + " */" + nested, "T, D 1, C SELECT 1, Z I"},
		{"Q select length('" + strings.Repeat("/*", 150<<10) + "')", "T, D 307200, C SELECT 1, Z I"},
		{"Q select length($a$" + strings.Repeat("/*$a /*", 50_000) + "$a$)", "T, D 350000, C SELECT 1, Z I"},
		{"P - select 1 /*" + padding + "*/ ; B - - ; E - ; S", "1, 2, D 1, C SELECT 1, Z I"},
		{"P " + name + " select 1 /*" + padding + "*/ ; B - " + name + " ; E - ; S", "1, 2, D 1, C SELECT 1, Z I"},
		{"Q select 2", "T, D 2, C SELECT 1, Z I"},
	} {
		if got := p.run(c.send); got != c.want {
			t.Errorf("%.30s…: %s, want %s", c.send, got, c.want)
		}
	}
}

// TestCostlyTextBehindASettingInThePipeline: how the text is read is not known,
// and each way counts. In SJIS the literal ends before the comments; read
// otherwise, its quote is escaped.
func TestCostlyTextBehindASettingInThePipeline(t *testing.T) {
	for name, collected := range map[string]int{"collected": 1 << 20, "too long": 1 << 10} {
		g := newGuard(t, func(s *setup) {
			s.cfg.Limits.StatementBytes = collected
			s.policy = "profile: odoo\nunknown: allow\n"
		})
		p := g.peer()
		nested := "select E'\x95\\' " + strings.Repeat("/*", 10_000)
		p.send(append(pipeline("P - select set_config('client_encoding', 'SJIS', false) ; B - - ; E -"),
			&pgproto3.Parse{Query: nested}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})...)
		_, _ = p.read('Z')
		if len(p.errs) != 1 || p.errs[0].Code != "54001" {
			t.Errorf("%s: %v", name, p.errs)
		}
		_ = p.conn.Close() // what is too long ends the session
	}
}
