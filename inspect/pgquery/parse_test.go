package pgquery

import (
	"fmt"
	"strings"
	"testing"

	"lockkeeper/inspect"
)

// describe returns a statement's facts in one line: class, kind, relations
// (written first), then flags.
func describe(s *inspect.Statement) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s", s.Class, s.Kind)
	for _, r := range s.Relations {
		out.WriteString(" | ")
		out.WriteString(describeRelation(r))
	}
	if flags := describeFlags(s); flags != "" {
		out.WriteString(" # " + flags)
	}
	return out.String()
}

func describeRelation(r inspect.Relation) string {
	name := r.Name
	if r.Schema != "" {
		name = r.Schema + "." + name
	}
	parts := []string{name + ": " + r.Access.String()}
	if r.Bound != inspect.NotApplicable {
		parts = append(parts, r.Bound.String())
	}
	if r.Bound == inspect.BoundKeyed {
		parts[len(parts)-1] += fmt.Sprintf("(%d)", r.Rows)
	}
	if r.Lock != inspect.NoLock {
		parts = append(parts, r.Lock.String())
	}
	if r.Rewrite {
		parts = append(parts, "rewrite")
	}
	return strings.Join(parts, "; ")
}

func describeFlags(s *inspect.Statement) string {
	var flags []string
	for bit, name := range []string{
		"cte", "explain", "prepared", "cursor", "copy query", "create as", "block", "call", "function", "row lock", "server side", "settings",
	} {
		if s.Hidden&(1<<bit) != 0 {
			flags = append(flags, name)
		}
	}
	for name, set := range map[string]bool{"noblock": s.NoBlock} {
		if set {
			flags = append(flags, name)
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"concurrently", s.Concurrently}, {"read write", s.AsksReadWrite}, {"read only", s.AsksReadOnly}, {"chain", s.Chain}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	if s.Name != "" {
		flags = append(flags, "name="+s.Name)
	}
	if s.Set != nil {
		flags = append(flags, fmt.Sprintf("%s=%q local:%v reset:%v", s.Set.Name, s.Set.Value, s.Set.Local, s.Set.Reset))
	}
	return strings.Join(flags, ", ")
}

type parseCase struct{ text, want string }

func checkCases(t *testing.T, cases []parseCase) {
	t.Helper()
	for _, c := range cases {
		b := Parse(c.text)
		if b.Why != "" || len(b.Statements) != 1 {
			t.Errorf("%s\n  %d statements, %q", c.text, len(b.Statements), b.Why)
			continue
		}
		if got := describe(&b.Statements[0]); got != c.want {
			t.Errorf("%s\n  got  %s\n  want %s", c.text, got, c.want)
		}
	}
}

func TestQueries(t *testing.T) {
	checkCases(t, []parseCase{
		{"SELECT 1", "read SELECT"},
		{"SELECT * FROM a, s.b x JOIN c ON true", "read SELECT | a: read | s.b: read | c: read"},
		{"SELECT * FROM A, \"A\"", "read SELECT | a: read | A: read"},
		{"TABLE a UNION SELECT 1 FROM b WHERE EXISTS (SELECT FROM c)", "read SELECT | a: read | b: read | c: read"},
		{"VALUES ((SELECT 1 FROM a))", "read SELECT | a: read"},
		{"WITH a AS (SELECT 1 FROM b) SELECT * FROM a, s.a", "read SELECT | b: read | s.a: read"},
		{"WITH a AS (SELECT 1 FROM a) SELECT * FROM a", "read SELECT | a: read"},
		{"WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT 1 FROM a) SELECT * FROM a", "read SELECT"},
		{"SELECT (WITH x AS (SELECT 1) SELECT 1 FROM x), 1 FROM x", "read SELECT | x: read"},
		{"SELECT * FROM LATERAL (SELECT * FROM a) x, unnest(ARRAY[1]), a TABLESAMPLE system(1)", "read SELECT | a: read"},
		{"SELECT * FROM f(1), ROWS FROM (g(2)), generate_series(1, 2)", "read SELECT # function"},
		{"SELECT count(*) OVER (PARTITION BY f(a)) FROM t GROUP BY b HAVING max(c) > 1 ORDER BY d LIMIT 1", "read SELECT | t: read # function"},
		{"SELECT 1 FROM a FOR UPDATE", "read SELECT | a: read, lock rows # row lock"},
		{
			"SELECT 1 FROM a x, b, (SELECT * FROM c) d FOR SHARE OF x, d NOWAIT",
			"read SELECT | a: read, lock rows | b: read | c: read, lock rows # row lock",
		},
		{"SELECT * INTO t FROM a", "define SELECT INTO | t: define | a: read # create as"},
		{"INSERT INTO a DEFAULT VALUES", "write INSERT | a: insert"},
		{"INSERT INTO a SELECT * FROM b", "write INSERT | a: insert | b: read"},
		{"INSERT INTO a VALUES (nextval('s')) ON CONFLICT DO NOTHING", "write INSERT | a: insert # function"},
		{
			"INSERT INTO a VALUES (1), (2) ON CONFLICT (id) DO UPDATE SET b = (SELECT 1 FROM c)",
			"write INSERT | a: insert, update; keyed(2) | c: read",
		},
		{"INSERT INTO a SELECT * FROM b ON CONFLICT (id) DO UPDATE SET c = 1", "write INSERT | a: insert, update; predicate | b: read"},
		{"INSERT INTO a SELECT * FROM a ON CONFLICT (id) DO UPDATE SET c = 1", "write INSERT | a: read, insert, update; none"},
		{"UPDATE s.a SET b = 1 WHERE id = 1", "write UPDATE | s.a: update; keyed(1)"},
		{"UPDATE x SET b = 1 FROM account_move x", "write UPDATE | x: update; none | account_move: read"},
		{"DELETE FROM a USING b WHERE a.c = b.c", "write DELETE | a: delete; predicate | b: read"},
		{"WITH a AS (SELECT 1) DELETE FROM a", "write DELETE | a: delete; none"},
		{"WITH d AS (DELETE FROM a RETURNING id) SELECT * FROM d", "write SELECT | a: delete; none # cte"},
		{
			"WITH d AS (UPDATE a SET b = 1 WHERE id = 1 RETURNING id), e AS (DELETE FROM a WHERE id = 2) SELECT * FROM d",
			"write SELECT | a: update, delete; keyed(2) # cte",
		},
		{
			"MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
			"write MERGE | a: insert, delete; predicate | b: read",
		},
		{"MERGE INTO a t USING (VALUES (1), (2)) v(id) ON t.id = v.id WHEN MATCHED THEN UPDATE SET x = 1", "write MERGE | a: update; keyed(2)"},
		{"MERGE INTO a USING b ON true WHEN NOT MATCHED THEN INSERT DEFAULT VALUES", "write MERGE | a: insert | b: read"},
		{"TRUNCATE a, ONLY s.b CASCADE", "write TRUNCATE TABLE | a: truncate; none; ACCESS EXCLUSIVE | s.b: truncate; none; ACCESS EXCLUSIVE"},
	})
}

func TestWrappedStatements(t *testing.T) {
	checkCases(t, []parseCase{
		{"EXPLAIN DELETE FROM a", "read EXPLAIN | a: read"},
		{"EXPLAIN ANALYZE DELETE FROM a", "write EXPLAIN | a: delete; none # explain"},
		{"EXPLAIN (ANALYZE) SELECT 1", "read EXPLAIN # explain"},
		{"EXPLAIN (ANALYZE off) DELETE FROM a", "read EXPLAIN | a: read"},
		{"EXPLAIN (ANALYZE on, ANALYZE off) DELETE FROM a", "read EXPLAIN | a: read"},
		{"EXPLAIN (ANALYZE 'yes') DELETE FROM a", "write EXPLAIN | a: delete; none # explain"},
		{"EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "define EXPLAIN | t: define # explain, create as"},
		{"EXPLAIN ANALYZE EXECUTE p", "unknown EXPLAIN # explain, prepared, name=p"},
		{"EXPLAIN EXECUTE p", "read EXPLAIN"},
		{"PREPARE p AS SELECT 1", "session PREPARE # prepared, name=p"},
		{"PREPARE p (int) AS DELETE FROM a WHERE id = $1", "write PREPARE | a: delete; keyed(1) # prepared, name=p"},
		{"EXECUTE p(f(1))", "unknown EXECUTE # prepared, function, name=p"},
		{"DEALLOCATE p", "session DEALLOCATE # name=p"},
		{"DEALLOCATE ALL", "session DEALLOCATE"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM a FOR UPDATE", "read DECLARE CURSOR | a: read, lock rows # cursor, row lock, name=c"},
		{"FETCH 10 FROM c", "read FETCH # name=c"},
		{"MOVE c", "read MOVE # name=c"},
		{"CLOSE c", "session CLOSE CURSOR # name=c"},
		{"COPY a FROM STDIN", "write COPY FROM | a: insert"},
		{"COPY a (b) TO STDOUT WITH CSV", "read COPY TO | a: read"},
		{"COPY a FROM '/tmp/x' WHERE f(b)", "write COPY FROM | a: insert # function, server side"},
		{"COPY a TO PROGRAM 'cat'", "read COPY TO | a: read # server side"},
		{"COPY (DELETE FROM a RETURNING *) TO STDOUT", "write COPY TO | a: delete; none # copy query"},
		{"CREATE TABLE t AS EXECUTE p", "unknown CREATE TABLE AS | t: define # prepared, create as, name=p"},
		{"CREATE TABLE t AS WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d", "define CREATE TABLE AS | t: define | a: delete; none # cte, create as"},
		{"CREATE MATERIALIZED VIEW v AS SELECT * FROM a", "define CREATE MATERIALIZED VIEW | v: define | a: read # create as"},
		{"DO 'BEGIN END'", "unknown DO # block"},
		{"CALL p(set_config('a', 'b', true))", "unknown CALL # call, function, settings"},
		{"CALL reports.refresh(1)", "unknown CALL # call, name=reports.refresh"},
		{`CALL "Reports"."re fresh"()`, "unknown CALL # call, name=Reports.re fresh"},
		{`CALL "reports.refresh"()`, "unknown CALL # call"},
		{`CALL "a.b".c()`, "unknown CALL # call"},
		{"CALL db.reports.refresh()", "unknown CALL # call"},
		{"SHOW lock_timeout", "read SHOW # name=lock_timeout"},
	})
}

func TestPrepareHoldsWhatItPrepares(t *testing.T) {
	b := Parse("PREPARE p AS UPDATE a SET b = 1")
	p := b.Statements[0].Prepared
	if p == nil || describe(p) != "write UPDATE | a: update; none" {
		t.Errorf("prepared: %+v", p)
	}
}

func TestTransactionControl(t *testing.T) {
	checkCases(t, []parseCase{
		{"BEGIN", "control BEGIN"},
		{"BEGIN ISOLATION LEVEL REPEATABLE READ", "control BEGIN"},
		{"BEGIN READ WRITE", "control BEGIN # read write"},
		{"BEGIN READ WRITE, READ ONLY", "control BEGIN # read only"},
		{"START TRANSACTION READ ONLY", "control START TRANSACTION # read only"},
		{"COMMIT AND CHAIN", "control COMMIT # chain"},
		{"END", "control COMMIT"},
		{"ABORT", "control ROLLBACK"},
		{"ROLLBACK AND CHAIN", "control ROLLBACK # chain"},
		{`SAVEPOINT "A"`, "control SAVEPOINT # name=A"},
		{"RELEASE a", "control RELEASE # name=a"},
		{"ROLLBACK TO a", "control ROLLBACK TO # name=a"},
		{"PREPARE TRANSACTION 'x'", "control PREPARE TRANSACTION"},
		{"COMMIT PREPARED 'x'", "control COMMIT PREPARED # noblock"},
		{"ROLLBACK PREPARED 'x'", "control ROLLBACK PREPARED # noblock"},
	})
}

func TestSettings(t *testing.T) {
	checkCases(t, []parseCase{
		{"SET Lock_Timeout = '15s'", `session SET # lock_timeout="15s" local:false reset:false`},
		{`SET SESSION "LOCK_TIMEOUT" TO 0`, `session SET # lock_timeout="0" local:false reset:false`},
		{"SET LOCAL lock_timeout TO DEFAULT", `session SET # lock_timeout="" local:true reset:true`},
		{"SET search_path = a, b", `session SET # search_path="a, b" local:false reset:false`},
		{"SET NAMES 'GBK'", `session SET # client_encoding="GBK" local:false reset:false`},
		{"SET TIME ZONE 'UTC'", `session SET # timezone="UTC" local:false reset:false`},
		{"SET ROLE x", `session SET # role="x" local:false reset:false`},
		{"RESET lock_timeout", `session RESET # lock_timeout="" local:false reset:true`},
		{"RESET ALL", `session RESET # all="" local:false reset:true`},
		{"SET TRANSACTION READ WRITE", `session SET # read write, transaction_read_only="0" local:true reset:false`},
		{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", `session SET # read only, transaction_read_only="1" local:true reset:false`},
		{"SET TRANSACTION SNAPSHOT 'x'", `session SET # transaction_snapshot="x" local:true reset:false`},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", `session SET # default_transaction_read_only="0" local:false reset:false`},
		{"SET transaction_read_only = off", `session SET # read write, transaction_read_only="off" local:false reset:false`},
		{"SET transaction_read_only = 'tr'", `session SET # read only, transaction_read_only="tr" local:false reset:false`},
		{"RESET transaction_read_only", `session RESET # read write, transaction_read_only="" local:false reset:true`},
		{"DISCARD ALL", "session DISCARD # noblock"},
		{"DISCARD TEMP", "session DISCARD"},
		{"SET CONSTRAINTS ALL IMMEDIATE", "session SET CONSTRAINTS"},
		{"LISTEN x", "session LISTEN # name=x"},
		{"NOTIFY x, 'y'", "session NOTIFY # name=x"},
		{"UNLISTEN *", "session UNLISTEN"},
		{"SELECT set_config('a', 'b', false)", "read SELECT # function, settings"},
	})
}

func TestFunctions(t *testing.T) {
	checkCases(t, []parseCase{
		{"SELECT now(), count(*), lower('X'), pg_catalog.length('x'), extract(year from now()), current_user", "read SELECT"},
		{"SELECT coalesce(a, 1), greatest(a, 2), a::text, a AT TIME ZONE 'x', a LIKE 'b', a SIMILAR TO 'c', a BETWEEN 1 AND 2", "read SELECT"},
		{"SELECT substring(a from 1 for 2), trim(a), overlay(a placing b from 1), position(a in b), a IS NORMALIZED", "read SELECT"},
		{"SELECT nextval('s')", "read SELECT # function"},
		{"SELECT public.now()", "read SELECT # function"},
		{"SELECT my_function(1)", "read SELECT # function"},
		{"SELECT pg_notify('a', 'b')", "read SELECT # function"},
		{"SELECT pg_advisory_lock(1)", "read SELECT # function"},
		{"SELECT pg_terminate_backend(1)", "read SELECT # function"},
		{"SELECT query_to_xml('DELETE FROM a', true, true, '')", "read SELECT # function"},
		{"SELECT pg_read_file('/etc/passwd')", "read SELECT # function"},
		{"SELECT lo_from_bytea(0, 'x')", "read SELECT # function, server side"},
		{"SELECT lo_import('/etc/passwd')", "read SELECT # function, server side"},
		{"SELECT 1 #### 2", "read SELECT # function"},
		{"SELECT 1 OPERATOR(public.+) 2", "read SELECT # function"},
		{"SELECT 1 OPERATOR(pg_catalog.+) 2, 1 != 2, 1 <> ANY (ARRAY[1]), '{}'::jsonb ? 'a'", "read SELECT"},
		{"SELECT 1 FROM a ORDER BY b USING <~~~", "read SELECT | a: read # function"},
		{"SELECT xmlelement(name a, f()), json_object('a': 1)", "read SELECT # function"},
	})
}

func TestStatementsOfOneText(t *testing.T) {
	tests := []struct {
		text  string
		class inspect.Class
		parts []string // as cut out of the text by Start and Len
	}{
		{"", inspect.Read, nil},
		{" ; ; -- x", inspect.Read, nil},
		{"SELECT 1", inspect.Read, []string{"SELECT 1"}},
		{"SELECT 1 ; ", inspect.Read, []string{"SELECT 1 ; "}}, // one query is all of its text
		{"BEGIN ; ", inspect.Control, []string{"BEGIN "}},
		{"SELECT 'é;'; DELETE FROM b;SET a = 1", inspect.Write, []string{"SELECT 'é;'", " DELETE FROM b", "SET a = 1"}},
		{"SELECT 'caf\xe9;'; DELETE FROM b;;SET a = 1", inspect.Write, []string{"SELECT 'caf\xe9;'", " DELETE FROM b", "SET a = 1"}},
		{"LOCK a; DO 'x'; SELECT 1", inspect.Unknown, []string{"LOCK a", " DO 'x'", " SELECT 1"}},
		{
			"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3", inspect.Define,
			[]string{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END", " SELECT 3"},
		},
	}
	for _, test := range tests {
		b := Parse(test.text)
		if b.Class != test.class || len(b.Statements) != len(test.parts) {
			t.Errorf("%q: %v, %d statements", test.text, b.Class, len(b.Statements))
			continue
		}
		for i, want := range test.parts {
			s := &b.Statements[i]
			end := s.Start + s.Len
			if s.Len == 0 {
				end = len(test.text)
			}
			if got := test.text[s.Start:end]; strings.TrimSpace(got) != strings.TrimSpace(want) {
				t.Errorf("%q: part %d is %q, want %q", test.text, i, got, want)
			}
		}
	}
}

func TestTextsThatDoNotParse(t *testing.T) {
	tests := []struct{ name, text, why string }{
		{"syntax", "SELEC account_move", whySyntax},
		{"newer grammar in a routine's body", "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC MERGE INTO a USING b ON true WHEN NOT MATCHED BY SOURCE THEN DELETE; END", whySyntax},
		{"literal", "SELECT 'x", whyLiteral},
		{"escape", `SELECT U&'\00zz'`, whyLiteral},
		{"nesting", "SELECT " + strings.Repeat("- ", 10_000) + "1", whyNesting},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := Parse(test.text)
			if b.Class != inspect.Unknown || b.Why != test.why || len(b.Statements) != 0 || b.Fingerprint.Value() != 0 {
				t.Errorf("%v %q, want %q", b.Class, b.Why, test.why)
			}
		})
	}
	if b := Parse("SELEC account_move"); !b.Mentions("account_move") || b.Mentions("sale_order") {
		t.Errorf("words: %v", b.Words)
	}
}

func TestFingerprints(t *testing.T) {
	a, same, other := Parse("SELECT 1; SELECT 'x'"), Parse("select 2; select 'y'"), Parse("SELECT 1")
	if a, same, other := a.Fingerprint.Value(), same.Fingerprint.Value(), other.Fingerprint.Value(); a == 0 || a != same || a == other {
		t.Errorf("%x, %x, %x", a, same, other)
	}
	long := Parse("SELECT 1 IN (1" + strings.Repeat(", 1", inspect.MaxLateText) + ")")
	if want := Parse("SELECT 1 IN (1, 2)"); long.Fingerprint.Value() == 0 || long.Fingerprint.Value() != want.Fingerprint.Value() {
		t.Error("a long text has another fingerprint")
	}
}

func TestManyRelations(t *testing.T) {
	var text strings.Builder
	text.WriteString("SELECT 1 FROM t0")
	for i := range 200 {
		fmt.Fprintf(&text, ", t%d", i%100)
	}
	if n := len(Parse(text.String()).Statements[0].Relations); n != 100 {
		t.Errorf("%d relations, want 100", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range readEvasions(f) {
		texts, _ := e.texts()
		for _, text := range texts {
			if len(text) < 2000 {
				f.Add(text)
			}
		}
	}
	for _, text := range nestingTexts {
		f.Add(text)
	}
	for _, list := range conditions() {
		for _, c := range list {
			f.Add("DELETE FROM m WHERE " + c)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\x00") {
			return // no message holds one
		}
		checkBatch(t, text, Parse(text))
	})
}

// checkBatch fails where a batch contradicts itself.
func checkBatch(t *testing.T, text string, b *inspect.Batch) {
	t.Helper()
	if b.Why != "" && (b.Class != inspect.Unknown || len(b.Statements) > 0) || b.Why == whyCrash {
		t.Errorf("class %v with %q", b.Class, b.Why)
	}
	class, at := inspect.Read, 0
	if b.Why != "" {
		class = inspect.Unknown
	}
	for i := range b.Statements {
		s := &b.Statements[i]
		class = inspect.Worse(class, s.Class)
		if s.Start < at || s.Len < 0 || s.Start+s.Len > len(text) || s.Len == 0 && i < len(b.Statements)-1 {
			t.Errorf("statement %d stands at %d+%d, after %d, of %d", i, s.Start, s.Len, at, len(text))
		}
		at = s.Start + s.Len
		checkStatement(t, s)
	}
	if b.Class != class {
		t.Errorf("class %v, of its statements %v", b.Class, class)
	}
}

func checkStatement(t *testing.T, s *inspect.Statement) {
	t.Helper()
	if s.Kind == "" || (s.Class == inspect.Unknown) != (s.Why != "") {
		t.Errorf("kind %q, class %v, why %q", s.Kind, s.Class, s.Why)
	}
	bound := inspect.NotApplicable
	seen := map[string]bool{}
	for _, r := range s.Relations {
		bound = inspect.Wider(bound, r.Bound)
		if key := r.Schema + "\x00" + r.Name; seen[key] {
			t.Errorf("%s.%s is listed twice", r.Schema, r.Name)
		} else {
			seen[key] = true
		}
		writes := r.Access&inspect.AccessWrite != 0
		if writes && !s.Writes() || r.Access == 0 || r.Rows != 0 && r.Bound != inspect.BoundKeyed {
			t.Errorf("%+v in a statement of class %v", r, s.Class)
		}
		if changes := r.Access&(inspect.AccessUpdate|inspect.AccessDelete|inspect.AccessTruncate) != 0; changes != (r.Bound != inspect.NotApplicable) {
			t.Errorf("%+v: bound and access do not agree", r)
		}
	}
	if s.Bound != bound {
		t.Errorf("bound %v, of its relations %v", s.Bound, bound)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, text := range map[string]string{
		"select": "SELECT \"res_partner\".\"id\" FROM \"res_partner\" WHERE ((\"res_partner\".\"active\" = true) AND (\"res_partner\".\"id\" IN (1, 2, 3))) ORDER BY \"res_partner\".\"id\" LIMIT 80",
		"update": "UPDATE \"sale_order\" SET \"state\" = 'sale', \"write_uid\" = 2 WHERE id IN (17)",
		"in1000": "SELECT 1 FROM a WHERE id IN (1" + strings.Repeat(", 1234", 1000) + ")",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(text)
			}
		})
	}
}
