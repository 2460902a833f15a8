package catalog

import (
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// function is what is known of all functions of one name, in whatever schema;
// or of those behind an operator.
type function struct {
	name     string
	mentions []string // names of relations that their source holds, those of functions it calls included
	opaque   bool     // the source could not be read: it may mention anything
	writes   []write  // what their source, and that of functions it calls, changes for certain
	volatile bool     // one of them may change something: it is VOLATILE, or calls one that is, or runs text that nobody knows
	callee   inspect.Callee
}

// run is a function that a relation's use runs: a trigger's, one in a default,
// a check, a policy or the query of a view.
type run struct {
	on      inspect.Access
	f       *function
	what    string
	trigger bool
}

// looked returns a call with what the catalog tells of it.
func (s *Snapshot) looked(c inspect.Call) (inspect.Call, *function) {
	f := s.functions[strings.ToLower(c.Name)]
	_, builtIn := s.builtIns[c.Name]
	switch {
	case s.functions == nil, c.Name == "":
		return c, nil
	case c.Schema == "pg_catalog" || f == nil && c.Schema == "":
		if c.Effect = inspect.CallMissing; builtIn {
			c.Effect = inspect.CallBuiltIn
		}
		return c, nil
	case f == nil:
		c.Effect = inspect.CallMissing
	case f.volatile:
		c.Effect, c.More = inspect.CallVolatile, &f.callee
	case builtIn && c.Effect != inspect.CallBuiltIn:
		c.Effect = inspect.CallBuiltIn // by the text it is one that does something
	default:
		c.Effect, c.More = inspect.CallStable, &f.callee
	}
	return c, f
}

// runsNothing reports whether a statement only stores, or plans, what it calls
// and reads.
func runsNothing(st *inspect.Statement) bool {
	switch st.Kind {
	case "CREATE VIEW", "CREATE RULE", "CREATE FUNCTION", "CREATE PROCEDURE", "CREATE POLICY", "CREATE DOMAIN":
		return true
	case "EXPLAIN":
		return st.Hidden&inspect.HiddenExplain == 0
	default:
		return false
	}
}

// calls says of each call what the catalog knows, and adds what the functions
// change.
func (x *resolver) calls(resolved *inspect.Statement) {
	var own []inspect.Call
	for i := range x.st.Calls {
		text := x.st.Calls[i]
		c, f := x.snap.looked(text)
		if !x.fresh && c.Effect >= inspect.CallStable {
			c.Effect = min(c.Effect, text.Effect)
		}
		if c == text {
			continue
		}
		if own == nil {
			own = slices.Clone(x.st.Calls)
			resolved.Calls, x.changed = own, true
		}
		own[i] = c
		if c.Effect != inspect.CallBuiltIn {
			resolved.Hidden |= inspect.HiddenFunction
		}
		if f != nil {
			x.effects(f, "function "+c.Name)
		}
	}
}

// effects adds what a function changes. A temporary table of that name is its
// own, or another session's.
func (x *resolver) effects(f *function, via string) {
	if runsNothing(x.st) {
		return
	}
	for _, w := range f.writes {
		for _, r := range x.from(w.schema, w.name) {
			if r.kind == kindTable && strings.HasPrefix(r.schema, tempPrefix) {
				continue
			}
			x.writes = true
			x.reach(r, use{access: w.access, bound: w.bound}, via)
		}
	}
}

// runs adds what the functions do that a relation's use runs.
func (x *resolver) runs(r *relation, u use) {
	for i := range r.runs {
		run := &r.runs[i]
		if u.access&run.on == 0 || runsNothing(x.st) {
			continue
		}
		via := run.what + " of " + r.name
		if run.f.volatile && !run.trigger {
			x.changed, x.called = true, append(x.called, inspect.Call{Name: run.f.name, Effect: inspect.CallVolatile, More: &run.f.callee, Via: via})
		}
		x.effects(run.f, via)
	}
}
