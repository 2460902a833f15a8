package proxy_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy/wire"
)

// rawPatience bounds every wait for a peer that must answer.
const rawPatience = time.Minute

// rawClient speaks the protocol message by message, in any pieces.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	out  bytes.Buffer // written by flush
	cut  func(b []byte) int
	pid  uint32
	key  []byte

	version uint32 // of the protocol; 0 is 3.0
	status  byte   // of the last ReadyForQuery
}

// dialRaw connects to an address without sending anything.
func dialRaw(t testing.TB, addr string) *rawClient {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, rawPatience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &rawClient{t: t, conn: conn, cut: func(b []byte) int { return len(b) }}
}

// loginRaw connects and logs in as the superuser, who is trusted.
func loginRaw(t testing.TB, addr, database string, more ...string) *rawClient {
	t.Helper()
	c := dialRaw(t, addr)
	c.startup(append([]string{"user", pgtest.Superuser, "database", database}, more...)...)
	c.flush()
	c.until('Z', 1)
	return c
}

func (c *rawClient) startup(parameters ...string) {
	body := binary.BigEndian.AppendUint32(nil, cmp.Or(c.version, wire.Version3))
	for _, p := range parameters {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	c.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)))
	c.out.Write(body)
}

// send collects one message of the client.
func (c *rawClient) send(kind byte, parts ...string) {
	c.out.Write(wire.Append(nil, kind, parts...))
}

func (c *rawClient) query(sql string) { c.send('Q', sql, "\x00") }

// flush writes what was collected, in the pieces that cut makes.
func (c *rawClient) flush() {
	b := c.out.Bytes()
	for len(b) > 0 {
		n := c.cut(b)
		if _, err := c.conn.Write(b[:n]); err != nil {
			break // the reader finds out why
		}
		b = b[n:]
	}
	c.out.Reset()
}

// read returns the next message; nil at the end of the connection.
func (c *rawClient) read() wire.Message {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(rawPatience))
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(c.conn, header[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatalf("no message within %v", rawPatience)
		}
		return nil
	}
	size := wire.Size(header[:])
	if size < 0 {
		c.t.Fatalf("bad message %x", header)
	}
	m := append(make(wire.Message, 0, size), header[:]...)[:size]
	if _, err := io.ReadFull(c.conn, m[wire.HeaderLen:]); err != nil {
		return nil
	}
	if m.Type() == 'Z' {
		c.status = m.Body()[0]
	}
	if m.Type() == 'K' {
		c.pid, c.key = binary.BigEndian.Uint32(m.Body()), m.Body()[4:]
	}
	return m
}

// until reads up to the n-th message of a kind, or the end of the connection.
func (c *rawClient) until(kind byte, n int) []wire.Message {
	c.t.Helper()
	var out []wire.Message
	for n > 0 {
		m := c.read()
		if m == nil {
			return append(out, nil)
		}
		out = append(out, m)
		if m.Type() == kind {
			n--
		}
	}
	return out
}

// exec sends a Query and returns its replies.
func (c *rawClient) exec(sql string) []wire.Message {
	c.t.Helper()
	c.query(sql)
	c.flush()
	return c.until('Z', 1)
}

// cancel sends a CancelRequest for the client's server process and waits for
// the end of that connection.
func (c *rawClient) cancel(addr string) {
	c.t.Helper()
	c.cancelAs(addr, "")
}

// cancelAs is cancel behind a request for "ssl" or "gss" encryption that is
// declined, or with a "wrong" key.
func (c *rawClient) cancelAs(addr, how string) {
	c.t.Helper()
	conn, err := net.DialTimeout("tcp", addr, rawPatience)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rawPatience))
	key := bytes.Clone(c.key)
	switch code := map[string]uint32{"ssl": wire.SSLCode, "gss": wire.GSSENCCode}[how]; {
	case code != 0:
		conn = requestEncryption(c.t, conn, code)
	case how == "wrong":
		key[0]++
	}
	conn.Write(wire.AppendCancel(nil, c.pid, key))
	io.Copy(io.Discard, conn)
}

// encrypt asks for TLS, which must be given.
func (c *rawClient) encrypt() {
	c.t.Helper()
	plain := c.conn
	if c.conn = requestEncryption(c.t, plain, wire.SSLCode); c.conn == plain {
		c.t.Fatal("TLS is declined")
	}
}

// requestEncryption sends a request and, where it is answered by S, encrypts.
func requestEncryption(t testing.TB, conn net.Conn, code uint32) net.Conn {
	t.Helper()
	conn.SetDeadline(time.Now().Add(rawPatience))
	defer conn.SetDeadline(time.Time{})
	conn.Write([]byte(packet(code, "")))
	b := make([]byte, 1)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	switch b[0] {
	case 'N':
		return conn
	case 'S':
		encrypted := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := encrypted.Handshake(); err != nil {
			t.Fatal(err)
		}
		return encrypted
	default:
		t.Fatalf("a request for encryption is answered by %q", b)
		return nil
	}
}

// pieces are ways to cut what is written.
func pieces() map[string]func([]byte) int {
	random := rand.New(rand.NewPCG(1, 2))
	return map[string]func([]byte) int{
		"whole":  func(b []byte) int { return len(b) },
		"bytes":  func([]byte) int { return 1 },
		"random": func(b []byte) int { return min(len(b), 1+random.IntN(40)) },
	}
}

// types returns the types of messages, for short comparisons.
func types(ms []wire.Message) string {
	var b strings.Builder
	for _, m := range ms {
		if m == nil {
			b.WriteByte('.')
			continue
		}
		b.WriteByte(m.Type())
	}
	return b.String()
}

// show writes a message of the server on one line. What differs between two
// servers or two runs (process ids, OIDs of tables, lines of source, texts) is
// left out.
func show(m wire.Message) string {
	if m == nil {
		return "EOF"
	}
	body := m.Body()
	switch m.Type() {
	case 'C':
		return fmt.Sprintf("CommandComplete %q", bytes.TrimSuffix(body, []byte{0}))
	case 'Z':
		return "ReadyForQuery " + string(body)
	case 'T':
		return "RowDescription" + columns(body)
	case 'D':
		return "DataRow" + values(body)
	case 't':
		return fmt.Sprintf("ParameterDescription %x", body)
	case 'E':
		return "ErrorResponse" + fields(body)
	case 'N':
		return "NoticeResponse" + fields(body)
	case 'A':
		return fmt.Sprintf("NotificationResponse %q", bytes.Split(body[4:], []byte{0})[:2])
	case 'S':
		return fmt.Sprintf("ParameterStatus %q", bytes.Split(body, []byte{0})[:2])
	case 'K':
		if key := body[4:]; len(key) != 4 {
			return fmt.Sprintf("BackendKeyData with a key of %d bytes", len(key))
		}
		return "BackendKeyData"
	case 'd':
		return fmt.Sprintf("CopyData %q", body)
	}
	name := map[byte]string{
		'1': "ParseComplete", '2': "BindComplete", '3': "CloseComplete", 'n': "NoData", 's': "PortalSuspended", 'I': "EmptyQueryResponse",
		'G': "CopyInResponse", 'H': "CopyOutResponse", 'W': "CopyBothResponse", 'c': "CopyDone", 'V': "FunctionCallResponse", 'R': "Authentication",
		'v': "NegotiateProtocolVersion",
	}[m.Type()]
	if len(body) == 0 {
		return name
	}
	return fmt.Sprintf("%s %x", name, body)
}

func fields(body []byte) string {
	s := ""
	for _, code := range []byte("VCP") {
		if v := wire.Field(body, code); v != nil {
			s += " " + string(code) + "=" + string(v)
		}
	}
	return s
}

func columns(body []byte) string {
	s := ""
	for rest := body[2:]; len(rest) > 0; {
		name, after, _ := wire.CString(rest)
		s += fmt.Sprintf(" %s:%d", name, binary.BigEndian.Uint32(after[6:]))
		rest = after[18:]
	}
	return s
}

func values(body []byte) string {
	s := ""
	for rest := body[2:]; len(rest) > 0; {
		n := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if n < 0 {
			s += " NULL"
			continue
		}
		s += " " + strconv.Quote(string(rest[:n]))
		rest = rest[n:]
	}
	return s
}

var temporary = regexp.MustCompile(`pg_temp_\d+`)

// same returns a message without what differs between two runs on one server.
//
// A session's temporary schema has the number of its server process.
func same(m wire.Message) string {
	switch {
	case m == nil:
		return "EOF"
	case m.Type() == 'K':
		return fmt.Sprintf("K%d", len(m))
	case m.Type() == 'A':
		return "A" + string(m.Body()[4:])
	case m.Type() == 'E' || m.Type() == 'N': // but an error's context, which a cancel finds by chance
		s := string(m[0])
		for _, f := range bytes.Split(m.Body(), []byte{0}) {
			if len(f) > 0 && (f[0] != 'W' || m.Type() == 'N') {
				s += string(f) + "|"
			}
		}
		return temporary.ReplaceAllString(s, "pg_temp")
	case m.Type() == 'T':
		out := bytes.Clone(m)
		for rest := out[wire.HeaderLen+2:]; len(rest) > 0; {
			_, after, _ := wire.CString(rest)
			copy(after, []byte{0, 0, 0, 0}) // the table's OID
			rest = after[18:]
		}
		return string(out)
	}
	return string(m)
}
