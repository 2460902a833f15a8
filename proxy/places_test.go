package proxy_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// limited starts a guard with limits in YAML.
func limited(t *testing.T, limits string) *guard {
	t.Helper()
	return newGuard(t, func(s *setup) {
		if err := yaml.Load([]byte("limits: {"+limits+"}"), &s.cfg, yaml.WithKnownFields()); err != nil {
			t.Fatal(err)
		}
	})
}

// inDatabaseDB starts a guard with limits in YAML and two databases, DB and
// other.
func inDatabaseDB(t *testing.T, limits string) *guard {
	t.Helper()
	return newGuard(t, func(s *setup) {
		if err := yaml.Load([]byte("limits: {"+limits+"}"), &s.cfg, yaml.WithKnownFields()); err != nil {
			t.Fatal(err)
		}
		pg := pgtest.Shared(t)
		target := proxy.Target{Host: pg.Host(), Port: uint16(pg.Port()), Database: "postgres"}
		s.cfg.Servers = map[string]proxy.Target{"DB": target, "other": target}
	})
}

// refusedWith logs in and returns the SQLSTATE of the refusal; "" for none.
func (g *guard) refusedWith(database string) string {
	c := dialRaw(g.t, g.addr)
	c.conn.Write(startupPacket(database))
	for {
		switch m := c.read(); {
		case m == nil:
			return "closed"
		case m.Type() == 'E':
			return errorField(m.Body(), 'C')
		case m.Type() == 'Z':
			return ""
		}
	}
}

// errorField returns a field of an ErrorResponse.
func errorField(body []byte, code byte) string {
	for _, f := range strings.Split(string(body), "\x00") {
		if f != "" && f[0] == code {
			return f[1:]
		}
	}
	return ""
}

func TestSessionsAreBoundedByUserAndDatabase(t *testing.T) {
	for _, tt := range []struct{ name, limits, another string }{
		{"all", "sessions: 2", "53300"},
		{"user", "user_sessions: 2", "53300"},
		{"database", "database_sessions: 2", ""},
		{"one user more", "user_sessions: 1, users: {postgres: {sessions: 2}}", "53300"},
		{"one database less", "database_sessions: 9, databases: {DB: {sessions: 2}}", ""},
		{"another user", "users: {somebody: {sessions: 1}}, user_sessions: 2", "53300"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := inDatabaseDB(t, tt.limits)
			first := newPeer(t, g.addr, pgtest.Superuser, "DB")
			newPeer(t, g.addr, pgtest.Superuser, "DB")
			if code := g.refusedWith("DB"); code != "53300" {
				t.Errorf("the third session: %q, want 53300", code)
			}
			if code := g.refusedWith("other"); code != tt.another {
				t.Errorf("one with another database: %q, want %q", code, tt.another)
			}
			first.conn.Close()
			eventually(t, "a place is free again", func() bool { return g.refusedWith("DB") == "" })
		})
	}
}

// TestHalfOpenClientsKeepNobodyOut opens more connections than may be in
// login, on which nothing is ever said.
func TestHalfOpenClientsKeepNobodyOut(t *testing.T) {
	g := limited(t, "sessions: 2, logins: 5")
	var silent []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	g.wait("lockkeeper_logins_evicted_total", 15) // one that comes behind the peer might find its place free
	p := g.peer()
	if v := p.value("select 1"); v != "1" {
		t.Errorf("select 1 is %s", v)
	}
	eventually(t, "the oldest are gone", func() bool { return g.reading("lockkeeper_logins_evicted_total") == 16 })
	silent[0].SetReadDeadline(time.Now().Add(peerPatience))
	if _, err := silent[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest silent client got something")
	}
}

// TestLoginsAreBounded has clients that never answer the server's request for
// a password.
func TestLoginsAreBounded(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("host all all 127.0.0.1/32 scram-sha-256"))
	g := newGuard(t, func(s *setup) {
		s.pg = pg
		s.cfg.Limits.Logins = 2
	})
	for range 2 {
		c := dialRaw(t, g.addr)
		c.conn.Write(startupPacket(g.db))
		if m := c.read(); m == nil || m.Type() != 'R' {
			t.Fatalf("got %s, want a request for a password", show(m))
		}
	}
	if n := g.reading("lockkeeper_logins"); n != 2 {
		t.Errorf("%v in login, want 2", n)
	}
	if code := g.refusedWith(g.db); code != "53300" {
		t.Errorf("the third: %q, want 53300", code)
	}
}

func TestTimeoutsEndSessions(t *testing.T) {
	for _, tt := range []struct {
		limits, begin, code string
	}{
		{"idle_timeout: 1s", "select 1", "57P05"},
		{"idle_in_transaction_timeout: 1s", "begin", "25P03"},
		{"idle_in_transaction_timeout: 1s", "begin; select 1/0", "25P03"},
		{"transaction_timeout: 1s", "begin", "25P04"},
		{"idle_timeout: 1h, users: {postgres: {idle_timeout: 1s}}", "select 1", "57P05"},
	} {
		t.Run(tt.limits+" "+tt.begin, func(t *testing.T) {
			g := limited(t, tt.limits)
			p := g.peer()
			p.query(tt.begin)
			if out, err := p.read(0); err == nil || len(p.errs) != 1 || p.errs[0].Code != tt.code || p.errs[0].Severity != "FATAL" {
				t.Errorf("got %v, %v, want %s and the end", out, err, tt.code)
			}
		})
	}
}

// TestTransactionTimeoutStopsTheStatement: the server must not go on for
// nobody.
func TestTransactionTimeoutStopsTheStatement(t *testing.T) {
	g := limited(t, "transaction_timeout: 1s")
	p := g.peer()
	p.ok("begin")
	pid := p.value("select pg_backend_pid()")
	_, err := p.read(0)
	if err == nil || len(p.errs) == 0 {
		t.Fatalf("the session goes on: %v", p.errs)
	}
	eventually(t, "the server process has ended", func() bool {
		rows, err := g.pg.Query(t.Context(), "postgres", "select 1 from pg_stat_activity where pid = "+pid)
		return err == nil && len(rows) == 0
	})
	p = g.peer()
	pid = p.value("select pg_backend_pid()")
	p.ok("begin")
	p.send(pipeline("Q select pg_sleep(60)")...)
	if _, err := p.read(0); err == nil {
		t.Error("the session goes on")
	}
	eventually(t, "the server process has ended", func() bool {
		rows, err := g.pg.Query(t.Context(), "postgres", "select 1 from pg_stat_activity where pid = "+pid)
		return err == nil && len(rows) == 0
	})
}

// TestTimeoutsLeaveOthersAlone has a session that is busy and one whose user
// has no timeout.
func TestTimeoutsLeaveOthersAlone(t *testing.T) {
	g := limited(t, "idle_timeout: 1s, idle_in_transaction_timeout: 1s, users: {postgres: {idle_timeout: 0, idle_in_transaction_timeout: 0}}")
	idle, open := g.peer(), g.peer()
	open.ok("begin")
	busy := limited(t, "idle_timeout: 1s, idle_in_transaction_timeout: 1s").peer()
	busy.ok("select pg_sleep(3)")
	idle.ok("select 1")
	open.ok("commit")
}

func TestConfigOfLimits(t *testing.T) {
	for text, want := range map[string]string{
		"users: {odoo: {sessions: 5, idle_timeout: 1h}}": "",
		"users: {odoo: {sessions: -1}}":                  "limits.users.odoo: sessions: must not be negative",
		"users: {odoo: {idle_timeout: -1s}}":             "limits.users.odoo: idle_timeout: must not be negative",
		"users: {odoo: {idle: 1s}}":                      "field idle not found",
		"users: {odoo: {idle_timeout: soon}}":            "soon",
		"databases: {prod: {statement_timeout: -1s}}":    "limits.databases.prod: statement_timeout: must not be negative",
		"statement_timeout: -1s":                         "limits.statement_timeout: must not be negative",
		"databases: {prod: {sessions: -1}}":              "limits.databases.prod: sessions: must not be negative",
		"transaction_timeout: -1s":                       "limits.transaction_timeout: must not be negative",
		"logins: -1":                                     "limits.logins: must not be negative",
	} {
		c := proxy.Default()
		c.Servers = map[string]proxy.Target{"*": {Host: "h"}}
		err := yaml.Load([]byte("limits: {"+text+"}"), &c, yaml.WithKnownFields())
		if err == nil {
			err = c.Validate()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
