package faults

import (
	"cmp"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
)

// client speaks the protocol message by message.
type client struct {
	t    *testing.T
	conn net.Conn
	fe   *pgproto3.Frontend
	pid  uint32
	key  []byte
}

// raw is a client that has said nothing yet.
func raw(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return wrap(t, conn)
}

func wrap(t *testing.T, conn net.Conn) *client {
	return &client{t: t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
}

// try connects and logs in; it returns what the server said when it refused.
func try(t *testing.T, addr, database, application string, more ...string) (c *client, refused string) {
	t.Helper()
	c = raw(t, addr)
	c.startup(database, application, more...)
	got, end := c.until('Z')
	if end != "" {
		_ = c.conn.Close()
		return nil, seen(got, end)
	}
	return c, ""
}

// login connects and logs in as the superuser, who is trusted.
func (g *guard) login(addr, database, application string, more ...string) *client {
	g.t.Helper()
	c, refused := try(g.t, addr, database, application, more...)
	if c == nil {
		g.t.Fatalf("login to %s: %s\n%s", database, refused, g.log())
	}
	return c
}

// victim logs in through both fault proxies, with a row in a transaction that
// has not ended.
func (g *guard) victim(more ...string) *client {
	g.t.Helper()
	c := g.login(g.front.Addr(), g.db, "victim", more...)
	c.ok("begin; insert into changed values (1); select pg_advisory_xact_lock(1)")
	return c
}

func (c *client) startup(database, application string, more ...string) {
	values := map[string]string{"user": pgtest.Superuser, "database": database, "application_name": application}
	for i := 0; i+1 < len(more); i += 2 {
		values[more[i]] = more[i+1]
	}
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: values})
}

// send writes messages at once. Errors are the reader's to find.
func (c *client) send(messages ...pgproto3.FrontendMessage) {
	for _, m := range messages {
		c.fe.Send(m)
	}
	_ = c.fe.Flush()
}

func (c *client) query(sql string) { c.send(&pgproto3.Query{String: sql}) }

// until reads up to a message of a type. It returns what was told on the way,
// and how the connection has ended, if it has.
func (c *client) until(last byte) (told []string, end string) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		m, err := c.fe.Receive()
		if err != nil {
			return told, c.ending(err)
		}
		text, kind := c.tell(m)
		if text != "" {
			told = append(told, text)
		}
		if kind == last {
			return told, ""
		}
	}
}

func (c *client) ending(err error) string {
	c.t.Helper()
	switch {
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	case strings.HasPrefix(err.Error(), "invalid body length"):
		_, err = io.Copy(io.Discard, c.conn)
		return "bytes that are no message, " + c.ending(cmp.Or(err, io.EOF))
	}
	c.t.Fatalf("the connection neither answers nor ends: %v", err)
	return ""
}

// tell writes a message down, as far as these tests look at it.
func (c *client) tell(m pgproto3.BackendMessage) (text string, kind byte) {
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		return "", 'Z'
	case *pgproto3.ErrorResponse:
		return m.Code, 'E'
	case *pgproto3.NoticeResponse:
		return m.Severity + " " + m.Code, 'N'
	case *pgproto3.DataRow:
		if len(m.Values) == 0 || len(m.Values[0]) > 100 {
			return "", 'D'
		}
		return "= " + string(m.Values[0]), 'D'
	case *pgproto3.BackendKeyData:
		c.pid, c.key = m.ProcessID, append([]byte(nil), m.SecretKey...)
		return "", 'K'
	case *pgproto3.CopyInResponse:
		return "", 'G'
	}
	return "", 0
}

// seen is what a client saw, for the table.
func seen(told []string, end string) string {
	var all []string
	for _, text := range told {
		if !strings.HasPrefix(text, "= ") {
			all = append(all, text)
		}
	}
	if end != "" {
		all = append(all, end)
	}
	return strings.Join(all, ", ")
}

// fate reads to the end of the connection, which must come, and says what the
// client saw.
func (c *client) fate() string {
	c.t.Helper()
	var all []string
	for {
		told, end := c.until('Z')
		all = append(all, told...)
		if end != "" {
			_ = c.conn.Close()
			return seen(all, end)
		}
	}
}

// ok runs what must not fail and returns the last row's first value.
func (c *client) ok(sql string) string {
	c.t.Helper()
	c.query(sql)
	told, end := c.until('Z')
	last := ""
	for _, text := range told {
		value, row := strings.CutPrefix(text, "= ")
		if !row && !strings.HasPrefix(text, "NOTICE") {
			c.t.Fatalf("%s: %s", sql, text)
		}
		last = value
	}
	if end != "" {
		c.t.Fatalf("%s: %s", sql, end)
	}
	return last
}

// bye ends the session as it should be.
func (c *client) bye() {
	c.send(&pgproto3.Terminate{})
	_ = c.conn.Close()
}

// reset ends the connection without a word, as a process that is killed may.
func (c *client) reset() {
	_ = c.conn.(*net.TCPConn).SetLinger(0)
	_ = c.conn.Close()
}
