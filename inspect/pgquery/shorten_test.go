package pgquery

import (
	"strings"
	"testing"

	"lockkeeper/inspect"
)

// TestShortenedTextsHaveTheSameFacts gives texts with long runs to the parser
// as they are, and to an inspector that must shorten them.
func TestShortenedTextsHaveTheSameFacts(t *testing.T) {
	const limit = 6000
	digits, letters := strings.Repeat("12", 5000), strings.Repeat("abc9", 2500)
	inspector := inspect.NewInspector(inspect.Limits{ParseBytes: limit}, Parse, nil)
	for _, text := range []string{
		"INSERT INTO a VALUES ('" + letters + "'); DELETE FROM b",
		`UPDATE a SET b = '\x` + digits + `'::bytea WHERE id = 1`,
		`UPDATE a SET b = E'\x41` + letters + `\'' WHERE id = 1 -- ' WHERE true`,
		"SELECT $" + letters + "$ ' $" + letters + "$; DELETE FROM b",
		"SELECT $x$" + letters + "$x$ FROM a /* " + letters + " */; DELETE FROM b -- " + letters,
		"DELETE FROM " + letters + " WHERE " + letters + ".id = 1",
		`DELETE FROM "` + letters + `" WHERE id = 1`,
		"DELETE FROM a WHERE id = " + digits,
		"DELETE FROM a WHERE id IN (1, " + digits + ", 0.5e3)",
		"SELECT X'" + digits + "', B'01', U&'" + letters + `\0061'` + ", e'" + letters + "'",
		"SELECT 1 AS " + letters + "; UPDATE a SET b = 1",
	} {
		want, got := Parse(text), inspector.Inspect(t.Context(), []byte(text), inspect.LexingFor("on", "UTF8"))
		if want.Why != "" || got.Why != "" || len(got.Statements) != len(want.Statements) || !got.NoPositions {
			t.Errorf("%.40s…: %q and %q, %d and %d statements", text, want.Why, got.Why, len(want.Statements), len(got.Statements))
			continue
		}
		for i := range want.Statements {
			if w, g := describe(&want.Statements[i]), describe(&got.Statements[i]); w != g {
				t.Errorf("%.40s…\n  got  %s\n  want %s", text, g, w)
			}
		}
		if got.Fingerprint.Value() != want.Fingerprint.Value() && !strings.Contains(text, " AS "+letters) {
			t.Errorf("%.40s…: another fingerprint", text)
		}
	}
}
