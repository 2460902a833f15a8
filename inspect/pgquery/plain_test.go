package pgquery

import (
	"slices"
	"strings"
	"testing"
)

// A change is plain if everything in it is known not to run anything of a user's.
func TestPlainChanges(t *testing.T) {
	for _, c := range []struct{ sql, columns string }{
		{`INSERT INTO "res_users_log" ("create_date", "create_uid") VALUES ('2026-11-21', 2), (DEFAULT, NULL) RETURNING "id"`, "id"},
		{"insert into t default values", ""},
		{"insert into t (d) values (now() at time zone 'UTC') returning *", ""},
		{"insert into s.t as x (a) values ($1::int4) on conflict (a) where a > 1 do update set b = excluded.b where x.c is null", "a,b,c"},
		{`update "t" set "a" = "__tmp"."a"::timestamp from (values (1, 'x')) as "__tmp"("id", "a") where "t"."id" = "__tmp"."id" and not id in (1, 2) or b = any(array[1])`, "b,id"},
		{"delete from t where a <= current_timestamp and b <> 'x'::varchar(3)", "a,b"},
		{"copy t (a, b) from stdin with (format csv)", ""},
	} {
		st := Parse(c.sql).Statements[0]
		if got := strings.Join(slices.Sorted(slices.Values(st.Columns)), ","); !st.Plain || got != c.columns {
			t.Errorf("%s: plain %t, columns %q, want %q", c.sql, st.Plain, got, c.columns)
		}
	}
	for _, sql := range []string{
		"insert into t (a) values (f())", "insert into t (a) values (evil.now())", "insert into t (a) values (now(1))", "insert into t (a) values (pg_catalog.lower('x'))",
		"insert into t (a) select 1", "insert into t (a) values ((select 1))", "insert into t (a) values (1) returning f()", "insert into t (a) values (1) returning (t).f",
		"insert into t (a.b) values (1)", "insert into t (a[1]) values (1)", "insert into db.s.t (a) values (1)", "with w as (select 1) insert into t (a) values (1)",
		"insert into t (a) values (1) on conflict (f(a)) do nothing", "insert into t (a) values (1) on conflict (a) do update set a = f()",
		"insert into t (a) values (1) limit 1", "insert into t (a) values ('x'::evil)", "insert into t (a) values ('x'::evil.text)", "insert into t (a) values (1 + 1)",
		"insert into t (a) values (-b)", "insert into t (a) values (1 operator(evil.=) 2)", "insert into t (a) values ('a' collate \"C\")", "insert into t (a) values (nextval('s'))",
		"insert into t (a) values (case when true then 1 end)", "insert into t (a) values (row(1))", "update t set a = 1 from u", "update t set (a, b) = (select 1, 2)",
		"update t set a = t.*", "update t set a = 1 where t.* = t.*", "update t set a = 1 where current of c", "update t set a = 1 where a like 'x'", `update t set a = "Ä"`,
		"update t set a = x.b from (values (1)) as x(a)", "update t set a = 1 from (select 1) as x(a)", "delete from t using u", "delete from t where exists (select 1)",
		"delete from t where a between 1 and 2", "copy t from '/x'", "copy t from program 'x'", "copy t from stdin where f()", "copy t to stdout", "copy (select 1) to stdout",
		"merge into t using u on true when matched then delete", "select 1", "truncate t", "explain analyze insert into t (a) values (1)", "prepare p as insert into t (a) values (1)", "execute p",
	} {
		for _, st := range Parse(sql).Statements {
			if st.Plain {
				t.Errorf("plain: %s", sql)
			}
		}
	}
}
