package faults

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockkeeper/internal/pgtest"
)

// setup says how a lockkeeper is set up.
type setup struct {
	pg      *pgtest.Server // nil is the shared one
	server  string         // host:port in place of pg's, behind the fault proxy
	sslmode string         // towards that server
	config  string         // more keys
	policy  string         // in place of one that allows all
	shell   string         // run before lockkeeper is, by the same shell
	mounts  bool           // the shell may mount
}

// guard is a lockkeeper process: clients reach it directly and through a fault
// proxy, and it reaches PostgreSQL through one for the database db, and
// directly for the database "beside", which is the same one.
type guard struct {
	t      *testing.T
	pg     *pgtest.Server
	db     string
	dir    string
	setup  setup
	addr   string
	admin  string
	front  *Proxy // in front of lockkeeper
	behind *Proxy // between it and the server
	cmd    *exec.Cmd
	ended  chan error

	bystander                 *client
	goroutines, files         int // when nothing is wrong
	before, highest, restored float64
}

const configuration = `listen: {tcp: ["%s"]}
server:
  "%s": {host: 127.0.0.1, port: %s, sslmode: %s}
  beside: {host: 127.0.0.1, port: %d, database: "%s", sslmode: disable}
  "*": {host: 127.0.0.1, port: %d, sslmode: disable, control: "%s"}
admin: {listen: "%s", state: state}
policy: policy.yaml
%s
`

const allowAll = "{profile: postgres, unknown: allow, rules: []}\n"

// start starts a lockkeeper with a bystander: a session that must not notice.
func start(t *testing.T, s setup) *guard {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	g := &guard{t: t, pg: s.pg, setup: s, dir: t.TempDir()}
	if g.pg == nil {
		g.pg = pgtest.Shared(t)
	}
	g.db = g.pg.NewDatabase(t)
	g.pg.MustExec(t, g.db, "create table changed(a int)")
	behind := s.server
	if behind == "" {
		behind = g.pg.Addr()
	}
	g.behind = between(t, behind)
	g.addr, g.admin = freeAddress(t), freeAddress(t)
	g.front = between(t, g.addr)
	_, port, _ := net.SplitHostPort(g.behind.Addr())
	config := fmt.Sprintf(configuration, g.addr, g.db, port, cmp.Or(s.sslmode, "disable"), g.pg.Port(), g.db, g.pg.Port(), g.pg.ConnString("postgres"), g.admin, s.config)
	text := s.policy
	if text == "" {
		text = allowAll
	}
	for name, content := range map[string]string{"lockkeeper.yaml": config, "policy.yaml": text} {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { g.kill(); g.look() })
	g.run()
	g.bystander = g.login(g.addr, "beside", "bystander")
	g.warm()
	return g
}

// in makes a subtest the one that fails, until it ends.
func (g *guard) in(t *testing.T) {
	t.Helper()
	outer := g.t
	g.t, g.bystander.t = t, t
	t.Cleanup(func() { g.t, g.bystander.t = outer, outer })
}

// run starts the process and waits until it is ready.
func (g *guard) run() {
	g.t.Helper()
	path, err := program()
	if err != nil {
		g.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(g.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	g.cmd = exec.Command("/bin/sh", "-c", g.setup.shell+` exec "$0" serve -c lockkeeper.yaml --log-format text`, path)
	g.cmd.Dir, g.cmd.Stdout, g.cmd.Stderr = g.dir, log, log
	g.cmd.SysProcAttr = processAttributes(g.setup.mounts)
	if err := g.cmd.Start(); err != nil {
		if g.setup.mounts {
			g.t.Skipf("no mounts of one's own here: %v", err)
		}
		g.t.Fatal(err)
	}
	g.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(g.cmd, g.ended)
	settle(g.t, "lockkeeper is ready", func() bool {
		select {
		case err := <-g.ended:
			g.cmd = nil
			g.t.Fatalf("lockkeeper ended: %v\n%s", err, g.log())
		default:
		}
		r, err := http.Get("http://" + g.admin + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// kill ends the process as the kernel does when memory is short.
func (g *guard) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	<-g.ended
	g.cmd = nil
}

func (g *guard) log() string {
	b, _ := os.ReadFile(filepath.Join(g.dir, "log"))
	return string(b)
}

// look reports what must be in no log.
func (g *guard) look() {
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if log := g.log(); strings.Contains(log, bad) {
			g.t.Errorf("lockkeeper's log has %q:\n%s", bad, log)
			return
		}
	}
	if g.t.Failed() {
		log := g.log()
		g.t.Logf("the end of lockkeeper's log:\n%s", log[max(0, len(log)-3000):])
	}
}

// warm notes how much lockkeeper uses while nothing is wrong.
func (g *guard) warm() {
	g.t.Helper()
	c := g.login(g.front.Addr(), g.db, "warm") // both proxies, and whatever is made once
	c.ok("select 1")
	c.bye()
	g.alone()
	g.goroutines, g.files = int(g.metric("go_goroutines")), int(g.metric("process_open_fds"))
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", g.cmd.Process.Pid), []byte("5"), 0) // the highest begins anew
	g.before = g.memory("VmRSS")
}

// alone waits until lockkeeper has the bystander only.
func (g *guard) alone() {
	g.t.Helper()
	settle(g.t, "every other session ends", func() bool {
		return g.metric("lockkeeper_sessions") == 1 && g.metric("lockkeeper_connections") == 1
	})
}

// memory reads a size of the process, in MiB.
func (g *guard) memory(name string) float64 {
	g.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				g.t.Fatal(err)
			}
			return float64(n) / 1024
		}
	}
	g.t.Fatalf("no %s", name)
	return 0
}

// metric reads one metric of the process.
func (g *guard) metric(name string) float64 {
	g.t.Helper()
	token, err := os.ReadFile(g.state("admin.token"))
	if err != nil {
		g.t.Fatal(err)
	}
	ask, _ := http.NewRequest(http.MethodGet, "http://"+g.admin+"/metrics", nil)
	ask.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r, err := http.DefaultClient.Do(ask)
	if err != nil {
		g.t.Fatalf("metrics: %v", err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			v, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return v
		}
	}
	g.t.Fatalf("no metric %s", name)
	return 0
}

// state is the path of a file in the state folder, as lockkeeper sees it.
func (g *guard) state(name string) string {
	return fmt.Sprintf("/proc/%d/cwd/state/%s", g.cmd.Process.Pid, name)
}

// command runs lockkeeper's command line.
func (g *guard) command(args ...string) (string, error) {
	path, err := program()
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--admin", "http://"+g.admin, "--token-file", g.state("admin.token"))...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tripsAtOnce is how many round trips undisturbed makes.
const tripsAtOnce = 2

// undisturbed asserts that the bystander goes on.
func (g *guard) undisturbed() {
	g.t.Helper()
	g.bystander.ok("begin; insert into changed values (0); rollback")
	if got := g.bystander.ok("select 41 + 1"); got != "42" {
		g.t.Errorf("the bystander gets %q", got)
	}
}

// leftovers is what the server has of sessions other than the bystander's.
const leftovers = `select 'sessions ' || (select count(*) from pg_stat_activity where datname = current_database() and application_name <> 'bystander' and pid <> pg_backend_pid())
	|| ', locks ' || (select count(*) from pg_locks l join pg_stat_activity a using (pid) where a.datname = current_database() and a.application_name <> 'bystander' and pid <> pg_backend_pid())
	|| ', prepared transactions ' || (select count(*) from pg_prepared_xacts where database = current_database())
	|| ', rows ' || (select count(*) from changed)`

// left waits until the server has nothing of the sessions that the fault was
// about, and says so.
func (g *guard) left() string {
	g.t.Helper()
	const nothing = "sessions 0, locks 0, prepared transactions 0, rows 0"
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = g.pg.Value(g.t, g.db, leftovers); got == nothing {
			return "nothing"
		}
	}
	g.t.Fatalf("the server is left with %s", got)
	return got
}

// recovers asserts that a new session works and that nothing leaks, and says
// so.
func (g *guard) recovers() string {
	g.t.Helper()
	c := g.login(g.front.Addr(), g.db, "after")
	c.ok("begin; insert into changed values (1); rollback")
	c.bye()
	g.undisturbed()
	g.alone()
	const slack = 6 // connections of the admin interface and of lockkeeper's own login come and go
	var goroutines, files int
	settle(g.t, "what the fault has cost is given back", func() bool {
		goroutines, files = int(g.metric("go_goroutines")), int(g.metric("process_open_fds"))
		return goroutines <= g.goroutines+slack && files <= g.files+slack
	})
	g.highest, g.restored = g.memory("VmHWM"), g.memory("VmRSS")
	return fmt.Sprintf("yes: goroutines %d → %d, descriptors %d → %d", g.goroutines, goroutines, g.files, files)
}

// grown asserts that the process has never grown by more than so many MiB.
func (g *guard) grown(most float64) {
	g.t.Helper()
	if grown := g.highest - g.before; grown > most && !raceEnabled {
		g.t.Errorf("lockkeeper has grown by %.0f MiB, want at most %.0f", grown, most)
	}
}

// fill writes the row of a test.
func (g *guard) fill(r row) {
	g.t.Helper()
	if g.t.Failed() {
		return
	}
	if r.memory == "" {
		r.memory = fmt.Sprintf("%.0f, %.0f, %.0f", g.before, g.highest, g.restored)
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	table.rows = append(table.rows, r)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
