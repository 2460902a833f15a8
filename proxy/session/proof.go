package session

import (
	"strings"

	"lockkeeper/policy"
)

// proofOf returns the question whether a change is as plain as its text: its
// answer is ” or why not. The server itself is asked, in the session that is
// to change the table, just before: it alone knows what a name means there, and
// sees what the session's own transaction has made.
//
// The names come from lists that hold lower-case letters, digits and _ only.
func proofOf(w *policy.PlainWrite) string {
	name := `"` + w.Name + `"`
	if w.Schema != "" {
		name = `"` + w.Schema + `".` + name
	}
	return strings.NewReplacer(
		"<table>", name, "<schemas>", strings.Join(w.Schemas, ","), "<columns>", strings.Join(w.Columns, ","),
	).Replace(proof)
}

// proof finds what of a user's would run: whatever is attached to the table and
// depends on a function, operator or type that is not built in (triggers,
// defaults, constraints, indexes, column types), rules, policies, tables that
// inherit from it or that cascade, what a default or CHECK calls; and what of a
// user's the names in a plain text may stand for (pgquery's plain.go has the
// lists). What is built in has a number below 16384 (FirstNormalObjectId), and
// nothing that depends on it is noted.
const proof = `SELECT CASE
WHEN c.oid IS NULL THEN 'there is no such table'
WHEN c.relkind OPERATOR(pg_catalog.<>) 'r'::pg_catalog."char" THEN 'the name stands for something that is no ordinary table'
WHEN n.nspname OPERATOR(pg_catalog.<>) ALL ('{<schemas>}'::pg_catalog.name[]) THEN 'the name stands for a table in another schema'
WHEN c.relispartition THEN 'it is a partition'
WHEN c.relrowsecurity THEN 'it has row-level security'
WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid) THEN 'it has a rule'
WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid) THEN 'other tables inherit from it'
WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgfoid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)
  THEN 'it has a trigger'
WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgdeferrable) THEN 'it has a deferrable constraint'
WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.confrelid OPERATOR(pg_catalog.=) c.oid
    AND (k.confdeltype OPERATOR(pg_catalog.<>) ALL ('{a,r}'::pg_catalog."char"[]) OR k.confupdtype OPERATOR(pg_catalog.<>) ALL ('{a,r}'::pg_catalog."char"[])))
  THEN 'a foreign key cascades from it'
WHEN EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN (
      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, x.indexrelid FROM pg_catalog.pg_index AS x WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid
      UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, x.oid FROM pg_catalog.pg_attrdef AS x WHERE x.adrelid OPERATOR(pg_catalog.=) c.oid
      UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, x.oid FROM pg_catalog.pg_constraint AS x WHERE x.conrelid OPERATOR(pg_catalog.=) c.oid
    ) AS o (class, object) ON d.classid OPERATOR(pg_catalog.=) o.class AND d.objid OPERATOR(pg_catalog.=) o.object
    WHERE d.refclassid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid,
      'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid, 'pg_catalog.pg_opclass'::pg_catalog.regclass::pg_catalog.oid,
      'pg_catalog.pg_opfamily'::pg_catalog.regclass::pg_catalog.oid, 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid,
      'pg_catalog.pg_am'::pg_catalog.regclass::pg_catalog.oid]))
  THEN 'a column, default, constraint or index of it is not made of what is built in'
WHEN EXISTS (SELECT FROM (
      SELECT x.adbin::pg_catalog.text FROM pg_catalog.pg_attrdef AS x WHERE x.adrelid OPERATOR(pg_catalog.=) c.oid
      UNION ALL SELECT x.conbin::pg_catalog.text FROM pg_catalog.pg_constraint AS x WHERE x.conrelid OPERATOR(pg_catalog.=) c.oid AND x.conbin IS NOT NULL
    ) AS e (tree), LATERAL pg_catalog.regexp_matches(e.tree, ':(?:op)?funcid ([0-9]+)'::pg_catalog.text, 'g'::pg_catalog.text) AS m (groups)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.oid OPERATOR(pg_catalog.=) (m.groups[1])::pg_catalog.oid
      AND (p.provolatile OPERATOR(pg_catalog.=) 'i'::pg_catalog."char" OR p.proname OPERATOR(pg_catalog.=) ANY
        ('{nextval,now,clock_timestamp,statement_timestamp,transaction_timestamp,timestamp,timestamptz,date,random,gen_random_uuid}'::pg_catalog.name[]))))
  THEN 'a default or constraint of it calls a function that is not known to be harmless'
WHEN EXISTS (SELECT FROM pg_catalog.unnest('{<columns>}'::pg_catalog.name[]) AS u (name) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) u.name))
  THEN 'it has no such column'
WHEN EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.proname OPERATOR(pg_catalog.=) ANY ('{now,timezone}'::pg_catalog.name[]) AND p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)
  THEN 'there is another function now() or timezone()'
WHEN EXISTS (SELECT FROM pg_catalog.pg_operator AS p WHERE p.oprname OPERATOR(pg_catalog.=) ANY ('{=,<>,<,>,<=,>=}'::pg_catalog.name[])
    AND p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND (p.oprleft OPERATOR(pg_catalog.<) 16384::pg_catalog.oid OR p.oprright OPERATOR(pg_catalog.<) 16384::pg_catalog.oid))
  THEN 'an operator that compares is not the built-in one'
WHEN EXISTS (SELECT FROM pg_catalog.pg_type AS y WHERE y.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND y.typname OPERATOR(pg_catalog.=) ANY
    ('{bool,bytea,date,float4,float8,int2,int4,int8,json,jsonb,text,timestamptz,uuid}'::pg_catalog.name[]))
  THEN 'a type has the name of a built-in one'
WHEN EXISTS (SELECT FROM pg_catalog.pg_cast AS s WHERE s.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND s.castsource OPERATOR(pg_catalog.<) 16384::pg_catalog.oid AND s.casttarget OPERATOR(pg_catalog.<) 16384::pg_catalog.oid)
  THEN 'a cast between built-in types is not the built-in one'
ELSE '' END
FROM (SELECT pg_catalog.to_regclass('<table>'::pg_catalog.text)::pg_catalog.oid) AS t (oid)
LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.oid
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace`
