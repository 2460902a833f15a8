package pgquery

import (
	"fmt"
	"slices"
	"testing"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// milder says in what the facts that were read from tokens promise more than
// those of the parse tree; "" where they do not.
func milder(tokens, tree *inspect.Statement) string {
	switch {
	case tokens.Class == inspect.Unknown:
		return ""
	case inspect.Worse(tokens.Class, tree.Class) != tokens.Class:
		return fmt.Sprintf("class is %s, not %s", tokens.Class, tree.Class)
	case tree.Hidden&^tokens.Hidden != 0:
		return fmt.Sprintf("hidden is %b, not %b", tokens.Hidden, tree.Hidden)
	case tree.Bound != inspect.NotApplicable && inspect.Wider(tokens.Bound, tree.Bound) != tokens.Bound:
		return fmt.Sprintf("bound is %s, not %s", tokens.Bound, tree.Bound)
	case tree.Concurrently && !tokens.Concurrently:
		return "concurrently is not seen"
	}
	for i := range tree.Relations {
		if why := milderAbout(tokens, &tree.Relations[i]); why != "" {
			return why
		}
	}
	for _, c := range tree.Calls {
		same := func(got inspect.Call) bool { return got.Name == "" || got.Name == c.Name }
		if c.Effect != inspect.CallBuiltIn && !slices.ContainsFunc(tokens.Calls, same) {
			return "the call of " + c.Name + " is not seen"
		}
	}
	return ""
}

func milderAbout(tokens *inspect.Statement, want *inspect.Relation) string {
	for i := range tokens.Relations {
		got := &tokens.Relations[i]
		if got.Name != want.Name || got.Schema != want.Schema {
			continue
		}
		access := want.Access
		if got.Access&inspect.AccessDefine != 0 {
			access &^= inspect.AccessRead | inspect.AccessRename // the strongest lock is more than a read
		}
		switch {
		case got.Access&(inspect.AccessWrite|inspect.AccessDefine) == 0 && access&^got.Access != 0, access&inspect.AccessWrite&^got.Access != 0:
			return fmt.Sprintf("access to %s is %s, not %s", want.Name, got.Access, want.Access)
		case want.Bound != inspect.NotApplicable && inspect.Wider(got.Bound, want.Bound) != got.Bound:
			return fmt.Sprintf("bound of %s is %s, not %s", want.Name, got.Bound, want.Bound)
		case got.Lock < want.Lock, want.Rewrite && !got.Rewrite:
			return fmt.Sprintf("lock on %s is %s, not %s", want.Name, got.Lock, want.Lock)
		}
		return ""
	}
	return "relation " + want.Name + " is not seen"
}

// compareFacts fails where the tokens of a statement that parses promise more
// than its tree.
func compareFacts(t *testing.T, text string) {
	t.Helper()
	tree, err := pg.Parse(text)
	if err != nil || len(tree.Stmts) != 1 {
		return
	}
	toks, ok := tokensOf(text)
	if !ok || len(toks) == 0 {
		return
	}
	for toks[len(toks)-1].is(";") {
		toks = toks[:len(toks)-1]
	}
	want := statement(tree.Stmts[0])
	r := reader{text: text, toks: toks}
	got := r.statement()
	if why := milder(&got, &want); why != "" {
		t.Errorf("%q:\n  %s\n  tokens %s\n  tree   %s", text, why, describe(&got), describe(&want))
	}
}

// FuzzTokens looks for statements about which the tokens promise more than
// the tree.
func FuzzTokens(f *testing.F) {
	for _, text := range tokenSeeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || len(text) > 1<<14 || refused(text) != "" {
			t.Skip("no text that a parser is given")
		}
		compareFacts(t, text)
	})
}

var tokenSeeds = []string{
	"SELECT a, b FROM t JOIN s.u USING (id) WHERE f(x) ORDER BY 1 FOR UPDATE OF t",
	"WITH w AS (DELETE FROM t WHERE id = 1 RETURNING *) SELECT * FROM w",
	"WITH w AS (SELECT id FROM t) UPDATE t SET a = 1 WHERE id IN (SELECT id FROM w)",
	"UPDATE ONLY \"T\" AS x SET (a, b) = (1, 2) FROM v WHERE x.id = v.id AND true",
	"DELETE FROM t USING u WHERE CURRENT OF c",
	"INSERT INTO t (a) VALUES (1), (2) ON CONFLICT (a) DO UPDATE SET a = excluded.a WHERE t.b",
	"MERGE INTO t USING u ON t.id = u.id WHEN MATCHED AND u.x THEN DELETE WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
	"SELECT * INTO TEMP x FROM t UNION SELECT 1",
	"SELECT set_config('a', 'b', true), dblink('x', 'y'), pg_catalog.lower(z) OPERATOR(pg_catalog.+) 1, a @+@ b",
	"EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET a = 1", "EXPLAIN UPDATE t SET a = 1",
	"PREPARE p (int) AS DELETE FROM t", "DECLARE c CURSOR FOR SELECT 1 FROM t FOR UPDATE",
	"COPY t (a) FROM PROGRAM 'x'", "COPY (DELETE FROM t RETURNING 1) TO STDOUT", "COPY s.t TO '/x'",
	"CREATE TABLE x AS SELECT * FROM t", "ALTER TABLE IF EXISTS ONLY t ADD COLUMN a int REFERENCES u(id)", "CREATE INDEX CONCURRENTLY i ON t (a)",
	"DROP TABLE a, b.c CASCADE", "TRUNCATE TABLE ONLY a, b", "LOCK TABLE a IN SHARE MODE", "VACUUM FULL t", "CREATE VIEW v AS SELECT 1 FROM t",
	"ALTER TABLE a RENAME TO b", "TABLE t", "VALUES (1)", "(SELECT 1 FROM a) UNION (SELECT 2 FROM b)", "SELECT update, insert FROM delete",
	"SELECT 1 FROM a, LATERAL (SELECT 2 FROM b) x, ROWS FROM (f(1), g(2)) y", "SELECT 1 FROM (a CROSS JOIN (b JOIN c ON true))",
	"CREATE RULE r AS ON UPDATE TO t DO INSTEAD DELETE FROM u", "SELECT U&\"\\0061\" FROM t", "CLUSTER t USING i", "GRANT ALL ON t TO u",
	"CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "COMMENT ON TABLE t IS 'x'", "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
}

// TestTokensOfCorpora compares what the tokens of every statement in the
// corpora tell with what their trees tell.
func TestTokensOfCorpora(t *testing.T) {
	for _, name := range streams {
		for i, r := range readStream(t, name) {
			if i%7 == 0 {
				compareFacts(t, r.SQL)
			}
		}
	}
	for _, e := range readEvasions(t) {
		texts, _ := e.texts()
		for _, text := range texts {
			if refused(text) == "" && len(text) < 1<<16 {
				compareFacts(t, text)
			}
		}
	}
}

// newerGrammars are statements that the grammar of 16 does not take, with the
// version of PostgreSQL since which servers do.
var newerGrammars = []struct {
	since      int
	text, want string
}{
	{17, "MERGE INTO account_move a USING s ON a.id = s.id WHEN MATCHED THEN UPDATE SET x = 1 RETURNING merge_action(), a.*", "write MERGE | account_move: update; predicate | s: read | a: read # function"},
	{17, "MERGE INTO account_move a USING s ON a.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE", "write MERGE | account_move: delete; vacuous | s: read"},
	{17, "WITH w AS (MERGE INTO account_move a USING s ON a.id = 1 WHEN MATCHED THEN DELETE RETURNING a.id) SELECT * FROM w", "write SELECT | account_move: delete; vacuous | merge: read | s: read | w: read # cte"},
	{18, "UPDATE account_move SET x = 1 WHERE id = 7 RETURNING WITH (OLD AS o, NEW AS n) o.x, n.x", "write UPDATE | account_move: update; keyed(1) | old: read | new: read | n.x: read"},
	{18, "UPDATE account_move SET x = 1 RETURNING WITH (OLD AS o) o.x", "write UPDATE | account_move: update; none | old: read"},
	{18, "DELETE FROM account_move WHERE id IN (1, 2) RETURNING WITH (OLD AS o) o.*", "write DELETE | account_move: read, delete; keyed(2) | old: read"},
	{17, "SELECT * FROM JSON_TABLE(jsonb '[]', '$[*]' COLUMNS (a int PATH '$.a')) AS j JOIN account_move m ON m.id = j.a", "read SELECT | jsonb: read | a: read | account_move: read # function"},
	{17, "SELECT JSON_VALUE(x, '$.a' RETURNING int DEFAULT 1 ON EMPTY) FROM account_move FOR UPDATE", "read SELECT | x: read, lock rows | account_move: read, lock rows # function, row lock"},
	{17, "INSERT INTO account_move (a) SELECT JSON_QUERY(x, '$') FROM t WHERE JSON_EXISTS(x, '$.a' PASSING 1 AS y)", "write INSERT | account_move: insert | a: read | x: read | t: read # function"},
	{18, "INSERT INTO account_move (id) SELECT 1 ON CONFLICT (id) DO UPDATE SET x = 1 RETURNING WITH (OLD AS o) o.x", "write INSERT | account_move: insert, update; none | id: read | old: read # function"},
	{17, "EXPLAIN (ANALYZE, SERIALIZE) MERGE INTO account_move a USING s ON true WHEN NOT MATCHED BY SOURCE THEN UPDATE SET x = 1", "write EXPLAIN | account_move: update; vacuous | serialize: read | s: read # explain"},
	{17, "PREPARE p AS MERGE INTO account_move a USING s ON true WHEN NOT MATCHED BY SOURCE THEN DELETE", "write PREPARE | account_move: delete; vacuous | s: read # prepared, name=p"},
	{18, "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)", "define CREATE TABLE | t: define; ACCESS EXCLUSIVE; rewrite | a: read, define; ACCESS EXCLUSIVE; rewrite | int: define; ACCESS EXCLUSIVE; rewrite | b: read, define; ACCESS EXCLUSIVE; rewrite | generated: define; ACCESS EXCLUSIVE; rewrite | always: define; ACCESS EXCLUSIVE; rewrite | virtual: define; ACCESS EXCLUSIVE; rewrite # create as, function"},
	{18, "CREATE TABLE t (id int, valid daterange, CONSTRAINT k PRIMARY KEY (id, valid WITHOUT OVERLAPS))", "define CREATE TABLE | t: define; ACCESS EXCLUSIVE; rewrite | id: read, define; ACCESS EXCLUSIVE; rewrite | int: define; ACCESS EXCLUSIVE; rewrite | valid: read, define; ACCESS EXCLUSIVE; rewrite | daterange: define; ACCESS EXCLUSIVE; rewrite | k: define; ACCESS EXCLUSIVE; rewrite | key: define; ACCESS EXCLUSIVE; rewrite | without: define; ACCESS EXCLUSIVE; rewrite | overlaps: define; ACCESS EXCLUSIVE; rewrite # function"},
	{18, "ALTER TABLE account_move ADD CONSTRAINT c FOREIGN KEY (a, PERIOD b) REFERENCES res_partner (a, PERIOD b)", "define ALTER TABLE | account_move: read, define; ACCESS EXCLUSIVE; rewrite | add: define; ACCESS EXCLUSIVE; rewrite | c: define; ACCESS EXCLUSIVE; rewrite | key: define; ACCESS EXCLUSIVE; rewrite | a: read, define; ACCESS EXCLUSIVE; rewrite | period: read, define; ACCESS EXCLUSIVE; rewrite | b: define; ACCESS EXCLUSIVE; rewrite | res_partner: define; ACCESS EXCLUSIVE; rewrite # function"},
	{18, "ALTER TABLE account_move ADD CONSTRAINT c NOT NULL name NOT VALID", "define ALTER TABLE | account_move: read, define; ACCESS EXCLUSIVE; rewrite | add: define; ACCESS EXCLUSIVE; rewrite | c: define; ACCESS EXCLUSIVE; rewrite | name: define; ACCESS EXCLUSIVE; rewrite | valid: define; ACCESS EXCLUSIVE; rewrite"},
	{18, "ALTER TABLE account_move ALTER CONSTRAINT c NOT ENFORCED", "define ALTER TABLE | account_move: read, define; ACCESS EXCLUSIVE; rewrite | alter: define; ACCESS EXCLUSIVE; rewrite | c: define; ACCESS EXCLUSIVE; rewrite | enforced: define; ACCESS EXCLUSIVE; rewrite"},
	{17, "ALTER TABLE account_move ALTER COLUMN a SET EXPRESSION AS (b + 1)", "define ALTER TABLE | account_move: read, define; ACCESS EXCLUSIVE; rewrite | alter: define; ACCESS EXCLUSIVE; rewrite | a: define; ACCESS EXCLUSIVE; rewrite | set: define; ACCESS EXCLUSIVE; rewrite | expression: define; ACCESS EXCLUSIVE; rewrite | b: read, define; ACCESS EXCLUSIVE; rewrite # create as, settings"},
	{17, "COPY (MERGE INTO account_move a USING s ON a.id = 1 WHEN MATCHED THEN DELETE RETURNING 1) TO STDOUT", "write COPY TO | account_move: delete; vacuous | merge: read | s: read # cte, copy query"},
	{17, "SELECT 1; MERGE INTO account_move a USING s ON a.id = s.id WHEN MATCHED THEN DELETE RETURNING 1; UPDATE t SET a = 1", "read SELECT; write MERGE | account_move: delete; predicate | s: read; write UPDATE | t: update; none"},
}

// TestNewerGrammars reads statements that servers 17 and 18 take and the
// grammar of 16 does not.
func TestNewerGrammars(t *testing.T) {
	for _, tt := range newerGrammars {
		b := Parse(tt.text)
		got := ""
		for i := range b.Statements {
			if i > 0 {
				got += "; "
			}
			got += describe(&b.Statements[i])
		}
		if got != tt.want || !b.FromTokens {
			t.Errorf("%s\n got %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

// A row's columns are no operator's call, however they are written.
func TestStarsAreNoCalls(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT t.*, other.t.*, 2 * 3 FROM t": false, "SELECT 1 OPERATOR(other.+) 2": true, "SELECT 1 OPERATOR(pg_catalog.*) 2": false, "SELECT 1 OPERATOR(other.*) 2": true,
	} {
		toks, _ := tokensOf(text)
		r := reader{text: text, toks: toks}
		st := r.statement()
		if got := slices.ContainsFunc(st.Calls, func(c inspect.Call) bool { return c.Schema == "other" }); got != want {
			t.Errorf("%s calls %+v", text, st.Calls)
		}
		compareFacts(t, text)
	}
}
