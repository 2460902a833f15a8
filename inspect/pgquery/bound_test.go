package pgquery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lockkeeper/inspect"
)

// boundOf parses a statement whose first relation is its target.
func boundOf(t *testing.T, text string) string {
	t.Helper()
	b := Parse(text)
	if b.Why != "" || len(b.Statements) != 1 {
		t.Fatalf("%s: %d statements, %q", text, len(b.Statements), b.Why)
	}
	r := b.Statements[0].Relations[0]
	if r.Bound == inspect.BoundKeyed {
		return fmt.Sprintf("keyed(%d)", r.Rows)
	}
	return r.Bound.String()
}

// conditions are WHERE clauses of DELETE FROM m, by what they say.
func conditions() map[string][]string {
	return map[string][]string{
		"vacuous": {
			// Constants.
			"true", "'t'", "'yes'::bool", "1=1", "1 < 2", "'a'='a'", "NOT false", "NOT (1=2)", "true IS TRUE", "false IS NOT TRUE",
			"1::bool", "cast('on' AS boolean)", "1 IN (1,2)", "3 NOT IN (1,2)", "1 BETWEEN 0 AND 2", "1 NOT BETWEEN 2 AND 3",
			"1 = ANY (ARRAY[1,2])", "NULL IS NULL", "'' IS NOT NULL", "1 IS DISTINCT FROM 2", "NULL IS NOT DISTINCT FROM NULL",
			"coalesce(NULL, true)", "CASE WHEN 1=1 THEN true END", "CASE 1 WHEN 1 THEN true ELSE false END", "1+1=2", "2*3 > 5", "-1 < 0",
			"1.5 > 1", "(SELECT true)", "(SELECT 1) = 1", "EXISTS (SELECT 1)", "EXISTS (SELECT 1 WHERE 1=1)", "EXISTS (VALUES (1))",
			"(1,2) = (1,2)", "'a' || 'b' = 'ab'", "true = 't'", "NULL IS UNKNOWN",
			// All rows or none: nothing of the row in it.
			"$1", "$1::bool", "$1 = $2", "$1 IS NULL", "now() > '2020-01-01'", "current_date = $1", "length('x') = 1", "current_user = 'odoo'",
			"tableoid = 'm'::regclass", "m.tableoid IN (1, 2)", "EXISTS (SELECT FROM other)", "(SELECT count(*) FROM other) > 5", "NOT EXISTS (SELECT FROM other)",
			// A column with itself.
			"id = id", "m.id = id", "name = name", "m.name = m.name", "m = m", "id >= id", "id <= m.id", "id BETWEEN id AND id",
			"id IN (1, id)", "id = ANY (ARRAY[id])", "name IS NOT DISTINCT FROM name", "coalesce(name, '') = coalesce(name, '')",
			"lower(name) = lower(name)", "id + 0 = id", "0 + id = id", "id * 1 = id", "id - 0 = id / 1", "name || '' = name", "name COLLATE \"C\" = name",
			"id = (SELECT id)", "id IN (SELECT id)", "(id, name) = (id, name)", "+id = id",
			// Never NULL.
			"id IS NOT NULL", "m.id IS NOT NULL", "ctid IS NOT NULL", "m.xmin IS NOT NULL", "tableoid IS NOT NULL", "ROW(id) IS NOT NULL",
			"now() IS NOT NULL", "coalesce(name, 'x') IS NOT NULL", "id IS DISTINCT FROM NULL", "NOT (id IS NULL)", "(id = 1) IS NOT UNKNOWN",
			"concat(name, 'x') IS NOT NULL", "(name IS NULL) IS NOT NULL",
			// Ranges and patterns that hold everything.
			"length(name) >= 0", "0 <= char_length(name)", "length(name) > -1", "random() >= 0", "abs(amount) >= 0", "name LIKE '%'", "name ILIKE '%%'",
			"name ~ ''", "name ~ '.*'", "name ~* '^'", "name SIMILAR TO '%'", "name NOT LIKE 'x' OR name LIKE 'x'",
			// Logic.
			"id = 1 OR true", "true OR id = 1", "true AND 1=1", "NOT (id = 1 AND false)", "active OR NOT active", "id = 1 OR id <> 1",
			"name IS NULL OR name IS NOT NULL", "a > 5 OR a <= 5", "(id = id) = true OR name = 'x'", "NOT NOT true", "(id = 1 OR 1=1) AND (true)",
			"NOT (id <> id)", "name = 'x' OR name <> 'x'", "(id = id) IS TRUE", "CASE WHEN id = 1 THEN true ELSE true END",
			// The table again.
			"id IN (SELECT id FROM m)", "id IN (SELECT m.id FROM m WHERE true)", "id IN (SELECT x.id FROM public.m x)", "id = ANY (SELECT id FROM m)",
			"id IN (SELECT id FROM (SELECT id FROM m) x)", "id IN (SELECT DISTINCT id FROM m ORDER BY id)", "id IN (SELECT id FROM m LIMIT ALL)",
			"id IN (SELECT id FROM m TABLESAMPLE BERNOULLI (100))", "EXISTS (SELECT 1 FROM m b WHERE b.id = m.id)",
			"EXISTS (SELECT 1 FROM m b WHERE m.id = b.id AND true)", "id IN (SELECT id FROM m WHERE id IN (SELECT id FROM m))",
			"name IN (SELECT name FROM m)", "name = ANY (ARRAY(SELECT name FROM m))", "EXISTS (SELECT 1 FROM m b WHERE b.name = m.name)",
			"id IN (SELECT id FROM m UNION SELECT id FROM other)", "id IN (WITH x AS (SELECT id FROM m) SELECT id FROM x)",
			"id IN (SELECT y.id FROM (SELECT id, name FROM m) y)", "id IN (SELECT a FROM (SELECT id AS a FROM m) y)", "id IN (SELECT id AS a FROM m)",
			"id IN (SELECT x.id FROM m x LEFT JOIN other o ON o.id = x.id)", "EXISTS (SELECT 1 FROM m b, other o WHERE b.id = m.id)",
			// Nothing is in an empty list.
			"id <> ALL ('{}')", "NOT (id = ANY (ARRAY[]::int[]))", "id NOT IN (SELECT id FROM other WHERE false)", "id NOT IN (SELECT 1 LIMIT 0)",
			// Arithmetic and order.
			"id - id = 0", "id * 0 = 0", "id / id = 1", "id + 1 > id", "id > id - 1", "id BETWEEN id - 1 AND id + 1", "random() < 1", "name >= ''", "name LIKE name",
			"name ~ 'a*'", "name ~* '(x|)'", "id = id::int", "active IS TRUE OR active IS NOT TRUE", "clock_timestamp() > '2020-01-01'", "id - 1 < id + 1",
			// Truths among other things.
			"(active OR NOT active) = true", "(id IN (SELECT id FROM m)) <> false", "nullif(id = id, false)", "coalesce(NULL, active OR NOT active)",
			"coalesce(id IN (SELECT id FROM m), active)", "CASE WHEN id > 3 THEN id = id ELSE active OR NOT active END", "((active OR NOT active), 1) = (true, 1)",
			"(SELECT id IN (SELECT id FROM m))", "(name IS NULL OR name IS NOT NULL) = ANY (ARRAY[true, false])", "(a > 5 OR a <= 5) IN (true)",
			// A condition and its negation.
			"active <> NOT active", "NOT (active = NOT active)", "active IS DISTINCT FROM NOT active", "(id > 5) <> (id <= 5)", "(active IS TRUE) <> (active IS NOT TRUE)",
			"(name IS NULL) <> (name IS NOT NULL)", "(name = 'x') != (name <> 'x')", "active >= false", "true >= active",
			// Functions in operators' places.
			"int4eq(id, id)", "pg_catalog.int4eq(id, id)", "texteq(name, name)", "int4ge(id, id)", "NOT int4ne(id, id)", "textlike(name, '%')", "booleq(active, active)",
			"boolne(active, NOT active)", "int4eq(1, 1)", "starts_with(name, '')", "name ^@ ''", "\"like\"(name, '%')", "textregexeq(name, '')", "regexp_like(name, '')",
			"int4eq(id, 1) OR int4ne(id, 1)", "int4gt(id, 5) OR id <= 5", "int4eq(id, id) AND true", "EXISTS (SELECT 1 FROM m b WHERE int4eq(b.id, m.id))",
			// More operators.
			"id | 0 = id", "id << 0 = id", "greatest(id, 5) >= id", "id >= least(5, id)", "array[id] @> array[id]", "array[name] && array[name]", "id <= ANY (SELECT id FROM m)",
			"ctid > '(0,0)'", "'(0,0)'::tid <= ctid",
			// Groups that nothing leaves out.
			"id IN (SELECT id FROM m GROUP BY id)", "id IN (SELECT id FROM m GROUP BY id HAVING true)", "id IN (SELECT id FROM m GROUP BY id HAVING count(*) > 0)",
			"id IN (SELECT id FROM m GROUP BY 1 HAVING 1 <= count(id) AND 1 = 1)", "EXISTS (SELECT 1 HAVING true)", "EXISTS (SELECT FROM m b WHERE b.id = m.id HAVING count(*) <> 0)",
			"EXISTS (SELECT 1 FROM m b WHERE b.id = m.id GROUP BY b.id HAVING count(1) >= 1)", "EXISTS (SELECT 1 FROM other o WHERE o.id = m.id HAVING true)",
			// Optional filters: everything when the parameter is NULL.
			"id = coalesce($1, id)", "name = coalesce($1::text, name)",
		},
		"keyed(1)": {
			"id = 1", "1 = id", "m.id = $1", "id = $1::int", "id = '5'", "id = 1 + 1", "id::text = '5'", "id IN (1)", "id = 1 AND name = 'x'",
			"id = 1 AND true", "id = 1 OR false", "name = 'x' AND (id = 1)", "id = (SELECT max(id) FROM m)", "id = (SELECT x.id FROM other x WHERE x.v = 'a')",
			"(id, name) = (1, 'x')", "id = coalesce($1, 0)", "id = -1", "ctid = '(0,1)'", "id = 1 AND id IN (1,2)", "NOT (NOT (id = 1))",
			"id IN (SELECT 1)", "(id = 1) IS TRUE", "id = current_setting('x')::int", "CASE WHEN id = 1 THEN true ELSE false END",
		},
		"keyed(2)": {
			"id IN (1, 2)", "id = 1 OR id = 2", "id = ANY (ARRAY[1, 2])", "id = ANY ('{1,2}')", "id = ANY ('{1,2}'::int[])", "id = ANY (ARRAY[3, 1::int]::int[])",
			"id IN ($1, $2) AND active", "id IN (VALUES (1), (2))", "id IN (SELECT unnest(ARRAY[1, 2]))", "(id, name) IN ((1, 'x'), (2, 'y'))",
			"id IN (SELECT 1 UNION ALL SELECT 2)", "id IN (SELECT x FROM (VALUES (1), (2)) AS v(x))", "id IN (SELECT v.x FROM (VALUES (1), (2)) AS v(x) WHERE true)",
			"id IN (SELECT column1 FROM (VALUES (1), (2)) AS v)", "id IN (SELECT x FROM (SELECT y AS x FROM (VALUES (1), (2)) AS v(y)) w)",
			"id IN (SELECT unnest FROM unnest(ARRAY[1, 2]))",
		},
		"keyed(0)": {
			"id = ANY ($1)", "id = ANY ($1::int[])", "id IN (SELECT unnest($1::int[]))", "id = ANY ($1) OR id = 1",
		},
		"cursor": {"CURRENT OF c"},
		"predicate": {
			"id > 0", "id >= 0", "id > -2147483648", "id BETWEEN 1 AND 5", "id <> 1", "NOT (id = 1)", "name = 'x'", "name IS NULL", "name IS NOT NULL",
			"warehouse_id IS NULL", "to_delete = TRUE", "active", "NOT active", "m.partner_id = 3", "name LIKE 'a%'", "name LIKE ''", "name ~ 'x'",
			"id NOT IN (1, 2)", "id <> ALL (ARRAY[1, 2])", "id = 1 OR name = 'x'", "id IN (1, 2) OR active", "false", "1 = 2", "NULL", "NOT NULL",
			"id IN (SELECT id FROM m WHERE active)", "id IN (SELECT id FROM m LIMIT 10)", "id IN (SELECT id FROM other)", "id IN (SELECT move_id FROM m)",
			"id IN (SELECT id FROM m TABLESAMPLE BERNOULLI (10))", "id IN (SELECT unnest(ids) FROM other)", "id = ANY (ARRAY(SELECT id FROM other))",
			"EXISTS (SELECT 1 FROM other o WHERE o.id = m.id)", "NOT EXISTS (SELECT 1 FROM other o WHERE o.id = m.id)",
			"EXISTS (SELECT 1 FROM m b WHERE b.id = m.id AND b.active)", "EXISTS (SELECT 1 FROM m b WHERE b.parent_id = m.id)",
			"random() < 0.1", "random() >= 0.5", "id = (random() * 50)::int", "my_function(id)", "my_function()", "id = my_function()",
			"length(name) >= 1", "length(name) > length(ref)", "random() > abs(amount)", "length(name) < 5", "id = parent_id", "id % 2 = 0", "id + 1 = 5", "date < now() - interval '1 day'",
			"id IN (SELECT id FROM (VALUES (1)) AS v(x))", // id is the row's own
			"id = name::int", "id::bool = true", "id + 1 < id", "name < ''", "name ~ 'a+'", "name ~ '^a*$'", "id <> ALL ('{1}')", "NOT (id = ANY ($1))",
			"id NOT IN (SELECT id FROM other)", "id IN (SELECT x.id FROM m x JOIN other o ON o.id = x.id)", "id IN (SELECT other_id AS id FROM m)",
			"id IN (WITH m AS (SELECT id FROM other) SELECT id FROM m)", "id IN (SELECT id FROM m INTERSECT SELECT id FROM other)", "name IN (SELECT id FROM m)",
			"id IN (SELECT x.id FROM m x LEFT JOIN other o ON o.id = x.id WHERE o.id IS NULL)", "EXISTS (SELECT 1 FROM m b, other o WHERE b.id = m.id AND o.id = b.parent_id)",
			"id IN (SELECT y.b FROM m AS y(a, b))", "id NOT IN (SELECT x.id FROM m x LEFT JOIN other o ON o.id = x.id WHERE o.id IS NULL)", "id - other = 0",
			// With NULL these hold for more than one row.
			"id = 1 OR (name = name) IS NOT TRUE", "id = 1 OR coalesce(name <> name, true)", "id = 1 OR NOT (name = name) IS TRUE", "id = 1 OR (name = name) IS UNKNOWN",
			"id = 1 OR CASE WHEN name = name THEN false ELSE true END", "CASE WHEN name IN (x, name) THEN id = 1 ELSE active END", "id = 1 OR (name LIKE '%') IS DISTINCT FROM true", "id = 1 OR (name IN (SELECT name FROM m)) IS NOT TRUE", "coalesce(active, false)", "coalesce(name, 'x') = 'x'", "CASE WHEN active THEN true ELSE false END",
			"0 << id = id", "greatest(id, 5) > id", "least(id, 5) >= id", "greatest(5, 6) >= id", "id < ANY (SELECT id FROM m)", "id <= ANY (SELECT id FROM other)", "amount % 1 = 0",
			"ctid > '(1,0)'", "ctid < '(0,0)'", "array[id] @> array[other]", "active <> NOT archived", "boolne(active, NOT archived)", "int4eq(id, 5)", "id = 1 OR int4ne(id, id)", "my.int4eq(id, id)", "starts_with(name, 'x')", "active >= true",
			"id IN (SELECT id FROM m GROUP BY id HAVING count(*) > 1)", "id IN (SELECT id FROM m GROUP BY id HAVING count(*) <> 2)", "id IN (SELECT id FROM m GROUP BY id HAVING count(*) = 1)",
			"id IN (SELECT id FROM m GROUP BY id HAVING count(*) FILTER (WHERE active) > 0)", "id IN (SELECT id FROM m GROUP BY id HAVING bool_or(active))", "id IN (SELECT id FROM m GROUP BY id HAVING count(name) > 0)",
			"id IN (SELECT x.id FROM m x LEFT JOIN other o ON o.id = x.id GROUP BY x.id HAVING count(o.id) > 0)",
			"EXISTS (SELECT 1 FROM other o WHERE o.id = m.id HAVING count(*) > 0)",
			"(active, name) = (true, 'x')", "name IS DISTINCT FROM 'x'", "id = ANY (ids)", "$1 = ANY (ids)", "create_date < $1", "name = $1 OR $1 IS NULL AND active",
		},
	}
}

func TestConditions(t *testing.T) {
	for want, list := range conditions() {
		for _, c := range list {
			if got := boundOf(t, "DELETE FROM m WHERE "+c); got != want {
				t.Errorf("%s: %s, want %s", c, got, want)
			}
			if want == "vacuous" || want == "predicate" {
				if got := boundOf(t, "UPDATE m SET a = 1 WHERE ("+c+")"); got != want {
					t.Errorf("UPDATE %s: %s, want %s", c, got, want)
				}
			}
		}
	}
}

func TestBoundsOfJoins(t *testing.T) {
	tests := []struct{ text, want string }{
		// What Odoo sends, and must be able to.
		{`UPDATE "sale_order" SET "warehouse_id" = 1 WHERE "warehouse_id" IS NULL`, "predicate"},
		{`UPDATE "res_company" AS x SET "email" = y."email" FROM "res_partner" AS y WHERE x."partner_id" = y.id`, "predicate"},
		{`DELETE FROM sms_sms WHERE to_delete = TRUE`, "predicate"},
		{`UPDATE m SET a = t.a FROM (VALUES (1, 'x'), (2, 'y'), (3, 'z')) AS t(id, a) WHERE m.id = t.id`, "keyed(3)"},
		{`UPDATE m SET a = t.a FROM (SELECT id, a FROM (VALUES (1, 'x'), (2, 'y')) AS v(id, a)) AS t WHERE t.id = m.id`, "keyed(2)"},
		{`UPDATE m SET a = t.a FROM (SELECT * FROM (SELECT * FROM (VALUES (1, 'x')) AS v(id, a)) w) AS t WHERE t.id = m.id AND m.active`, "keyed(1)"},
		{`UPDATE m SET a = 1 FROM unnest(ARRAY[1, 2, 3]) AS t(id) WHERE m.id = t.id`, "keyed(3)"},
		{`WITH t(id) AS (VALUES (1), (2)) UPDATE m SET a = 1 FROM t WHERE m.id = t.id`, "keyed(2)"},
		{`WITH t AS (VALUES (1), (2)) DELETE FROM m WHERE id IN (SELECT column1 FROM t)`, "keyed(2)"},
		{`WITH dupes AS (SELECT min(id) AS a, array_agg(id) AS b FROM m GROUP BY c), _up AS (UPDATE m q SET d = 1 FROM dupes WHERE dupes.a = q.id)
		  DELETE FROM m WHERE id IN (SELECT unnest(b) FROM dupes)`, "predicate"},
		{`DELETE FROM m a USING other o WHERE a.id = o.id AND o.id = 1`, "predicate"},
		{`DELETE FROM m USING other WHERE m.id = 1`, "keyed(1)"},
		// Joins that leave nothing out.
		{`DELETE FROM m USING other`, "none"},
		{`UPDATE m SET a = o.a FROM other o`, "none"},
		{`DELETE FROM m USING other WHERE other.id = 1`, "vacuous"},
		{`UPDATE m SET a = o.a FROM other o WHERE o.x = o.y`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.id = b.id`, "vacuous"},
		{`UPDATE m SET a = 1 FROM m b WHERE b.id = m.id AND true`, "vacuous"},
		{`UPDATE m SET a = 1 FROM (SELECT id FROM m) b WHERE b.id = m.id`, "vacuous"},
		{`WITH b AS (SELECT * FROM m) DELETE FROM m USING b WHERE b.id = m.id`, "vacuous"},
		{`WITH b AS (SELECT id FROM m) DELETE FROM m USING b WHERE b.id = m.id`, "vacuous"},
		{`WITH b AS (SELECT id FROM m) DELETE FROM m WHERE id IN (SELECT id FROM b)`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.name = b.name`, "vacuous"},
		{`DELETE FROM m USING (SELECT id AS a, name FROM m) b WHERE b.a = m.id`, "vacuous"},
		{`UPDATE m SET a = 1 FROM m b LEFT JOIN other o ON o.id = b.id WHERE m.id = b.id`, "vacuous"},
		{`MERGE INTO m USING (SELECT id, name FROM m) b ON m.id = b.id WHEN MATCHED THEN DELETE`, "vacuous"},
		{`INSERT INTO m (id, name) SELECT id, 'x' FROM m ON CONFLICT (id) DO UPDATE SET name = 'x'`, "none"},
		{`INSERT INTO m (id, name) SELECT id, 'x' FROM m WHERE active ON CONFLICT (id) DO UPDATE SET name = 'x'`, "predicate"},
		// Joined rows that a join may leave out.
		{`UPDATE m SET a = 1 FROM other x JOIN m b ON b.other_id = x.id WHERE m.id = b.id`, "predicate"},
		{`UPDATE m SET a = 1 FROM other x LEFT JOIN m b ON b.other_id = x.id WHERE m.id = b.id`, "predicate"},
		{`DELETE FROM m USING (other a JOIN other b ON true) j WHERE m.id = j.id`, "predicate"},
		{`DELETE FROM m USING generate_series(1, 5) WHERE m.id = generate_series.generate_series`, "predicate"},
		{`DELETE FROM m USING generate_series(1, 5) AS g WHERE m.id = g.g`, "predicate"},
		{`DELETE FROM m USING generate_series(1, 5) AS g WHERE m.id = g`, "predicate"},
		{`DELETE FROM m USING generate_series(1, 5) AS g WHERE g = 1`, "vacuous"},
		{`DELETE FROM m USING generate_series(1, 5) AS g(x) WHERE g = 1`, "predicate"},
		// The table again, with a condition on it.
		{`DELETE FROM m USING m b WHERE m.id = b.id AND b.active`, "predicate"},
		{`DELETE FROM m USING m b WHERE m.name = b.name AND m.id > b.id`, "predicate"},
		{`DELETE FROM s.m USING t.m b WHERE s.m.id = b.id`, "predicate"},
		{`UPDATE m SET a = 1 FROM other x JOIN m b ON b.other_id = x.id WHERE m.id = b.id AND x.v = 1`, "predicate"},
		// Lists that are longer than they look, or no lists.
		{`DELETE FROM m WHERE id = ANY ('1 2 3'::int2vector)`, "predicate"},
		{`DELETE FROM m WHERE id = ANY ('1 2 3'::oidvector)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT unnest('1 2'::int2vector))`, "predicate"},
		{`DELETE FROM m WHERE id = ANY (ARRAY['{1,2,3}'::_int4])`, "predicate"},
		{`DELETE FROM m WHERE id = ANY ('{1,2}'::mine)`, "predicate"},
		{`DELETE FROM m WHERE id = ANY (ARRAY[$1, $2]::int[])`, "keyed(0)"}, // each may be an array
		{`DELETE FROM m WHERE id = ANY (ARRAY[(SELECT array_agg(o.id) FROM other o)])`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT @#@ 5)`, "predicate"},
		{`DELETE FROM m WHERE id = 1 OPERATOR(mine.+) 2`, "predicate"},
		{`DELETE FROM m WHERE id = (row(1)::mine).f`, "predicate"},
		{`DELETE FROM m WHERE id = 'a' COLLATE mine`, "predicate"},
		{`DELETE FROM m WHERE id::int = 1`, "predicate"},                 // of texts, of numerics
		{`DELETE FROM m WHERE id = (SELECT id FROM other)`, "predicate"}, // id may be the row's own
		// What rounds, or compares in another way, is not taken for false.
		{`DELETE FROM m WHERE 9007199254740993 <> 9007199254740992`, "vacuous"},
		{`DELETE FROM m WHERE 0.1 + 0.2 = 0.3`, "vacuous"},
		{`DELETE FROM m WHERE 1.4::int = 1 OR id = 3`, "vacuous"},
		{`DELETE FROM m WHERE 70000::int2 = 1 OR id = 3`, "vacuous"},
		{`DELETE FROM m WHERE 1.5::numeric(3, 0) = 2`, "vacuous"},
		{`DELETE FROM m WHERE NOT 0.4::int::bool`, "vacuous"},
		{`DELETE FROM m WHERE 1e-400 > 0`, "vacuous"},
		{`DELETE FROM m WHERE 'a' = 'A' COLLATE mine`, "vacuous"},
		{`DELETE FROM m WHERE (NULL || ARRAY[1]) IS NOT NULL`, "vacuous"},
		{`DELETE FROM m WHERE (NULL::int[] || '{1}') IS NOT NULL`, "vacuous"},
		{`DELETE FROM m WHERE NULL OPERATOR(mine.+) 1`, "predicate"},
		{`DELETE FROM m WHERE clock_timestamp() <> clock_timestamp()`, "vacuous"},
		{`DELETE FROM m WHERE ROW() IS NOT NULL`, "vacuous"},
		{`DELETE FROM m WHERE ROW() IS NULL`, "vacuous"},
		{`DELETE FROM m WHERE NOT m IS NULL`, "vacuous"},
		{`DELETE FROM m WHERE m IS NULL`, "predicate"},
		{`DELETE FROM m WHERE 1.4::int = 2 AND false OR id = 3`, "keyed(1)"},
		// Rows that find themselves, and some that do not.
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b, other o WHERE b.id = m.id AND o.v = 'x')`, "vacuous"},
		{`DELETE FROM m USING m b, other o WHERE m.id = b.id AND o.v = 'x'`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.id <= b.id`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.id BETWEEN b.id AND b.id`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.id IS NOT DISTINCT FROM b.id`, "vacuous"},
		{`DELETE FROM m USING m b WHERE m.id + 0 = b.id`, "vacuous"},
		{`DELETE FROM m USING m b JOIN m c USING (id) WHERE m.id = c.id`, "vacuous"},
		{`DELETE FROM m USING m b JOIN m c ON b.id = c.id WHERE m.id = c.id`, "vacuous"},
		{`DELETE FROM m USING (SELECT id, count(*) FROM m GROUP BY id) b WHERE m.id = b.id`, "vacuous"},
		{`DELETE FROM m USING (SELECT id FROM m) b(k) WHERE m.id = b.k`, "vacuous"},
		{`WITH b(k) AS (SELECT id FROM m) DELETE FROM m USING b WHERE m.id = b.k`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m OFFSET 0)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m GROUP BY id)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m GROUP BY 1)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT name, id FROM m GROUP BY 1)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT DISTINCT ON (id) id FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT x.id FROM other o, m x)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m x NATURAL JOIN m y)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT x.id FROM m x JOIN m y ON x.id = y.id)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT id::int FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE id IN (VALUES (id), (5))`, "vacuous"},
		{`DELETE FROM m WHERE id = ANY (SELECT id UNION SELECT 5)`, "vacuous"},
		{`DELETE FROM m WHERE (id, name) IN (SELECT id, name FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE ROW(id) IN (SELECT id FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = m.id LIMIT 1)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = m.id GROUP BY b.id)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = m.id UNION SELECT 1 FROM other o WHERE o.id = m.a)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id >= m.id)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id IN (m.id))`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = ANY (ARRAY[m.id]))`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE NOT b.id <> m.id)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id <> m.id)`, "predicate"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE (b.id, b.name) = (m.id, m.name))`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = m.id OR b.active)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT max(o.id) FROM other o WHERE o.id = m.id)`, "vacuous"},
		{`DELETE FROM m WHERE EXISTS (SELECT count(*) WHERE false)`, "vacuous"},
		{`DELETE FROM m WHERE NOT EXISTS (SELECT 1 FROM m b WHERE b.id = m.id AND false)`, "vacuous"},
		{`DELETE FROM m WHERE NOT EXISTS (SELECT 1 FROM other o WHERE o.id = m.id LIMIT 0)`, "vacuous"},
		{`DELETE FROM m WHERE id <= (SELECT max(id) FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE id BETWEEN (SELECT min(id) FROM m) AND (SELECT max(id) FROM m)`, "vacuous"},
		{`DELETE FROM m WHERE id = ANY ((SELECT array_agg(id) FROM m)::int[])`, "vacuous"},
		{`DELETE FROM m WHERE id = (SELECT b.id FROM m b WHERE b.id = m.id)`, "vacuous"},
		{`DELETE FROM m WHERE id = (SELECT max(b.id) FROM m b WHERE b.id = m.id)`, "vacuous"},
		{`DELETE FROM m WHERE ROW(m.*) IS DISTINCT FROM NULL`, "vacuous"},
		{`MERGE INTO m USING other o ON true WHEN MATCHED AND m.active THEN DELETE WHEN MATCHED AND NOT m.active THEN UPDATE SET a = 1`, "vacuous"},
		{`DELETE FROM m WHERE id IN (SELECT DISTINCT ON (active) id FROM m)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m OFFSET 5)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT id FROM m OFFSET $1)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT o.id FROM m x, other o)`, "predicate"},
		{`DELETE FROM m WHERE id IN (SELECT min(id) FROM m GROUP BY name)`, "predicate"},
		{`DELETE FROM m WHERE id < (SELECT max(id) FROM m)`, "predicate"},
		{`DELETE FROM m WHERE id <= (SELECT max(id) FROM m WHERE active)`, "predicate"},
		{`DELETE FROM m WHERE id <= (SELECT max(id) FROM m GROUP BY name LIMIT 1)`, "predicate"},
		{`DELETE FROM m WHERE EXISTS (SELECT (SELECT max(id) FROM other) FROM m b WHERE b.parent_id = m.id)`, "predicate"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 FROM m b WHERE b.id = m.id LIMIT 0)`, "predicate"},
		{`DELETE FROM m WHERE EXISTS (SELECT count(*) FROM other o WHERE o.id = m.id HAVING count(*) > 1)`, "predicate"},
		{`DELETE FROM m WHERE (id, name) IN (SELECT id, other_name FROM m)`, "predicate"},
		{`DELETE FROM m USING m b WHERE m.id < b.id AND m.name = b.name`, "predicate"},
		{`DELETE FROM m USING m b WHERE m.id = b.id AND b.active`, "predicate"},
		{`DELETE FROM m WHERE id = (SELECT b.id FROM m b WHERE b.id = m.parent_id)`, "predicate"},
		{`MERGE INTO m USING other o ON true WHEN MATCHED AND m.active THEN DELETE WHEN MATCHED AND m.a = 1 THEN UPDATE SET a = 1`, "predicate"},
		// Conditions that leave nothing out, and some that do.
		{`DELETE FROM m WHERE id > 0 OR id <= 5`, "vacuous"},
		{`DELETE FROM m WHERE 5 < id OR id <= 5`, "vacuous"},
		{`DELETE FROM m WHERE id < 20 OR NOT id < 10`, "vacuous"},
		{`DELETE FROM m WHERE a <> 1 OR a <> 2`, "vacuous"},
		{`DELETE FROM m WHERE name <> 'x' OR name <> 'y'`, "vacuous"},
		{`DELETE FROM m WHERE NOT (a = 1 AND a = 2)`, "vacuous"},
		{`DELETE FROM m WHERE NOT (a > 10 AND a < 5)`, "vacuous"},
		{`DELETE FROM m WHERE a BETWEEN 1 AND 5 OR a NOT BETWEEN 1 AND 5`, "vacuous"},
		{`DELETE FROM m WHERE a IS DISTINCT FROM 5 OR a IS NOT DISTINCT FROM 5`, "vacuous"},
		{`DELETE FROM m WHERE active OR active IS FALSE`, "vacuous"},
		{`DELETE FROM m WHERE active = true OR active = false`, "vacuous"},
		{`DELETE FROM m WHERE active IN (true, false)`, "vacuous"},
		{`DELETE FROM m WHERE id = ANY ('{1,2}') OR id <> ALL ('{1,2}')`, "vacuous"},
		{`DELETE FROM m WHERE (id, a) >= (id, a)`, "vacuous"},
		{`DELETE FROM m WHERE (id, 1) > (id, 0)`, "vacuous"},
		{`DELETE FROM m WHERE NOT (id, 1) = (id, 2)`, "vacuous"},
		{`DELETE FROM m WHERE (id, a) BETWEEN (id, a) AND (id, a)`, "vacuous"},
		{`DELETE FROM m WHERE id::text::int = id`, "vacuous"},
		{`DELETE FROM m WHERE coalesce(id, 0) = id`, "vacuous"},
		{`DELETE FROM m WHERE name OPERATOR(pg_catalog.~~) '%'`, "vacuous"},
		{`DELETE FROM m WHERE (SELECT count(*) FROM other o WHERE o.id = m.id) >= 0`, "vacuous"},
		{`DELETE FROM m WHERE (SELECT count(*) FROM other o WHERE o.id = m.id) IS NOT NULL`, "vacuous"},
		{`DELETE FROM m WHERE id > 5 OR id < 5`, "predicate"},
		{`DELETE FROM m WHERE id > 5 OR id <= 0`, "predicate"},
		{`DELETE FROM m WHERE a <> 1 OR a <> 1`, "predicate"},
		{`DELETE FROM m WHERE a <> 1 OR b <> 2`, "predicate"},
		{`DELETE FROM m WHERE a = 1 OR a = 2`, "predicate"},
		{`DELETE FROM m WHERE a <> 1 AND a <> 2`, "predicate"},
		{`DELETE FROM m WHERE name > 'x' OR name < 'y'`, "predicate"},
		{`DELETE FROM m WHERE NOT (a > 5 AND a < 10)`, "predicate"},
		{`DELETE FROM m WHERE (id, a) > (id, a)`, "predicate"},
		{`DELETE FROM m WHERE (id, a) >= (1, 2)`, "predicate"},
		{`DELETE FROM m WHERE (id, 1) > (parent_id, 0)`, "predicate"},
		{`DELETE FROM m WHERE coalesce(parent_id, 0) = parent_id`, "predicate"},
		{`DELETE FROM m WHERE (SELECT count(*) FROM other o WHERE o.id = m.id GROUP BY o.v) IS NOT NULL`, "predicate"},
		// Which names are the target's.
		{`DELETE FROM m x WHERE x.id = 1`, "keyed(1)"},
		{`DELETE FROM m x WHERE id = 1`, "keyed(1)"},
		{`DELETE FROM s.m WHERE m.id = 1`, "keyed(1)"},
		{`UPDATE m SET a = 1 FROM other WHERE id = 1`, "predicate"},
		{`DELETE FROM m WHERE id = (SELECT m.id)`, "vacuous"},
		{`DELETE FROM m WHERE id = (SELECT m.parent_id FROM other)`, "predicate"},
		{`DELETE FROM m WHERE EXISTS (SELECT 1 WHERE id = 5)`, "keyed(1)"},
		{`MERGE INTO m USING m b ON m.id = b.id WHEN MATCHED AND b.active THEN DELETE`, "predicate"},
		{`MERGE INTO m USING other o ON m.id = o.id WHEN MATCHED AND m.id = 3 THEN UPDATE SET a = 1 WHEN MATCHED AND m.id = 4 THEN DELETE`, "keyed(2)"},
	}
	for _, test := range tests {
		if got := boundOf(t, test.text); got != test.want {
			t.Errorf("%s: %s, want %s", test.text, got, test.want)
		}
	}
}

func TestLongListsOfKeys(t *testing.T) {
	const n = 3000
	ids := strings.TrimSuffix(strings.Repeat("17, ", n), ", ")
	want := fmt.Sprintf("keyed(%d)", n)
	for _, text := range []string{
		"DELETE FROM m WHERE id IN (" + ids + ")",
		"DELETE FROM m WHERE id = ANY (ARRAY[" + ids + "])",
		"DELETE FROM m WHERE id = ANY ('{" + ids + "}')",
		"UPDATE m SET a = 1 FROM (VALUES " + strings.TrimSuffix(strings.Repeat("(1, 'a'), ", n), ", ") + ") AS t(id, a) WHERE t.id = m.id",
	} {
		if got := boundOf(t, text); got != want {
			t.Errorf("%.60s…: %s, want %s", text, got, want)
		}
	}
	if got := boundOf(t, "DELETE FROM m WHERE id IN ("+ids+", id)"); got != "vacuous" {
		t.Errorf("a list with the column itself in it: %s", got)
	}
	if got := boundOf(t, "DELETE FROM m WHERE id IN ("+ids+", other_id)"); got != "predicate" {
		t.Errorf("a list with another column in it: %s", got)
	}
}

// TestRecursiveQueriesEnd: a WITH query that reads itself, several times in
// each of its parts, is not followed for ever.
func TestRecursiveQueriesEnd(t *testing.T) {
	for _, text := range []string{
		"WITH RECURSIVE x AS (SELECT id FROM x WHERE id IN (SELECT id FROM x) UNION SELECT id FROM x WHERE id IN (SELECT id FROM x)) DELETE FROM m WHERE id IN (SELECT id FROM x)",
		"WITH RECURSIVE x AS (SELECT id FROM x a WHERE EXISTS (SELECT 1 FROM x b WHERE b.id = a.id) UNION SELECT id FROM x) DELETE FROM m USING x a, x b WHERE m.id = a.id AND m.id = b.id",
		"WITH RECURSIVE x AS (" + strings.Repeat("VALUES (1) UNION SELECT id FROM x UNION ", 50) + "SELECT id FROM x) DELETE FROM m WHERE id IN (SELECT id FROM x)",
	} {
		if got := boundOf(t, text); got != "predicate" {
			t.Errorf("%.80s…: %s", text, got)
		}
	}
}

// TestConditionsThatTakeLong: nested conditions are given up, and soon.
func TestConditionsThatTakeLong(t *testing.T) {
	nest := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	tests := map[string]string{
		"exists": nest("EXISTS (SELECT 1 FROM (SELECT id FROM m WHERE ", "a", ") b WHERE b.id = m.id)", 100),
		"in":     nest("id IN (SELECT id FROM m WHERE ", "a", ")", 200),
		"case":   nest("CASE WHEN ", "a", " THEN true END", 400),
		"and or": nest("(", "a", " AND b OR c)", 900),
		"sum":    "id = " + nest("", "1", "+1", 1900),
	}
	for name, condition := range tests {
		t.Run(name, func(t *testing.T) {
			if got := boundOf(t, "DELETE FROM m WHERE "+condition); got == "vacuous" || got == "none" {
				t.Errorf("%s", got)
			}
		})
	}
}

// combinedConditions puts conditions together at random.
func combinedConditions(n int) []string {
	var all []string
	for want, list := range conditions() {
		if want != "cursor" {
			all = append(all, list...)
		}
	}
	slices.Sort(all)
	random := rand.New(rand.NewPCG(3, 4))
	pick := func() string { return "(" + all[random.IntN(len(all))] + ")" }
	combined := make([]string, n)
	for i := range combined {
		c := pick()
		for range random.IntN(6) {
			form := combinations[random.IntN(len(combinations))]
			if strings.Count(form, "%s") == 2 {
				c = "(" + fmt.Sprintf(form, c, pick()) + ")"
			} else {
				c = "(" + fmt.Sprintf(form, c) + ")"
			}
		}
		combined[i] = c
	}
	return combined
}

var combinations = []string{
	"%s AND %s", "%s OR %s", "NOT %s", "CASE WHEN %s THEN %s ELSE false END", "coalesce(%s, %s)", "%s IS TRUE", "%s = %s",
	"%s IN (%s, true)", "EXISTS (SELECT 1 FROM m b WHERE b.id = m.id AND %s)", "id IN (SELECT id FROM m WHERE %s)",
	"id = (SELECT max(id) FROM m WHERE %s)", "SELECT %s", "%s IS DISTINCT FROM %s",
	"EXISTS (SELECT 1 FROM (SELECT * FROM m WHERE %s) b WHERE b.id = m.id)",
}

// TestCombinedConditions: what is vacuous stays so in an OR, and what is keyed
// in an AND; and nothing is too much.
func TestCombinedConditions(t *testing.T) {
	for _, c := range combinedConditions(3000) {
		if got := boundOf(t, "DELETE FROM m WHERE "+c+" OR true"); got != "vacuous" {
			t.Errorf("%s OR true: %s", c, got)
		}
		if got := boundOf(t, "DELETE FROM m WHERE "+c+" AND id = 1"); got != "keyed(1)" && got != "predicate" {
			t.Errorf("%s AND id = 1: %s", c, got)
		}
	}
}
