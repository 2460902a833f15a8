package proxy_test

import "testing"

// TestTextsInOtherSettings reads texts as the server does whose session has
// other settings than most: what is harmless passes, and what hides a DELETE
// without WHERE is refused.
func TestTextsInOtherSettings(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	for name, c := range map[string]struct{ set, send, want string }{
		"escape in a plain literal":  {"standard_conforming_strings = off", `Q select 'it\'s' = 'it''s'`, "T, D t, C SELECT 1, Z I"},
		"a comment that is none":     {"standard_conforming_strings = off", `Q select '\' -- ' ; Q select 2`, "T, D ' -- , C SELECT 1, Z I, T, D 2, C SELECT 1, Z I"},
		"hidden behind an escape":    {"standard_conforming_strings = off", `Q select '\'', 1 from account_move where 'x' = '\\'; ` + unbounded + ` --'`, "E 23G01, Z I"},
		"keyed, with an escape":      {"standard_conforming_strings = off", `Q delete from account_move_line where id in (-1) and name = 'a\'b'`, "C DELETE 0, Z I"},
		"N'…'":                       {"standard_conforming_strings = off", `Q select N'a\'b'::text = 'a''b'`, "T, D t, C SELECT 1, Z I"},
		"a backslash in a character": {"client_encoding = 'SJIS'", "Q select '\x83\x5c' = '\x83\x5c'", "T, D t, C SELECT 1, Z I"},
		"hidden behind a character":  {"client_encoding = 'SJIS'", "Q select '\x83\x5c'; " + unbounded + " --'", "E 23G01, Z I"},
		"wrong in the encoding":      {"client_encoding = 'GBK'", "Q select '\xff\x20'", "E 22P05, Z I"},
	} {
		p := g.peer()
		p.run("Q set escape_string_warning = off; set " + c.set)
		if got := p.run(c.send); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		p.end()
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}
