package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
)

// flipsVariable says how often read-only is switched on under load; "make
// flips N=1000" sets it.
const flipsVariable = "LOCKKEEPER_FLIPS"

// writersOfFlips is how many sessions write meanwhile.
const writersOfFlips = 32

// flipsSchema is what the writers write to.
const flipsSchema = `create table flip(id bigserial primary key, kind text, v int default 0);
create table login(id bigserial primary key, v text);
create table counter(id int primary key, v int default 0);
insert into counter select g from generate_series(0, 63) g;
create function write_slowly(seconds float8) returns int language plpgsql as
	$$begin insert into public.flip(kind) values ('before'); perform pg_sleep(seconds); insert into public.flip(kind) values ('slow'); return 1; end$$;
create function write_now() returns int language plpgsql as $$begin insert into public.flip(kind) values ('function'); return 1; end$$;
create procedure write_and_commit(n int) language plpgsql as
	$$begin for i in 1..n loop insert into public.flip(kind) values ('call'); commit; perform pg_sleep(0.005); end loop; end$$`

// TestNothingIsCommittedBehindAnyFlip switches read-only on, again and again,
// under writers of every kind, and each time looks for what was committed behind
// the position that was printed: in the tables themselves, in the commit
// timestamps of their rows, and in the WAL where it can be read. Every second
// time a table may be written, and is: then nothing else was.
func TestNothingIsCommittedBehindAnyFlip(t *testing.T) {
	f := startFlips(t)
	flips := 3 // one of each treatment of transactions in flight
	if n, err := strconv.Atoi(os.Getenv(flipsVariable)); err == nil {
		flips = n
	}
	for i := range flips {
		f.flip(i)
		if t.Failed() {
			t.Logf("that was flip %d", i)
			break
		}
	}
	f.stop()
	t.Logf("PostgreSQL %d: %d flips with %s; %s; %s", f.pg.Major(t), flips, f.modes(), f.sum.String(), f.inTheWAL())
	if f.wal && f.sum.modified == 0 {
		t.Error("no change of a user relation was found in the WAL: it shows nothing")
	}
	for k, n := range f.writers.committed() {
		t.Logf("%6d times written by %s", n, k)
		if n == 0 && flips >= 9 {
			t.Errorf("nothing was ever written by %s: it shows nothing", k)
		}
	}
}

// flips is a lockkeeper, its server, and what writes through it.
type flips struct {
	*guard
	writers *writers
	oid     uint32 // of write_now
	read    string // up to where the WAL was read
	changed map[string]bool
	logins  map[string]bool // transactions that changed the table that may be written
	let     []string        // its filenodes, with those of its index and sequence
	wal     bool            // it can be read
	sum     tally
}

// tally is what the flips came to.
type tally struct {
	flips                        map[string]int
	kills, waited, cancelled     int
	terminated, behind, modified int
	logins                       int
}

func (s *tally) String() string {
	return fmt.Sprintf("lockkeeper was killed %d times; %d sessions were waited for, %d statements cancelled, %d server processes terminated",
		s.kills, s.waited, s.cancelled, s.terminated)
}

// inTheWAL says what the WAL was found to hold. Before PostgreSQL 15 no query
// reads it: rows and their commit timestamps have to do.
func (f *flips) inTheWAL() string {
	if !f.wal {
		return "the WAL was not read, for there is no pg_walinspect"
	}
	return fmt.Sprintf("in the WAL %d transactions with changes to user relations, and %d commits behind a position, none of such a transaction, %d of one that changed what may be written",
		f.sum.modified, f.sum.behind, f.sum.logins)
}

func (f *flips) modes() string {
	var parts []string
	for _, m := range []string{"finish", "drain", "refuse-commit"} {
		parts = append(parts, fmt.Sprintf("%d %s", f.sum.flips[m], m))
	}
	return strings.Join(parts, ", ")
}

func startFlips(t *testing.T) *flips {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	pg := pgtest.Start(t, pgtest.Setting("autovacuum", "off"), pgtest.Setting("max_connections", "120"),
		pgtest.Setting("max_prepared_transactions", "40"), pgtest.Setting("track_commit_timestamp", "on"))
	g := &guard{t: t, pg: pg, db: pg.NewDatabase(t), dir: t.TempDir(), addr: freeAddress(t), admin: freeAddress(t)}
	pg.MustExec(t, g.db, flipsSchema)
	config := fmt.Sprintf("listen: {tcp: [\"%s\"]}\nserver:\n  \"*\": {host: 127.0.0.1, port: %d, sslmode: disable, control: \"%s\"}\nadmin: {listen: \"%s\", state: state}\npolicy: policy.yaml\n",
		g.addr, pg.Port(), pg.ConnString("postgres"), g.admin)
	for name, content := range map[string]string{"lockkeeper.yaml": config, "policy.yaml": allowAll} {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { g.kill(); g.look() })
	g.run()
	f := &flips{guard: g, changed: map[string]bool{}, logins: map[string]bool{}, sum: tally{flips: map[string]int{}}}
	oid, err := strconv.ParseUint(pg.Value(t, g.db, "select 'write_now'::regproc::oid"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	f.oid = uint32(oid)
	for _, row := range pg.MustQuery(t, g.db, `select pg_relation_filenode(c) from unnest('{login,login_pkey,login_id_seq}'::regclass[]) as c`) {
		f.let = append(f.let, row[0])
	}
	f.wal = pg.Value(t, "postgres", "select count(*) from pg_available_extensions where name = 'pg_walinspect'") == "1"
	if f.wal {
		pg.MustExec(t, "postgres", "create extension pg_walinspect")
	}
	f.read = f.position()
	f.writers = startWriters(f)
	t.Cleanup(f.stop)
	return f
}

func (f *flips) stop() { f.writers.end() }

// position returns where the WAL ends, everything before it being on disk.
func (f *flips) position() string {
	f.pg.MustExec(f.t, "postgres", "select pg_logical_emit_message(true, 'flips', 'flush')") // a commit that changes no relation
	return f.pg.Value(f.t, "postgres", "select pg_current_wal_flush_lsn()")
}

// state is what the tables hold.
func (f *flips) state() string {
	return f.pg.Value(f.t, f.db, "select (select count(*) || ' rows, last ' || coalesce(max(id), 0) from flip) || (select ', counted ' || sum(v) from counter)")
}

// barrier is what the command prints, as far as it is looked at.
type barrier struct {
	Began struct {
		Barrier struct {
			Holds   bool `json:"holds"`
			Servers []struct {
				LSN        string    `json:"lsn"`
				Time       time.Time `json:"time"`
				Waited     int       `json:"waited"`
				Cancelled  int       `json:"cancelled"`
				Terminated int       `json:"terminated"`
				Lacking    []string  `json:"lacking"`
			} `json:"servers"`
		} `json:"barrier"`
	} `json:"began"`
}

// flip switches read-only on and off once.
func (f *flips) flip(i int) {
	f.t.Helper()
	f.writers.waitUntil(f.t, "writes before the flip", f.writers.written, 1)
	mode := []string{"finish", "drain", "refuse-commit"}[i%3]
	if i%8 == 1 { // statements go on in the server, and a new lockkeeper has to find them
		f.kill()
		f.run()
		f.sum.kills++
	}
	args := []string{"mode", "read-only", "--json", "--reason", "flip " + strconv.Itoa(i), "--in-flight", mode}
	if mode == "drain" {
		args[len(args)-1] = "drain=50ms"
	}
	writable := i%2 == 0
	if writable {
		args = append(args, "--writable-table", "login")
	}
	out, err := f.command(args...)
	if err != nil {
		f.t.Fatalf("flip %d, %s: %v: %s", i, mode, err, out)
	}
	before := f.state()
	var b barrier
	answer := json.NewDecoder(strings.NewReader(out[max(0, strings.Index(out, "{")):])) // it says that it waits, too
	if err := answer.Decode(&b); err != nil || !b.Began.Barrier.Holds || len(b.Began.Barrier.Servers) != 1 {
		f.t.Fatalf("flip %d: %v: %s", i, err, out)
	}
	r := b.Began.Barrier.Servers[0]
	if r.LSN == "" || len(r.Lacking) > 0 {
		f.t.Errorf("flip %d: the report lacks %q: %s", i, r.Lacking, out)
	}
	f.sum.flips[mode]++
	f.sum.waited += r.Waited
	f.sum.cancelled += r.Cancelled
	f.sum.terminated += r.Terminated
	if i%8 == 6 { // it is read-only again before it accepts anybody
		f.kill()
		f.run()
		f.sum.kills++
	}
	f.writers.waitUntil(f.t, "attempts behind the flip", f.writers.tried, 2)
	lifted := f.position()
	f.unchanged(i, mode, before, r.LSN, lifted, r.Time, writable)
	if out, err := f.command("mode", "normal", "--reason", "over"); err != nil {
		f.t.Fatalf("flip %d: %v: %s", i, err, out)
	}
}

// unchanged asserts that nothing was committed since read-only held.
func (f *flips) unchanged(i int, mode, before, from, lifted string, since time.Time, writable bool) {
	f.t.Helper()
	what := fmt.Sprintf("flip %d, %s, from %s to %s", i, mode, from, lifted)
	if after := f.state(); after != before {
		f.t.Errorf("%s: the tables held %s, and hold %s", what, before, after)
	}
	late := fmt.Sprintf("pg_xact_commit_timestamp(xmin) > '%s'", since.UTC().Format("2006-01-02 15:04:05.999999Z"))
	for _, row := range f.pg.MustQuery(f.t, f.db, "select 'flip', xmin::text, kind from flip where "+late+" union all select 'counter', xmin::text, id::text from counter where "+late) {
		f.t.Errorf("%s: committed after %s: %v", what, since, row)
	}
	if f.wal {
		f.readWAL(what, from, lifted, writable)
	}
}

var (
	userRelation = regexp.MustCompile(`rel \d+/\d+/(\d+)`)
	subxacts     = regexp.MustCompile(`subxacts: ([\d ]+)`)
	twophase     = regexp.MustCompile(`^(\d+): `)
)

// readWAL reads the WAL up to where read-only was lifted, and looks at the
// commits behind its position. Source: manual, F.37 "pg_walinspect".
func (f *flips) readWAL(what, from, lifted string, writable bool) {
	f.t.Helper()
	records := " from pg_get_wal_records_info('" + f.read + "', '" + lifted + "') where "
	for _, row := range f.pg.MustQuery(f.t, "postgres", "select distinct xid::text, block_ref"+records+"xid::text <> '0' and block_ref ~ 'rel'") {
		for _, m := range userRelation.FindAllStringSubmatch(row[1], -1) {
			if slices.Contains(f.let, m[1]) {
				f.logins[row[0]] = true
			} else if n, _ := strconv.Atoi(m[1]); n >= 16384 && !f.changed[row[0]] {
				f.changed[row[0]] = true
				f.sum.modified++
			}
		}
	}
	for _, row := range f.pg.MustQuery(f.t, "postgres", "select xid::text, start_lsn::text, record_type || ' ' || description, description"+records+
		"resource_manager = 'Transaction' and record_type like 'COMMIT%' and start_lsn >= '"+from+"'") {
		f.sum.behind++
		xids := []string{row[0]}
		if m := subxacts.FindStringSubmatch(row[3]); m != nil {
			xids = append(xids, strings.Fields(m[1])...)
		}
		if m := twophase.FindStringSubmatch(row[3]); m != nil {
			xids = append(xids, m[1])
		}
		for _, x := range xids {
			if f.logins[x] && writable {
				f.sum.logins++
			}
			if f.changed[x] || f.logins[x] && !writable {
				f.t.Errorf("%s: transaction %s, which changed a user relation, commits at %s: %s", what, x, row[1], row[2])
			}
		}
	}
	f.read = lifted
}

// writers write through lockkeeper until they are ended.
type writers struct {
	f    *flips
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
	all  []*flipper
}

// flipper is one of them.
type flipper struct {
	f              *flips
	n              int
	kind           string
	attempts, done atomic.Int64
}

// session is one connection of a writer.
type session struct {
	w    *flipper
	conn net.Conn
	fe   *pgproto3.Frontend
}

// errRefused is an error of the server's, or of lockkeeper's.
var errRefused = errors.New("refused")

// kinds are the ways in which clients write. Each is tried on a session that may
// be used again where it returns no error but errRefused.
var kinds = []struct {
	name string
	try  func(*session) error
}{
	{"autocommit", func(s *session) error { return s.query("insert into flip(kind) values ('autocommit')") }},
	{"autocommit, extended", func(s *session) error { return s.run("insert into flip(kind) values ('extended')") }},
	{"several statements in a text", func(s *session) error {
		return s.query("select 1; insert into flip(kind) values ('several'); update counter set v = v + 1 where id = " + s.row())
	}},
	{"a block", func(s *session) error {
		return s.query("begin", "insert into flip(kind) values ('block')", "savepoint a", "update counter set v = v + 1 where id = "+s.row(), "release a", "commit")
	}},
	{"a block that goes on", func(s *session) error {
		return s.query("begin", "insert into flip(kind) values ('chain')", "commit and chain", "insert into flip(kind) values ('chained')", "commit")
	}},
	{"a login", func(s *session) error {
		return s.query("begin", "select 1", "insert into login(v) values ('login')", "savepoint a", "select 2", "insert into login(v) values ('login')", "release a", "commit")
	}},
	{"a login that does more", func(s *session) error {
		return s.query("begin", "insert into login(v) values ('more')", "select write_now()", "commit")
	}},
	{"BEGIN … READ WRITE", func(s *session) error {
		return s.query("begin isolation level repeatable read read write", "select write_now()", "commit")
	}},
	{"a slow function", func(s *session) error { return s.query("select write_slowly(0.1)") }},
	{"a slow function in a block", func(s *session) error { return s.query("begin", "select write_slowly(0.05)", "commit") }},
	{"a function by its number", func(s *session) error {
		return s.exchange(&pgproto3.FunctionCall{Function: s.w.f.oid})
	}},
	{"a pipelined transaction", func(s *session) error {
		return s.run("begin", "insert into flip(kind) values ('pipelined')", "commit", "insert into flip(kind) values ('behind it')")
	}},
	{"a pipeline that waits before its Sync", func(s *session) error {
		s.send(append(statement("insert into flip(kind) values ('unsynced')"), &pgproto3.Flush{})...)
		if err := s.until('C'); err != nil {
			return errors.Join(err, s.exchange(&pgproto3.Sync{}))
		}
		return s.exchange(&pgproto3.Sync{})
	}},
	{"COPY", func(s *session) error {
		s.send(&pgproto3.Query{String: "copy flip(kind) from stdin"})
		if err := s.until('G'); err != nil {
			return errors.Join(err, s.until('Z'))
		}
		s.send(&pgproto3.CopyData{Data: []byte("copy\n")})
		time.Sleep(time.Millisecond) // the data comes in parts
		return s.exchange(&pgproto3.CopyData{Data: []byte("copy\n")}, &pgproto3.CopyDone{})
	}},
	{"DO that commits", func(s *session) error {
		return s.query("do $$begin for i in 1..5 loop insert into flip(kind) values ('do'); commit; perform pg_sleep(0.005); end loop; end$$")
	}},
	{"CALL that commits", func(s *session) error { return s.query("call write_and_commit(5)") }},
	{"CALL that commits, extended", func(s *session) error { return s.run("call write_and_commit(5)") }},
	{"a prepared transaction", func(s *session) error {
		name := "'flip" + strconv.Itoa(s.w.n) + "'"
		_ = s.query("rollback prepared " + name) // of an earlier attempt
		return s.query("begin", "insert into flip(kind) values ('two-phase')", "prepare transaction "+name, "commit prepared "+name)
	}},
	{"a prepared statement", func(s *session) error {
		_ = s.query("prepare w as insert into flip(kind) values ('prepared')") // it is there from before
		return s.query("execute w")
	}},
	{"a cursor WITH HOLD that COMMIT runs", func(s *session) error {
		return s.query("begin", "declare c cursor with hold for select write_now() from generate_series(1, 3)", "commit", "close c")
	}},
	{"a slow statement, reset", func(s *session) error {
		s.send(&pgproto3.Query{String: "select write_slowly(0.2)"})
		return s.reset()
	}},
	{"a pipelined COMMIT, reset", func(s *session) error {
		s.send(append(slices.Concat(statement("begin"), statement("select write_slowly(0.02)"), statement("commit")), &pgproto3.Sync{})...)
		return s.reset()
	}},
	{"COPY, reset", func(s *session) error {
		s.send(&pgproto3.Query{String: "copy flip(kind) from stdin"}, &pgproto3.CopyData{Data: []byte("lost\n")}, &pgproto3.CopyDone{})
		return s.reset()
	}},
	{"DO that commits, closed", func(s *session) error {
		s.send(&pgproto3.Query{String: "do $$begin for i in 1..20 loop insert into flip(kind) values ('lost'); commit; perform pg_sleep(0.005); end loop; end$$"}, &pgproto3.Terminate{})
		_ = s.conn.Close()
		return net.ErrClosed
	}},
}

func startWriters(f *flips) *writers {
	w := &writers{f: f, quit: make(chan struct{})}
	for i := range writersOfFlips {
		k := kinds[i%len(kinds)]
		one := &flipper{f: f, n: i, kind: k.name}
		w.all = append(w.all, one)
		w.wg.Go(func() { one.write(w.quit, k.try) })
	}
	return w
}

func (w *writers) end() {
	w.once.Do(func() { close(w.quit) })
	w.wg.Wait()
}

// waitUntil waits until a count of each writer has grown by so many.
func (w *writers) waitUntil(t *testing.T, what string, count func(*flipper) int64, more int64) {
	t.Helper()
	want := make([]int64, len(w.all))
	for i, one := range w.all {
		want[i] = count(one) + more
	}
	settle(t, what, func() bool {
		for i, one := range w.all {
			if count(one) < want[i] {
				return false
			}
		}
		return true
	})
}

// written counts what a writer has written, tried what it has tried to. Of one
// that does not wait for an answer nobody knows: it counts as both.
func (*writers) written(w *flipper) int64 { return w.done.Load() }
func (*writers) tried(w *flipper) int64   { return w.attempts.Load() }

func (w *writers) committed() map[string]int64 {
	out := map[string]int64{}
	for _, one := range w.all {
		out[one.kind] += one.done.Load()
	}
	return out
}

func (w *flipper) write(quit <-chan struct{}, try func(*session) error) {
	for {
		s := w.connect()
		for s != nil {
			err := try(s)
			w.attempts.Add(1)
			if err == nil || errors.Is(err, net.ErrClosed) && !errors.Is(err, errRefused) {
				w.done.Add(1)
			}
			if err != nil && s.query("rollback") != nil {
				_ = s.conn.Close()
				s = nil
			}
			select {
			case <-quit:
				if s != nil {
					_ = s.conn.Close()
				}
				return
			case <-time.After(5 * time.Millisecond): // leave lockkeeper and the server some of the machine
			}
		}
		select {
		case <-quit:
			return
		case <-time.After(time.Millisecond): // lockkeeper is being started again
		}
	}
}

// connect logs in; nil when lockkeeper does not answer.
func (w *flipper) connect() *session {
	conn, err := net.DialTimeout("tcp", w.f.addr, patience)
	if err != nil {
		return nil
	}
	s := &session{w: w, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
	s.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{
		"user": pgtest.Superuser, "database": w.f.db, "application_name": w.kind,
	}})
	if s.until('Z') != nil {
		_ = conn.Close()
		return nil
	}
	return s
}

func (s *session) row() string { return strconv.Itoa(s.w.n) }

func (s *session) send(messages ...pgproto3.FrontendMessage) {
	for _, m := range messages {
		s.fe.Send(m)
	}
	_ = s.fe.Flush() // the reader finds out
}

// until reads up to a message of a type, or to the first error.
func (s *session) until(last byte) error {
	var failed error
	_ = s.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		m, err := s.fe.Receive()
		if err != nil {
			return errors.Join(net.ErrClosed, errRefused, err)
		}
		kind := byte(0)
		switch m.(type) {
		case *pgproto3.ReadyForQuery:
			kind = 'Z'
		case *pgproto3.CommandComplete:
			kind = 'C'
		case *pgproto3.CopyInResponse:
			kind = 'G'
		case *pgproto3.ErrorResponse:
			failed = errRefused
		}
		if kind == last || failed != nil && last != 'Z' {
			return failed
		}
	}
}

func (s *session) exchange(messages ...pgproto3.FrontendMessage) error {
	s.send(messages...)
	return s.until('Z')
}

// query sends texts one by one, up to the first that fails.
func (s *session) query(texts ...string) error {
	for _, sql := range texts {
		if err := s.exchange(&pgproto3.Query{String: sql}); err != nil {
			return err
		}
	}
	return nil
}

func statement(sql string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}}
}

// run sends statements in one pipeline.
func (s *session) run(texts ...string) error {
	var all []pgproto3.FrontendMessage
	for _, sql := range texts {
		all = append(all, statement(sql)...)
	}
	return s.exchange(append(all, &pgproto3.Sync{})...)
}

// reset ends the connection, at some moment, without a word.
func (s *session) reset() error {
	time.Sleep(time.Duration(s.w.attempts.Load()%7) * 3 * time.Millisecond)
	_ = s.conn.(*net.TCPConn).SetLinger(0)
	_ = s.conn.Close()
	return net.ErrClosed
}
