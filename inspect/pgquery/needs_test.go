package pgquery

import (
	"fmt"
	"testing"
)

// What a text leaves to a catalog: keys, columns whose NOT NULL matters, and
// columns that are set.
func TestNeeds(t *testing.T) {
	for sql, want := range map[string]string{
		"DELETE FROM t WHERE id = 1":                                                 "keyed {[id] [] [] []}",
		"DELETE FROM t WHERE code = 'a'":                                             "predicate {[code] [] [] []}",
		"DELETE FROM t WHERE code IN ('a', $1) AND note > 'b'":                       "predicate {[code] [] [] []}",
		"DELETE FROM t WHERE code = ANY ($1)":                                        "predicate {[code] [] [] []}",
		"DELETE FROM t WHERE code = 'a' OR other = 'b'":                              "predicate {[code other] [] [] []}",
		"DELETE FROM t WHERE code = 'a' OR note > 'b'":                               "predicate -",
		"DELETE FROM t WHERE id = 1 OR code = 'a'":                                   "predicate {[id code] [] [] []}",
		"DELETE FROM t WHERE id = 1 AND code = 'a'":                                  "keyed {[id] [] [] []}",
		"DELETE FROM t WHERE code = note":                                            "predicate -",
		"DELETE FROM t WHERE lower(code) = 'a'":                                      "predicate -",
		"DELETE FROM t WHERE code <> 'a'":                                            "predicate -",
		"DELETE FROM t WHERE name IS NOT NULL":                                       "predicate {[] [[name]] [] []}",
		"DELETE FROM t WHERE name IS NOT NULL AND t.ref IS NOT NULL":                 "predicate {[] [[name ref]] [] []}",
		"DELETE FROM t WHERE NOT (name IS NULL)":                                     "predicate {[] [[name]] [] []}",
		"DELETE FROM t WHERE name IS NULL":                                           "predicate -",
		"DELETE FROM t WHERE name IS NOT NULL AND ref = 'a'":                         "predicate {[ref] [] [] []}",
		"DELETE FROM t USING s WHERE s.name IS NOT NULL":                             "vacuous -",
		"UPDATE t SET a = 1, (b, c) = (2, 3) WHERE id = 1":                           "keyed {[id] [] [a b c] []}",
		"INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1":              "keyed {[] [] [a] []}",
		"UPDATE t SET a = 1 FROM (VALUES ('x')) v (c) WHERE t.code = v.c":            "predicate {[code] [] [a] []}",
		"DELETE FROM t WHERE id IN (SELECT id FROM s)":                               "predicate {[] [] [] [{ s id}]}",
		"UPDATE t SET a = 1 WHERE t.code IN (SELECT DISTINCT code FROM x.s WHERE y)": "predicate {[] [] [a] [{x s code}]}",
		"DELETE FROM t WHERE id IN (SELECT id FROM s) OR a IN (SELECT a FROM u)":     "predicate {[] [] [] [{ s id} { u a}]}",
		"DELETE FROM t WHERE id IN (SELECT id FROM s) AND note > 'b'":                "predicate -",
		"DELETE FROM t WHERE id IN (SELECT s.id FROM s)":                             "predicate -",
		"DELETE FROM t WHERE id IN (SELECT ref FROM s)":                              "predicate -",
		"DELETE FROM t WHERE id NOT IN (SELECT id FROM s)":                           "predicate -",
		"DELETE FROM t USING u WHERE t.id IN (SELECT id FROM s)":                     "predicate -",
		"WITH s AS (SELECT id FROM u) DELETE FROM t WHERE id IN (SELECT id FROM s)":  "predicate -",
		"DELETE FROM t WHERE ctid IN (SELECT ctid FROM s)":                           "predicate -",
	} {
		r := Parse(sql).Statements[0].Relations[0]
		got := r.Bound.String() + " -"
		if r.Needs != nil {
			got = fmt.Sprintf("%s %v", r.Bound, *r.Needs)
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", sql, got, want)
		}
	}
	if !Parse("DELETE FROM ONLY t").Statements[0].Relations[0].Only || Parse("DELETE FROM ONLY t USING t u").Statements[0].Relations[0].Only {
		t.Error("ONLY holds where every use of the table has it")
	}
}
