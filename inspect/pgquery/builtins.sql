-- What builtins.go is made of: run with psql -At on a fresh database of
-- PostgreSQL 15, one query at a time.

-- harmlessFunctions: built-in functions, aggregates and window functions that
-- cannot change data, files, settings or other sessions, that run no text
-- which they are given, and that cannot be called from SQL in another role
-- (trigger, handler, input and output functions are left out).
SELECT proname
FROM pg_catalog.pg_proc p
WHERE pronamespace = 'pg_catalog'::regnamespace
GROUP BY proname
HAVING NOT bool_or(
    prokind = 'p'
    OR prorettype IN ('cstring'::regtype, 'trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype,
                      'index_am_handler'::regtype, 'table_am_handler'::regtype, 'tsm_handler'::regtype,
                      'fdw_handler'::regtype, 'language_handler'::regtype)
    OR 'internal'::regtype = ANY (proargtypes) OR 'cstring'::regtype = ANY (proargtypes))
AND proname !~ ('^(nextval|setval|set_config|setseed|lo_.*|lo(read|write)|currtid2|unique_key_recheck'
    '|pg_(terminate|cancel)_backend|pg_log_backend_memory_contexts|pg_read_.*|pg_stat_file|pg_ls_.*|pg_logical.*'
    '|pg_(create|drop|copy)_.*|pg_reload_conf|pg_rotate_logfile.*|pg_switch_wal|pg_promote|pg_(try_)?advisory.*'
    '|(query|table|cursor|database|schema)_to_xml.*|ts_stat|ts_rewrite|pg_notify|txid_current|pg_current_xact_id'
    '|pg_replication_(origin|slot)_.*|pg_backup_(start|stop)|pg_wal_replay_(pause|resume)|pg_export_snapshot'
    '|pg_import_.*|pg_extension_config_dump|pg_stat_reset.*|pg_stat_force_next_flush|binary_upgrade_.*'
    '|brin_(de)?summarize_.*|gin_clean_pending_list|pg_nextoid|pg_stop_making_pinned_objects|pg_event_trigger_.*)$')
ORDER BY proname COLLATE "C";

-- volatileFunctions: those of them that give another result on each call.
SELECT proname
FROM pg_catalog.pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'
GROUP BY proname
ORDER BY proname COLLATE "C";

-- builtinOperators.
SELECT oprname
FROM pg_catalog.pg_operator
WHERE oprnamespace = 'pg_catalog'::regnamespace
GROUP BY oprname
ORDER BY oprname COLLATE "C";

-- operatorFunctions.
SELECT p.proname, min(o.oprname)
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b'
AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '~~', '!~~', '~~*', '!~~*', '~', '!~', '~*', '!~*', '^@')
GROUP BY p.proname
ORDER BY p.proname COLLATE "C";
