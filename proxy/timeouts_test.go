package proxy_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/journal"
	"lockkeeper/proxy"
)

func TestAStatementThatTakesTooLongIsCancelled(t *testing.T) {
	g := limited(t, "statement_timeout: 1s")
	for name, tt := range map[string]struct{ before, send, want, after string }{
		"simple":         {"", "Q select pg_sleep(600)", "E 57014, Z I", ""},
		"extended":       {"", "P - select pg_sleep(600) ; B - - ; E - ; S", "1, 2, E 57014, Z I", ""},
		"in a block":     {"begin", "Q select pg_sleep(600)", "E 57014, Z E", "rollback"},
		"second of two":  {"", "Q select 1; select pg_sleep(600)", "T, D 1, C SELECT 1, T, E 57014, Z I", ""},
		"of a pipeline":  {"", "P - select pg_sleep(600) ; B - - ; E - ; S ; P - select 1 ; B - - ; E - ; S", "1, 2, E 57014, Z I, 1, 2, D 1, C SELECT 1, Z I", ""},
		"in one segment": {"", "P - select pg_sleep(600) ; B - - ; E - ; P - select 1 ; B - - ; E - ; S", "1, 2, E 57014, Z I", ""},
		"prepared":       {"prepare slow as select pg_sleep(600)", "Q execute slow", "E 57014, Z I", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := g.peer()
			if tt.before != "" {
				p.ok(tt.before)
			}
			p.send(pipeline(tt.send)...)
			var got []string
			for range strings.Count(tt.want, "Z ") {
				got = append(got, p.until('Z')...)
				if len(p.errs) == 1 && !strings.Contains(p.errs[0].Message, "lockkeeper's statement timeout") {
					t.Errorf("the error says %q", p.errs[0].Message)
				}
			}
			if all := strings.ReplaceAll(strings.Join(got, ", "), "T, E", "E"); all != strings.ReplaceAll(tt.want, "T, E", "E") {
				t.Errorf("got %s, want %s", all, tt.want)
			}
			if tt.after != "" {
				p.ok(tt.after)
			}
			if v := p.value("select 1"); v != "1" {
				t.Errorf("afterwards select 1 is %s", v)
			}
		})
	}
	g.awaitSleeper(0)
}

func TestTheCancelOfAStatementIsJournalled(t *testing.T) {
	g := limited(t, "statement_timeout: 1s")
	p := g.peer()
	if got := p.run("Q insert into bus_bus (channel) select pg_sleep(600)::text"); got != "E 57014, Z I" {
		t.Fatal(got)
	}
	for _, e := range g.journal(journal.StatementEntry) {
		if e.SQLSTATE == "57014" && e.Outcome == "error" {
			return
		}
	}
	t.Errorf("the journal has %v", g.journal(journal.StatementEntry))
}

// TestATimeoutOfAUserIsBeforeThatOfADatabase has three guards whose timeouts
// differ in where they are set; where none applies the statement goes on until
// another one has been cancelled.
func TestATimeoutOfAUserIsBeforeThatOfADatabase(t *testing.T) {
	for _, tt := range []struct {
		name, limits string
		cancelled    bool
	}{
		{"user before all", "statement_timeout: 1h, users: {postgres: {statement_timeout: 1s}}", true},
		{"database before all", "statement_timeout: 1h, databases: {DB: {statement_timeout: 1s}}", true},
		{"user before database", "users: {postgres: {statement_timeout: 1s}}, databases: {DB: {statement_timeout: 1h}}", true},
		{"no limit for one user", "statement_timeout: 1s, users: {postgres: {statement_timeout: 0s}}", false},
		{"another database", "databases: {another: {statement_timeout: 1s}}", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := inDatabaseDB(t, tt.limits)
			p := newPeer(t, g.addr, "postgres", "DB")
			p.send(&pgproto3.Query{String: "select pg_sleep(600)"})
			if tt.cancelled {
				if got := strings.Join(p.until('Z'), ", "); !strings.HasSuffix(got, "E 57014, Z I") {
					t.Error(got)
				}
				return
			}
			other := limited(t, "statement_timeout: 1s").peer()
			if got := other.run("Q select pg_sleep(600)"); !strings.HasSuffix(got, "E 57014, Z I") {
				t.Fatal(got)
			}
			for _, s := range g.srv.Sessions() {
				if s.State != "active" {
					t.Errorf("the session is %s", s.State)
				}
			}
		})
	}
}

// TestOtherTimeoutsCanBeOfADatabase is about those that end sessions.
func TestOtherTimeoutsCanBeOfADatabase(t *testing.T) {
	for limits, want := range map[string]string{
		"databases: {DB: {idle_timeout: 1s}}":                "57P05",
		"databases: {DB: {idle_in_transaction_timeout: 1s}}": "25P03",
		"databases: {DB: {transaction_timeout: 1s}}":         "25P04",
	} {
		g := inDatabaseDB(t, limits)
		p := newPeer(t, g.addr, "postgres", "DB")
		if want != "57P05" {
			p.ok("begin")
		}
		if _, err := p.read(0); err == nil || len(p.errs) != 1 || p.errs[0].Code != want {
			t.Errorf("%s: %v, %v", limits, p.errs, err)
		}
	}
}

// What is held has not reached the server, and what a walsender does is no
// statement. Another session's timeout says how late it is.
func TestWhatIsNotTimed(t *testing.T) {
	g := limited(t, "statement_timeout: 1s")
	held := g.peer()
	walsender := g.peer("replication", "database")
	walsender.send(&pgproto3.Query{String: "START_REPLICATION " + walsender.value("select pg_current_wal_flush_lsn()")})
	eventually(t, "the walsender streams", func() bool {
		s := g.sessionTagged("replication")
		return s != nil && s.Replicating
	})
	other := limited(t, "statement_timeout: 1s")
	g.pause(1<<40, false)
	held.send(&pgproto3.Query{String: insert})
	g.awaitHeld(1)
	for range 2 {
		if got := other.peer().run("Q select pg_sleep(600)"); !strings.HasSuffix(got, "E 57014, Z I") {
			t.Fatal(got)
		}
	}
	g.contain()
	if got := strings.Join(held.until('Z'), ", "); got != "C INSERT 0 1, Z I" {
		t.Errorf("held: %s", got)
	}
	if s := g.sessionTagged("replication"); s == nil || s.State != "active" {
		t.Errorf("the walsender's session is %+v", s)
	}
}

// A pipeline whose answers came at a Flush waits for its client.
func TestAnOpenPipelineIsNotAStatement(t *testing.T) {
	g, other := limited(t, "statement_timeout: 1s"), limited(t, "statement_timeout: 1s")
	p := g.peer()
	p.send(pipeline("P - select 1 ; B - - ; E - ; H")...)
	p.until('C')
	for range 2 {
		if got := other.peer().run("Q select pg_sleep(600)"); !strings.HasSuffix(got, "E 57014, Z I") {
			t.Fatal(got)
		}
	}
	if got := p.run("P - select 2 ; B - - ; E - ; S"); got != "1, 2, D 2, C SELECT 1, Z I" {
		t.Error(got)
	}
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "lockkeeper_session_timeouts_total" {
			t.Errorf("timed out: %v", f)
		}
	}
}

// The server does not look for cancels while it waits for COPY data: then the
// session has to end.
func TestAStatementThatCannotBeCancelledEndsItsSession(t *testing.T) {
	t.Parallel() // it waits for the grace
	g := limited(t, "statement_timeout: 1s")
	p := g.peer()
	pid := p.value("select pg_backend_pid()")
	p.send(&pgproto3.Query{String: "copy bus_bus (channel) from stdin"})
	_, err := p.read('Z')
	if err == nil || !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("read: %v", err)
	}
	if len(p.errs) != 1 || p.errs[0].Severity != "FATAL" || p.errs[0].Code != "57014" {
		t.Errorf("the client was told %v", p.errs)
	}
	eventually(t, "the server process has ended", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where pid = "+pid) == "0"
	})
}

// sessionTagged returns the session that has a tag; nil when there is none.
func (g *guard) sessionTagged(tag string) *proxy.SessionInfo {
	for _, s := range g.srv.Sessions() {
		if slices.Contains(s.Tags, tag) {
			return &s
		}
	}
	return nil
}

// TestWalsendersAreTagged is what pauses and policies tell them by.
func TestWalsendersAreTagged(t *testing.T) {
	g := newGuard(t)
	p := g.peer("replication", "true")
	if s := g.sessionTagged("replication"); s == nil || s.Replication != "physical" || g.sessionTagged("backup") != nil {
		t.Errorf("a physical replication connection: %+v", s)
	}
	p.send(&pgproto3.Query{String: "BASE_BACKUP (LABEL 'tagged', CHECKPOINT 'fast', WAIT false)"})
	p.until('Z')
	if s := g.sessionTagged("backup"); s == nil || !slices.Contains(s.Tags, "replication") || s.Replicating {
		t.Errorf("after BASE_BACKUP: %+v", s)
	}
	p.end()
	eventually(t, "the session has ended", func() bool { return len(g.srv.Sessions()) == 0 })
	g.peer("replication", "database").ok("begin")
	if s := g.sessionTagged("replication"); s == nil || s.Replication != "logical" || s.TxSince.IsZero() {
		t.Errorf("a logical replication connection: %+v", s)
	}
}
