package proxy_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lockkeeper/internal/pgtest"
)

// Replication of every kind passes untouched, and its sessions are tagged.
// One server for all: starting one takes longer than the tests.
func TestReplicationPassesUntouched(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Setting("wal_level", "logical"), pgtest.Setting("wal_keep_size", "1GB"))
	g := newGuard(t, func(s *setup) { s.pg = pg })
	t.Run("pg_receivewal", func(t *testing.T) { receiveWAL(t, g) })
	t.Run("pg_recvlogical", func(t *testing.T) { receiveLogical(t, g) })
	t.Run("a subscription", func(t *testing.T) { subscribe(t, g) })
	t.Run("CopyBoth and its ends", func(t *testing.T) { copyBoth(t, g) })
}

// tagsOf returns the tags of the only session that logged in as application.
func (g *guard) tagsOf(application string) []string {
	g.t.Helper()
	var tags []string
	for _, s := range g.srv.Sessions() {
		if s.Application == application {
			tags = append(tags, s.Tags...)
		}
	}
	return tags
}

// The WAL that pg_receivewal writes through the guard is the server's own.
func receiveWAL(t *testing.T, g *guard) {
	t.Helper()
	dir := t.TempDir()
	start := g.pg.Value(t, g.db, "select pg_current_wal_insert_lsn()")
	cmd := program(t, g, g.addr, "pg_receivewal", "-D", dir, "--no-loop", "--endpos", g.pg.Value(t, g.db, "select '"+start+"'::pg_lsn + 48 * 1024 * 1024"))
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	settle(t, "the WAL streams", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_replication where application_name = 'pg_receivewal' and state = 'streaming'") == "1"
	})
	if tags := g.tagsOf("pg_receivewal"); !slices.Contains(tags, "replication") {
		t.Errorf("its tags are %q", tags)
	}
	for g.pg.Value(t, g.db, "select pg_current_wal_insert_lsn() - '"+start+"'::pg_lsn > 48 * 1024 * 1024") != "t" {
		g.pg.MustExec(t, g.db, "select pg_switch_wal(); create temp table w as select 1")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	segments, err := filepath.Glob(filepath.Join(dir, "????????????????????????")) // whole ones
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %q, %v", segments, err)
	}
	for _, file := range segments {
		got, err1 := os.ReadFile(file)
		want, err2 := os.ReadFile(filepath.Join(g.pg.DataDir(), "pg_wal", filepath.Base(file)))
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v, %v", filepath.Base(file), len(got), len(want), err1, err2)
		}
	}
}

// Changes decoded by test_decoding are the same directly and through the guard.
func receiveLogical(t *testing.T, g *guard) {
	t.Helper()
	g.pg.MustExec(t, g.db, "create table decoded (id int primary key, t text)")
	for slot, addr := range map[string]string{"direct": g.pg.Addr(), "through": g.addr} {
		output(t, program(t, g, addr, "pg_recvlogical", "-d", g.db, "--create-slot", "--slot", slot, "--plugin", "test_decoding"))
	}
	g.pg.MustExec(t, g.db, "insert into decoded select n, repeat('x', 10000) from generate_series(1, 200) n; delete from decoded where id < 50")
	end := g.pg.Value(t, g.db, "select pg_current_wal_insert_lsn()")
	received := func(slot, addr string) string {
		return output(t, program(t, g, addr, "pg_recvlogical", "-d", g.db, "--start", "--slot", slot, "--endpos", end, "--no-loop", "-f", "-"))
	}
	direct, through := received("direct", g.pg.Addr()), received("through", g.addr)
	if direct != through || !strings.Contains(direct, "DELETE: id[integer]:49") {
		t.Errorf("%d bytes directly, %d through the guard: %s", len(direct), len(through), firstDifference(direct, through))
	}
}

// A subscription of another PostgreSQL connects through the guard, copies the
// table and follows it; pgoutput, CopyBoth and SQL on one connection.
func subscribe(t *testing.T, g *guard) {
	t.Helper()
	subscriber := pgtest.Shared(t)
	db := subscriber.NewDatabase(t)
	g.pg.MustExec(t, g.db, "create table followed (id int primary key, t text); insert into followed select n, 'x' from generate_series(1, 500) n; create publication p for table followed")
	subscriber.MustExec(t, db, "create table followed (id int primary key, t text)")
	subscriber.MustExec(t, db, fmt.Sprintf("create subscription s connection '%s' publication p", g.url("application_name=follower")))
	defer subscriber.MustExec(t, db, "drop subscription s")
	sum := "select count(*) || ' ' || sum(id) || ' ' || min(t) from followed"
	same := func() bool { return subscriber.Value(t, db, sum) == g.pg.Value(t, g.db, sum) }
	settle(t, "the table is copied", func() bool { return subscriber.Value(t, db, "select count(*) from followed") == "500" })
	g.pg.MustExec(t, g.db, "update followed set t = repeat('y', 20000); delete from followed where id % 3 = 0; insert into followed values (1000, 'z')")
	settle(t, "the changes arrive", same)
	settle(t, "one walsender follows", func() bool { return slices.Equal(g.tagsOf("follower"), []string{"replication"}) })
}

// Copying the cluster makes a session one of the backups, whatever it is called.
func TestABaseBackupIsTagged(t *testing.T) {
	g := newGuard(t)
	c := dialRaw(t, g.addr)
	c.startup("user", pgtest.Superuser, "replication", "true", "application_name", "unknown tool")
	c.flush()
	c.until('Z', 1)
	if tags := g.tagsOf("unknown tool"); !slices.Equal(tags, []string{"replication"}) {
		t.Errorf("before: %q", tags)
	}
	backup := "BASE_BACKUP (CHECKPOINT 'fast')"
	if g.pg.Major(t) < 15 {
		backup = "BASE_BACKUP FAST"
	}
	c.query(backup)
	c.flush()
	c.until('H', 1)
	if tags := g.tagsOf("unknown tool"); !slices.Equal(tags, []string{"backup", "replication"}) {
		t.Errorf("while it runs: %q", tags)
	}
}

// CopyBoth is ended by either side, and the connection goes on; an error in it
// drops what the client has sent behind it.
func copyBoth(t *testing.T, g *guard) {
	t.Helper()
	at := g.pg.Value(t, g.db, "select pg_current_wal_lsn()")
	status := string(append([]byte{'r'}, make([]byte, 33)...)) // a standby's: it has nothing, no reply wanted
	run := func(addr string) string {
		c := dialRaw(t, addr)
		c.startup("user", pgtest.Superuser, "replication", "true")
		c.flush()
		c.until('Z', 1)
		said := ""
		exchange := func(begin string, end byte, send func()) {
			c.query(begin)
			c.flush()
			for _, m := range c.until(end, 1) {
				said += show(m) + "\n"
			}
			send()
			c.flush()
			for _, m := range c.until('Z', 1) {
				if m == nil || m.Type() != 'd' { // keepalives and WAL come as they come
					said += show(m) + "\n"
				}
			}
		}
		exchange("START_REPLICATION "+at, 'W', func() {
			c.send('d', status)
			c.send('c')
		})
		exchange("START_REPLICATION "+at, 'W', func() {
			c.send('d', status)
			c.flush()
			c.cancel(addr)
			c.send('d', status)
		})
		return said + types(c.exec("IDENTIFY_SYSTEM"))
	}
	direct, through := run(g.pg.Addr()), run(g.addr)
	if direct != through || !strings.Contains(direct, "CopyBothResponse") {
		t.Errorf("direct\n%s\nthrough\n%s", direct, through)
	}
}

// What is no command of the walsender's own is SQL, and is decided as such.
func TestSQLOnAReplicationConnectionIsInspected(t *testing.T) {
	g := newGuard(t)
	before := g.rowsLeft()
	p := g.peer("replication", "database")
	if got := p.run("Q IDENTIFY_SYSTEM ; Q " + unbounded + " ; Q begin ; Q " + unbounded + " ; Q commit"); !strings.HasSuffix(got, "Z I, E 23G01, Z I, C BEGIN, Z T, E 23G01, Z E, C ROLLBACK, Z I") {
		t.Error(got)
	}
	p.ok("discard all")
	if all := g.srv.Sessions(); len(all) != 1 || !slices.Equal(all[0].Tags, []string{"replication"}) {
		t.Errorf("%+v", all)
	}
	if after := g.rowsLeft(); after != before {
		t.Errorf("%s rows before, %s after", before, after)
	}
}
