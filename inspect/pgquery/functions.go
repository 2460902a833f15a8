package pgquery

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// funcCall records what calling the function may do and walks its arguments.
//
// A name without a schema is taken for the built-in function's. A user's
// function can hide it (search_path, or argument types that fit better); that
// takes a catalog to see.
func (w *walker) funcCall(f *pg.FuncCall) {
	w.st.Hidden |= hiddenBy(f.Funcname)
	schema, name, _ := nameOf(f.Funcname)
	w.call(schema, name)
	w.nodes(f.Args)
	w.nodes(f.AggOrder)
	w.node(f.AggFilter)
	if f.Over != nil {
		w.message(f.Over.ProtoReflect())
	}
}

// call notes a call. Harmless functions of pg_catalog are left out, for
// nothing can take their place.
func (w *walker) call(schema, name string) {
	c := inspect.Call{Schema: schema, Name: name}
	if (schema == "" || schema == "pg_catalog") && has(harmlessFunctions, name) {
		c.Effect = inspect.CallBuiltIn
	}
	if schema != "pg_catalog" || c.Effect != inspect.CallBuiltIn {
		w.st.AddCall(c)
	}
}

// hiddenBy says what a call of the function so named hides.
func hiddenBy(funcname []*pg.Node) inspect.Hidden {
	name, ok := builtinName(funcname)
	switch {
	case !ok:
		return inspect.HiddenFunction
	case name == "set_config":
		return inspect.HiddenFunction | inspect.HiddenSettings
	case escapesReadOnly(name):
		return inspect.HiddenFunction | inspect.HiddenServerSide
	case has(harmlessFunctions, name):
		return 0
	default:
		return inspect.HiddenFunction
	}
}

// escapesReadOnly reports whether the function has effects that a READ ONLY
// transaction does not stop: it writes files or large objects (which servers
// before 16 let through), changes indexes or (since 18) the planner's statistics,
// makes or moves replication slots, writes WAL of its own, controls the server,
// or does its work over a connection of its own.
// Source: the manual, SET TRANSACTION and 9.27; PreventCommandIfReadOnly is
// not called in any of them.
func escapesReadOnly(name string) bool {
	for _, prefix := range escapingPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return has(escapingFunctions, name)
}

// escapingPrefixes begin the names of whole families; read only.
var escapingPrefixes = []string{
	"brin_desummarize_", "brin_summarize_", "dblink", "pg_backup_", "pg_clear_", "pg_copy_", "pg_create_", "pg_drop_", "pg_file_",
	"pg_logical_", "pg_replication_", "pg_restore_", "pg_stat_reset", "pg_wal_replay_",
}

// escapingFunctions are the rest, sorted; read only.
var escapingFunctions = []string{
	"gin_clean_pending_list",
	"lo_creat", "lo_create", "lo_export", "lo_from_bytea", "lo_import", "lo_put", "lo_truncate", "lo_truncate64", "lo_unlink",
	"lowrite", "pg_advance_replication_slot", "pg_import_system_collations", "pg_log_standby_snapshot", "pg_promote",
	"pg_reload_conf", "pg_rotate_logfile", "pg_start_backup", "pg_stop_backup", "pg_switch_wal", "pg_sync_replication_slots",
}

// builtinName returns the name without schema; false when it is qualified by
// a schema other than pg_catalog.
func builtinName(list []*pg.Node) (name string, ok bool) {
	schema, name, ok := nameOf(list)
	return name, ok && (schema == "" || schema == "pg_catalog")
}

// operator records that an operator which is not built in calls a function
// that is not known.
func (w *walker) operator(list []*pg.Node) {
	if len(list) == 0 {
		return
	}
	if name, ok := builtinName(list); !ok || !isOperator(name) {
		w.hide(inspect.HiddenFunction)
		schema, name, _ := nameOf(list)
		w.call(schema, name)
	}
}

// isOperator reports whether the name is a built-in operator's, or one of the
// words that the grammar puts in an operator's place.
func isOperator(name string) bool {
	switch name {
	case "<>", "BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC":
		return true
	default:
		return has(builtinOperators, name)
	}
}

// has reports whether the sorted list holds s.
func has(sorted []string, s string) bool {
	_, found := slices.BinarySearch(sorted, s)
	return found
}
