package pgquery

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pganalyze/pg_query_go/v5/parser"

	"lockkeeper/inspect"
)

// production is a part of the grammar that recurs: open and end around inner,
// as often as one likes, or either of them alone in a row.
type production struct {
	name, before, open, inner, end, after string
}

// text returns the production n times in itself.
func (p *production) text(n int) string {
	return p.before + strings.Repeat(p.open, n) + p.inner + strings.Repeat(p.end, n) + p.after
}

// deepest returns how often the production can be in itself with no more than
// so many levels.
func (p *production) deepest(levels int) int {
	return sort.Search(2*levels, func(n int) bool { return loadOf(p.text(n+1)).levels > levels })
}

// inChild is set where a test runs in a process of its own, which may end.
const inChild = "LOCKKEEPER_HOSTILE_CHILD"

// runChild runs one test again in a process whose threads have stacks of so
// many kilobytes, and returns what it wrote.
func runChild(t *testing.T, stack int) (output string, err error) {
	t.Helper()
	shell := fmt.Sprintf(`ulimit -s %d && exec "$0" -test.run='^%s$' -test.count=1`, stack, t.Name())
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", shell, os.Args[0])
	cmd.Env = append(os.Environ(), inChild+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestNoTextEndsTheProcess gives the parser every production, and some put
// together at random, in a process with small stacks: twice as deep as is allowed
// there without a look at the limit, and by the way that texts go.
func TestNoTextEndsTheProcess(t *testing.T) {
	if os.Getenv(inChild) != "" {
		parseProductions(t)
		return
	}
	const stack = 256
	output, err := runChild(t, stack)
	if err != nil {
		t.Errorf("%v\n%.2000s", err, output[strings.LastIndex(output, "production: ")+1:])
	}
	if n := strings.Count(output, "production: "); n != len(productions) {
		t.Errorf("%d productions of %d were tried", n, len(productions))
	}
}

func parseProductions(t *testing.T) {
	allowed := levelsAllowed()
	if allowed > maxNesting/2 {
		t.Fatalf("%d levels are allowed: the stack's size is not what was asked for", allowed)
	}
	for i := range productions {
		p := &productions[i]
		fmt.Println("production:", p.name) // the last one is the one that ended the process
		text := p.text(p.deepest(2 * allowed))
		_, _ = parser.ParseToJSON(text)
		if _, err := pg.Parse(text); err == nil && loadOf(text).levels > allowed && Parse(text).Class != inspect.Unknown {
			t.Errorf("%s: deeper than is allowed here, and parsed", p.name)
		}
	}
	random := rand.New(rand.NewPCG(7, 8))
	for range 1500 {
		choices := randomChoices(random)
		text := "DELETE FROM t WHERE " + expression(choices)
		if levels := loadOf(text).levels; levels > allowed/2 && levels <= 2*allowed {
			fmt.Printf("together: %x\n", choices)
			_, _ = pg.Parse(text)
			Parse(text)
		}
	}
}

// productions are the grammar's recursive ones, by what a client would write.
var productions = []production{
	// Expressions in brackets.
	{"parentheses", "SELECT ", "(", "1", ")", ""},
	{"rows", "SELECT ", "(1,", "1", ")", ""},
	{"row constructors", "SELECT ", "ROW(", "1", ")", ""},
	{"arrays", "SELECT ", "ARRAY[", "1", "]", ""},
	{"arrays in arrays", "SELECT ARRAY", "[", "1", "]", ""},
	{"functions", "SELECT ", "f(", "1", ")", ""},
	{"variadic functions", "SELECT ", "f(VARIADIC ", "a", ")", ""},
	{"named arguments", "SELECT ", "f(a => ", "1", ")", ""},
	{"ordered arguments", "SELECT ", "f(a ORDER BY ", "1", ")", ""},
	{"filters", "SELECT ", "f() FILTER (WHERE ", "a", ")", ""},
	{"within group", "SELECT ", "f() WITHIN GROUP (ORDER BY ", "a", ")", ""},
	{"windows", "SELECT ", "f() OVER (PARTITION BY ", "a", ")", ""},
	{"window frames", "SELECT ", "f() OVER (ROWS ", "1", " PRECEDING)", ""},
	{"coalesce", "SELECT ", "coalesce(", "1", ")", ""},
	{"greatest", "SELECT ", "greatest(", "1", ")", ""},
	{"cast", "SELECT ", "CAST(", "1", " AS int)", ""},
	{"extract", "SELECT ", "EXTRACT(year FROM ", "a", ")", ""},
	{"substring", "SELECT ", "SUBSTRING(", "a", " FROM 1 FOR 2)", ""},
	{"overlay", "SELECT ", "OVERLAY(", "a", " PLACING b FROM 1)", ""},
	{"position", "SELECT ", "POSITION(", "a", " IN b)", ""},
	{"trim", "SELECT ", "TRIM(BOTH a FROM ", "b", ")", ""},
	{"normalize", "SELECT ", "NORMALIZE(", "b", ", NFC)", ""},
	{"collation for", "SELECT ", "COLLATION FOR (", "b", ")", ""},
	{"xmlelement", "SELECT ", "xmlelement(name a, ", "b", ")", ""},
	{"xmlattributes", "SELECT ", "xmlelement(name a, xmlattributes(", "b", " AS c))", ""},
	{"xmlforest", "SELECT ", "xmlforest(", "b", " AS c)", ""},
	{"xmlparse", "SELECT ", "xmlparse(content ", "b", ")", ""},
	{"xmlpi", "SELECT ", "xmlpi(name a, ", "b", ")", ""},
	{"xmlroot", "SELECT ", "xmlroot(", "b", ", version no value)", ""},
	{"xmlserialize", "SELECT ", "xmlserialize(content ", "b", " AS text)", ""},
	{"xmlconcat", "SELECT ", "xmlconcat(", "b", ")", ""},
	{"xmlexists", "SELECT ", "xmlexists(", "b", " PASSING c)", ""},
	{"json_object", "SELECT ", "json_object('a': ", "1", ")", ""},
	{"json_array", "SELECT ", "json_array(", "1", ")", ""},
	{"json_arrayagg", "SELECT ", "json_arrayagg(", "1", ")", ""},
	{"json_objectagg", "SELECT ", "json_objectagg(1: ", "1", ")", ""},
	{"case", "SELECT ", "CASE WHEN ", "a", " THEN 1 END", ""},
	{"case of", "SELECT ", "CASE ", "a", " WHEN 1 THEN 2 END", ""},
	{"case results", "SELECT ", "CASE WHEN a THEN ", "1", " END", ""},
	{"case defaults", "SELECT ", "CASE WHEN a THEN 1 ELSE ", "1", " END", ""},
	{"grouping", "SELECT ", "GROUPING(", "a", ")", ""},
	// Operators.
	{"left operators", "SELECT 1", "", "", "+1", ""},
	{"right operators", "SELECT ", "1^(", "1", ")", ""},
	{"unknown operators", "SELECT 1", "", "", " @@@ 1", ""},
	{"prefix operators", "SELECT ", "- ", "1", "", ""},
	{"unknown prefix operators", "SELECT ", "@@ ", "1", "", ""},
	{"named operators", "SELECT 1", "", "", " OPERATOR(a.+) 1", ""},
	{"comparisons", "SELECT ", "a = (", "1", ")", ""},
	{"not", "SELECT ", "NOT ", "a", "", ""},
	{"and right", "SELECT ", "a AND (", "a", ")", ""},
	{"and or", "SELECT ", "a AND (b OR ", "a", ")", ""},
	{"or of ands", "SELECT a", "", "", " OR a AND b", ""},
	{"is null", "SELECT a", "", "", " IS NULL", ""},
	{"isnull", "SELECT a", "", "", " ISNULL", ""},
	{"is true", "SELECT a", "", "", " IS NOT TRUE", ""},
	{"is distinct", "SELECT a", "", "", " IS DISTINCT FROM b IS NULL", ""},
	{"is json", "SELECT a", "", "", " IS JSON", ""},
	{"is normalized", "SELECT a", "", "", " IS NORMALIZED", ""},
	{"is document", "SELECT a", "", "", " IS DOCUMENT", ""},
	{"like", "SELECT a", "", "", " LIKE b IS NULL", ""},
	{"like escape", "SELECT ", "a LIKE b ESCAPE (", "c", ")", ""},
	{"similar", "SELECT ", "a SIMILAR TO (", "c", ")", ""},
	{"between", "SELECT a", "", "", " BETWEEN 1 AND 2 IS NULL", ""},
	{"between right", "SELECT ", "a BETWEEN 1 AND (", "c", ")", ""},
	{"between symmetric", "SELECT ", "a BETWEEN SYMMETRIC (", "c", ") AND 2", ""},
	{"at time zone", "SELECT a", "", "", " AT TIME ZONE b", ""},
	{"at time zone right", "SELECT ", "a AT TIME ZONE (", "b", ")", ""},
	{"collate", "SELECT a", "", "", " COLLATE b", ""},
	{"casts", "SELECT a", "", "", "::a", ""},
	{"casts to arrays", "SELECT a", "", "", "::a[][][]", ""},
	{"casts with modifiers", "SELECT a", "", "", "::numeric(1,2)", ""},
	{"modifiers", "SELECT ", "a::a(", "1", ")", ""},
	{"in", "SELECT a", "", "", " IN (1) IS NULL", ""},
	{"in right", "SELECT ", "a IN (", "1", ")", ""},
	{"any", "SELECT ", "a = ANY (", "b", ")", ""},
	{"overlaps", "SELECT ", "((a, b) OVERLAPS (c, ", "d", "))", ""},
	{"subscripts", "SELECT a", "", "", "[1]", ""},
	{"slices", "SELECT a", "", "", "[1:2]", ""},
	{"subscripts right", "SELECT ", "a[", "1", "]", ""},
	{"fields", "SELECT (a)", "", "", ".b", ""},
	{"names", "SELECT a", "", "", ".b", ""},
	{"fields in brackets", "SELECT ", "(", "a", ").b", ""},
	{"intervals", "SELECT ", "INTERVAL '1' + (", "a", ")", ""},
	{"continued literals", "SELECT 'a'", "", "", "\n'a'", ""},
	{"typed literals", "SELECT ", "a(", "1", ") 'b'", ""},
	{"set operators", "SELECT ", "row(a, b) = ANY (SELECT ", "1", ")", ""},
	// Queries.
	{"subselects", "SELECT ", "(SELECT ", "1", ")", ""},
	{"exists", "SELECT ", "EXISTS (SELECT ", "1", ")", ""},
	{"array subselects", "SELECT ", "ARRAY(SELECT ", "1", ")", ""},
	{"where subselects", "SELECT 1", " WHERE a IN (SELECT 1", "", ")", ""},
	{"brackets around queries", "", "(", "SELECT 1", ")", ""},
	{"brackets around subselects", "SELECT ", "((SELECT ", "1", "))", ""},
	{"from subselects", "SELECT 1 FROM ", "(SELECT 1 FROM ", "a", ") a", ""},
	{"lateral", "SELECT 1 FROM ", "LATERAL (SELECT 1 FROM ", "a", ") a", ""},
	{"from values", "SELECT 1 FROM ", "(VALUES ((SELECT 1 FROM ", "a", "))) a", ""},
	{"from functions", "SELECT 1 FROM ", "f((SELECT 1 FROM ", "a", "))", ""},
	{"rows from", "SELECT 1 FROM ", "ROWS FROM (f((SELECT 1 FROM ", "a", ")))", ""},
	{"xmltable", "SELECT 1 FROM ", "XMLTABLE('a' PASSING (SELECT 1 FROM ", "a", ") COLUMNS b int)", ""},
	{"tablesample", "SELECT 1 FROM ", "a TABLESAMPLE b((SELECT 1 FROM ", "a", "))", ""},
	{"left joins", "SELECT 1 FROM a", "", "", " JOIN b ON c", ""},
	{"right joins", "SELECT 1 FROM ", "a JOIN (", "b", " JOIN c ON d) ON e", ""},
	{"joins without brackets", "SELECT 1 FROM ", "a JOIN ", "b", " ON c", ""},
	{"cross joins", "SELECT 1 FROM a", "", "", " CROSS JOIN b", ""},
	{"natural joins", "SELECT 1 FROM a", "", "", " NATURAL JOIN b", ""},
	{"joins with aliases", "SELECT 1 FROM ", "(", "a", " JOIN b USING (c)) AS d", ""},
	{"join conditions", "SELECT 1 FROM a", " JOIN b ON (SELECT 1 FROM a", "", ")", ""},
	{"unions", "SELECT 1", "", "", " UNION SELECT 1", ""},
	{"unions right", "", "SELECT 1 UNION (", "SELECT 1", ")", ""},
	{"intersections", "SELECT 1", "", "", " INTERSECT SELECT 1", ""},
	{"unions of values", "VALUES (1)", "", "", " UNION VALUES (1)", ""},
	{"unions of tables", "TABLE a", "", "", " UNION TABLE a", ""},
	{"with", "", "WITH a AS (", "SELECT 1", ") SELECT 1", ""},
	{"with right", "", "WITH a AS (SELECT 1) (", "SELECT 1", ")", ""},
	{"with in subselects", "", "SELECT (WITH a AS (SELECT 1) ", "SELECT 1", ")", ""},
	{"with deletes", "", "WITH a AS (", "DELETE FROM a", ") DELETE FROM b", ""},
	{"recursive with", "", "WITH RECURSIVE a AS (", "SELECT 1", " SEARCH DEPTH FIRST BY b SET c) SELECT 1", ""},
	{"grouping sets", "SELECT 1 GROUP BY ", "GROUPING SETS (", "a", ")", ""},
	{"rollup", "SELECT 1 GROUP BY GROUPING SETS ", "(ROLLUP (", "a", "))", ""},
	{"order by", "SELECT 1", " ORDER BY (SELECT 1", "", ")", ""},
	{"limits", "SELECT 1", " LIMIT (SELECT 1", "", ")", ""},
	{"fetch", "SELECT 1", " FETCH FIRST (SELECT 1", "", ") ROWS ONLY", ""},
	{"having", "SELECT 1", " HAVING (SELECT 1", "", ")", ""},
	{"window clauses", "SELECT 1", " WINDOW a AS (ORDER BY (SELECT 1", "", "))", ""},
	{"distinct on", "", "SELECT DISTINCT ON ((", "SELECT 1", ")) 1", ""},
	// Other statements.
	{"explains", "", "EXPLAIN ", "SELECT 1", "", ""},
	{"prepares", "", "PREPARE a AS ", "SELECT 1", "", ""},
	{"rules", "", "CREATE RULE a AS ON INSERT TO b DO ALSO (", "SELECT 1", ")", ""},
	{"rules of many actions", "CREATE RULE a AS ON INSERT TO b DO ALSO (SELECT 1", "", "", "; SELECT 1", ")"},
	{"schemas", "CREATE SCHEMA a", "", "", " CREATE TABLE b (c int)", ""},
	{"schema views", "CREATE SCHEMA a CREATE VIEW b AS ", "SELECT (", "SELECT 1", ")", ""},
	{"defaults", "CREATE TABLE a (b int DEFAULT ", "(", "1", ")", ")"},
	{"checks", "CREATE TABLE a (b int CHECK ", "(a AND ", "b", ")", ")"},
	{"partition bounds", "CREATE TABLE a PARTITION OF b FOR VALUES FROM (", "(", "1", ")", ") TO (1)"},
	{"partition lists", "CREATE TABLE a PARTITION OF b FOR VALUES IN (", "f(", "1", ")", ")"},
	{"partition keys", "CREATE TABLE a (b int) PARTITION BY RANGE (", "(", "b", ")", ")"},
	{"index expressions", "CREATE INDEX ON a (", "f(", "b", ")", ")"},
	{"exclusions", "CREATE TABLE a (EXCLUDE (b WITH =) WHERE ", "(NOT ", "b", ")", ")"},
	{"policies", "CREATE POLICY a ON b USING (", "NOT (", "c", ")", ")"},
	{"triggers", "CREATE TRIGGER a AFTER INSERT ON b WHEN (", "NOT (", "c", ")", ") EXECUTE FUNCTION d()"},
	{"function bodies", "", "CREATE FUNCTION a() RETURNS int RETURN (", "1", ")", ""},
	{"atomic bodies", "CREATE FUNCTION a() RETURNS int BEGIN ATOMIC SELECT ", "(", "1", ")", "; END"},
	{"atomic statements", "CREATE FUNCTION a() RETURNS int BEGIN ATOMIC ", "", "", "SELECT 1; ", "END"},
	{"function defaults", "CREATE FUNCTION a(b int = ", "f(", "1", ")", ") RETURNS int LANGUAGE sql AS ''"},
	{"domains", "CREATE DOMAIN a AS int CHECK (", "NOT (", "b", ")", ")"},
	{"using", "ALTER TABLE a ALTER b TYPE c USING ", "f(", "b", ")", ""},
	{"copies", "COPY (SELECT ", "(SELECT ", "1", ")", ") TO STDOUT"},
	{"copy options", "COPY a FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL (a", "", "", ", a", "))"},
	{"updates", "UPDATE a SET b = ", "(SELECT ", "1", ")", " WHERE c"},
	{"update fields", "UPDATE a SET b", "", "", ".c", " = 1"},
	{"update subscripts", "UPDATE a SET b", "", "", "[1]", " = 1"},
	{"multiple assignments", "UPDATE a SET (b) = ", "(", "SELECT 1", ")", ""},
	{"deletes", "DELETE FROM a WHERE ", "a = (", "1", ")", ""},
	{"deletes using", "DELETE FROM a USING ", "(", "b", " JOIN c ON d)", " WHERE e"},
	{"inserts", "INSERT INTO a VALUES (", "(", "1", ")", ")"},
	{"on conflict", "INSERT INTO a VALUES (1) ON CONFLICT (b) DO UPDATE SET c = ", "f(", "1", ")", ""},
	{"on conflict where", "INSERT INTO a VALUES (1) ON CONFLICT (b) WHERE ", "NOT (", "1", ")", " DO NOTHING"},
	{"merges", "MERGE INTO a USING b ON ", "NOT (", "c", ")", " WHEN MATCHED THEN DELETE"},
	{"merge whens", "MERGE INTO a USING b ON c", "", "", " WHEN MATCHED AND d THEN DELETE", ""},
	{"returning", "DELETE FROM a RETURNING ", "f(", "1", ")", ""},
	{"calls", "CALL f(", "f(", "1", ")", ")"},
	{"executes", "EXECUTE a (", "f(", "1", ")", ")"},
	{"declares", "DECLARE a CURSOR FOR SELECT ", "(SELECT ", "1", ")", ""},
	{"create table as", "CREATE TABLE a AS SELECT ", "(SELECT ", "1", ")", ""},
	{"views", "CREATE VIEW a AS SELECT ", "(SELECT ", "1", ")", ""},
	{"setof types", "CREATE FUNCTION a(b ", "", "a", "[]", ") RETURNS int LANGUAGE sql AS ''"},
	{"statistics", "CREATE STATISTICS a ON ", "(", "b", " + 1)", ", c FROM d"},
	{"publications", "CREATE PUBLICATION a FOR TABLE b WHERE (", "NOT (", "c", ")", ")"},
	// What does not nest but is many.
	{"constants", "SELECT 1 FROM a WHERE b IN (1", "", "", ",1", ")"},
	{"lists of rows", "INSERT INTO a VALUES (1)", "", "", ",(1)", ""},
	{"ands", "SELECT 1 FROM a WHERE b", "", "", " AND b", ""},
	{"columns", "SELECT a", "", "", ",a", ""},
	{"tables", "SELECT 1 FROM a", "", "", ",a", ""},
	{"sets", "UPDATE a SET b=1", "", "", ",b=1", ""},
	{"whens", "SELECT CASE", "", "", " WHEN 1 THEN 2", " END"},
	{"semicolons", "", "", "", ";", ""},
	{"statements", "", "", "", "SELECT 1;", ""},
	{"statements without a space", "", "", "", "SELECT;", ""},
	{"commits", "", "", "", "END;", ""},
	{"parameters", "SELECT $1", "", "", ",$1", ""},
	{"alterations", "ALTER TABLE a DROP b", "", "", ",DROP b", ""},
	{"drops", "DROP TABLE a", "", "", ",a", ""},
	{"column definitions", "CREATE TABLE a (b c", "", "", ",b c", ")"},
	{"comments", "SELECT 1", "", "", "/**/", ""},
	{"nested comments", "SELECT 1", "/*", "", "*/", ""},
	{"open comments", "SELECT 1", "/*", "", "", ""},
	{"operator characters", "SELECT 1", "+", " ", "", "1"},
	{"minus signs", "SELECT 1", "*- ", " ", "", "1"},
	{"quotes", "SELECT '", "", "", "''", "'"},
	{"escaped quotes", "SELECT E'", "", "", `\'`, "'"},
	{"unicode escapes", "SELECT U&'", "", "", `\0061`, "'"},
	{"dollar quotes", "SELECT ", "$a", "", "", ""},
	{"open brackets", "SELECT ", "(", "", "", ""},
	{"open cases", "SELECT ", "CASE ", "", "", ""},
	{"open subselects", "SELECT ", "(SELECT ", "", "", ""},
	{"open prepares", "", "PREPARE a AS ", "", "", ""},
	{"closed brackets", "SELECT 1", "", "", ")", ""},
	{"quoted names", `SELECT "`, "", "", `""`, `"`},
	{"white space", "SELECT 1", "", "", "\n", ""},
	{"wide digits", "SELECT 1", "", "", "1", ""},
	{"options", "EXPLAIN (a", "", "", ",a", ") SELECT 1"},
	{"aliases", "SELECT 1 FROM a AS b(c", "", "", ",c", ")"},
	{"truncates", "TRUNCATE a", "", "", ",a", ""},
	{"grants", "GRANT SELECT ON a", "", "", ",a", " TO b"},
}
