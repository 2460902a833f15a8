package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite" // registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SchemaVersion is kept in the database's user_version. Processes that write to
// one file have to agree on it.
const SchemaVersion = 1

// schema is version 1. Text columns are never null, so that filters are
// simple; tables is a JSON array.
const schema = `
CREATE TABLE entries (
	id INTEGER PRIMARY KEY,
	time INTEGER NOT NULL,          -- microseconds since 1970, UTC
	kind TEXT NOT NULL,
	session INTEGER NOT NULL,
	server_pid INTEGER NOT NULL,
	user TEXT NOT NULL,
	database TEXT NOT NULL,
	application TEXT NOT NULL,
	address TEXT NOT NULL,
	tx TEXT NOT NULL,
	fingerprint INTEGER NOT NULL,   -- the 64 bits, signed
	class TEXT NOT NULL,
	statement TEXT NOT NULL,
	tables TEXT NOT NULL,
	rows INTEGER NOT NULL,
	duration_ns INTEGER NOT NULL,
	verdict TEXT NOT NULL,
	rule TEXT NOT NULL,
	sqlstate TEXT NOT NULL,
	outcome TEXT NOT NULL,
	action TEXT NOT NULL,
	reason TEXT NOT NULL,
	detail TEXT NOT NULL,
	count INTEGER NOT NULL
);
CREATE INDEX entries_time ON entries (time);
CREATE INDEX entries_open ON entries (session, tx) WHERE kind = 'statement' AND outcome = 'ok' AND tx <> '';
`

const columns = `time, kind, session, server_pid, user, database, application, address, tx, fingerprint, class, statement,
	tables, rows, duration_ns, verdict, rule, sqlstate, outcome, action, reason, detail, count`

const insertEntry = `INSERT INTO entries (` + columns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`

// settleStatements gives the statements of a transaction its outcome that were
// written before the batch with its end. Session
// ids begin again with every start, so only this run's entries are meant.
const settleStatements = `UPDATE entries SET outcome = ?
	WHERE kind = 'statement' AND outcome = 'ok' AND tx <> '' AND session = ? AND tx = ? AND id > ?`

// loseStatements settles transactions that were open when lockkeeper died.
const loseStatements = `UPDATE entries SET outcome = 'lost' WHERE kind = 'statement' AND outcome = 'ok' AND tx <> ''`

// loseSessions settles those of a process that wrote beside this one.
const loseSessions = loseStatements + ` AND session <= ?`

// database is the journal's file: one connection that writes, a few that read.
type database struct {
	write *sql.DB
	read  *sql.DB
	first int64 // the last entry before this run

	insert, settle *sql.Stmt // of write; closed with it

	open   map[transaction]struct{} // those of which statements are in the file without an outcome
	unsure bool                     // open lacks some
}

// transaction is one of a session's.
type transaction struct {
	session uint64
	number  string
}

// MaxOpen bounds the transactions that are remembered as open. A session has one
// at a time; there are more only where entries were dropped that would have
// ended some. Beyond it every transaction's end is looked up in the file.
const MaxOpen = 100_000

// errDamaged marks a file that holds no journal we can use.
var errDamaged = errors.New("not a usable journal")

// openDatabase opens the file, or makes it.
func openDatabase(ctx context.Context, c *Config) (*database, error) {
	if err := ensurePrivate(c.Path); err != nil {
		return nil, err
	}
	d := &database{}
	var err error
	if d.write, err = sql.Open("sqlite", dsn(c.Path, "rw")); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	d.write.SetMaxOpenConns(1)
	err = d.prepare(ctx, c)
	if code(err) == sqlite3.SQLITE_READONLY { // we may write the file: its header says that we may not
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err == nil {
		d.read, err = sql.Open("sqlite", dsn(c.Path, "ro"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), d.close())
	}
	d.read.SetMaxOpenConns(2)
	return d, nil
}

// ensurePrivate makes the file with its mode before SQLite would with
// another; the files beside it inherit the mode.
func ensurePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, filePermissions)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	if err := errors.Join(f.Chmod(filePermissions), f.Close()); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	return nil
}

func dsn(path, mode string) string {
	q := url.Values{"_pragma": {"busy_timeout(2000)"}, "mode": {mode}}
	if mode == "rw" {
		q.Add("_pragma", "journal_mode(WAL)")
		q.Add("_pragma", "synchronous(FULL)")
		q.Set("_txlock", "immediate")
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}

// prepare checks the database and gives it its schema.
func (d *database) prepare(ctx context.Context, c *Config) error {
	if err := d.check(ctx); err != nil {
		return err
	}
	var version int
	if err := d.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	switch {
	case version == 0:
		if err := d.create(ctx); err != nil {
			return err
		}
	case version != SchemaVersion:
		return fmt.Errorf("%w: its schema is version %d, this program knows %d", errDamaged, version, SchemaVersion)
	}
	if _, err := d.write.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", max(c.MaxBytes/pageBytes, 1))); err != nil {
		return fmt.Errorf("limit the size: %w", err)
	}
	if err := d.write.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM entries").Scan(&d.first); err != nil {
		return fmt.Errorf("find the last entry: %w", err)
	}
	var err error
	if d.insert, err = d.write.PrepareContext(ctx, insertEntry); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if d.settle, err = d.write.PrepareContext(ctx, settleStatements); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if c.Joins {
		return nil
	}
	_, err = d.write.ExecContext(ctx, loseStatements)
	if code(err) == sqlite3.SQLITE_FULL {
		return nil // a full journal is still to be read, and makes room by itself
	}
	return err
}

// check looks the file over, for a bounded time.
func (d *database) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var verdict string
	err := d.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict)
	switch {
	case ctx.Err() != nil:
		return nil // too large to look over at each start; damage met later is handled then
	case err != nil:
		return fmt.Errorf("check: %w", err)
	case verdict != "ok":
		return fmt.Errorf("%w: %s", errDamaged, verdict)
	}
	return nil
}

func (d *database) create(ctx context.Context) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create the schema: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", SchemaVersion)); err != nil {
		return fmt.Errorf("create the schema: %w", err)
	}
	return tx.Commit()
}

func (d *database) close() error {
	var errs []error
	if d.read != nil {
		errs = append(errs, d.read.Close())
	}
	if d.write != nil {
		errs = append(errs, d.write.Close())
	}
	return errors.Join(errs...)
}

// code returns SQLite's primary result code of an error; 0 for none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// damaged reports whether the file, and not the disk or the moment, is bad.
// Our SQL is constant: where SQLite finds fault with it, or with what it is
// given, the file is not what we made.
func damaged(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT,
		sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_INTERNAL:
		return true
	default:
		return false
	}
}

// setAside gives a damaged database and the files beside it another name, and
// returns it.
func setAside(path string, now time.Time) (string, error) {
	to := path + ".damaged-" + now.UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("set the damaged journal aside: %w", err)
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("set the damaged journal aside: %w", err)
		}
	}
	return filepath.Base(to), nil
}

// put writes entries in one transaction. Statements whose transaction has ended
// among the entries get its outcome before they are written.
func (d *database) put(ctx context.Context, entries []Entry) error {
	open := conclude(entries)
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	insert, settle := tx.StmtContext(ctx, d.insert), tx.StmtContext(ctx, d.settle)
	for i := range entries {
		e := &entries[i]
		if err := putOne(ctx, insert, e); err != nil {
			return err
		}
		if _, older := d.open[e.transaction()]; e.Kind != TransactionEntry || !older && !d.unsure {
			continue
		}
		if _, err := settle.ExecContext(ctx, e.Outcome, int64(e.Session), e.Transaction, d.first); err != nil {
			return fmt.Errorf("settle statements: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	d.remember(entries, open)
	return nil
}

func (e *Entry) transaction() transaction { return transaction{e.Session, e.Transaction} }

// conclude gives statements the outcome of their transactions, as far as both
// are among the entries, and returns the transactions that go on.
func conclude(entries []Entry) (open map[transaction][]int) {
	open = map[transaction][]int{}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Kind == TransactionEntry:
			for _, k := range open[e.transaction()] {
				entries[k].Outcome = e.Outcome
			}
			delete(open, e.transaction())
		case e.Kind == StatementEntry && e.Outcome == "ok" && e.Transaction != "":
			open[e.transaction()] = append(open[e.transaction()], i)
		}
	}
	return open
}

// remember keeps which transactions are open after entries were written.
func (d *database) remember(entries []Entry, open map[transaction][]int) {
	for i := range entries {
		if e := &entries[i]; e.Kind == TransactionEntry {
			delete(d.open, e.transaction())
		}
	}
	if len(d.open)+len(open) > MaxOpen {
		d.open, d.unsure = nil, true
	}
	if d.open == nil {
		d.open = map[transaction]struct{}{}
	}
	for t := range open {
		d.open[t] = struct{}{}
	}
}

// lose settles transactions of sessions up to the last, which are over.
func (d *database) lose(ctx context.Context, last uint64) error {
	if _, err := d.write.ExecContext(ctx, loseSessions, int64(last)); err != nil { //nolint:gosec // ids grow by one
		return fmt.Errorf("settle statements: %w", err)
	}
	return nil
}

func putOne(ctx context.Context, insert *sql.Stmt, e *Entry) error {
	tables, err := json.Marshal(e.Tables)
	if err != nil {
		return fmt.Errorf("encode tables: %w", err)
	}
	_, err = insert.ExecContext(ctx, e.Time.UnixMicro(), string(e.Kind), int64(e.Session), int64(e.ServerPID), e.User,
		e.Database, e.Application, e.Address, e.Transaction, int64(e.Fingerprint), e.Class, e.Statement, string(tables), e.Rows,
		int64(e.Duration), e.Verdict, e.Rule, e.SQLSTATE, e.Outcome, e.Action, e.Reason, e.Detail, e.Count)
	if err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	return nil
}

// prune removes entries from before the time, a bounded number, and reports
// how many it was.
func (d *database) prune(ctx context.Context, before time.Time) (int64, error) {
	r, err := d.write.ExecContext(ctx, `DELETE FROM entries WHERE id IN
		(SELECT id FROM entries WHERE time < ? ORDER BY time LIMIT ?)`, before.UnixMicro(), pruneEntries)
	if err != nil {
		return 0, fmt.Errorf("remove old entries: %w", err)
	}
	return r.RowsAffected()
}

// makeRoom removes the oldest statements if the file is nearly as large as it
// may become. Refusals and actions stay until they are too old.
func (d *database) makeRoom(ctx context.Context, maxBytes int64) (int64, error) {
	var pages, free int64
	if err := d.write.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return 0, fmt.Errorf("ask for the size: %w", err)
	}
	if err := d.write.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&free); err != nil {
		return 0, fmt.Errorf("ask for the size: %w", err)
	}
	room := maxBytes - (pages-free)*pageBytes
	if room > max(maxBytes/10, batchBytes) {
		return 0, nil
	}
	r, err := d.write.ExecContext(ctx, `DELETE FROM entries WHERE id IN
		(SELECT id FROM entries WHERE kind NOT IN ('refusal', 'action') ORDER BY time LIMIT ?)`, pruneEntries)
	if err != nil {
		return 0, fmt.Errorf("make room: %w", err)
	}
	return r.RowsAffected()
}

// likeEscape makes a text literal in a LIKE pattern with ESCAPE '\'.
func likeEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}
