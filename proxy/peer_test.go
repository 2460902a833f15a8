package proxy_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// peer is a client that sends exactly the messages it is told to.
type peer struct {
	t      testing.TB
	conn   net.Conn
	fe     *pgproto3.Frontend
	status byte
	pid    uint32
	key    []byte
	errs   []*pgproto3.ErrorResponse // of the last exchange
}

// peerPatience bounds every wait of a peer.
const peerPatience = time.Minute

// newPeer logs in at address; parameters are names and values.
func newPeer(t testing.TB, address, user, database string, parameters ...string) *peer {
	t.Helper()
	p, err := dialPeer(t, address, user, database, parameters...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rawDial connects, until the test ends.
func rawDial(t testing.TB, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func dialPeer(t testing.TB, address, user, database string, parameters ...string) (*peer, error) {
	conn, err := rawDial(t, address)
	if err != nil {
		return nil, err
	}
	p := &peer{t: t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
	values := map[string]string{"user": user, "database": database}
	for i := 0; i+1 < len(parameters); i += 2 {
		values[parameters[i]] = parameters[i+1]
	}
	p.fe.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: values})
	if err := p.fe.Flush(); err != nil {
		return nil, err
	}
	replies, err := p.read('Z')
	if err != nil {
		return nil, fmt.Errorf("login: %v: %w", replies, err)
	}
	return p, nil
}

// peer logs in through the guard.
func (g *guard) peer(parameters ...string) *peer {
	g.t.Helper()
	return newPeer(g.t, g.addr, "postgres", g.db, parameters...)
}

// directPeer logs in at the server itself.
func (g *guard) directPeer(parameters ...string) *peer {
	g.t.Helper()
	return newPeer(g.t, g.pg.Addr(), "postgres", g.db, parameters...)
}

// send writes messages at once.
func (p *peer) send(messages ...pgproto3.FrontendMessage) {
	p.t.Helper()
	for _, m := range messages {
		p.fe.Send(m)
	}
	if err := p.fe.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// read reads up to a message of type last.
func (p *peer) read(last byte) ([]string, error) {
	var out []string
	p.errs = nil
	if err := p.conn.SetReadDeadline(time.Now().Add(peerPatience)); err != nil {
		return nil, err
	}
	for {
		m, err := p.fe.Receive()
		if err != nil {
			return out, err
		}
		text, kind := p.told(m)
		if text != "" {
			out = append(out, text)
		}
		if kind == last {
			return out, nil
		}
	}
}

// told writes a message down, as far as tests look at it.
func (p *peer) told(m pgproto3.BackendMessage) (text string, kind byte) {
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		p.status = m.TxStatus
		return "Z " + string(m.TxStatus), 'Z'
	case *pgproto3.ErrorResponse:
		e := *m
		p.errs = append(p.errs, &e)
		return "E " + m.Code, 'E'
	case *pgproto3.CommandComplete:
		return "C " + string(m.CommandTag), 'C'
	case *pgproto3.DataRow:
		values := make([]string, 0, len(m.Values))
		for _, v := range m.Values {
			if v == nil {
				values = append(values, "NULL")
				continue
			}
			values = append(values, string(v))
		}
		return "D " + strings.Join(values, "|"), 'D'
	case *pgproto3.BackendKeyData:
		p.pid, p.key = m.ProcessID, append([]byte(nil), m.SecretKey...)
		return "", 'K'
	case *pgproto3.NoticeResponse:
		return "N " + m.Code, 'N'
	case *pgproto3.RowDescription:
		return "T", 'T'
	case *pgproto3.ParseComplete:
		return "1", '1'
	case *pgproto3.BindComplete:
		return "2", '2'
	case *pgproto3.CloseComplete:
		return "3", '3'
	case *pgproto3.NoData:
		return "n", 'n'
	case *pgproto3.EmptyQueryResponse:
		return "I", 'I'
	case *pgproto3.PortalSuspended:
		return "s", 's'
	case *pgproto3.ParameterDescription:
		return "t", 't'
	case *pgproto3.CopyInResponse:
		return "G", 'G'
	case *pgproto3.FunctionCallResponse:
		return "V " + string(m.Result), 'V'
	default:
		return "", 0
	}
}

// until reads up to a message of type last, which must come.
func (p *peer) until(last byte) []string {
	p.t.Helper()
	out, err := p.read(last)
	if err != nil {
		p.t.Fatalf("waiting for %q after %q: %v", last, out, err)
	}
	return out
}

// query sends a Query and returns its replies.
func (p *peer) query(sql string) []string {
	p.t.Helper()
	p.send(&pgproto3.Query{String: sql})
	return p.until('Z')
}

// ok is query for what must not fail; it returns the rows' first columns.
func (p *peer) ok(sql string) []string {
	p.t.Helper()
	var rows []string
	for _, m := range p.query(sql) {
		if strings.HasPrefix(m, "E ") {
			p.t.Fatalf("%s: %s: %s", sql, m, p.errs[0].Message)
		}
		if row, found := strings.CutPrefix(m, "D "); found {
			rows = append(rows, row)
		}
	}
	return rows
}

// value is ok for one row of one column.
func (p *peer) value(sql string) string {
	p.t.Helper()
	rows := p.ok(sql)
	if len(rows) != 1 {
		p.t.Fatalf("%s: rows %q, want one", sql, rows)
	}
	return rows[0]
}

// pipeline reads a line of messages: P name text, B portal name, D portal,
// E portal, C name (of a statement), S, H, Q text. "-" is the unnamed one;
// messages are parted by " ; ".
func pipeline(line string) []pgproto3.FrontendMessage {
	var out []pgproto3.FrontendMessage
	for _, part := range strings.Split(line, " ; ") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
		first, second, _ := strings.Cut(rest, " ")
		first, unnamed := strings.ReplaceAll(first, "-", ""), strings.ReplaceAll(second, "-", "")
		switch kind {
		case "P":
			out = append(out, &pgproto3.Parse{Name: first, Query: second})
		case "B":
			out = append(out, &pgproto3.Bind{DestinationPortal: first, PreparedStatement: unnamed})
		case "D":
			out = append(out, &pgproto3.Describe{ObjectType: 'P', Name: first})
		case "E":
			out = append(out, &pgproto3.Execute{Portal: first})
		case "E1":
			out = append(out, &pgproto3.Execute{Portal: first, MaxRows: 1})
		case "C":
			out = append(out, &pgproto3.Close{ObjectType: 'S', Name: first})
		case "S":
			out = append(out, &pgproto3.Sync{})
		case "H":
			out = append(out, &pgproto3.Flush{})
		case "Q":
			out = append(out, &pgproto3.Query{String: rest})
		default:
			panic("no such message: " + part)
		}
	}
	return out
}

// run sends a pipeline and returns the replies up to the answer to its last
// Sync or Query, in one line.
func (p *peer) run(line string) string {
	p.t.Helper()
	messages := pipeline(line)
	p.send(messages...)
	var out []string
	for _, m := range messages {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			out = append(out, p.until('Z')...)
		}
	}
	return strings.Join(out, ", ")
}

// message frames a body.
func message(kind byte, parts ...[]byte) []byte {
	b := []byte{kind, 0, 0, 0, 0}
	for _, part := range parts {
		b = append(b, part...)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// cstring ends a text with a zero byte.
func cstring(s []byte) []byte { return append(append([]byte(nil), s...), 0) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// call sends a FunctionCall without arguments.
func (p *peer) call(oid string) string {
	p.t.Helper()
	n, err := strconv.ParseUint(oid, 10, 32)
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(&pgproto3.FunctionCall{Function: uint32(n), ResultFormatCode: 0})
	return strings.Join(p.until('Z'), ", ")
}

// reset ends the connection without a word, as a process that is killed may.
func (p *peer) reset() {
	p.t.Helper()
	if err := p.conn.(*net.TCPConn).SetLinger(0); err != nil {
		p.t.Fatal(err)
	}
	_ = p.conn.Close()
}
