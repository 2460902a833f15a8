package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const patience = 2 * time.Second // for a reader that waits, in the act without lockkeeper

// tour is a narrated sequence of acts; each checks what it tells.
type tour struct {
	*stage
	now  func() time.Time
	acts int
}

func (t *tour) run(ctx context.Context) error {
	for _, act := range []struct {
		title string
		play  func(context.Context) error
	}{
		{"A DELETE without WHERE", t.unboundedDelete},
		{"The same, in the middle of a transaction", t.inTransaction},
		{"An ALTER TABLE behind an idle transaction, without lockkeeper", t.queueDirect},
		{"The same through lockkeeper", t.queueGuarded},
		{"Read-only: one command, and nothing can commit", t.readOnly},
		{"Who is connected", t.sessions},
		{"What happened: the journal", t.journal},
	} {
		t.acts++
		fmt.Fprintf(t.out, "\n== %d. %s\n\n", t.acts, act.title)
		if err := act.play(ctx); err != nil {
			return fmt.Errorf("act %d, %q: %w", t.acts, act.title, err)
		}
	}
	return nil
}

func (t *tour) say(format string, args ...any) {
	fmt.Fprintf(t.out, "   "+format+"\n", args...)
}

// show prints what a command printed, indented.
func (t *tour) show(output string) {
	for line := range strings.Lines(strings.TrimRight(output, "\n") + "\n") {
		fmt.Fprint(t.out, "     ", line)
	}
}

func (t *tour) unboundedDelete(ctx context.Context) error {
	before, err := t.count(ctx, "account_move")
	if err != nil {
		return err
	}
	if err := t.refused(ctx, "DELETE FROM account_move", "23G01"); err != nil {
		return err
	}
	if err := t.refused(ctx, "UPDATE sale_order SET state = 'cancel' WHERE 1 = 1", "23G01"); err != nil {
		return err
	}
	after, err := t.count(ctx, "account_move")
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("account_move had %d rows and has %d", before, after)
	}
	t.say("account_move still has %d rows.", after)
	return t.succeeds(ctx, "UPDATE sale_order SET state = 'cancel' WHERE id = 42")
}

func (t *tour) inTransaction(ctx context.Context) error {
	state, err := t.psql(ctx, "BEGIN", "UPDATE res_partner SET name = 'Changed' WHERE id = 1", "DELETE FROM account_move_line", "COMMIT")
	if err != nil {
		return err
	}
	if state != "23G01" {
		return fmt.Errorf("the DELETE ended with SQLSTATE %q, want 23G01", state)
	}
	conn, err := pgx.Connect(ctx, t.direct())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var name string
	if err := conn.QueryRow(ctx, "SELECT name FROM res_partner WHERE id = 1").Scan(&name); err != nil {
		return err
	}
	if name == "Changed" {
		return errors.New("the UPDATE before the refused DELETE was committed")
	}
	t.say("The whole transaction failed in the server: the partner's name is still %q.", name)
	return nil
}

// idle opens a transaction that has read sale_order and then does nothing, as a
// worker that waits for a slow web service does.
func (t *tour) idle(ctx context.Context, connString string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "BEGIN; SELECT * FROM sale_order LIMIT 1"); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	t.say("A worker has read sale_order and is idle in its transaction.")
	return conn, nil
}

func (t *tour) queueDirect(ctx context.Context) error {
	worker, err := t.idle(ctx, t.direct())
	if err != nil {
		return err
	}
	defer func() { _ = worker.Close(ctx) }()
	alter, stopAlter := t.background(ctx, t.direct(), "ALTER TABLE sale_order ADD COLUMN without_guard integer")
	if err := t.waitsForLock(ctx, "ALTER TABLE"); err != nil {
		stopAlter()
		<-alter
		return err
	}
	read := t.read(ctx, t.direct(), patience)
	stopAlter()
	<-alter
	if read.err == nil {
		return fmt.Errorf("a reader got through in %v", read.took)
	}
	t.say("A reader gave up after %v: everything that touches sale_order queues behind the ALTER, for as long as the worker idles.",
		read.took.Round(100*time.Millisecond))
	return nil
}

func (t *tour) queueGuarded(ctx context.Context) error {
	worker, err := t.idle(ctx, t.guarded())
	if err != nil {
		return err
	}
	defer func() { _ = worker.Close(ctx) }()
	const sql = "ALTER TABLE sale_order ADD COLUMN with_guard integer"
	alter, stopAlter := t.background(ctx, t.guarded(), sql)
	defer stopAlter()
	if err := t.waitsForLock(ctx, "ALTER TABLE"); err != nil {
		stopAlter()
		<-alter
		return err
	}
	if err := t.lockkeeper(ctx, "sale_order", "locks"); err != nil {
		return err
	}
	read := t.read(ctx, t.guarded(), 3*lockTimeout)
	result := <-alter
	if read.err != nil {
		return fmt.Errorf("a reader did not get through in %v: %w", read.took, read.err)
	}
	if state := sqlstate(result.err); state != "55P03" {
		return fmt.Errorf("the ALTER ended with %q (%w), not with 55P03", state, result.err)
	}
	t.say("The ALTER gave up (55P03) after its lock_timeout of %v, and readers go on while the worker still idles.", lockTimeout)
	if _, err := worker.Exec(ctx, "COMMIT"); err != nil {
		return err
	}
	t.say("The worker commits. The ALTER, sent again:")
	if err := t.succeeds(ctx, sql); err != nil {
		return err
	}
	return t.nothingLeft(ctx)
}

// nothingLeft checks that the lock_timeout is gone after the statement that it
// was set for.
func (t *tour) nothingLeft(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, t.guarded())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var before, after string
	if err := conn.QueryRow(ctx, "SHOW lock_timeout", pgx.QueryExecModeSimpleProtocol).Scan(&before); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER TABLE sale_order DROP COLUMN with_guard"); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SHOW lock_timeout", pgx.QueryExecModeSimpleProtocol).Scan(&after); err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("lock_timeout was %s before a DDL statement and is %s after it", before, after)
	}
	t.say("After DDL the session's lock_timeout is what it was: %s.", after)
	return nil
}

func (t *tour) readOnly(ctx context.Context) error {
	if err := t.lockkeeper(ctx, "", "mode", "read-only", "--reason", "the tour", "--in-flight", "refuse-commit"); err != nil {
		return err
	}
	const sql = "UPDATE res_partner SET active = false WHERE id = 7"
	if err := t.refused(ctx, sql, "23G02"); err != nil {
		return err
	}
	if err := t.succeeds(ctx, "SELECT count(*) FROM res_partner"); err != nil {
		return err
	}
	if err := t.lockkeeper(ctx, "", "mode", "normal", "--reason", "the tour goes on"); err != nil {
		return err
	}
	return t.succeeds(ctx, sql)
}

func (t *tour) sessions(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, t.guarded())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return t.lockkeeper(ctx, "tour", "sessions")
}

func (t *tour) journal(ctx context.Context) error {
	if err := t.lockkeeper(ctx, "account_move", "journal", "--since", "10m"); err != nil {
		return err
	}
	out, err := t.cli(ctx, "journal", "--since", "10m", "--json")
	if err != nil {
		return err
	}
	if !json.Valid([]byte(firstJSON(out))) {
		return fmt.Errorf("journal --json is not JSON:\n%s", out)
	}
	for _, want := range []string{"unbounded-write", "mode read-only", "res_partner"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("the journal says nothing of %q:\n%s", want, out)
		}
	}
	return nil
}

// firstJSON is the whole output, or its first line where each line is a value.
func firstJSON(out string) string {
	if json.Valid([]byte(out)) {
		return out
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}

// refused runs SQL through lockkeeper and checks that it fails with the code.
func (t *tour) refused(ctx context.Context, sql, want string) error {
	state, err := t.psql(ctx, sql)
	if err != nil {
		return err
	}
	if state != want {
		return fmt.Errorf("%q ended with SQLSTATE %q, want %q", sql, state, want)
	}
	return nil
}

func (t *tour) succeeds(ctx context.Context, sql string) error {
	state, err := t.psql(ctx, sql)
	if err != nil {
		return err
	}
	if state != "" {
		return fmt.Errorf("%q was refused with %s", sql, state)
	}
	return nil
}

var psqlError = regexp.MustCompile(`(?m)^(?:ERROR|FATAL):\s+([0-9A-Z]{5}):`)

// psql runs statements through lockkeeper as a user would, shows them, and
// returns the SQLSTATE of the first error, "" for success.
func (t *tour) psql(ctx context.Context, statements ...string) (state string, err error) {
	args := []string{"-X", "-v", "VERBOSITY=verbose"}
	for _, sql := range statements {
		args = append(args, "-c", sql)
	}
	fmt.Fprintf(t.out, "   $ psql -c \"%s\"\n", strings.Join(statements, "\" -c \""))
	path := filepath.Join(t.postgres.BinDir(), "psql")
	if _, err := exec.LookPath(path); err != nil {
		return t.plain(ctx, statements)
	}
	out, err := exec.CommandContext(ctx, path, append(args, t.guarded())...).CombinedOutput()
	t.show(string(out))
	if m := psqlError.FindSubmatch(out); m != nil {
		return string(m[1]), nil
	}
	return "", err
}

// plain is psql where there is none.
func (t *tour) plain(ctx context.Context, statements []string) (state string, err error) {
	conn, err := pgx.Connect(ctx, t.guarded())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		tag, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		var pgErr *pgconn.PgError
		switch {
		case errors.As(err, &pgErr):
			t.show(fmt.Sprintf("%s:  %s: %s\nDETAIL:  %s\nHINT:  %s\n", pgErr.Severity, pgErr.Code, pgErr.Message, pgErr.Detail, pgErr.Hint))
			if state == "" {
				state = pgErr.Code
			}
		case err != nil:
			return state, err
		default:
			t.show(tag.String())
		}
	}
	return state, nil
}

// lockkeeper runs the command line, shows it, and checks that its output holds
// what the act is about.
func (t *tour) lockkeeper(ctx context.Context, want string, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.Contains(a, " ") {
			shown[i] = `"` + a + `"`
		}
	}
	fmt.Fprintf(t.out, "   $ lockkeeper %s\n", strings.Join(shown, " "))
	out, err := t.cli(ctx, args...)
	t.show(out)
	if err != nil {
		return err
	}
	if !strings.Contains(out, want) {
		return fmt.Errorf("lockkeeper %s says nothing of %s", strings.Join(args, " "), want)
	}
	return nil
}

func (t *tour) cli(ctx context.Context, args ...string) (string, error) {
	args = append(args, "-c", t.config())
	cmd := exec.CommandContext(ctx, t.program(), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("lockkeeper %s: %w\n%s", args[0], err, stderr.String())
	}
	return string(out), nil
}

func (t *tour) count(ctx context.Context, table string) (n int, err error) {
	conn, err := pgx.Connect(ctx, t.direct())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{table}.Sanitize()).Scan(&n)
	return n, err
}

// outcome is how a statement ended, and when.
type outcome struct {
	err  error
	took time.Duration
}

// background runs a statement on a connection of its own; stop cancels it.
func (t *tour) background(ctx context.Context, connString, sql string) (ended <-chan outcome, stop func()) {
	t.say("Somebody runs: %s", sql)
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan outcome, 1)
	go func() { result <- t.exec(ctx, connString, sql) }()
	return result, cancel
}

// read runs what every page of Odoo does.
func (t *tour) read(ctx context.Context, connString string, atMost time.Duration) outcome {
	const sql = "SELECT count(*) FROM sale_order WHERE state = 'sale'"
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	read := t.exec(ctx, connString, sql)
	t.say("A reader: %s  (%v)", sql, read.took.Round(100*time.Millisecond))
	return read
}

func (t *tour) exec(ctx context.Context, connString, sql string) outcome {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	start := t.now()
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return outcome{err: err, took: t.now().Sub(start)}
}

// waitsForLock waits until a statement of that kind waits for a lock.
func (t *tour) waitsForLock(ctx context.Context, kind string) error {
	conn, err := t.postgres.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var waiting bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query ILIKE '%' || $1 || '%' AND pid <> pg_backend_pid())`, kind).Scan(&waiting)
		if err != nil {
			return fmt.Errorf("wait until the %s waits for its lock: %w", kind, err)
		}
		if waiting {
			return nil
		}
		<-tick.C
	}
}

func sqlstate(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
