package proxy_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

// awaitEntries returns the entries of a kind once there are n of them.
func (g *guard) awaitEntries(kind journal.Kind, n int) []journal.Entry {
	g.t.Helper()
	eventually(g.t, "entries of kind "+string(kind), func() bool { return len(g.journal(kind)) >= n })
	return g.journal(kind)
}

// forget drops the entries there are.
func (g *guard) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = nil
}

// told is what tests look at of an entry.
func told(e *journal.Entry) string {
	parts := []string{string(e.Kind), e.Class, e.Statement, strings.Join(e.Tables, "+"), e.Outcome}
	if e.Rows > 0 {
		parts = append(parts, "rows="+string(rune('0'+e.Rows)))
	}
	if e.SQLSTATE != "" {
		parts = append(parts, e.SQLSTATE)
	}
	return strings.Join(parts, " ")
}

func TestTheJournalKeepsWritesAndHowTheyEnded(t *testing.T) {
	g := newGuard(t)
	const three = "insert into bus_bus (channel) select null from generate_series(1, 3)"
	committed, rolledBack := "transaction    committed", "transaction    rolled back"
	for name, c := range map[string]struct {
		send []string
		want []string
	}{
		"autocommit": {[]string{"Q " + three}, []string{"statement write INSERT bus_bus ok rows=3", committed + " rows=3"}},
		"extended":   {[]string{"P - " + three + " ; B - - ; E - ; S"}, []string{"statement write INSERT bus_bus ok rows=3", committed + " rows=3"}},
		"a block": {
			[]string{"Q begin", "Q " + three, "Q update bus_bus set channel = 'x' where id < 0", "Q commit"},
			[]string{"statement write INSERT bus_bus ok rows=3", "statement write UPDATE bus_bus ok", committed + " rows=3"},
		},
		"rolled back":    {[]string{"Q begin", "Q " + three, "Q rollback"}, []string{"statement write INSERT bus_bus ok rows=3", rolledBack + " rows=3"}},
		"aborted":        {[]string{"Q begin", "Q " + three, "Q select 1/0", "Q commit"}, []string{"statement write INSERT bus_bus ok rows=3", rolledBack + " rows=3"}},
		"failed":         {[]string{"Q insert into res_users (login) values ('admin')"}, []string{"statement write INSERT res_users error 23505"}},
		"several in one": {[]string{"Q " + three + "; delete from bus_bus where id < 0"}, []string{"statement write INSERT bus_bus ok rows=3", "statement write DELETE bus_bus ok", committed + " rows=3"}},
		"one fails":      {[]string{"Q " + three + "; select 1/0"}, []string{"statement write INSERT bus_bus ok rows=3", rolledBack + " rows=3"}},
		"a pipeline fails": {
			[]string{"P - " + three + " ; B - - ; E - ; P - select 1/0 ; B - - ; E - ; S"},
			[]string{"statement write INSERT bus_bus ok rows=3", rolledBack + " rows=3"},
		},
		"DDL":            {[]string{"Q create table evidence (n int)", "Q drop table evidence"}, []string{"statement define CREATE TABLE evidence ok", committed, "statement define DROP TABLE evidence ok", committed}},
		"copy":           {[]string{"copy"}, []string{"statement write COPY FROM bus_bus ok rows=2", committed + " rows=2"}},
		"unclassified":   {[]string{"Q do $$begin end$$"}, []string{"statement unknown DO  ok", committed}},
		"suspended":      {[]string{"P - " + three + " returning id ; B - - ; E1 - ; S"}, []string{"statement write INSERT bus_bus ok", committed}},
		"reads":          {[]string{"Q select 1", "Q begin", "Q select 1", "Q commit", "P - select 1 ; B - - ; E - ; S", "Q set work_mem = '1MB'"}, nil},
		"chained":        {[]string{"Q begin", "Q " + three, "Q commit and chain", "Q " + three, "Q rollback"}, []string{"statement write INSERT bus_bus ok rows=3", committed + " rows=3", "statement write INSERT bus_bus ok rows=3", rolledBack + " rows=3"}},
		"savepoint":      {[]string{"Q begin", "Q savepoint a", "Q select 1/0", "Q rollback to a", "Q " + three, "Q commit"}, []string{"statement write INSERT bus_bus ok rows=3", committed + " rows=3"}},
		"a typing error": {[]string{"Q selec"}, nil},
	} {
		g.forget()
		p := g.peer()
		for _, line := range c.send {
			if line != "copy" {
				p.run(line)
				continue
			}
			p.send(&pgproto3.Query{String: "copy bus_bus (channel) from stdin"})
			p.until('G')
			p.send(&pgproto3.CopyData{Data: []byte("a\nb\n")}, &pgproto3.CopyDone{})
			p.until('Z')
		}
		p.end()
		eventually(t, "the session ends", func() bool { return len(g.srv.Sessions()) == 0 })
		var got []string
		g.mu.Lock()
		for i := range g.entries {
			got = append(got, told(&g.entries[i]))
		}
		transactions := map[string]bool{}
		for _, e := range g.entries {
			transactions[e.Transaction] = true
			if e.Session == 0 || e.ServerPID == 0 || e.User != "postgres" || e.Database != g.db || e.Address == "" || e.Time.IsZero() {
				t.Errorf("%s: %+v", name, e)
			}
		}
		g.mu.Unlock()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestTheJournalSaysWhatWasLost(t *testing.T) {
	g := newGuard(t, func(s *setup) { s.pg = pgtest.Start(t) })
	idle, running := g.peer(), g.peer()
	idle.ok("begin")
	idle.ok(insert)
	running.send(&pgproto3.Query{String: "insert into bus_bus (channel) select pg_sleep(600)::text"})
	g.awaitSleeper(1)
	if err := g.pg.Stop(pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	var ends []string
	for _, e := range g.awaitEntries(journal.TransactionEntry, 2) {
		ends = append(ends, e.Outcome)
	}
	slices.Sort(ends)
	if !slices.Equal(ends, []string{"lost", "rolled back"}) {
		t.Errorf("transactions ended %q: the idle one is rolled back, the running one is lost", ends)
	}
	if !slices.ContainsFunc(g.journal(journal.StatementEntry), func(e journal.Entry) bool { return e.Outcome == "lost" && e.Statement == "INSERT" }) {
		t.Error("the statement that ran is not in the journal")
	}
}

func TestObservedRulesAreJournalled(t *testing.T) {
	g := newGuard(t)
	p := g.peer()
	observing(g)
	if got := p.run("Q begin ; Q " + unbounded + " ; Q rollback"); got != "C BEGIN, Z T, C DELETE 1000, Z T, C ROLLBACK, Z I" {
		t.Fatal(got)
	}
	seen := g.journal(journal.ObservedEntry)
	if len(seen) != 1 || seen[0].Rule != "unbounded-write" || seen[0].Verdict != "refuse" || seen[0].Statement != "DELETE" {
		t.Errorf("%+v", seen)
	}
}

// canary stands for what must not be written down anywhere.
const canary = "kanarienvogel"

// Statements, parameters, rows and passwords are in no log line at any level,
// no journal entry and no refusal.
func TestSQLAndSecretsAreNotWrittenDown(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	g := newGuard(t, func(s *setup) {
		s.pg = pgtest.Start(t, pgtest.HBA("local all all trust", "host all locked 127.0.0.1/32 password", "host all all 127.0.0.1/32 trust"))
		s.deps.Logger = slog.New(slog.NewTextHandler(&locked{mu: &mu, w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g.pg.MustExec(t, "postgres", "CREATE ROLE locked LOGIN PASSWORD '"+canary+"'")
	p := g.peer()
	var refusals []string
	for _, read := range []bool{false, true} {
		if read {
			g.readOnly(policy.RefuseCommit, 0)
		}
		for _, sql := range []string{
			"select '" + canary + "'", "delete from account_move where '" + canary + "' = '" + canary + "'", "selec '" + canary + "' account_move",
			"insert into bus_bus (channel) values ('" + canary + "')", "select '" + canary + "'::int", "set application_name = 'x" + "'",
			"do $$begin perform '" + canary + "'; delete from account_move; end$$", "prepare x as select '" + canary + "'; execute x", "execute nothing('" + canary + "')",
			"alter role locked password '" + canary + "'", "/* " + canary + " */ truncate account_move", "copy (select '" + canary + "') to stdout",
			"create table " + "x (n text default '" + canary + "')", "alter table account_move add column z text default '" + canary + "'", "savepoint " + canary,
			"declare " + canary + " cursor for select 1", "call purge_messages('" + canary + "')", "\x01" + canary, "select '" + strings.Repeat(canary, 100),
		} {
			for _, send := range []string{"Q " + sql, "P - " + sql + " ; B - - ; E - ; S"} {
				p.run(send)
				for _, e := range p.errs {
					if strings.Contains(e.Message+e.Detail+e.Hint, "lockkeeper") || e.Code == "23G01" || e.Code == "23G02" {
						refusals = append(refusals, e.Message+e.Detail+e.Hint)
					}
				}
			}
			if p.status != 'I' {
				p.run("Q rollback")
			}
		}
	}
	for _, password := range []string{canary, "wrong" + canary} {
		conn, err := rawDial(t, g.addr)
		if err != nil {
			t.Fatal(err)
		}
		q := &peer{t: t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
		q.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "locked", "database": g.db}})
		if _, err := q.fe.Receive(); err != nil {
			t.Fatal(err)
		}
		q.send(&pgproto3.PasswordMessage{Password: password})
		_, _ = q.read('Z')
		_ = conn.Close()
	}
	p.end()
	eventually(t, "the sessions end", func() bool { return len(g.srv.Sessions()) == 0 })
	g.mu.Lock()
	entries, err := json.Marshal(g.entries)
	g.mu.Unlock()
	if err != nil || len(entries) < 1000 {
		t.Fatalf("%d bytes of journal, %v", len(entries), err)
	}
	mu.Lock()
	logged := log.String()
	mu.Unlock()
	if !strings.Contains(logged, "session ended") || len(refusals) < 10 {
		t.Fatalf("%d refusals, log:\n%s", len(refusals), logged)
	}
	for where, text := range map[string]string{"the journal": string(entries), "the log": logged, "refusals": strings.Join(refusals, "\n")} {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s: …%s…", where, text[max(0, i-200):min(len(text), i+100)])
		}
	}
}

// locked makes a buffer safe for several writers.
type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
