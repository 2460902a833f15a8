package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy/wire"
)

// deviation is something that PgBouncer answers otherwise than the server.
type deviation struct {
	name string
	run  func(a asked) string
}

// asked is who is asked.
type asked struct {
	t        *testing.T
	addr, db string
	pg       *pgtest.Server
	patience time.Duration // for an answer that may not come
}

// login logs in with settings and returns the client and what it was told.
func (a asked) login(settings ...string) (*rawClient, string) {
	a.t.Helper()
	c := dialRaw(a.t, a.addr)
	c.startup(append([]string{"user", pgtest.Superuser, "database", a.db}, settings...)...)
	c.flush()
	return c, brief(c.until('Z', 1))
}

// value logs in with settings and returns what a statement returns.
func (a asked) value(sql string, settings ...string) string {
	a.t.Helper()
	c, told := a.login(settings...)
	if c.status == 0 {
		return told
	}
	var out []string
	for _, m := range c.exec(sql) {
		if m != nil && m.Type() == 'D' {
			out = append(out, strings.TrimSpace(values(m.Body())))
		}
	}
	return strings.Join(out, ", ")
}

// brief says what of a login or an exchange matters here.
func brief(ms []wire.Message) string {
	var out []string
	for _, m := range ms {
		switch {
		case m == nil:
			out = append(out, "closed")
		case m.Type() == 'E':
			out = append(out, fmt.Sprintf("%s %s: %s", wire.Field(m.Body(), 'S'), wire.Field(m.Body(), 'C'), wire.Field(m.Body(), 'M')))
		case m.Type() == 'v':
			out = append(out, "NegotiateProtocolVersion")
		case m.Type() == 'Z':
			out = append(out, "ready")
		}
	}
	return strings.Join(out, ", ")
}

func deviations() []deviation {
	version := func(minor uint32, more string) func(asked) string {
		return func(a asked) string {
			c := dialRaw(a.t, a.addr)
			c.out.WriteString(packet(wire.Version3+minor, "user\x00"+pgtest.Superuser+"\x00database\x00"+a.db+"\x00"+more+"\x00"))
			c.flush()
			return brief(c.until('Z', 1))
		}
	}
	return []deviation{
		{"`options` in the startup packet", func(a asked) string {
			return a.value("show intervalstyle", "options", "-c intervalstyle=iso_8601")
		}},
		{"DateStyle in the startup packet, then RESET", func(a asked) string {
			return a.value("set datestyle = 'ISO'; reset datestyle; show datestyle", "datestyle", "German, DMY")
		}},
		{"TimeZone in the startup packet: where it comes from", func(a asked) string {
			return a.value("select source from pg_settings where name = 'TimeZone'", "TimeZone", "Asia/Tokyo")
		}},
		{"a setting of the startup packet that PgBouncer does not track", func(a asked) string {
			return a.value("show extra_float_digits", "extra_float_digits", "2")
		}},
		{"a setting that no server knows", func(a asked) string { _, told := a.login("no_such_setting", "1"); return told }},
		{"the process id in BackendKeyData is the server's", func(a asked) string {
			c, _ := a.login()
			return strings.TrimSpace(values(c.exec(fmt.Sprintf("select pg_backend_pid() = %d", c.pid))[1].Body()))
		}},
		{"a notification of one's own: its process id is that of BackendKeyData", func(a asked) string {
			c, _ := a.login()
			for _, m := range c.exec("listen a; notify a") {
				if m != nil && m.Type() == 'A' {
					return fmt.Sprint(binary.BigEndian.Uint32(m.Body()) == c.pid)
				}
			}
			return "none"
		}},
		{"protocol 3.9999", version(9999, "")},
		{"an option `_pq_.` of the future", version(0, "_pq_.not_yet\x001\x00")},
		{"a startup packet of 9,000 bytes", version(0, "options\x00"+strings.Repeat(" ", 8950)+"\x00")},
		{"a startup packet in single bytes", func(a asked) string {
			c := dialRaw(a.t, a.addr)
			c.cut = func([]byte) int { return 1 }
			c.startup("user", pgtest.Superuser, "database", a.db)
			c.flush()
			return brief(c.until('Z', 1))
		}},
		{"a startup packet whose length is 3", func(a asked) string {
			c := dialRaw(a.t, a.addr)
			c.out.WriteString("\x00\x00\x00\x03")
			c.flush()
			return a.next(c)
		}},
		{"a database that is not there", func(a asked) string { a.db = "no_such_database"; _, told := a.login(); return told }},
		{"a wrong password", func(a asked) string {
			host, port, _ := net.SplitHostPort(a.addr)
			conn, err := pgx.Connect(a.t.Context(), fmt.Sprintf("host=%s port=%s user=guarded password=wrong dbname=%s sslmode=disable", host, port, a.db))
			var e *pgconn.PgError
			if !errors.As(err, &e) {
				if conn != nil {
					_ = conn.Close(context.Background())
				}
				return fmt.Sprint(err)
			}
			return e.Severity + " " + e.Code + ": " + e.Message
		}},
		{"a replication connection", func(a asked) string { _, told := a.login("replication", "database"); return told }},
		{"the server process is terminated while the client is idle", func(a asked) string {
			c, _ := a.login()
			pid := strings.Trim(values(c.exec("select pg_backend_pid()")[1].Body()), ` "`)
			a.pg.MustExec(a.t, a.db, "select pg_terminate_backend("+pid+")")
			return a.next(c)
		}},
		{"a first message of a type that is none", func(a asked) string {
			c, _ := a.login()
			c.send('z')
			c.flush()
			return a.next(c)
		}},
	}
}

// next is what comes next within the patience there is.
func (a asked) next(c *rawClient) string {
	_ = c.conn.SetReadDeadline(time.Now().Add(a.patience))
	b := make([]byte, 1)
	_, err := io.ReadFull(c.conn, b)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "nothing"
	case err != nil:
		return "closed"
	}
	c.conn = &unread{c.conn, b}
	return brief(c.until('Z', 1))
}

// unread gives bytes back to a connection.
type unread struct {
	net.Conn
	b []byte
}

func (u *unread) Read(p []byte) (int, error) {
	if len(u.b) > 0 {
		n := copy(p, u.b)
		u.b = u.b[n:]
		return n, nil
	}
	return u.Conn.Read(p)
}

const differencesPage = "../docs/pgbouncer-differences.md"

// What PgBouncer answers otherwise than the server, lockkeeper answers as the
// server. UPDATE_GOLDEN=1 measures PgBouncer 1.18, too, where there is one, and
// writes the page; else the page must say what the server and lockkeeper answer.
func TestWhatPgBouncerDoesDifferently(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("host all guarded 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"))
	pg.MustExec(t, "postgres", "create role guarded login password 'right'")
	g := newGuard(t, func(s *setup) { s.pg = pg })
	pooler := ""
	if strings.HasPrefix(pgtest.BouncerVersion(t.Context()), "1.18.") && os.Getenv("UPDATE_GOLDEN") != "" {
		pooler = pgtest.StartBouncer(t, pgtest.BouncerConfig{
			Server: pg.Addr(), Users: map[string]string{"guarded": "right"},
			HBA: []string{"host all guarded 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"},
		}).Addr()
	}
	update := pooler != ""
	text, err := os.ReadFile(differencesPage)
	if err != nil {
		t.Fatal(err)
	}
	table := "\n| | PostgreSQL | lockkeeper | PgBouncer 1.18 |\n|---|---|---|---|\n"
	for _, d := range deviations() {
		direct := d.run(asked{t, pg.Addr(), g.db, pg, rawPatience})
		through := d.run(asked{t, g.addr, g.db, pg, rawPatience})
		if direct != through {
			t.Errorf("%s:\ndirect  %s\nthrough %s", d.name, direct, through)
		}
		direct, through = cell(direct, g.db), cell(through, g.db)
		if update {
			table += fmt.Sprintf("| %s | %s | %s | %s |\n", d.name, direct, through, cell(d.run(asked{t, pooler, g.db, pg, 3 * time.Second}), g.db))
		} else if row := fmt.Sprintf("\n| %s | %s | %s | ", d.name, direct, through); !strings.Contains(string(text), row) && pg.Value(t, g.db, "show server_version_num")[:2] == goldenMajor {
			t.Errorf("%s does not have: %s", differencesPage, row)
		}
	}
	if !update {
		return
	}
	before, _, _ := strings.Cut(string(text), "<!-- differences:begin -->")
	page := before + "<!-- differences:begin -->\n" + table + "\n<!-- differences:end -->\n"
	if err := os.WriteFile(differencesPage, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cell is an answer for the page.
func cell(answer, db string) string {
	answer = strings.ReplaceAll(strings.ReplaceAll(answer, db, "db"), "|", "\\|")
	if answer == "" {
		return "nothing"
	}
	return answer
}
