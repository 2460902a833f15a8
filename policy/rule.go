package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lockkeeper/inspect"
)

// action is what a rule decides.
type action uint8

// The actions, from the mildest. A rule without one only adds obligations.
const (
	noAction action = iota
	allowIt
	refuseIt
	disconnectIt
)

var actionNames = [...]string{"", "allow", "refuse", "disconnect"}

func (a action) String() string { return actionNames[a] }

func parseAction(s string) action { return action(max(slices.Index(actionNames[:], s), 0)) }

// classSet is a set of inspect.Class.
type classSet uint8

func (c classSet) has(class inspect.Class) bool { return c&(1<<class) != 0 }

// dataClasses are the classes that a rule means which names neither classes
// nor kinds. Session and Control statements (SET, COMMIT, ROLLBACK …) are
// meant only when they are named: refusing a ROLLBACK helps nobody.
const dataClasses classSet = 1<<inspect.Unknown | 1<<inspect.Read | 1<<inspect.Write | 1<<inspect.Define

// allClasses is every class.
const allClasses classSet = dataClasses | 1<<inspect.Session | 1<<inspect.Control

// boundSet is a set of inspect.Bound.
type boundSet uint8

func (b boundSet) has(bound inspect.Bound) bool { return b&(1<<bound) != 0 }

// by says what a throttle counts by.
type by string

// What a throttle can count by.
const (
	byRule        by = "rule"
	byUser        by = "user"
	byApplication by = "application"
	byTable       by = "table"
)

// throttle is a rule's limit of pace.
type throttle struct {
	limit Throttle // complete for byRule; Key is extended for the others
	by    by
}

// ddl is a rule's limits of time for statements that take strong locks.
type ddl struct {
	lockTimeout, statementTimeout time.Duration // 0 is none
}

// rule is one rule of a policy, made runnable.
type rule struct {
	name, doc, reason string
	enforce           bool

	classes  classSet
	byClass  bool // classes are written in the rule
	kinds    kindSet
	bounds   boundSet  // empty: any
	tables   *tableSet // nil: any
	critical bool      // tables are the policy's critical ones
	volatile bool      // statements that call a function which may write, or which nobody knows
	subject  subjectMatch

	procedures []string // schema.name, which the CALL has to say; empty: any statement

	action     action
	inReadOnly bool // DO and CALL that it allows may run in read-only, too
	throttle   *throttle
	ddl        *ddl
}

// matches reports whether the rule matches what the statement does to one
// relation; rel is nil for a statement that names none.
func (r *rule) matches(s *inspect.Statement, rel *inspect.Relation, sub *Subject) bool {
	return r.matchesStatement(s, rel) && r.subject.matches(sub)
}

// matchesStatement is matches without the subject. The cheap tests come
// first.
func (r *rule) matchesStatement(s *inspect.Statement, rel *inspect.Relation) bool {
	return r.classes.has(s.Class) &&
		(r.kinds.empty() || r.kinds.matches(s, rel)) &&
		(len(r.procedures) == 0 || r.matchesProcedure(s)) &&
		(r.bounds == 0 || r.matchesBound(rel)) &&
		(!r.volatile || s.CallsVolatile()) &&
		(r.tables == nil || r.matchesTable(s, rel))
}

func (r *rule) matchesBound(rel *inspect.Relation) bool {
	return rel != nil && rel.Access&inspect.AccessWrite != 0 && r.bounds.has(rel.Bound)
}

func (r *rule) matchesProcedure(s *inspect.Statement) bool {
	return s.Kind == inspect.KindCall && slices.Contains(r.procedures, s.Name)
}

func (r *rule) matchesTable(s *inspect.Statement, rel *inspect.Relation) bool {
	return rel != nil && r.tables.matches(rel.Schema, rel.Name) && r.hasRole(s, rel)
}

// hasRole reports whether the relation is what makes the statement one of the
// classes that the rule asks for: the table that CREATE TABLE AS reads is not
// defined, the table that an UPDATE joins is not written. A rule that does
// nothing but limit waits is about those, too.
func (r *rule) hasRole(s *inspect.Statement, rel *inspect.Relation) bool {
	if !r.byClass || !r.kinds.empty() {
		return true
	}
	switch s.Class {
	case inspect.Write:
		return rel.Access&inspect.AccessWrite != 0
	case inspect.Define:
		return r.onlyDDL() || rel.Access&inspect.AccessDefine != 0 || rel.Lock != inspect.NoLock
	case inspect.Unknown, inspect.Read, inspect.Session, inspect.Control:
		return true
	}
	return true
}

// objection says in words why the rule does not match; "" when it does. It
// asks what matches asks.
func (r *rule) objection(s *inspect.Statement, rel *inspect.Relation, sub *Subject) string {
	switch {
	case !r.classes.has(s.Class):
		return "the class is " + s.Class.String()
	case !r.kinds.empty() && !r.kinds.matches(s, rel):
		return "its kinds do not include " + orElse(string(s.Kind), "what nobody can classify")
	case len(r.procedures) > 0 && !r.matchesProcedure(s):
		return "it is no CALL of one of its procedures that says the schema"
	case r.bounds != 0 && !r.matchesBound(rel):
		return "the bound is " + boundOf(rel)
	case r.volatile && !s.CallsVolatile():
		return "no function is called that may write"
	case r.tables != nil && !r.matchesTable(s, rel):
		return r.tableObjection(rel)
	case !r.subject.matches(sub):
		return "the subject's " + r.subject.objection(sub) + " do not match"
	default:
		return ""
	}
}

func (r *rule) tableObjection(rel *inspect.Relation) string {
	switch {
	case rel == nil:
		return "no table is named"
	case r.tables.matches(rel.Schema, rel.Name):
		return tableName(rel) + " is only read"
	case r.critical:
		return tableName(rel) + " is not critical"
	default:
		return tableName(rel) + " is not one of the rule's tables"
	}
}

func boundOf(rel *inspect.Relation) string {
	if rel == nil || rel.Access&inspect.AccessWrite == 0 || rel.Bound == inspect.NotApplicable {
		return "not applicable: no existing rows are changed"
	}
	return rel.Bound.String()
}

// locksUnnamed lists kinds of DDL that lock tables which the text does not
// name, when it names none. VACUUM is among them because it may be FULL.
var locksUnnamed = [...]inspect.Kind{
	"DROP SCHEMA", "DROP OWNED", "REASSIGN OWNED", "DROP EXTENSION", "DROP FUNCTION", "DROP PROCEDURE",
	"DROP ROUTINE", "DROP TYPE", "DROP DOMAIN", "ALTER DOMAIN", "ALTER TYPE", "ALTER EXTENSION", "CLUSTER", "REINDEX", "VACUUM",
}

// locksTablesUnseen reports whether the statement locks tables that the text
// does not name.
func locksTablesUnseen(s *inspect.Statement) bool {
	return s.Class == inspect.Define && !s.Concurrently && len(s.Relations) == 0 && slices.Contains(locksUnnamed[:], s.Kind)
}

// throttleFor returns the limit for one statement on one relation.
func (r *rule) throttleFor(sub *Subject, table string) Throttle {
	t := r.throttle.limit
	switch r.throttle.by {
	case byUser:
		t.Key += "/user=" + sub.User
	case byApplication:
		t.Key += "/application=" + sub.Application
	case byTable:
		t.Key += "/table=" + table
	case byRule:
	}
	return t
}

// effect says in words what the rule does.
func (r *rule) effect() string {
	var parts []string
	if r.action != noAction {
		parts = append(parts, r.action.String())
	}
	if r.inReadOnly {
		parts = append(parts, "in read-only too, in a transaction block")
	}
	if r.throttle != nil {
		parts = append(parts, "throttle to "+paceOf(&r.throttle.limit)+" by "+string(r.throttle.by))
	}
	if r.ddl != nil && r.ddl.lockTimeout > 0 {
		parts = append(parts, fmt.Sprintf("lock_timeout %s", shortDuration(r.ddl.lockTimeout)))
	}
	if r.ddl != nil && r.ddl.statementTimeout > 0 {
		parts = append(parts, fmt.Sprintf("statement_timeout %s", shortDuration(r.ddl.statementTimeout)))
	}
	return strings.Join(parts, ", ")
}
