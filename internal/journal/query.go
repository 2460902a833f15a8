package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Filter says which entries Query returns; zero fields match everything.
type Filter struct {
	Since, Until time.Time // Since is included, Until is not
	Table        string    // one of the tables written: "name" in any schema, or "schema.name"
	User         string
	Database     string
	Kind         Kind
	Rule         string
	Session      uint64
	Limit        int // the newest that match; 1000 where it is 0
}

// Query returns the newest entries that match, oldest first. What was
// submitted a moment ago may still be on its way.
func (j *Journal) Query(ctx context.Context, f Filter) ([]Entry, error) {
	where, args := f.where()
	args = append(args, f.limit())
	j.dbMu.RLock()
	defer j.dbMu.RUnlock()
	if j.db == nil {
		return nil, fmt.Errorf("query journal: %w", errDamaged)
	}
	rows, err := j.db.read.QueryContext(ctx, "SELECT "+columns+" FROM entries"+where+" ORDER BY time DESC, id DESC LIMIT ?", args...)
	if err != nil {
		return nil, fmt.Errorf("query journal: %w", err)
	}
	defer func() { _ = rows.Close() }()
	entries := []Entry{}
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("query journal: %w", err)
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("query journal: %w", err)
	}
	slices.Reverse(entries)
	return entries, nil
}

func (f *Filter) limit() int {
	if f.Limit <= 0 {
		return defaultLimit
	}
	return min(f.Limit, maxLimit)
}

func (f *Filter) where() (string, []any) {
	var conds []string
	var args []any
	add := func(set bool, cond string, arg ...any) {
		if set {
			conds = append(conds, cond)
			args = append(args, arg...)
		}
	}
	add(!f.Since.IsZero(), "time >= ?", f.Since.UnixMicro())
	add(!f.Until.IsZero(), "time < ?", f.Until.UnixMicro())
	add(f.User != "", "user = ?", f.User)
	add(f.Database != "", "database = ?", f.Database)
	add(f.Kind != "", "kind = ?", string(f.Kind))
	add(f.Rule != "", "rule = ?", f.Rule)
	add(f.Session != 0, "session = ?", int64(f.Session))
	// A name without schema means that table in any schema; text without one
	// may have meant the table in the schema that is asked for.
	if schema, name, qualified := strings.Cut(f.Table, "."); qualified {
		add(true, "EXISTS (SELECT 1 FROM json_each(entries.tables) t WHERE t.value IN (?, ?))", schema+"."+name, name)
	} else {
		add(f.Table != "", `EXISTS (SELECT 1 FROM json_each(entries.tables) t WHERE t.value = ? OR t.value LIKE ? ESCAPE '\')`,
			f.Table, "%."+likeEscape(f.Table))
	}
	if len(conds) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(conds, " AND "), args
}

func scan(rows *sql.Rows) (Entry, error) {
	var e Entry
	var micros, session, pid, fingerprint, duration int64
	var kind, tables string
	err := rows.Scan(&micros, &kind, &session, &pid, &e.User, &e.Database, &e.Application, &e.Address, &e.Transaction,
		&fingerprint, &e.Class, &e.Statement, &tables, &e.Rows, &duration, &e.Verdict, &e.Rule, &e.SQLSTATE, &e.Outcome,
		&e.Action, &e.Reason, &e.Detail, &e.Count)
	if err != nil {
		return Entry{}, err
	}
	e.Time, e.Kind = time.UnixMicro(micros).UTC(), Kind(kind)
	e.Session, e.ServerPID, e.Fingerprint = uint64(session), uint32(pid), uint64(fingerprint)
	e.Duration = time.Duration(duration)
	if err := json.Unmarshal([]byte(tables), &e.Tables); err != nil {
		return Entry{}, fmt.Errorf("decode tables: %w", err)
	}
	return e, nil
}
