package proxy_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program prepares one of PostgreSQL's own programs, for the guard or for the
// server itself.
func program(t *testing.T, g *guard, addr, name string, args ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), g.pg.Program(t, name), args...)
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=postgres", "PGDATABASE="+g.db, "PGSSLMODE=disable")
	return cmd
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(cmd.Path), err, out)
	}
	return string(out)
}

// dumped leaves out what pg_dump chooses at random.
var dumped = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

func TestDumpRestoreAndBaseBackup(t *testing.T) {
	g := newGuard(t)
	dump := func(addr string) string {
		return dumped.ReplaceAllString(output(t, program(t, g, addr, "pg_dump")), "")
	}
	direct, through := dump(g.pg.Addr()), dump(g.addr)
	if direct != through || !strings.Contains(direct, "account_move") {
		t.Errorf("pg_dump: %d bytes directly, %d through the guard", len(direct), len(through))
	}
	dir := t.TempDir()
	output(t, program(t, g, g.addr, "pg_dump", "-Fd", "-j", "2", "-f", filepath.Join(dir, "dump")))
	copied := g.pg.NewDatabase(t)
	output(t, program(t, g, g.addr, "pg_restore", "-d", copied, filepath.Join(dir, "dump")))
	g.db = copied
	if again := dump(g.addr); again != direct {
		t.Errorf("restored and dumped again: %d bytes of %d", len(again), len(direct))
	}
	base := filepath.Join(dir, "base")
	output(t, program(t, g, g.addr, "pg_basebackup", "-D", base, "-X", "stream", "-c", "fast"))
	if _, err := os.Stat(filepath.Join(base, "backup_manifest")); err != nil {
		t.Error(err)
	}
}

// What psql prints is the same directly and through the guard.
func TestPsqlPrintsTheSame(t *testing.T) {
	g := newGuard(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "object"), bytes.Repeat([]byte("large"), 20_000), 0o600); err != nil {
		t.Fatal(err)
	}
	script := strings.Join([]string{
		`\d account_move`, `\d+ res_partner`, `\dt`, `\df+ pg_sleep`, `\l+ template1`,
		`create temp table c(t text);`, `\copy c from ` + filepath.Join(dir, "object"), `\copy c to ` + filepath.Join(dir, "back"), `select length(t) from c;`,
		`\lo_import ` + filepath.Join(dir, "object"), `\lo_export :LASTOID ` + filepath.Join(dir, "object2"), `\lo_unlink :LASTOID`,
		`begin isolation level serializable;`, `select count(*) from account_move;`, `commit;`,
		`\set FETCH_COUNT 50`, `select id from account_move order by id limit 120;`, `\set FETCH_COUNT 0`,
		`select 1 as a, 'x' as b \gdesc`, `select 1/0;`, `\echo :LAST_ERROR_SQLSTATE`, `select 'x' as nothing where 'é' ~ ;`,
		`\c -`, `select 1; select 2 \; select 3;`, `select format('select %s', n) from generate_series(1, 3) n \gexec`,
		`do $$ begin raise notice 'hello'; end $$;`, `\set VERBOSITY verbose`, `select nothing from account_move;`,
		`\set AUTOCOMMIT off`, `create table made(a int);`, `insert into made values (1);`, `rollback;`, `vacuum;`,
	}, "\n")
	run := func(addr string) string {
		cmd := program(t, g, addr, "psql", "-X")
		cmd.Stdin = strings.NewReader(script)
		return strings.ReplaceAll(output(t, cmd), addr[strings.LastIndex(addr, ":")+1:], "PORT")
	}
	oids := regexp.MustCompile(`lo_(import|unlink) \d+`)
	direct, through := oids.ReplaceAllString(run(g.pg.Addr()), ""), oids.ReplaceAllString(run(g.addr), "")
	if direct != through {
		t.Error(firstDifference(direct, through))
	}
	if !strings.Contains(direct, "hello") || !strings.Contains(direct, "22012") {
		t.Errorf("psql did not run the script:\n%s", direct)
	}
}

func TestControlCInPsql(t *testing.T) {
	g := newGuard(t)
	cmd := program(t, g, g.addr, "psql", "-X", "-c", "do $$ begin raise notice 'running'; perform pg_sleep(60); end $$")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	settle(t, "the statement runs", func() bool { return strings.Contains(out.String(), "running") })
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // psql exits with 1
	if !strings.Contains(out.String(), "canceling statement due to user request") || time.Since(begun) > rawPatience {
		t.Errorf("after %v: %s", time.Since(begun), out.String())
	}
}

// pgbench, in every mode of the protocol and in pipelines, sees no error.
func TestPgbenchRuns(t *testing.T) {
	g := newGuard(t)
	output(t, program(t, g, g.addr, "pgbench", "-i", "-q", g.db))
	pipeline := filepath.Join(t.TempDir(), "pipeline.sql")
	text := "\\startpipeline\nselect 1;\nupdate pgbench_accounts set abalance = abalance + 1 where aid = 1;\n\\endpipeline\n"
	if err := os.WriteFile(pipeline, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-M", "simple"}, {"-M", "extended"}, {"-M", "prepared"}, {"-M", "extended", "-f", pipeline}, {"-C", "-t", "20"}} {
		args = append([]string{"-n", "-c", "4", "-t", "100"}, args...)
		out := output(t, program(t, g, g.addr, "pgbench", append(args, g.db)...))
		if !strings.Contains(out, "number of failed transactions: 0") && !strings.Contains(out, "processed") {
			t.Errorf("pgbench %v:\n%s", fmt.Sprint(args), out)
		}
	}
}

// lockedBuffer is a buffer that a process writes while it is read.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
