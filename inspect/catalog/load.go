package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/inspect"
)

// The limits of a snapshot beside its number of relations.
const (
	MaxFunctions = 20_000 // then nothing is known of any function
	maxMentions  = 1_000  // names that one function's source holds, and writes that it shows; more is anything
)

// errTooMany says that the database is larger than the limit.
var errTooMany = errors.New("more tables, views and indexes than limits.catalog_relations allows")

// loading is what a load needs beside a connection.
type loading struct {
	limit  int // of relations
	now    time.Time
	parse  inspect.ParseFunc
	before *Snapshot // nil where there is none
}

// loader reads one snapshot.
type loader struct {
	tx     pgx.Tx
	snap   *Snapshot
	names  map[string]string // one copy of every column's name
	parse  inspect.ParseFunc
	before map[sourceKey]source

	functionOf map[uint32]*function
}

// load reads the catalogs, all as of one moment.
func load(ctx context.Context, conn *pgx.Conn, o *loading) (*Snapshot, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // it has only read
	l := &loader{
		tx: tx, names: map[string]string{}, parse: o.parse, functionOf: map[uint32]*function{},
		snap: &Snapshot{
			Taken: o.now, byName: map[string][]*relation{}, folded: map[string][]*relation{}, byOID: map[uint32]*relation{},
			builtIns: map[string]struct{}{}, sources: map[sourceKey]source{},
		},
	}
	if o.before != nil {
		l.before = o.before.sources
	}
	if err := l.relations(ctx, o.limit); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{l.columns, l.inheritance, l.rewrites, l.foreignKeys, l.functions, l.runners} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return l.snap, nil
}

// each runs a query and calls row for every row, scanned into into.
func (l *loader) each(ctx context.Context, what, sql string, into []any, row func(), args ...any) error {
	rows, err := l.tx.Query(ctx, sql, args...)
	if err == nil {
		_, err = pgx.ForEachRow(rows, into, func() error { row(); return nil })
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

func (l *loader) relations(ctx context.Context, limit int) error {
	var oid, table uint32
	var schema, name, kind string
	var bytes int64
	var rows float64 // -1 where nobody has looked
	tables := map[*relation]uint32{}
	err := l.each(ctx, "pg_class", relations, []any{&oid, &schema, &name, &kind, &table, &bytes, &rows}, func() {
		r := &relation{schema: l.once(schema), name: name, kind: kind[0]}
		if bytes > 0 && rows >= 0 {
			r.size = &inspect.Size{Bytes: bytes, Rows: int64(rows)}
		}
		l.snap.byOID[oid] = r
		l.snap.byName[name] = append(l.snap.byName[name], r)
		if lower := strings.ToLower(name); lower != name {
			l.snap.folded[lower] = append(l.snap.folded[lower], r)
		}
		if table != 0 {
			tables[r] = table
		}
	}, limit+1)
	if err != nil {
		return err
	}
	l.snap.Relations = len(l.snap.byOID)
	if l.snap.Relations > limit {
		return errTooMany
	}
	for index, table := range tables {
		index.table = l.snap.byOID[table]
	}
	return nil
}

// once returns the one copy of a name.
func (l *loader) once(name string) string {
	if known, ok := l.names[name]; ok {
		return known
	}
	l.names[name] = name
	return name
}

func (l *loader) columns(ctx context.Context) error {
	var oid uint32
	var name string
	var notNull bool
	err := l.each(ctx, "pg_attribute", columns, []any{&oid, &name, &notNull}, func() {
		r := l.snap.byOID[oid]
		if r == nil {
			return
		}
		r.columns = append(r.columns, l.once(name))
		if notNull {
			r.notNull = append(r.notNull, l.once(name))
		}
	})
	if err != nil {
		return err
	}
	return l.each(ctx, "pg_index", keyColumns, []any{&oid, &name}, func() {
		if r := l.snap.byOID[oid]; r != nil {
			r.keys = append(r.keys, l.once(name))
		}
	})
}

func (l *loader) inheritance(ctx context.Context) error {
	var child, parent uint32
	err := l.each(ctx, "pg_inherits", inheritance, []any{&child, &parent}, func() {
		c, p := l.snap.byOID[child], l.snap.byOID[parent]
		if c != nil && p != nil && c.table == nil {
			c.parents, p.children = append(c.parents, p), append(p.children, c)
		}
	})
	totals := map[*relation]*inspect.Size{}
	for _, r := range l.snap.byOID {
		if len(r.children) > 0 {
			total(r, totals)
		}
	}
	for r, size := range totals {
		r.size = size
	}
	return err
}

// total notes the size of a table with what inherits from it; nil where none
// is known.
func total(r *relation, totals map[*relation]*inspect.Size) *inspect.Size {
	if size, done := totals[r]; done {
		return size
	}
	size := r.size
	for _, c := range r.children {
		part := total(c, totals)
		switch {
		case part == nil:
		case size == nil:
			size = part
		default:
			size = &inspect.Size{Bytes: size.Bytes + part.Bytes, Rows: size.Rows + part.Rows}
		}
	}
	totals[r] = size
	return size
}

func (l *loader) rewrites(ctx context.Context) error {
	var on, to uint32
	var event string
	var r rule
	return l.each(ctx, "pg_rewrite", rewrites, []any{&on, &event, &to, &r.writes, &r.inserts, &r.unbounded}, func() {
		from, named := l.snap.byOID[on], l.snap.byOID[to]
		switch {
		case from == nil || named == nil:
		case event == "1":
			from.bases = append(from.bases, named)
		default:
			one := r
			one.event, one.names = event[0], []*relation{named}
			from.rules = append(from.rules, one)
		}
	})
}

func (l *loader) foreignKeys(ctx context.Context) error {
	var from, to uint32
	var onDelete, onUpdate string
	var columns, byColumns []string
	return l.each(ctx, "pg_constraint", foreignKeys, []any{&from, &to, &onDelete, &onUpdate, &columns, &byColumns}, func() {
		by, on := l.snap.byOID[from], l.snap.byOID[to]
		if by == nil || on == nil {
			return
		}
		by.references = append(by.references, on)
		on.referencedBy = append(on.referencedBy, foreignKey{
			by: by, onDelete: onDelete[0], onUpdate: onUpdate[0], columns: l.all(columns), byColumns: l.all(byColumns),
		})
	})
}

// all is once for several.
func (l *loader) all(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = l.once(n)
	}
	return out
}

// functions notes what is known of each function, its source included.
func (l *loader) functions(ctx context.Context) error {
	var oid uint32
	var p procedure
	count := 0
	all, words := map[string]*function{}, map[string][]string{}
	err := l.each(ctx, "pg_proc", functions, []any{&oid, &p.name, &p.language, &p.volatile, &p.definer, &p.settings, &p.source, &p.cut}, func() {
		count++
		name := strings.ToLower(p.name)
		f := all[name]
		if f == nil {
			f = &function{name: name}
			all[name] = f
		}
		l.functionOf[oid] = f
		words[name] = append(words[name], l.include(f, &p)...)
	}, MaxFunctions+1)
	if err != nil || count > MaxFunctions {
		return err
	}
	var body, to uint32
	err = l.each(ctx, "pg_depend", functionBodies, []any{&body, &to}, func() {
		if f, r := l.functionOf[body], l.snap.byOID[to]; f != nil && r != nil {
			f.mention(strings.ToLower(r.name))
		}
	})
	if err != nil {
		return err
	}
	l.snap.functions = all
	l.snap.followCalls(words)
	return l.namesOfFunctions(ctx)
}

// procedure is one row of pg_proc.
type procedure struct {
	name, language, source string
	volatile, definer, cut bool
	settings               []string
}

// include adds one function to those of its name, and returns the words of its
// source.
func (l *loader) include(f *function, p *procedure) []string {
	if f.callee.Language == "" || p.volatile && !f.volatile {
		f.callee.Language = l.once(p.language)
	}
	f.volatile = f.volatile || p.volatile
	f.callee.Definer = f.callee.Definer || p.definer
	for _, name := range p.settings {
		if !slices.Contains(f.callee.Settings, name) {
			f.callee.Settings = append(f.callee.Settings, l.once(name))
		}
	}
	words := inspect.WordsOf([]byte(p.source))
	f.opaque = f.opaque || p.cut || words == nil
	if p.language != "sql" && p.language != "plpgsql" {
		return words
	}
	shown := l.source(p.source, words)
	f.volatile = f.volatile || !shown.certain
	for _, w := range shown.writes {
		f.write(w)
	}
	return words
}

// namesOfFunctions notes what else a call may name: operators, and the server's
// own functions.
func (l *loader) namesOfFunctions(ctx context.Context) error {
	var oid uint32
	var name string
	err := l.each(ctx, "pg_operator", operators, []any{&name, &oid}, func() {
		f := l.functionOf[oid]
		if f == nil {
			return // a built-in one's
		}
		behind := l.snap.functions[name]
		if behind == nil {
			behind = &function{name: name, callee: f.callee}
			l.snap.functions[name] = behind
		}
		behind.absorb(f)
	})
	if err != nil {
		return err
	}
	return l.each(ctx, "pg_proc", builtIns, []any{&name}, func() { l.snap.builtIns[name] = struct{}{} })
}

// The events of pg_trigger.tgtype.
var triggerEvents = []struct {
	bit int32
	on  inspect.Access
}{{4, inspect.AccessInsert}, {8, inspect.AccessDelete}, {16, inspect.AccessUpdate}, {32, inspect.AccessTruncate}}

// runners notes the functions that relations' uses run.
func (l *loader) runners(ctx context.Context) error {
	var on, oid uint32
	var events int32
	var what string
	return l.each(ctx, "pg_trigger", runners, []any{&on, &events, &oid, &what}, func() {
		r, f := l.snap.byOID[on], l.functionOf[oid]
		if r == nil {
			return
		}
		one := run{f: f, what: l.once(what), trigger: strings.HasPrefix(what, "trigger ")}
		if f == nil || l.snap.functions == nil {
			one.f = &function{} // a built-in one, or one of too many
		}
		for _, e := range triggerEvents {
			if events&e.bit != 0 {
				one.on |= e.on
			}
		}
		if events == 0 {
			one.on = wholly
		}
		r.runs = append(r.runs, one)
	})
}

func (f *function) mention(name string) {
	switch {
	case len(f.mentions) >= maxMentions:
		f.opaque = true
	case !slices.Contains(f.mentions, name):
		f.mentions = append(f.mentions, name)
	}
}

func (f *function) write(w write) {
	switch {
	case len(f.writes) >= maxMentions:
		f.opaque, f.volatile = true, true
	case !slices.Contains(f.writes, w):
		f.writes = append(f.writes, w)
	}
}

// followCalls notes for each function the relations that its words mean, and
// those of the functions that its words mean, and so on.
func (s *Snapshot) followCalls(words map[string][]string) {
	calls := map[string][]*function{}
	for name, f := range s.functions {
		for _, w := range words[name] {
			if s.byName[w] != nil || s.folded[w] != nil {
				f.mention(w)
			}
			if called := s.functions[w]; called != nil && called != f {
				calls[name] = append(calls[name], called)
			}
		}
	}
	for changed, rounds := true, 0; changed && rounds < maxCalls; rounds++ {
		changed = false
		for name, called := range calls {
			f := s.functions[name]
			for _, c := range called {
				changed = f.absorb(c) || changed
			}
		}
	}
}

// maxCalls bounds how deep calls within functions are followed.
const maxCalls = 16

// absorb adds what another function mentions, and reports whether that was new.
func (f *function) absorb(c *function) bool {
	mentions, writes, opaque, volatile := len(f.mentions), len(f.writes), f.opaque, f.volatile
	f.opaque, f.volatile = f.opaque || c.opaque, f.volatile || c.volatile
	for _, name := range c.mentions {
		f.mention(name)
	}
	for _, w := range c.writes {
		f.write(w)
	}
	return len(f.mentions) != mentions || len(f.writes) != writes || f.opaque != opaque || f.volatile != volatile
}
