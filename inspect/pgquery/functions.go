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
	w.nodes(f.Args)
	w.nodes(f.AggOrder)
	w.node(f.AggFilter)
	if f.Over != nil {
		w.message(f.Over.ProtoReflect())
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
	case isServerSide(name):
		return inspect.HiddenFunction | inspect.HiddenServerSide
	case has(harmlessFunctions, name):
		return 0
	default:
		return inspect.HiddenFunction
	}
}

// isServerSide reports whether the function reads or writes files of the
// server.
func isServerSide(name string) bool {
	return name == "lo_import" || name == "lo_export" || name == "pg_stat_file" ||
		strings.HasPrefix(name, "pg_read_") || strings.HasPrefix(name, "pg_ls_")
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
