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
	maxFunctions = 20_000 // then no function's source is known
	maxMentions  = 1_000  // names that one function's source holds; more is anything
)

// errTooMany says that the database is larger than the limit.
var errTooMany = errors.New("more tables, views and indexes than limits.catalog_relations allows")

// loader reads one snapshot.
type loader struct {
	tx    pgx.Tx
	snap  *Snapshot
	names map[string]string // one copy of every column's name
}

// load reads the catalogs, all as of one moment. limit bounds the relations.
func load(ctx context.Context, conn *pgx.Conn, limit int, now time.Time) (*Snapshot, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // it has only read
	l := &loader{
		tx: tx, names: map[string]string{},
		snap: &Snapshot{Taken: now, byName: map[string][]*relation{}, folded: map[string][]*relation{}, byOID: map[uint32]*relation{}},
	}
	if err := l.relations(ctx, limit); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{l.columns, l.inheritance, l.rewrites, l.foreignKeys, l.triggers, l.functions} {
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
	tables := map[*relation]uint32{}
	err := l.each(ctx, "pg_class", relations, []any{&oid, &schema, &name, &kind, &table}, func() {
		r := &relation{schema: l.once(schema), name: name, kind: kind[0]}
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
	err := l.each(ctx, "pg_attribute", notNullColumns, []any{&oid, &name}, func() {
		if r := l.snap.byOID[oid]; r != nil {
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
	return l.each(ctx, "pg_inherits", inheritance, []any{&child, &parent}, func() {
		c, p := l.snap.byOID[child], l.snap.byOID[parent]
		if c != nil && p != nil && c.table == nil {
			c.parents, p.children = append(c.parents, p), append(p.children, c)
		}
	})
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

func (l *loader) triggers(ctx context.Context) error {
	var on uint32
	return l.each(ctx, "pg_trigger", triggers, []any{&on}, func() {
		if r := l.snap.byOID[on]; r != nil {
			r.triggers = true
		}
	})
}

// functions notes which relations each function's source mentions.
func (l *loader) functions(ctx context.Context) error {
	var oid uint32
	var name, source string
	var cut bool
	count := 0
	all, words, byOID := map[string]*function{}, map[string][]string{}, map[uint32]*function{}
	err := l.each(ctx, "pg_proc", functions, []any{&oid, &name, &source, &cut}, func() {
		count++
		name = strings.ToLower(name)
		f := all[name]
		if f == nil {
			f = &function{}
			all[name] = f
		}
		byOID[oid] = f
		more := inspect.WordsOf([]byte(source))
		f.opaque = f.opaque || cut || more == nil
		words[name] = append(words[name], more...)
	}, maxFunctions+1)
	if err != nil || count > maxFunctions {
		return err
	}
	var body, to uint32
	err = l.each(ctx, "pg_depend", functionBodies, []any{&body, &to}, func() {
		if f, r := byOID[body], l.snap.byOID[to]; f != nil && r != nil {
			f.mention(strings.ToLower(r.name))
		}
	})
	l.snap.functions = all
	l.snap.followCalls(words)
	return err
}

func (f *function) mention(name string) {
	switch {
	case len(f.mentions) >= maxMentions:
		f.opaque = true
	case !slices.Contains(f.mentions, name):
		f.mentions = append(f.mentions, name)
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
	before, opaque := len(f.mentions), f.opaque
	f.opaque = f.opaque || c.opaque
	for _, name := range c.mentions {
		f.mention(name)
	}
	return len(f.mentions) != before || f.opaque != opaque
}
