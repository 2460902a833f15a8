package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/admin/takeover"
	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// site is a state folder, and what takes turns in it.
type site struct {
	t        *testing.T
	pg       *pgtest.Server
	dir      string
	db       string
	port     int
	admin    string
	socket   string
	config   string
	policy   string
	programs int
}

const siteConfig = `listen:
  tcp: ["127.0.0.1:%[1]d"]
  unix: ["%[2]s"]
tls: {sslmode: allow, cert: %[3]s, key: %[4]s}
server:
  "*": {host: %[5]s, port: %[6]d, sslmode: disable, control: %[7]s}
admin: {listen: "127.0.0.1:%[8]d", state: state}
limits: {takeover_wait: 1h, shutdown_timeout: 1h}
policy: policy.yaml
`

// newSite prepares a state folder; change may change the configuration.
func newSite(t *testing.T, change ...func(config string) string) *site {
	t.Helper()
	pg := pgtest.Shared(t)
	s := &site{t: t, pg: pg, dir: t.TempDir(), db: pg.NewDatabase(t), port: freePort(t)}
	pg.MustExec(t, s.db, `CREATE TABLE sale_order (id int PRIMARY KEY, note text); INSERT INTO sale_order SELECT g, 'old' FROM generate_series(1, 10) g`)
	certs, err := pgtest.WriteCertificates(s.dir, pgtest.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	s.socket = filepath.Join(s.dir, fmt.Sprintf(".s.PGSQL.%d", s.port))
	adminPort := freePort(t)
	s.admin = fmt.Sprintf("http://127.0.0.1:%d", adminPort)
	s.config = fmt.Sprintf(siteConfig, s.port, s.socket, certs.ServerCert, certs.ServerKey, pg.Host(), pg.Port(), pg.ConnString("postgres"), adminPort)
	for _, f := range change {
		s.config = f(s.config)
	}
	s.policy = testPolicy
	s.write("policy.yaml", s.policy)
	return s
}

func (s *site) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// program is one lockkeeper.
type program struct {
	s     *site
	cmd   *exec.Cmd
	log   string
	notes *net.UnixConn
	done  chan struct{}
	err   error // once done is closed
}

// start runs lockkeeper with a configuration of its own.
func (s *site) start(args ...string) *program {
	s.t.Helper()
	s.programs++
	name := fmt.Sprint(s.programs)
	p := &program{s: s, log: filepath.Join(s.dir, name+".log"), done: make(chan struct{})}
	var err error
	if p.notes, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.dir, name+".n"), Net: "unixgram"}); err != nil {
		s.t.Fatal(err)
	}
	log, err := os.Create(p.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	exe, err := exec.LookPath("lockkeeper")
	if err != nil {
		s.t.Fatal(err)
	}
	p.cmd = exec.Command(exe, append([]string{"serve", "-c", s.write(name+".yaml", s.config), "--log-format", "text"}, args...)...)
	p.cmd.Dir, p.cmd.Stderr = s.dir, log
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+p.notes.LocalAddr().String())
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		p.notes.Close()
		if s.t.Failed() {
			said := p.said()
			s.t.Logf("lockkeeper %s:\n%s", name, said[max(0, len(said)-2000):])
		}
	})
	return p
}

// serve runs lockkeeper and waits until it is ready.
func (s *site) serve(args ...string) *program {
	s.t.Helper()
	p := s.start(args...)
	if said := p.told(); said != "READY=1" {
		s.t.Fatalf("lockkeeper says %q", said)
	}
	return p
}

// told returns what lockkeeper tells systemd next.
func (p *program) told() string {
	p.s.t.Helper()
	p.notes.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 200)
	n, err := p.notes.Read(b)
	if err != nil {
		p.s.t.Fatal(err)
	}
	return string(b[:n])
}

// patience bounds every wait.
const patience = 60 * time.Second

func (p *program) said() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.s.t.Fatal(err)
	}
	return string(log)
}

func (p *program) signal(sig os.Signal) {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.s.t.Fatal(err)
	}
}

// ends waits until the program has ended, and returns how.
func (p *program) ends() error {
	p.s.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.s.t.Fatal("lockkeeper does not end")
		return nil
	}
}

// refused starts a lockkeeper that must not serve, and returns why.
func (s *site) refused(args ...string) string {
	s.t.Helper()
	p := s.start(args...)
	if err := p.ends(); err == nil {
		s.t.Fatal("it ended as if all were well")
	}
	return p.said()
}

func (s *site) conninfo(more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable %s", s.port, pgtest.Superuser, s.db, more)
}

func (s *site) connect() *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(s.t.Context(), s.conninfo(""))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (s *site) exec(c *pgx.Conn, sql string) {
	s.t.Helper()
	if _, err := c.Exec(s.t.Context(), sql); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// fails runs SQL that must fail with the SQLSTATE.
func (s *site) fails(c *pgx.Conn, sql, sqlstate string) {
	s.t.Helper()
	_, err := c.Exec(s.t.Context(), sql)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != sqlstate {
		s.t.Errorf("%s: %v, want %s", sql, err, sqlstate)
	}
}

// run runs a command of lockkeeper's.
func (s *site) run(args ...string) (string, error) {
	cmd := exec.Command("lockkeeper", append([]string{"--admin", s.admin, "--token-file", filepath.Join(s.dir, "state", localTokenFile)}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *site) must(args ...string) string {
	s.t.Helper()
	out, err := s.run(args...)
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (s *site) sessions() []proxy.SessionInfo {
	s.t.Helper()
	var list struct{ Sessions []proxy.SessionInfo }
	out := s.must("sessions", "--json")
	if err := json.Unmarshal([]byte(out), &list.Sessions); err != nil {
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			s.t.Fatalf("%v\n%s", err, out)
		}
	}
	return list.Sessions
}

// session returns a client's session.
func (s *site) session(c *pgx.Conn) proxy.SessionInfo {
	s.t.Helper()
	all := s.sessions()
	i := slices.IndexFunc(all, func(x proxy.SessionInfo) bool { return x.ServerPID == c.PgConn().PID() })
	if i < 0 {
		s.t.Fatalf("no session has server process %d: %+v", c.PgConn().PID(), all)
	}
	return all[i]
}

func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

// TestTakeoverRefusesNobody has clients connect and leave, and ask the admin
// interface, while one lockkeeper after the other takes over. Nobody may fail:
// clients are not even disconnected, for sessions may stay.
func TestTakeoverRefusesNobody(t *testing.T) {
	s := newSite(t)
	running := s.serve()
	end := make(chan struct{})
	var served, asked atomic.Int64
	var wait sync.WaitGroup
	loop := func(f func() error) {
		wait.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	client := func(conninfo string) func() error {
		return func() error {
			c, err := pgx.Connect(t.Context(), conninfo)
			if err != nil {
				return err
			}
			var one int
			if err := c.QueryRow(t.Context(), "select 1").Scan(&one); err != nil {
				return err
			}
			served.Add(1)
			return c.Close(t.Context())
		}
	}
	encrypted := strings.Replace(s.conninfo(""), "sslmode=disable", "sslmode=require", 1)
	unix := strings.Replace(s.conninfo(""), "host=127.0.0.1", "host="+s.dir, 1)
	for _, conninfo := range []string{s.conninfo(""), s.conninfo(""), s.conninfo(""), s.conninfo(""), encrypted, encrypted, unix, unix} {
		loop(client(conninfo))
	}
	operator := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	loop(func() error {
		r, err := operator.Get(s.admin + "/readyz")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if body, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %d %s", r.StatusCode, body)
		}
		asked.Add(1)
		time.Sleep(2 * time.Millisecond) // the load is the clients'
		return nil
	})
	lock, err := os.Open(filepath.Join(s.dir, "state", lockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	loop(func() error {
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return errors.New("the state folder had no owner")
		}
		time.Sleep(time.Millisecond) // or else it has the processor for itself
		return nil
	})
	for range 4 {
		next := s.serve("--takeover")
		before := served.Load()
		if err := running.ends(); err != nil {
			t.Errorf("the process that was taken over from ended with %v", err)
		}
		s.eventually("the next serves", func() bool { return served.Load() > before+20 })
		running = next
	}
	close(end)
	wait.Wait()
	t.Logf("%d clients served, %d answers to operators", served.Load(), asked.Load())
	if served.Load() == 0 || asked.Load() == 0 {
		t.Error("nobody was served")
	}
	if said := s.refused(); !strings.Contains(said, "--takeover") {
		t.Errorf("a third lockkeeper said %s", said)
	}
	running.signal(syscall.SIGTERM)
	if err := running.ends(); err != nil {
		t.Error(err)
	}
	for _, left := range []string{s.socket, filepath.Join(s.dir, "state", "takeover")} {
		if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
}

func TestSessionsStayAfterATakeover(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	open, idle := s.connect(), s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	s.serve("--takeover")
	if said := old.told(); said != "STOPPING=1\nEXTEND_TIMEOUT_USEC=7205000000" {
		t.Errorf("the old one tells systemd %q", said)
	}
	after := s.connect()
	if x := s.session(open); !x.Draining || x.State != "idle in transaction" {
		t.Errorf("the open session is %+v", x)
	}
	if x, y := s.session(after), s.session(open); x.Draining || x.ID <= y.ID {
		t.Errorf("the new session is %+v", x)
	}
	s.exec(open, "commit")
	s.exec(idle, "update sale_order set note = 'idle' where id = 2")
	s.exec(after, "update sale_order set note = 'after' where id = 3")
	if notes := s.pg.Value(t, s.db, "select string_agg(note, ' ' order by id) from sale_order where id < 4"); notes != "open idle after" {
		t.Errorf("committed: %s", notes)
	}
	if said := s.refused("--takeover"); !strings.Contains(said, "an earlier takeover") {
		t.Errorf("a takeover while sessions of the last one are there: %s", said)
	}
	_ = open.Close(t.Context())
	_ = idle.Close(t.Context())
	if err := old.ends(); err != nil {
		t.Error(err)
	}
	s.exec(after, "select 1")
	s.eventually("all three are in the journal", func() bool {
		return strings.Count(s.must("journal", "--table", "sale_order", "--json"), `"committed"`) >= 3
	})
}

func TestSessionsEndWhereTheyMayNotStay(t *testing.T) {
	s := newSite(t, func(c string) string { return strings.Replace(c, "takeover_wait: 1h", "takeover_wait: 0s", 1) })
	old := s.serve()
	open, idle := s.connect(), s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	s.serve("--takeover")
	s.eventually("the idle session is told to go", func() bool {
		e, ok := errors.AsType[*pgconn.PgError](idle.Ping(t.Context()))
		return ok && e.Code == "57P01" || idle.IsClosed()
	})
	s.exec(open, "commit")
	if err := old.ends(); err != nil {
		t.Error(err)
	}
	if n := s.pg.Value(t, s.db, "select note from sale_order where id = 1"); n != "open" {
		t.Errorf("the transaction left %s", n)
	}
}

// What is commanded after a takeover is in force in both processes when the
// command returns.
func TestContainmentsCoverBothProcesses(t *testing.T) {
	s := newSite(t)
	s.serve()
	open, idle, held, victim := s.connect(), s.connect(), s.connect(), s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	s.serve("--takeover")
	after := s.connect()
	s.exec(after, "begin")
	s.exec(after, "update sale_order set note = 'after' where id = 2")

	out := s.must("mode", "read-only", "--reason", "test", "--in-flight", "refuse-commit")
	s.fails(open, "commit", "23G02")
	s.fails(after, "commit", "23G02")
	s.fails(idle, "update sale_order set note = 'late' where id = 3", "23G02")
	if !strings.Contains(out, "/") {
		t.Errorf("no WAL position: %s", out)
	}
	s.must("mode", "normal", "--reason", "test")
	s.exec(idle, "update sale_order set note = 'again' where id = 3")

	s.must("freeze", "--reason", "test")
	s.fails(idle, "alter table sale_order add column c int", "23G01")
	s.must("unfreeze", "--reason", "test")
	s.exec(idle, "alter table sale_order add column c int")

	s.must("pause", "--all", "--reason", "test", "--max-hold", "1h")
	result := make(chan error, 1)
	go func() {
		_, err := held.Exec(t.Context(), "update sale_order set note = 'held' where id = 4")
		result <- err
	}()
	s.eventually("it is held", func() bool { return s.session(held).State == "held" })
	if err := held.PgConn().CancelRequest(t.Context()); err != nil { // which the successor receives
		t.Error(err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](<-result); !ok || e.Code != "57014" {
		t.Errorf("the held statement: %v", e)
	}
	s.must("resume", "--all", "--reason", "test")
	s.exec(held, "select 1")

	sleeping := make(chan error, 1)
	go func() { _, err := held.Exec(t.Context(), "select pg_sleep(600)"); sleeping <- err }()
	s.eventually("it sleeps", func() bool { return s.session(held).State == "active" })
	s.must("cancel", fmt.Sprint(s.session(held).ID), "--reason", "test")
	if e, ok := errors.AsType[*pgconn.PgError](<-sleeping); !ok || e.Code != "57014" {
		t.Errorf("the cancelled statement: %v", e)
	}
	s.must("terminate", fmt.Sprint(s.session(victim).ID), "--reason", "test")
	s.fails(victim, "select 1", "57P01")

	s.write("policy.yaml", strings.Replace(s.policy, "critical_tables: [sale_order, res_partner]", "critical_tables: [res_partner]", 1))
	s.fails(idle, "update sale_order set note = 'all'", "23G01")
	s.must("policy", "reload", "--reason", "test")
	s.exec(idle, "update sale_order set note = 'all'")
	s.exec(after, "update sale_order set note = 'all'")
}

// What mode hold holds stays held when another lockkeeper takes over, and goes on
// with it, is cancelled, or is refused as it would have been without; so does what
// is held in both.
func TestStatementsHeldDuringATakeover(t *testing.T) {
	s := newSite(t)
	s.serve()
	heldIs := func(n int) func() bool {
		return func() bool {
			held := 0
			for _, x := range s.sessions() {
				if x.State == "held" {
					held++
				}
			}
			return held == n
		}
	}
	write := func(c *pgx.Conn, id int) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), fmt.Sprintf("update sale_order set note = 'held' where id = %d", id))
			result <- err
		}()
		return result
	}
	code := func(err error) string {
		if e, ok := errors.AsType[*pgconn.PgError](err); ok {
			return e.Code
		}
		return fmt.Sprint(err)
	}
	lifted, cancelled, refused := s.connect(), s.connect(), s.connect()
	s.must("mode", "hold", "--reason", "a takeover", "--max-hold", "1h")
	first, second := write(lifted, 1), write(cancelled, 2)
	s.eventually("two are held", heldIs(2))
	s.serve("--takeover")
	third := write(s.connect(), 3)
	s.eventually("three are held, one of them by the successor", heldIs(3))
	if err := cancelled.PgConn().CancelRequest(t.Context()); err != nil {
		t.Error(err)
	}
	if got := code(<-second); got != "57014" {
		t.Errorf("the cancelled statement: %s", got)
	}
	s.eventually("two are held", heldIs(2))
	s.must("mode", "normal", "--reason", "over")
	if err := errors.Join(<-first, <-third); err != nil {
		t.Errorf("lifted: %v", err)
	}

	s.must("mode", "hold", "--reason", "for long", "--max-hold", "1h")
	fourth := write(refused, 4) // a session of the first
	s.eventually("one is held", heldIs(1))
	s.must("mode", "read-only", "--reason", "not over at all")
	if got := code(<-fourth); got != "23G02" {
		t.Errorf("read-only: %s", got)
	}
	s.must("mode", "normal", "--reason", "over")
	if got := s.pg.Value(t, s.db, "select string_agg(id::text, ' ' order by id) from sale_order where note = 'held'"); got != "1 3" {
		t.Errorf("rows %s were written, want 1 3", got)
	}
}

// A read-only mode from before the takeover holds after it, for whoever came
// before or after.
func TestReadOnlyOutlivesATakeover(t *testing.T) {
	s := newSite(t)
	s.serve()
	before := s.connect()
	s.must("mode", "read-only", "--reason", "test")
	s.serve("--takeover")
	after := s.connect()
	for _, c := range []*pgx.Conn{before, after} {
		s.fails(c, "update sale_order set note = 'late' where id = 1", "23G02")
	}
	s.must("mode", "normal", "--reason", "test")
	for _, c := range []*pgx.Conn{before, after} {
		s.exec(c, "update sale_order set note = 'now' where id = 1")
	}
}

// A successor would not find what is in force and not on disk: it is refused
// until it is.
func TestWhatIsNotOnDiskIsNotHandedOver(t *testing.T) {
	s := newSite(t)
	s.serve()
	inTheWay := filepath.Join(s.dir, "state", "state.json.new") // what the state is written to
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := s.run("mode", "read-only", "--reason", "test"); err == nil || !strings.Contains(out, "holds") || !strings.Contains(out, "not on disk") {
		t.Errorf("%v: %s", err, out)
	}
	c := s.connect()
	s.fails(c, "update sale_order set note = 'late' where id = 1", "23G02")
	if out := s.must("status"); !strings.Contains(out, "is not on disk") {
		t.Errorf("status says:\n%s", out)
	}
	if why := s.refused("--takeover"); !strings.Contains(why, "not on disk") {
		t.Errorf("refused: %s", why)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	s.eventually("the state is on disk", func() bool { return !strings.Contains(s.must("status"), "not on disk") })
	s.serve("--takeover")
	s.fails(s.connect(), "update sale_order set note = 'late' where id = 1", "23G02")
}

// stopAtPolicy starts a lockkeeper that takes over, and stops it between what it
// has received and what it says: it reads its policy from a pipe.
func (s *site) stopAtPolicy() *program {
	s.t.Helper()
	pipe := filepath.Join(s.dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		s.t.Fatal(err)
	}
	config := s.config
	s.config = strings.Replace(config, "policy: policy.yaml", "policy: pipe.yaml", 1)
	defer func() { s.config = config }()
	p := s.start("--takeover")
	w := s.openPipe(pipe)
	if _, err := io.WriteString(w, testPolicy); err != nil { // the check before it asks
		s.t.Fatal(err)
	}
	w.Close()
	s.eventually("it waits for its policy again", func() bool {
		// Its changes are held as soon as it has asked.
		out, _ := s.run("freeze", "--reason", "test")
		return strings.Contains(out, "a takeover by another process is under way")
	})
	return p
}

// openPipe opens a pipe that somebody reads.
func (s *site) openPipe(path string) *os.File {
	s.t.Helper()
	var w *os.File
	s.eventually("somebody reads the pipe", func() bool {
		var err error
		w, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	return w
}

func TestASuccessorThatDiesChangesNothing(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	c := s.connect()
	next := s.stopAtPolicy()
	s.exec(c, "select 1")
	_ = s.connect().Close(t.Context()) // the old one accepts
	if said := s.refused("--takeover"); !strings.Contains(said, "another takeover is under way") {
		t.Errorf("a second one said %s", said)
	}
	next.signal(syscall.SIGKILL)
	_ = next.ends()
	s.eventually("changes can be made again", func() bool {
		_, err := s.run("unfreeze", "--reason", "test")
		return err == nil
	})
	_ = s.connect().Close(t.Context())
	if said := s.refused(); !strings.Contains(said, "lock the state folder") {
		t.Errorf("a second lockkeeper said %s", said)
	}
	s.serve("--takeover")
	_ = c.Close(t.Context())
	if err := old.ends(); err != nil {
		t.Error(err)
	}
}

func TestAPredecessorThatDiesWhileItHandsOver(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	next := s.stopAtPolicy()
	old.signal(syscall.SIGKILL)
	_ = old.ends()
	w := s.openPipe(filepath.Join(s.dir, "pipe.yaml"))
	defer w.Close()
	if _, err := io.WriteString(w, testPolicy); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if said := next.told(); said != "READY=1" {
		t.Fatalf("the successor says %q", said)
	}
	s.exec(s.connect(), "update sale_order set note = 'x' where id = 1")
	s.must("freeze", "--reason", "test")
	s.must("unfreeze", "--reason", "test")
	if said := s.refused(); !strings.Contains(said, "lock the state folder") {
		t.Errorf("a second lockkeeper said %s", said)
	}
}

// What a predecessor that was killed leaves in the server is waited for by
// read-only, and what it left open in the journal is lost.
func TestAPredecessorThatIsKilledAfterwards(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	open, running := s.connect(), s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	s.serve("--takeover")
	after := s.connect()
	s.exec(after, "begin")
	s.exec(after, "update sale_order set note = 'after' where id = 2")
	go func() {
		_, _ = running.Exec(context.Background(), "insert into sale_order select 100, pg_sleep(600)::text")
	}()
	s.eventually("it runs", func() bool { return s.session(running).State == "active" })
	s.eventually("the journal has the open statements", func() bool {
		return strings.Count(s.must("journal", "--table", "sale_order", "--json"), `"outcome":"ok"`) == 2
	})
	old.signal(syscall.SIGKILL)
	_ = old.ends()
	s.eventually("its open statement is lost", func() bool {
		out := s.must("journal", "--table", "sale_order", "--json")
		return strings.Count(out, `"outcome":"lost"`) == 1 && strings.Count(out, `"outcome":"ok"`) == 1
	})
	s.must("mode", "read-only", "--reason", "test", "--in-flight", "refuse-commit")
	if n := s.pg.Value(t, s.db, "select count(*) from pg_stat_activity where query like 'insert into sale_order select 100%' and pid <> pg_backend_pid()"); n != "0" {
		t.Errorf("%s server processes of the one that was killed go on", n)
	}
	s.fails(after, "commit", "23G02")
	s.must("mode", "normal", "--reason", "test")
	s.serve("--takeover")
}

// One that does not answer is ended, so that the command is true.
func TestAPredecessorThatDoesNotAnswer(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	open := s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	next := s.serve("--takeover")
	old.signal(syscall.SIGSTOP)
	s.must("mode", "read-only", "--reason", "test", "--in-flight", "refuse-commit")
	if err := old.ends(); err == nil {
		t.Error("the process that does not answer ended by itself")
	}
	if _, err := open.Exec(t.Context(), "commit"); err == nil {
		t.Error("its transaction was committed")
	}
	if n := s.pg.Value(t, s.db, "select note from sale_order where id = 1"); n != "old" {
		t.Errorf("its transaction left %s", n)
	}
	if said := next.said(); !strings.Contains(said, "cannot be contained, ending it") {
		t.Errorf("the successor said %s", said)
	}
}

// Without a successor nobody could contain the predecessor's sessions.
func TestASuccessorThatIsKilledAfterwards(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	open := s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	next := s.serve("--takeover")
	next.signal(syscall.SIGKILL)
	_ = next.ends()
	_ = old.ends()
	if _, err := open.Exec(t.Context(), "commit"); err == nil {
		t.Error("a transaction was committed that nobody could contain")
	}
	s.serve()
	s.exec(s.connect(), "select 1")
}

// SIGTERM gives transactions of both processes their time.
func TestTermEndsBoth(t *testing.T) {
	s := newSite(t)
	old := s.serve()
	open := s.connect()
	s.exec(open, "begin")
	s.exec(open, "update sale_order set note = 'open' where id = 1")
	next := s.serve("--takeover")
	next.signal(syscall.SIGTERM)
	s.eventually("it says that it stops", func() bool { return strings.Contains(old.said(), "stopping, transactions may finish") })
	s.exec(open, "commit")
	for _, p := range []*program{old, next} {
		if err := p.ends(); err != nil {
			t.Error(err)
		}
	}
	if n := s.pg.Value(t, s.db, "select note from sale_order where id = 1"); n != "open" {
		t.Errorf("the transaction left %s", n)
	}
}

func TestTakeoverWithoutAnybodyStarts(t *testing.T) {
	s := newSite(t)
	p := s.serve("--takeover")
	s.exec(s.connect(), "select 1")
	p.signal(syscall.SIGKILL)
	_ = p.ends()
	s.serve("--takeover") // the socket's file is there, and nobody listens
}

// A configuration with mistakes is told before anybody is asked.
func TestTakeoverChecksItselfFirst(t *testing.T) {
	s := newSite(t)
	s.serve()
	good := s.config
	s.config = strings.Replace(good, "key: ", "key: missing-", 1)
	if said := s.refused("--takeover"); !strings.Contains(said, "missing-") {
		t.Errorf("it said %s", said)
	}
	s.config = strings.Replace(good, "tcp: [", "tcp: [\""+s.pg.Addr()+"\", ", 1) // taken by PostgreSQL
	if said := s.refused("--takeover"); !strings.Contains(said, "address already in use") {
		t.Errorf("it said %s", said)
	}
	s.config = good
	s.exec(s.connect(), "select 1")
	s.must("freeze", "--reason", "test")
}

// One that says that it is of another kind is refused, and changes nothing.
func TestTakeoverByAnotherVersionIsRefused(t *testing.T) {
	s := newSite(t)
	s.serve()
	c, err := net.Dial("unix", filepath.Join(s.dir, "state", "takeover"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := fmt.Sprintf(`{"formats":{"takeover":%d,"state":1,"journal":%d}}`, takeover.Version+1, journal.SchemaVersion)
	if _, err := c.Write(append([]byte{0, 0, 0, byte(len(hello))}, hello...)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.Contains(answer, []byte("takeover protocol is version 2 in this program and 1 in the running one")) {
		t.Errorf("got %q, %v", answer, err)
	}
	s.must("freeze", "--reason", "test")
	pre, err := takeover.Find(t.Context(), filepath.Join(s.dir, "state"), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := pre.Close(); err != nil {
		t.Error(err)
	}
	s.eventually("changes can be made again", func() bool {
		_, err := s.run("unfreeze", "--reason", "test")
		return err == nil
	})
}
