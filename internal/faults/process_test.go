package faults

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// bracketed puts settings around DDL on one table.
const bracketed = `profile: postgres
unknown: allow
critical_tables: [changed]
rules:
  - name: ddl
    match: {classes: [define], tables: critical}
    ddl: {lock_timeout: 2s, statement_timeout: 1min}
`

// marks is what could be left behind of what lockkeeper sets: settings of
// roles and databases, and of a new session.
const marks = `select (select count(*) from pg_db_role_setting) || ' settings of roles and databases, '
	|| (select string_agg(name || '=' || setting, ' ' order by name) from pg_settings
	    where name in ('lock_timeout', 'statement_timeout', 'default_transaction_read_only', 'transaction_read_only'))`

// lockkeeper is killed while it has transactions open, DDL with settings of its
// own around it, prepared statements, and read-only in force.
func TestLockkeeperIsKilled(t *testing.T) {
	g := start(t, setup{policy: bracketed})
	g.pg.MustExec(t, g.db, "create table load(a int)")
	before := g.pg.Value(t, g.db, marks)
	stop := make(chan struct{})
	var load sync.WaitGroup
	busy := make(chan struct{}, 8)
	for range cap(busy) {
		load.Go(func() { loadUntil(g, stop, busy) })
	}
	for range cap(busy) {
		<-busy
	}
	holder := g.victim()
	ddl := g.login(g.front.Addr(), g.db, "victim")
	ddl.ok("begin")
	ddl.query("alter table changed add column b int")
	settle(t, "the DDL waits in its bracket", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_locks where not granted and relation = 'changed'::regclass") == "1"
	})
	g.kill()
	close(stop)
	saw := "with a transaction open: " + holder.fate() + "; in DDL: " + ddl.fate()
	load.Wait()
	left := g.left()
	if after := g.pg.Value(t, g.db, marks); after != before {
		t.Errorf("the server had %s, and has %s", before, after)
	}
	g.run()
	g.bystander = g.login(g.addr, "beside", "bystander")
	g.fill(row{
		fault:  "lockkeeper killed (kill -9) under load: transactions open, prepared statements, DDL that waits with settings of lockkeeper's around it",
		client: saw, server: left + "; no setting", recovery: strings.Replace(g.recovers(), "yes", "yes, once it is started again", 1),
	})
}

// loadUntil runs transactions until it is told to stop or cannot go on.
func loadUntil(g *guard, stop <-chan struct{}, busy chan<- struct{}) {
	c, refused := try(g.t, g.front.Addr(), g.db, "load")
	if c == nil {
		g.t.Errorf("login: %s", refused)
		return
	}
	c.send(&pgproto3.Parse{Name: "s", Query: "insert into load values ($1)"}, &pgproto3.Sync{})
	c.until('Z')
	for i := 0; ; i++ {
		c.query("begin")
		c.until('Z')
		c.send(&pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte(fmt.Sprint(i))}}, &pgproto3.Execute{}, &pgproto3.Sync{})
		c.until('Z')
		if i == 3 {
			busy <- struct{}{}
		}
		c.query("select pg_sleep(0.002); commit")
		if _, end := c.until('Z'); end != "" {
			return
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// Read-only is in force for whoever comes after a kill, and the server knows
// nothing of it.
func TestLockkeeperIsKilledWhileReadOnly(t *testing.T) {
	g := start(t, setup{})
	before := g.pg.Value(t, g.db, marks)
	reader := g.login(g.front.Addr(), g.db, "victim")
	if out, err := g.command("mode", "read-only", "--reason", "incident", "--in-flight", "refuse-commit"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	reader.ok("begin")
	reader.ok("select count(*) from changed")
	idle := g.login(g.front.Addr(), g.db, "victim")
	g.kill()
	saw := "in a transaction: " + reader.fate() + "; idle: " + idle.fate()
	left := g.left()
	if after := g.pg.Value(t, g.db, marks); after != before {
		t.Errorf("the server had %s, and has %s", before, after)
	}
	g.pg.MustExec(t, g.db, "insert into changed values (1); delete from changed")
	g.run()
	c := g.login(g.front.Addr(), g.db, "victim")
	c.query("insert into changed values (1)")
	told, end := c.until('Z')
	if got := seen(told, end); got != "25006" {
		t.Errorf("a write after the start: %s, want 25006", got)
	}
	c.bye()
	if out, err := g.command("mode", "normal", "--reason", "over"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.bystander = g.login(g.addr, "beside", "bystander")
	g.fill(row{
		fault: "lockkeeper killed (kill -9) while read-only is in force", client: saw, server: left + "; no setting, writes past lockkeeper work",
		recovery: strings.Replace(g.recovers(), "yes", "yes, once it is started again, and is read-only then (a write gets 25006)", 1),
	})
}

// No file descriptor is left for another connection: those that there are go
// on, operators can still act, and clients get in again when others leave.
func TestFileDescriptorsAreUsedUp(t *testing.T) {
	g := start(t, setup{shell: "ulimit -n 100;"})
	var inside []*client
	refused := ""
	for range 100 {
		c, saw := try(t, g.front.Addr(), g.db, "victim")
		if c == nil {
			refused = saw
			break
		}
		inside = append(inside, c)
	}
	if refused != "53300, connection closed" {
		t.Errorf("after %d sessions the next one sees %q, want 53300", len(inside), refused)
	}
	var silent []*client
	for range 200 {
		silent = append(silent, raw(t, g.front.Addr()))
	}
	g.undisturbed()
	for i, c := range inside {
		if got := c.ok(fmt.Sprintf("select %d", i)); got != fmt.Sprint(i) {
			t.Errorf("session %d gets %q", i, got)
		}
	}
	if out, err := g.command("mode", "read-only", "--reason", "incident"); err != nil {
		t.Errorf("an operator cannot act: %v: %s", err, out)
	}
	if out, err := g.command("mode", "normal", "--reason", "over"); err != nil {
		t.Errorf("an operator cannot act: %v: %s", err, out)
	}
	if n := strings.Count(g.log(), "accept failed"); n > 0 {
		t.Errorf("accept failed %d times", n)
	}
	inside[0].bye()
	settle(t, "one may come when one has left", func() bool {
		c, _ := try(t, g.addr, g.db, "next")
		if c != nil {
			c.bye()
		}
		return c != nil
	})
	for _, c := range append(inside, silent...) {
		c.bye()
	}
	g.fill(row{
		fault:  fmt.Sprintf("file descriptors used up (RLIMIT_NOFILE 100: %d sessions, then 200 clients that say nothing)", len(inside)+1),
		client: "the next session: " + refused, server: g.left(),
		recovery: g.recovers() + "; `lockkeeper mode` worked meanwhile",
	})
}

// The disk of the journal is full: sessions go on, and what is missing is
// recorded when there is room again.
func TestTheJournalsDiskIsFull(t *testing.T) {
	g := start(t, setup{
		mounts: true, shell: "mkdir -p state && mount -t tmpfs -o size=4m none state &&",
		config: "journal: {queue_entries: 16, reserved_entries: 8}",
	})
	g.pg.MustExec(t, g.db, "create table load(a int)")
	c := g.login(g.front.Addr(), g.db, "victim")
	c.ok("insert into load values (1)")
	ballast, err := os.Create(g.state("ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for piece := make([]byte, 4096); err == nil; {
		_, err = ballast.Write(piece)
	}
	ballast.Close()
	n := 1
	settle(t, "entries are dropped", func() bool {
		for range 50 {
			c.ok("insert into load values (1)")
			n++
		}
		return g.metric("lockkeeper_journal_dropped_total") > 0
	})
	if got := c.ok("select count(*) from load"); got != fmt.Sprint(n) {
		t.Errorf("%s rows of %d", got, n)
	}
	if !strings.Contains(g.log(), "journal cannot be written, statements go on") {
		t.Error("the log does not say that the journal cannot be written")
	}
	out, err := g.command("mode", "read-only", "--reason", "incident")
	if err == nil || !strings.Contains(out, "holds") || !strings.Contains(out, "not on disk") || !strings.Contains(out, "no space left") {
		t.Errorf("a command whose state cannot be written: %v: %s", err, out)
	}
	c.query("insert into load values (1)")
	if told, _ := c.until('Z'); len(told) != 1 || told[0] != "25006" {
		t.Errorf("a write in read-only: %q", told)
	}
	if out, err := g.command("mode", "normal", "--reason", "over"); err == nil || !strings.Contains(out, "not on disk") {
		t.Errorf("a command whose state cannot be written: %v: %s", err, out)
	}
	if out, err := g.command("status"); err != nil || !strings.Contains(out, "journal   cannot be written") {
		t.Errorf("status while the disk is full: %v:\n%s", err, out)
	}
	c.ok("insert into load values (1)")
	if err := os.Remove(g.state("ballast")); err != nil {
		t.Fatal(err)
	}
	settle(t, "the gap is recorded", func() bool {
		out, err := g.command("journal", "--json", "--since", "1h")
		return err == nil && strings.Contains(out, `"gap"`)
	})
	if out, err := g.command("status"); err != nil || strings.Contains(out, "cannot be written") {
		t.Errorf("status with room again: %v:\n%s", err, out)
	}
	if out, err := g.command("mode", "read-only", "--reason", "incident"); err != nil {
		t.Errorf("with room again: %v: %s", err, out)
	}
	if out, err := g.command("mode", "normal", "--reason", "over"); err != nil {
		t.Errorf("with room again: %v: %s", err, out)
	}
	c.bye()
	g.fill(row{
		fault: "disk full under the journal and the state", client: "every answer", server: g.left(),
		recovery: g.recovers() + "; the gap is in the journal; meanwhile `lockkeeper status` said so, and `lockkeeper mode read-only` was in force and said that a restart would undo it",
	})
}
