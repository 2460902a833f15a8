package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

// TestBarrierHoldsInTheWAL flips read-only under writers of many kinds and
// reads the WAL behind the position that the barrier printed: no transaction
// may commit there that changed a user relation other than the one that may be
// written, its index and its sequence.
func TestBarrierHoldsInTheWAL(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Setting("autovacuum", "off"), pgtest.Setting("max_connections", "60"))
	g := newGuard(t, func(s *setup) { s.pg = pg })
	pg.MustExec(t, g.db, `create table wal_probe(id bigserial primary key, v text);
		create table wal_login(id bigserial primary key, v text);
		create function slow_write(seconds float8) returns void language plpgsql as
		$$begin perform pg_sleep(seconds); insert into public.wal_probe(v) values ('slow'); end$$;
		insert into wal_probe(v) select 'x' from generate_series(1, 100)`)
	from := pg.Value(t, g.db, "select pg_current_wal_insert_lsn()")
	readWAL(t, pg, from) // the whole test is skipped where it cannot be read
	for i, c := range []policy.Containment{
		{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit},
		{Kind: policy.ReadOnlyMode, InFlight: policy.Drain, DrainUntil: time.Now().Add(200 * time.Millisecond)},
		{Kind: policy.ReadOnlyMode, InFlight: policy.Finish, DrainUntil: time.Now().Add(time.Minute)},
	} {
		t.Run(string(c.InFlight), func(t *testing.T) {
			w := startWriters(t, g)
			w.waitFor(t, 40) // writes before the flip
			w.resetInTheMiddle(t)
			if c.InFlight == policy.Drain {
				c.DrainUntil = time.Now().Add(200 * time.Millisecond)
			}
			c.ID, c.Reason, c.Writable = "flip"+strconv.Itoa(i), "test", []string{"wal_login"}
			put := g.contain(c)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			reports, err := g.srv.Barrier(ctx, put[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(reports) != 1 || reports[0].LSN == "" || len(reports[0].Lacking) > 0 {
				t.Fatalf("reports: %+v", reports)
			}
			w.waitForRefusals(t, 40) // attempts behind the flip
			w.waitForLogins(t, 5)
			g.contain()
			done := w.done.Load()
			w.waitFor(t, int(done)+20) // writes go on
			w.stop()

			t.Logf("barrier at %s, %d written, %d refused, %d sessions waited for, %d cancelled", reports[0].LSN, w.done.Load(), w.refused.Load(), reports[0].Waited, reports[0].Cancelled)
			assertNoCommits(t, pg, from, reports[0].LSN, w.lifted, filenodes(t, pg, g.db, "wal_login"))
		})
	}
}

// writers change rows in every way a client can, until they are stopped.
type writers struct {
	g             *guard
	cancel        context.CancelFunc
	wg            sync.WaitGroup
	done, refused atomic.Int64
	logins        atomic.Int64
	lifted        string
}

func startWriters(t *testing.T, g *guard) *writers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &writers{g: g, cancel: cancel}
	t.Cleanup(w.stop)
	for i, f := range []func(context.Context, *pgx.Conn) error{
		autocommit, autocommit, inBlock, inBlock, byFunction, byCopy, inPipeline, inPipeline,
	} {
		mode := []string{"simple_protocol", "exec", "cache_statement"}[i%3]
		w.wg.Go(func() { w.write(ctx, mode, f) })
	}
	w.wg.Go(func() { w.write(ctx, "simple_protocol", w.login) })
	w.wg.Go(func() { w.write(ctx, "cache_statement", w.login) })
	return w
}

// login writes to the table that may be written, alone and among reads, and
// tries to write to another beside it.
func (w *writers) login(ctx context.Context, c *pgx.Conn) error {
	for _, sql := range []string{
		"insert into wal_login(v) values ('alone')", "begin", "select count(*) from wal_probe where id < 5", "insert into wal_login(v) values ('block')", "savepoint a",
		"select 1", "update wal_login set v = 'b' where id = 1", "release a", "commit",
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return err
		}
	}
	w.logins.Add(1)
	for _, sql := range []string{"begin", "insert into wal_login(v) values ('beside')", "select slow_write(0)", "commit"} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// waitForLogins is waitForRefusals for what is let through.
func (w *writers) waitForLogins(t *testing.T, n int64) {
	t.Helper()
	start := w.logins.Load()
	eventually(t, "logins", func() bool { return w.logins.Load() >= start+n })
	w.lifted = w.g.pg.Value(t, w.g.db, "select pg_current_wal_insert_lsn()")
}

func (w *writers) write(ctx context.Context, mode string, f func(context.Context, *pgx.Conn) error) {
	for ctx.Err() == nil {
		c, err := pgx.Connect(ctx, w.g.url("default_query_exec_mode="+mode))
		if err != nil {
			return
		}
		for ctx.Err() == nil && !c.IsClosed() {
			if err := f(ctx, c); err != nil {
				w.refused.Add(1)
				if !c.IsClosed() {
					_, _ = c.Exec(ctx, "rollback")
				}
				continue
			}
			w.done.Add(1)
		}
		_ = c.Close(context.Background())
	}
}

func (w *writers) stop() {
	w.cancel()
	w.wg.Wait()
}

func (w *writers) waitFor(t *testing.T, n int) {
	t.Helper()
	eventually(t, "writes", func() bool { return w.done.Load() >= int64(n) })
}

func (w *writers) waitForRefusals(t *testing.T, n int64) {
	t.Helper()
	start := w.refused.Load()
	eventually(t, "refusals", func() bool { return w.refused.Load() >= start+n })
	w.lifted = w.g.pg.Value(t, w.g.db, "select pg_current_wal_insert_lsn()")
}

// eventually polls until ok, for a bounded time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// resetInTheMiddle begins a slow INSERT and resets its connection.
func (w *writers) resetInTheMiddle(t *testing.T) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), w.g.url("default_query_exec_mode=simple_protocol application_name=resetter"))
	if err != nil {
		t.Fatal(err)
	}
	raw := c.PgConn().Conn()
	go func() { _, _ = c.Exec(context.Background(), "select slow_write(1)") }()
	eventually(t, "the slow insert", func() bool {
		return w.g.pg.Value(t, w.g.db, "select count(*) from pg_stat_activity where application_name = 'resetter' and state = 'active'") == "1"
	})
	if tcp, ok := raw.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

func autocommit(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "update wal_probe set v = 'a' where id = 1")
	return err
}

func inBlock(ctx context.Context, c *pgx.Conn) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "insert into wal_probe(v) values ('b')"); err != nil {
		_ = tx.Rollback(ctx)
		return err
	}
	return tx.Commit(ctx)
}

func byFunction(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "select slow_write(0.01)")
	return err
}

func byCopy(ctx context.Context, c *pgx.Conn) error {
	_, err := c.CopyFrom(ctx, pgx.Identifier{"wal_probe"}, []string{"v"}, pgx.CopyFromRows([][]any{{"c"}, {"d"}}))
	return err
}

func inPipeline(ctx context.Context, c *pgx.Conn) error {
	b := &pgx.Batch{}
	b.Queue("begin")
	b.Queue("insert into wal_probe(v) values ('e')")
	b.Queue("commit")
	b.Queue("insert into wal_probe(v) values ('f')")
	return c.SendBatch(ctx, b).Close()
}

var (
	walXID    = regexp.MustCompile(`tx:\s+(\d+), lsn: ([0-9A-F]+)/([0-9A-F]+),`)
	walRel    = regexp.MustCompile(`rel \d+/\d+/(\d+)`)
	walSub    = regexp.MustCompile(`subxacts: ([\d ]+)`)
	firstUser = 16384
)

// assertNoCommits reads the WAL from one position on and fails for every
// transaction that changed a user relation, none of those that may be written,
// and committed between the barrier and the end of read-only.
func assertNoCommits(t *testing.T, pg *pgtest.Server, from, barrier, lifted string, writable []string) {
	t.Helper()
	changed, let := map[string]bool{}, map[string]bool{}
	commits, checked, logins := 0, 0, 0
	for _, line := range readWAL(t, pg, from) {
		m := walXID.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, r := range walRel.FindAllStringSubmatch(line, -1) {
			if slices.Contains(writable, r[1]) {
				let[m[1]] = true
			} else if oid, _ := strconv.Atoi(r[1]); oid >= firstUser {
				changed[m[1]] = true
			}
		}
		if !strings.Contains(line, "desc: COMMIT") && !strings.Contains(line, "desc: COMMIT_PREPARED") {
			continue
		}
		commits++
		at := lsn(t, m[2]+"/"+m[3])
		if at < lsn(t, barrier) || at >= lsn(t, lifted) {
			continue
		}
		checked++
		xids := []string{m[1]}
		if sub := walSub.FindStringSubmatch(line); sub != nil {
			xids = append(xids, strings.Fields(sub[1])...)
		}
		for _, x := range xids {
			if changed[x] {
				t.Errorf("behind the barrier at %s: %s", barrier, line)
			}
			if let[x] {
				logins++
			}
		}
	}
	if commits == 0 || len(changed) == 0 {
		t.Fatalf("the WAL shows %d commits and %d writers: nothing was checked", commits, len(changed))
	}
	if logins == 0 {
		t.Error("nothing was written behind the barrier, not even where it may be")
	}
	t.Logf("%d commits read, %d behind the barrier, %d of them of what may be written, %d transactions with other changes", commits, checked, logins, len(changed))
}

// filenodes are those of a table, its indexes and the sequence of its id, as the
// WAL has them.
func filenodes(t *testing.T, pg *pgtest.Server, db, table string) []string {
	t.Helper()
	var out []string
	for _, row := range pg.MustQuery(t, db, `select pg_relation_filenode(oid) from pg_class where oid = '`+table+`'::regclass
		or oid = pg_get_serial_sequence('`+table+`', 'id')::regclass or oid in (select indexrelid from pg_index where indrelid = '`+table+`'::regclass)`) {
		out = append(out, row[0])
	}
	return out
}

// readWAL returns the WAL's records from a position on as pg_waldump writes
// them. Where it is missing, pg_walinspect tells the same; before PostgreSQL 15
// nothing else does.
func readWAL(t *testing.T, pg *pgtest.Server, from string) []string {
	t.Helper()
	if pg.Value(t, "postgres", "select count(*) from pg_available_extensions where name = 'pg_walinspect'") == "0" {
		out, err := exec.CommandContext(t.Context(), pg.Program(t, "pg_waldump"), "-p", filepath.Join(pg.DataDir(), "pg_wal"), "-s", from).CombinedOutput()
		if !bytes.Contains(out, []byte("rmgr:")) && !bytes.Contains(out, []byte("invalid record length")) {
			t.Fatalf("pg_waldump: %v: %.300s", err, out) // it ends in an error at the end of the WAL
		}
		return strings.Split(string(out), "\n")
	}
	pg.MustExec(t, "postgres", "create extension if not exists pg_walinspect; select pg_switch_wal()") // flushed, that is
	var lines []string
	for _, row := range pg.MustQuery(t, "postgres", `select format('tx: %s, lsn: %s, desc: %s %s %s', xid, start_lsn, record_type, description, block_ref)
		from pg_get_wal_records_info('`+from+`', pg_current_wal_flush_lsn())`) {
		lines = append(lines, row[0])
	}
	return lines
}

func lsn(t *testing.T, s string) uint64 {
	t.Helper()
	var hi, lo uint64
	if _, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil {
		t.Fatal(err)
	}
	return hi<<32 | lo
}
