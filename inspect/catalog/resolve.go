package catalog

import (
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// MaxDerived bounds the relations that are added to a statement. Partitions
// come last, so that they are what is left out.
const MaxDerived = 1000

// use is what a statement does with a relation, on the way to what that leads
// to.
type use struct {
	access  inspect.Access
	bound   inspect.Bound
	lock    inspect.LockMode
	rewrite bool
	only    bool     // not what inherits from it
	sets    []string // columns that an UPDATE sets; nil is any
	up      bool     // a parent, reached from its child: its other children are not meant
}

// wholly is use of every row.
const wholly = inspect.AccessRead | inspect.AccessWrite

// resolver adds to one statement what its relations lead to.
type resolver struct {
	from  func(schema, name string) []*relation
	snap  *Snapshot
	st    *inspect.Statement
	fresh bool // what makes a fact milder may be believed

	out     []inspect.Relation // as in the text, then what was added
	text    int                // how many of out are the text's
	seen    map[*relation]use  // what has been followed
	later   []later            // partitions
	changed bool
	shallow bool           // foreign keys are not followed
	called  []inspect.Call // of functions that may write, by what the text leads to
	writes  bool           // a function was reached that changes a relation
}

// later is a partition that is followed when everything else was.
type later struct {
	r   *relation
	u   use
	via string
}

// statement returns the statement with what its relations lead to; changed
// says that it is another one.
func (x *resolver) statement() (resolved inspect.Statement, changed bool) {
	if !x.concerns() {
		return *x.st, false
	}
	x.text = len(x.st.Relations)
	x.out = slices.Clone(x.st.Relations)
	x.seen = map[*relation]use{}
	resolved = *x.st
	for i := range x.text {
		x.relation(i, &resolved)
	}
	x.calls(&resolved)
	for len(x.later) > 0 {
		next := x.later[0]
		x.later = x.later[1:]
		x.reach(next.r, next.u, next.via)
	}
	if !x.changed {
		return *x.st, false
	}
	if x.writes {
		resolved.Class = inspect.Worse(resolved.Class, inspect.Write)
	}
	resolved.Calls = resolved.Calls[:len(resolved.Calls):len(resolved.Calls)]
	for _, c := range x.called {
		resolved.AddCall(c)
	}
	resolved.Relations, resolved.Bound = x.out, inspect.NotApplicable
	for i := range x.out {
		resolved.Bound = inspect.Wider(resolved.Bound, x.out[i].Bound)
	}
	return resolved, true
}

// concerns reports whether the catalog may have something to say of the
// statement.
func (x *resolver) concerns() bool {
	return len(x.st.Calls) > 0 || slices.ContainsFunc(x.st.Relations, func(r inspect.Relation) bool { return len(x.from(r.Schema, r.Name)) > 0 })
}

// relation follows one relation of the text.
func (x *resolver) relation(i int, resolved *inspect.Statement) {
	all := x.from(x.out[i].Schema, x.out[i].Name)
	if len(all) == 0 {
		return
	}
	x.refine(&x.out[i], all)
	x.measure(&x.out[i], all)
	r := x.out[i]
	u := use{access: r.Access &^ inspect.AccessRename, bound: r.Bound, lock: r.Lock, rewrite: r.Rewrite, only: r.Only}
	if r.Needs != nil {
		u.sets = r.Needs.Sets
	}
	for _, node := range all {
		if node.fires(r.Access) && resolved.Hidden&inspect.HiddenTrigger == 0 {
			resolved.Hidden |= inspect.HiddenTrigger
			x.changed = true
		}
		x.follow(node, u)
	}
}

// fires reports whether a use of the relation fires triggers of the user's.
func (r *relation) fires(access inspect.Access) bool {
	return slices.ContainsFunc(r.runs, func(x run) bool { return x.trigger && x.on&access != 0 })
}

// measure says how large a table is that is changed: the largest that is
// meant.
func (x *resolver) measure(r *inspect.Relation, all []*relation) {
	if r.Access&(inspect.AccessWrite|inspect.AccessDefine) == 0 {
		return
	}
	for _, node := range all {
		if node.size != nil && (r.Size == nil || r.Size.Bytes < node.size.Bytes) {
			r.Size, x.changed = node.size, true
		}
	}
}

// refine judges what the text left to the catalog. What makes a fact stricter
// counts if it is so for one of the relations that the name may mean; what
// makes it milder only if it is for all.
func (x *resolver) refine(r *inspect.Relation, all []*relation) {
	if r.Needs == nil || r.Access&inspect.AccessWrite == 0 {
		return
	}
	bound := r.Bound
	keyed := len(r.Needs.Keys) > 0
	for _, node := range all {
		keyed = keyed && node.hasKeys(r.Needs.Keys, r.Only)
		if bound == inspect.BoundPredicate && node.isVacuous(r.Needs.NotNull) {
			bound = inspect.BoundVacuous
		}
	}
	if bound == inspect.BoundPredicate && slices.ContainsFunc(r.Needs.Strays, x.isMissing) {
		bound = inspect.BoundVacuous
	}
	switch {
	case bound == inspect.BoundKeyed && len(r.Needs.Keys) > 0 && !keyed:
		bound = inspect.BoundPredicate
	case bound == inspect.BoundPredicate && keyed && x.fresh:
		bound = inspect.BoundKeyed
	}
	if bound != r.Bound {
		r.Bound, r.Rows, x.changed = bound, 0, true
	}
}

// isMissing reports whether no table of that name has the column. That one has
// it is enough to believe the text: in other sessions' temporary tables, or in
// another schema, a name often is something else.
func (x *resolver) isMissing(c inspect.Column) bool {
	all := x.from(c.Schema, c.Table)
	return len(all) > 0 && !slices.ContainsFunc(all, func(r *relation) bool { return r.columns == nil || slices.Contains(r.columns, c.Name) })
}

// hasKeys reports whether each of the columns is a key of the relation by
// itself. A row's address is one in a single table; a unique index holds for
// its own table only and not for what inherits from it, but for partitions.
func (r *relation) hasKeys(columns []string, only bool) bool {
	for _, c := range columns {
		switch {
		case len(r.children) > 0 && !only && (r.kind != kindPartitioned || c == "ctid"):
			return false
		case c == "ctid" && (r.kind == kindTable || r.kind == kindMaterialized):
		case !slices.Contains(r.keys, c):
			return false
		}
	}
	return true
}

// maxViews bounds how many views of views are looked through.
const maxViews = 16

// isVacuous reports whether a condition is true for every row because columns
// hold no NULL. A parent's NOT NULL is its children's; and a table's that of the
// view of it, by the same name.
func (r *relation) isVacuous(alternatives [][]string) bool {
	for range maxViews {
		if r.kind != kindView || len(r.bases) != 1 {
			break // what joins tables may make NULLs
		}
		r = r.bases[0]
	}
	for _, columns := range alternatives {
		if !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(r.notNull, c) }) {
			return true
		}
	}
	return false
}

// reach adds a relation that the text does not name, and follows it.
func (x *resolver) reach(r *relation, u use, via string) {
	added := inspect.Relation{Schema: r.schema, Name: r.name, Access: u.access, Bound: u.bound, Lock: u.lock, Rewrite: u.rewrite, Via: via}
	if u.access&(inspect.AccessWrite|inspect.AccessDefine) != 0 {
		added.Size = r.size
	}
	x.add(added)
	x.follow(r, u)
}

// add adds a relation unless the text, or what was added, says as much.
func (x *resolver) add(r inspect.Relation) {
	for i := range x.out {
		have := &x.out[i]
		if have.Name != r.Name || have.Schema != r.Schema && (have.Schema != "" || i >= x.text) {
			continue
		}
		if have.Access&r.Access == r.Access && inspect.Wider(have.Bound, r.Bound) == have.Bound && have.Lock >= r.Lock {
			return
		}
		if i >= x.text {
			have.Access |= r.Access
			have.Bound, have.Lock = inspect.Wider(have.Bound, r.Bound), max(have.Lock, r.Lock)
			return
		}
	}
	if len(x.out)-x.text < MaxDerived {
		x.out = append(x.out, r)
		x.changed = true
	}
}

// follow adds what a relation leads to, unless that was done for a use that
// covers this one.
func (x *resolver) follow(r *relation, u use) {
	if done, ok := x.seen[r]; ok && done.covers(u) || len(x.out)-x.text >= MaxDerived {
		return
	}
	x.seen[r] = x.seen[r].and(u)
	for _, f := range r.former {
		x.add(inspect.Relation{Schema: f.schema, Name: f.name, Access: u.access, Bound: u.bound, Lock: u.lock, Via: "its new name " + r.name})
	}
	switch r.kind {
	case kindIndex, kindPartitionedIndex:
		x.index(r, u)
		return
	case kindView:
		x.view(r, u)
	case kindMaterialized:
		x.materialized(r)
	}
	x.rules(r, u)
	x.runs(r, u)
	x.cascades(r, u)
	x.family(r, u)
}

func (u use) covers(v use) bool {
	return u.access&v.access == v.access && inspect.Wider(u.bound, v.bound) == u.bound && u.lock >= v.lock &&
		(u.sets == nil || v.sets != nil) && (!u.up || v.up) && (!u.only || v.only) &&
		!slices.ContainsFunc(v.sets, func(c string) bool { return u.sets != nil && !slices.Contains(u.sets, c) })
}

// and is what covers both uses.
func (u use) and(v use) use {
	if u.access == 0 {
		return v
	}
	sets := []string(nil)
	if u.sets != nil && v.sets != nil {
		sets = append(slices.Clone(u.sets), v.sets...)
	}
	return use{
		access: u.access | v.access, bound: inspect.Wider(u.bound, v.bound), lock: max(u.lock, v.lock), rewrite: u.rewrite || v.rewrite,
		only: u.only && v.only, up: u.up && v.up, sets: sets,
	}
}

// index is DDL on an index, which locks its table: DROP INDEX as the index,
// REINDEX against writers only. Source: RangeVarCallbackForDropRelation and
// ReindexIndex.
func (x *resolver) index(r *relation, u use) {
	if r.table == nil || u.access&inspect.AccessDefine == 0 {
		return
	}
	switch x.st.Kind {
	case "DROP INDEX":
	case "REINDEX":
		u.lock = min(u.lock, inspect.Share)
	default:
		return
	}
	u.rewrite = false
	x.reach(r.table, u, "index "+r.name)
}

// view is whatever is done to a view as done to all that its query names: which
// of it a write goes to is not looked into, nor how its WHERE limits that.
func (x *resolver) view(r *relation, u use) {
	u.sets, u.only = nil, false
	if u.bound == inspect.BoundKeyed || u.bound == inspect.BoundCursor {
		u.bound = inspect.BoundPredicate
	}
	for _, base := range r.bases {
		x.reach(base, u, "view "+r.name)
	}
}

// materialized is a table of its own, which REFRESH fills from others.
func (x *resolver) materialized(r *relation) {
	if x.st.Kind != "REFRESH MATERIALIZED VIEW" {
		return
	}
	for _, base := range r.bases {
		x.reach(base, use{access: inspect.AccessRead}, "materialized view "+r.name)
	}
}

var ruleEvents = map[byte]inspect.Access{
	'2': inspect.AccessUpdate, '3': inspect.AccessInsert, '4': inspect.AccessDelete,
}

// rules adds what a relation's rules do, as far as their stored form tells: a
// rule that changes rows without a look at OLD or NEW changes all of them.
func (x *resolver) rules(r *relation, u use) {
	for i := range r.rules {
		rule := &r.rules[i]
		if u.access&ruleEvents[rule.event] == 0 {
			continue
		}
		to := use{access: inspect.AccessRead}
		if rule.inserts {
			to.access |= inspect.AccessInsert
		}
		if rule.writes {
			to.access |= inspect.AccessUpdate | inspect.AccessDelete
			to.bound = inspect.BoundPredicate
			if rule.unbounded || isWide(u.bound) {
				to.bound = inspect.BoundNone
			}
		}
		for _, named := range rule.names {
			x.reach(named, to, "rule on "+r.name)
		}
	}
}

func isWide(b inspect.Bound) bool { return b == inspect.BoundNone || b == inspect.BoundVacuous }

// cascades adds the tables whose foreign keys refer to this one: what
// TRUNCATE … CASCADE empties, what ON DELETE and ON UPDATE change, and what
// DROP TABLE locks.
func (x *resolver) cascades(r *relation, u use) {
	if x.shallow {
		return
	}
	for i := range r.referencedBy {
		k := &r.referencedBy[i]
		if u.access&inspect.AccessTruncate != 0 {
			x.reach(k.by, use{access: inspect.AccessTruncate, bound: inspect.BoundNone, lock: inspect.AccessExclusive}, "TRUNCATE … CASCADE of "+r.name)
		}
		if u.access&inspect.AccessDelete != 0 {
			x.cascade(r, k, k.onDelete, "ON DELETE", inspect.AccessDelete, u)
		}
		if u.access&inspect.AccessUpdate != 0 && sets(u.sets, k.columns) {
			x.cascade(r, k, k.onUpdate, "ON UPDATE", inspect.AccessUpdate, u)
		}
		if x.drops(u) {
			x.lock(k.by, r)
		}
	}
	if x.drops(u) {
		for _, other := range r.references {
			x.lock(other, r)
		}
	}
}

// sets reports whether an UPDATE sets one of the columns; nil may be any.
func sets(set, columns []string) bool {
	return set == nil || slices.ContainsFunc(set, func(c string) bool { return slices.Contains(columns, c) })
}

// cascade adds what one foreign key's action does.
func (x *resolver) cascade(r *relation, k *foreignKey, action byte, event string, access inspect.Access, u use) {
	to := use{access: inspect.AccessUpdate, bound: inspect.BoundPredicate, sets: k.byColumns}
	if isWide(u.bound) {
		to.bound = inspect.BoundNone // every row that refers to one
	}
	switch action {
	case 'c':
		event += " CASCADE"
		to.access = access
	case 'n':
		event += " SET NULL"
	case 'd':
		event += " SET DEFAULT"
	default:
		return
	}
	x.reach(k.by, to, event+" of a foreign key to "+r.name)
}

// drops reports whether the relation is dropped, or may be: its foreign keys
// go with it, which locks the tables at their other ends. Source:
// RemoveTriggerById.
func (x *resolver) drops(u use) bool {
	return x.st.Kind == "DROP TABLE" && u.access&inspect.AccessDefine != 0
}

// lock adds a table that is only locked.
func (x *resolver) lock(r, dropped *relation) {
	x.add(inspect.Relation{
		Schema: r.schema, Name: r.name, Access: inspect.AccessDefine, Lock: inspect.AccessExclusive, Via: "a foreign key of " + dropped.name,
	})
}

// family adds a table's parents, of which its rows are rows, and its
// partitions and children, whose rows are its.
func (x *resolver) family(r *relation, u use) {
	up := u
	up.up, up.only = true, true
	for _, p := range r.parents {
		x.reach(p, up, familyWord(p, "partition ", "child ")+r.name)
	}
	if u.only || u.up {
		return
	}
	for _, c := range r.children {
		x.later = append(x.later, later{c, u, familyWord(r, "partitioned table ", "parent ") + r.name})
	}
}

func familyWord(parent *relation, partitioned, inherited string) string {
	if parent.kind == kindPartitioned {
		return partitioned
	}
	return inherited
}

// words adds to the words of a text that nobody could classify the names of
// what its words may lead to: the tables behind a view, those that a function
// mentions. Foreign keys are left out, or every word would lead everywhere.
//
// It returns nil, any word, where that cannot be told; opaque says that a
// function's source is why.
func (s *Snapshot) words(words []string) (more []string, opaque bool) {
	if words == nil {
		return nil, false
	}
	x := &resolver{from: s.named, snap: s, st: &inspect.Statement{}, seen: map[*relation]use{}, shallow: true}
	all := use{access: wholly, bound: inspect.BoundNone}
	follow := func(word string) {
		for _, r := range append(s.byName[word][:len(s.byName[word]):len(s.byName[word])], s.folded[word]...) {
			x.follow(r, all)
			if r.table != nil {
				x.reach(r.table, all, "")
			}
		}
	}
	for _, w := range words {
		follow(w)
		f := s.functions[w]
		if f == nil {
			continue
		}
		if f.opaque {
			return nil, true
		}
		for _, name := range f.mentions {
			x.add(inspect.Relation{Name: name})
			follow(name)
		}
	}
	for len(x.later) > 0 {
		next := x.later[0]
		x.later = x.later[1:]
		x.reach(next.r, next.u, "")
	}
	if len(x.out) == 0 {
		return words, false
	}
	if len(x.out) >= MaxDerived {
		return nil, true
	}
	more = slices.Clone(words)
	for i := range x.out {
		more = append(more, strings.ToLower(x.out[i].Name))
	}
	slices.Sort(more)
	return slices.Compact(more), false
}
