package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lockkeeper/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lockkeeper": main})
}

// TestScript runs the scripts in testdata/script: each with a database of its
// own on a real PostgreSQL, lockkeeper.yaml in front of it, and these commands
// besides the real lockkeeper:
//
//	serve [ARG…]     starts "lockkeeper serve -c lockkeeper.yaml" and waits until it is ready
//	stop [-9]        ends it
//	signal NAME      sends a signal: HUP, INT, TERM, QUIT, USR1, USR2
//	ended            waits until it has ended, with exit code 0
//	console SQL…     runs the real psql on the console, over lockkeeper's unix socket
//	psql [-b NAME] SQL…   runs the real psql through lockkeeper; one -c for each SQL
//	direct SQL       runs SQL past lockkeeper
//	until TEXT ARG…  repeats a lockkeeper command until its output has the text
//	exitcode N lockkeeper ARG…   runs lockkeeper, which must end with the code
//	session          sets SESSION to the id of the one active session
func TestScript(t *testing.T) {
	pg := pgtest.Shared(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			return setUp(t, pg, env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "stop": cmdStop, "signal": cmdSignal, "ended": cmdEnded, "console": cmdConsole, "psql": cmdPsql, "direct": cmdDirect, "until": cmdUntil,
			"exitcode": cmdExitCode, "session": cmdSession,
		},
		Condition:     func(name string) (bool, error) { return newEnough(name, pg.Major(t)) },
		UpdateScripts: os.Getenv("UPDATE_GOLDEN") != "",
	})
}

// newEnough is the condition new:PROGRAM: PostgreSQL's PROGRAM is here, and of the
// server's version or a newer one. Programs that replicate refuse newer servers.
func newEnough(condition string, server int) (bool, error) {
	program, found := strings.CutPrefix(condition, "new:")
	if !found {
		return false, fmt.Errorf("no such condition: %s", condition)
	}
	said, err := exec.Command(program, "--version").Output()
	if err != nil {
		return false, nil //nolint:nilerr // it is not here
	}
	var major int
	_, number, _ := strings.Cut(string(said), "(PostgreSQL) ")
	_, err = fmt.Sscanf(number, "%d", &major)
	return major >= server, err
}

// consolePort is in the name of the unix socket, which is in the script's folder.
const consolePort = "6433"

const testConfig = `listen:
  tcp: ["127.0.0.1:%[1]d"]
server:
  "*":
    host: %[2]s
    port: %[3]d
    sslmode: disable
    control: %[4]s
admin:
  listen: 127.0.0.1:%[5]d
  state: state
policy: policy.yaml
`

const testPolicy = `profile: odoo
critical_tables: [sale_order, res_partner]
rules:
  - name: unbounded-write
    match: {kinds: [update, delete, truncate, merge], tables: critical, bound: [none, vacuous]}
    action: refuse
`

// served is the lockkeeper of one script.
type served struct {
	cmd  *exec.Cmd
	done chan error
}

type servedKey struct{}

func setUp(t *testing.T, pg *pgtest.Server, env *testscript.Env) error {
	db := pg.NewDatabase(t)
	pg.MustExec(t, db, `CREATE TABLE sale_order (id int PRIMARY KEY, note text); INSERT INTO sale_order SELECT g, 'old' FROM generate_series(1, 10) g;
		CREATE TABLE res_partner (id int PRIMARY KEY, active bool)`)
	port, adminPort := freePort(t), freePort(t)
	config := fmt.Sprintf(testConfig, port, pg.Host(), pg.Port(), pg.ConnString("postgres"), adminPort)
	config = strings.Replace(config, "server:", fmt.Sprintf("  unix: [%q]\nserver:", filepath.Join(env.WorkDir, ".s.PGSQL."+consolePort)), 1)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "lockkeeper.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "policy.yaml"), []byte(testPolicy), 0o600); err != nil {
		return err
	}
	s := &served{}
	env.Values[servedKey{}] = s
	env.Setenv("PGCONN", fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable application_name=script", port, pgtest.Superuser, db))
	env.Setenv("PGDIRECT", pg.ConnString(db))
	env.Setenv("DB", db)
	env.Setenv("ADMIN", strconv.Itoa(adminPort))
	env.Setenv("LOCKKEEPER_ADMIN", fmt.Sprintf("http://127.0.0.1:%d", adminPort))
	env.Setenv("LOCKKEEPER_TOKEN_FILE", filepath.Join(env.WorkDir, "state", localTokenFile))
	env.Setenv("TZ", "UTC")
	env.Defer(func() { s.kill() })
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *served) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servedKey{}).(*served)
	if s.cmd != nil {
		ts.Fatalf("lockkeeper serves already")
	}
	log, err := os.OpenFile(ts.MkAbs("serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer func() { _ = log.Close() }()
	// testscript puts the test binary in PATH under this name.
	exe := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "lockkeeper")
	if len(args) == 0 {
		args = []string{"-c", "lockkeeper.yaml"}
	}
	s.cmd = exec.Command(exe, append([]string{"serve"}, args...)...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = ts.MkAbs("."), log, log
	s.cmd.Env = os.Environ()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(s.cmd.Start())
	s.done = make(chan error, 1)
	go func() { s.done <- s.cmd.Wait() }()
	err = s.ready("http://127.0.0.1:" + ts.Getenv("ADMIN") + "/readyz")
	if (err != nil) != neg {
		ts.Fatalf("lockkeeper serve: %v\n%s", err, ts.ReadFile("serve.log"))
	}
}

// ready waits until lockkeeper is; it returns an error if it ends before.
func (s *served) ready(url string) error {
	for range 1000 {
		select {
		case err := <-s.done:
			s.cmd = nil
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
		resp, err := http.Get(url)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return errors.New("it took too long")
}

func cmdStop(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(servedKey{}).(*served)
	if s.cmd == nil {
		ts.Fatalf("lockkeeper does not serve")
	}
	if len(args) == 1 && args[0] == "-9" {
		s.kill()
		return
	}
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-s.done:
		s.cmd = nil
		ts.Check(err)
	case <-time.After(time.Minute):
		ts.Fatalf("lockkeeper does not stop\n%s", ts.ReadFile("serve.log"))
	}
}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	}[args[0]]
	ts.Check(ts.Value(servedKey{}).(*served).cmd.Process.Signal(sig))
}

func cmdEnded(ts *testscript.TestScript, _ bool, _ []string) {
	s := ts.Value(servedKey{}).(*served)
	select {
	case err := <-s.done:
		s.cmd = nil
		ts.Check(err)
	case <-time.After(time.Minute):
		ts.Fatalf("lockkeeper does not end\n%s", ts.ReadFile("serve.log"))
	}
}

func cmdConsole(ts *testscript.TestScript, neg bool, args []string) {
	run := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", ts.Getenv("WORK"), "-p", consolePort, "-U", "lockkeeper", "-d", "lockkeeper"}
	for _, a := range args {
		run = append(run, "-c", a)
	}
	if err := ts.Exec("psql", run...); (err != nil) != neg {
		ts.Fatalf("psql: %v", err)
	}
}

func cmdPsql(ts *testscript.TestScript, neg bool, args []string) {
	run := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-d", ts.Getenv("PGCONN")}
	for _, a := range args {
		run = append(run, "-c", a)
	}
	err := ts.Exec("psql", run...)
	if (err != nil) != neg {
		ts.Fatalf("psql: %v", err)
	}
}

func cmdDirect(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", ts.Getenv("PGDIRECT"), "-c", args[0]))
}

func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	for range 1000 {
		err := ts.Exec("lockkeeper", args[1:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("the output never has %q:\n%s", args[0], ts.ReadFile("stdout"))
}

func cmdExitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

var activeSession = regexp.MustCompile(`(?m)^(\d+) .* active `)

func cmdSession(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("lockkeeper", "sessions", "--state", "active"))
	m := activeSession.FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no session is active")
	}
	ts.Setenv("SESSION", m[1])
}
