package catalog

// Every name is schema-qualified, operators and types too, so that nothing in
// the database can stand in for it. None of the queries opens a relation but
// the catalogs, so that no lock on a user's table can hold them up; that is
// why rules are read as they are stored and not with pg_get_ruledef().

// changes counts what was done to the catalogs. The counters are a hint: they
// come a second late, are not kept with track_counts off, and are lost in a
// crash, so that the catalogs are read whole now and then whatever it says.
const changes = `SELECT COALESCE(pg_catalog.sum(s.n_tup_ins OPERATOR(pg_catalog.+) s.n_tup_upd OPERATOR(pg_catalog.+) s.n_tup_del), 0)::pg_catalog.int8
FROM pg_catalog.pg_stat_sys_tables AS s
WHERE s.schemaname OPERATOR(pg_catalog.=) 'pg_catalog'
  AND s.relname OPERATOR(pg_catalog.=) ANY ('{pg_class,pg_inherits,pg_rewrite,pg_constraint,pg_index,pg_attribute,pg_trigger,pg_proc,pg_policy,pg_operator}'::pg_catalog.name[])`

// relations are what DML can name, and indexes with their tables. Sizes are
// what VACUUM and ANALYZE have noted: pg_relation_size() would wait for locks,
// and open a file for each table.
const relations = `SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, COALESCE(i.indrelid, 0::pg_catalog.oid),
       CASE WHEN c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog."char"[])
            THEN (c.relpages::pg_catalog.int8 OPERATOR(pg_catalog.+) COALESCE(t.relpages, 0)) OPERATOR(pg_catalog.*) pg_catalog.current_setting('block_size')::pg_catalog.int8
            ELSE 0 END, c.reltuples::pg_catalog.float8
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
LEFT JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) c.reltoastrelid
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,i,I}'::pg_catalog."char"[])
  AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[])
  AND n.nspname OPERATOR(pg_catalog.!~~) 'pg\_toast\_temp\_%'
LIMIT $1`

// columns are those that a query can name, and whether they hold no NULL. (A
// domain's NOT NULL is left out: an outer join gets past it.)
const columns = `SELECT a.attrelid, a.attname::pg_catalog.text, a.attnotnull
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
  AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f,v,m}'::pg_catalog."char"[])
  AND c.relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace`

// keyColumns are unique by themselves at every moment, by the column's own
// notion of what is equal: not partial, not deferrable, no expression, the
// type's default operators and the column's collation. A column that may be
// NULL is one, too: NULL equals nothing.
const keyColumns = `SELECT i.indrelid, a.attname::pg_catalog.text
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[0]
JOIN pg_catalog.pg_opclass AS o ON o.oid OPERATOR(pg_catalog.=) i.indclass[0]
WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indislive AND i.indnkeyatts OPERATOR(pg_catalog.=) 1 AND i.indpred IS NULL
  AND o.opcdefault AND i.indcollation[0] OPERATOR(pg_catalog.=) a.attcollation
  AND i.indrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid`

// inheritance is of tables; indexes inherit as well.
const inheritance = `SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits AS i`

// rewrites are views' queries and rules, with the relations that each names.
// What a rule does is read off its stored form: commandType 2 and 4 are UPDATE
// and DELETE, 3 is INSERT (nodes.h); an empty WHERE is ":quals <>" at the end of
// a FROMEXPR; OLD and NEW are the range table's entries 1 and 2 (primnodes.h).
const rewrites = `SELECT r.ev_class, r.ev_type::pg_catalog.text, d.refobjid,
       CASE WHEN r.ev_type OPERATOR(pg_catalog.<>) '1' THEN r.ev_action::pg_catalog.text OPERATOR(pg_catalog.~) ':commandType [24] ' ELSE false END,
       CASE WHEN r.ev_type OPERATOR(pg_catalog.<>) '1' THEN r.ev_action::pg_catalog.text OPERATOR(pg_catalog.~) ':commandType 3 ' ELSE false END,
       CASE WHEN r.ev_type OPERATOR(pg_catalog.<>) '1' THEN r.ev_action::pg_catalog.text OPERATOR(pg_catalog.~) ':quals <>}'
            OR r.ev_action::pg_catalog.text OPERATOR(pg_catalog.!~) ':varno [12] ' ELSE false END
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid
     AND d.objid OPERATOR(pg_catalog.=) r.oid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
WHERE r.ev_class OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND r.ev_enabled OPERATOR(pg_catalog.<>) 'D'
  AND d.refobjid OPERATOR(pg_catalog.<>) r.ev_class AND d.deptype OPERATOR(pg_catalog.=) 'n'
GROUP BY 1, 2, 3, 4, 5, 6`

// foreignKeys are the foreign keys with the columns of both sides.
const foreignKeys = `SELECT k.conrelid, k.confrelid, k.confdeltype::pg_catalog.text, k.confupdtype::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid OPERATOR(pg_catalog.=) k.confrelid AND a.attnum OPERATOR(pg_catalog.=) ANY (k.confkey)),
       ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid OPERATOR(pg_catalog.=) k.conrelid AND a.attnum OPERATOR(pg_catalog.=) ANY (k.conkey))
FROM pg_catalog.pg_constraint AS k WHERE k.contype OPERATOR(pg_catalog.=) 'f'`

// functions are the user's, with their source where it is text that runs; the
// flag says that there is more of it.
const functions = `SELECT p.oid, p.proname::pg_catalog.text, l.lanname::pg_catalog.text, p.provolatile OPERATOR(pg_catalog.=) 'v', p.prosecdef,
       ARRAY(SELECT pg_catalog.split_part(s, '=', 1) FROM pg_catalog.unnest(p.proconfig) AS s),
       CASE WHEN l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[]) THEN '' ELSE pg_catalog."left"(p.prosrc, 65536) END,
       pg_catalog.length(p.prosrc) OPERATOR(pg_catalog.>) 65536
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
LIMIT $1`

// builtIns are the names of the server's own functions.
const builtIns = `SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace AND p.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid`

// operators are the user's, with their functions.
const operators = `SELECT o.oprname::pg_catalog.text, o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator AS o
WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid`

// runners are the user's functions that the use of a relation runs: its
// triggers' with their events (pg_trigger.h: 4 INSERT, 8 DELETE, 16 UPDATE, 32
// TRUNCATE), and those that its defaults and checks (20 is INSERT and UPDATE),
// its rules, its policies and its query as a view name (0 is any use).
const runners = `SELECT t.tgrelid, t.tgtype::pg_catalog.int4, t.tgfoid, 'trigger ' OPERATOR(pg_catalog.||) t.tgname::pg_catalog.text
FROM pg_catalog.pg_trigger AS t WHERE NOT t.tgisinternal AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
UNION ALL
SELECT COALESCE(a.adrelid, k.conrelid, p.polrelid, r.ev_class), 
       CASE WHEN a.oid IS NOT NULL OR k.oid IS NOT NULL THEN 20
            WHEN r.oid IS NOT NULL THEN CASE r.ev_type WHEN '2' THEN 16 WHEN '3' THEN 4 WHEN '4' THEN 8 ELSE 0 END ELSE 0 END, d.refobjid,
       CASE WHEN a.oid IS NOT NULL THEN 'a default' WHEN k.oid IS NOT NULL THEN 'a check'
            WHEN p.oid IS NOT NULL THEN 'policy ' OPERATOR(pg_catalog.||) p.polname::pg_catalog.text
            WHEN r.ev_type OPERATOR(pg_catalog.=) '1' THEN 'the query' ELSE 'rule ' OPERATOR(pg_catalog.||) r.rulename::pg_catalog.text END
FROM pg_catalog.pg_depend AS d
LEFT JOIN pg_catalog.pg_attrdef AS a ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AND a.oid OPERATOR(pg_catalog.=) d.objid
LEFT JOIN pg_catalog.pg_constraint AS k ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid AND k.oid OPERATOR(pg_catalog.=) d.objid
LEFT JOIN pg_catalog.pg_policy AS p ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid AND p.oid OPERATOR(pg_catalog.=) d.objid
LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AND r.oid OPERATOR(pg_catalog.=) d.objid
WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
  AND COALESCE(a.adrelid, k.conrelid, p.polrelid, r.ev_class) OPERATOR(pg_catalog.>) 0::pg_catalog.oid`

// functionBodies are the relations that bodies in standard SQL name: those are
// not kept as text.
const functionBodies = `SELECT d.objid, d.refobjid FROM pg_catalog.pg_depend AS d
WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
  AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid`
