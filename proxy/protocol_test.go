package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
	"lockkeeper/proxy/wire"
)

const (
	version32     = wire.Version3 + 2
	versionGrease = wire.Version3 + 9999 // newer than any will ever be
)

// keyBytes is how long a server's cancel keys are in protocol 3.2: PostgreSQL
// before 18 does not speak it.
func (g *guard) keyBytes() int {
	if g.pg.Major(g.t) >= 18 {
		return 32
	}
	return 4
}

// loginVersion logs in with a version of the protocol.
func loginVersion(t *testing.T, addr, user, database string, version uint32) (*rawClient, string) {
	t.Helper()
	c := dialRaw(t, addr)
	c.version = version
	c.startup("user", user, "database", database)
	c.flush()
	return c, types(c.until('Z', 1))
}

// pgx asks for 3.2 and gets what the server has; its cancels reach the server.
func TestPgxAsksForVersion32(t *testing.T) {
	g := open(t)
	for _, asked := range []string{"3.0", "3.2", "latest"} {
		c := g.connect("max_protocol_version=" + asked)
		want := g.keyBytes()
		if asked == "3.0" {
			want = 4
		}
		if n := len(c.PgConn().SecretKey()); n != want {
			t.Errorf("%s: a key of %d bytes, want %d", asked, n, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.PgConn().Exec(ctx, "select pg_sleep(60)").Close() }()
		eventually(t, "the statement runs", func() bool {
			return g.pg.Value(t, g.db, fmt.Sprintf("select count(*) from pg_stat_activity where pid = %d and state = 'active'", c.PgConn().PID())) == "1"
		})
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; sqlstate(err) != "57014" {
			t.Errorf("%s: the statement ended by %v", asked, err)
		}
		cancel()
	}
}

// A server that lacks what the client requires is refused by the client, in
// the server's words.
func TestPgxRequiresVersion32(t *testing.T) {
	g := open(t)
	c, err := pgx.Connect(t.Context(), g.url("min_protocol_version=3.2"))
	if err == nil {
		_ = c.Close(t.Context())
	}
	if works := g.pg.Major(t) >= 18; works != (err == nil) || !works && !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v", err)
	}
}

// libpq, as the server's own extensions have it: from PostgreSQL 18 on it can
// insist on 3.2.
func TestLibpqRequiresVersion32(t *testing.T) {
	g := open(t)
	conninfo := strings.ReplaceAll(g.url("application_name=linked"), "'", "")
	if g.pg.Major(t) >= 18 {
		conninfo += " min_protocol_version=3.2 max_protocol_version=latest"
	}
	p := g.directPeer()
	p.ok("create extension dblink")
	p.ok("select dblink_connect('linked', '" + conninfo + "')")
	if got := p.value("select n from dblink('linked', 'select 42') as t (n int)"); got != "42" {
		t.Errorf("got %s", got)
	}
	p.ok("select dblink_send_query('linked', 'select pg_sleep(60)')")
	eventually(t, "the statement runs", func() bool {
		return g.pg.Value(t, g.db, "select count(*) from pg_stat_activity where application_name = 'linked' and query like 'select pg_sleep%' and state = 'active'") == "1"
	})
	if got := p.value("select dblink_cancel_query('linked')"); got != "OK" {
		t.Errorf("cancel: %s", got)
	}
	if got := p.run("Q select * from dblink_get_result('linked') as t (n text)"); !strings.Contains(got, "E 57014") {
		t.Errorf("the statement ended by %s", got)
	}
}

// A standby follows its primary through lockkeeper.
func TestAStandbyFollowsThroughTheGuard(t *testing.T) {
	primary, standby := pair(t)
	g := newGuard(t, func(s *setup) { s.pg = primary })
	conninfo := strings.Replace(g.url("application_name=follower"), "dbname="+g.db, "", 1)
	standby.MustExec(t, "postgres", "alter system set primary_conninfo = '"+conninfo+"'")
	standby.MustExec(t, "postgres", "select pg_reload_conf()")
	eventually(t, "it follows through the guard", func() bool {
		all := g.srv.Sessions()
		return len(all) == 1 && all[0].Application == "follower"
	})
	primary.MustExec(t, g.db, "create table followed as select generate_series(1, 1000) as n")
	eventually(t, "the table is there, too", func() bool {
		rows, err := standby.Query(t.Context(), g.db, "select count(*) from followed")
		return err == nil && rows[0][0] == "1000"
	})
}

// NegotiateProtocolVersion comes before the server's answer. Where lockkeeper
// looks at that answer it sees it all the same.
func TestANegotiatedVersionHidesNothing(t *testing.T) {
	pg := authServer(t)
	for _, tt := range []struct{ mode, user string }{{"prefer", "only_plain"}, {"allow", "only_ssl"}} {
		g := between(t, pg, proxy.ClientTLS{}, proxy.Target{SSLMode: tt.mode})
		if _, got := loginVersion(t, g.addr, tt.user, g.db, versionGrease); !strings.HasPrefix(got, "vR") || !strings.HasSuffix(got, "KZ") {
			t.Errorf("sslmode %s, %s: %s", tt.mode, tt.user, got)
		}
	}
	g := between(t, pg, proxy.ClientTLS{}, proxy.Target{TargetSessionAttrs: "primary"})
	if _, got := loginVersion(t, g.addr, "trusted", g.db, versionGrease); !strings.HasPrefix(got, "vR") || !strings.HasSuffix(got, "KZ") {
		t.Errorf("target_session_attrs: %s", got)
	}
}

// Only the whole key of a session ends what lockkeeper holds for it.
func TestOnlyTheWholeKeyCancelsAHold(t *testing.T) {
	g := newGuard(t)
	for _, version := range []uint32{wire.Version3, version32} {
		c, _ := loginVersion(t, g.addr, pgtest.Superuser, g.db, version)
		other, _ := loginVersion(t, g.addr, pgtest.Superuser, g.db, version)
		want := 4
		if version == version32 {
			want = g.keyBytes()
		}
		if len(c.key) != want {
			t.Errorf("a key of %d bytes, want %d", len(c.key), want)
		}
		g.pause(time.Hour, false)
		c.query(insert)
		c.flush()
		g.awaitHeld(1)
		whole := c.key
		last := bytes.Clone(whole)
		last[len(last)-1]++
		first := bytes.Clone(whole)
		first[0]++
		for name, key := range map[string][]byte{
			"begun": whole[:len(whole)-1], "four bytes of it": whole[:min(4, len(whole)-1)], "with one more": append(bytes.Clone(whole), 0),
			"another last byte": last, "another first byte": first, "somebody else's": other.key, "none": nil,
		} {
			c.key = key
			c.cancel(g.addr)
			if held := g.held(); held != 1 {
				t.Errorf("%s: %d sessions held after it", name, held)
			}
		}
		c.key = whole
		c.cancel(g.addr)
		if got := types(c.until('Z', 1)); got != "EZ" {
			t.Errorf("the whole key: %s", got)
		}
		g.contain()
	}
}

// keyServer is a server that gives one key to everybody and writes down the
// cancel requests that it gets. PostgreSQL's keys have 4 or 32 bytes; others
// may be up to 256 long. Source: manual, 55.7 "Message Formats",
// BackendKeyData.
func keyServer(t *testing.T, key []byte) (port uint16, cancels <-chan []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan []byte, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveKey(c, key, got)
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port), got
}

func serveKey(c net.Conn, key []byte, cancels chan<- []byte) {
	defer c.Close()
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	n, _, _ := wire.StartupSize(head[:])
	packet := append(bytes.Clone(head[:]), make([]byte, n-len(head))...)
	if _, err := io.ReadFull(c, packet[len(head):]); err != nil {
		return
	}
	if s, err := wire.DecodeStartup(packet); err == nil && s.Code == wire.CancelCode {
		cancels <- packet
		return
	}
	c.Write(bytes.Join([][]byte{message('R', make([]byte, 4)), message('K', []byte("pid."), key), message('Z', []byte("I"))}, nil))
	io.Copy(io.Discard, c)
}

func TestKeysOfEveryLength(t *testing.T) {
	for _, n := range []int{4, 5, 16, 32, 255, 256} {
		key := bytes.Repeat([]byte{'k', 0, 0xff}, 100)[:n]
		port, cancels := keyServer(t, key)
		g := newGuard(t, func(s *setup) {
			s.cfg.Servers = map[string]proxy.Target{"*": {Host: "127.0.0.1", Port: port, SSLMode: "disable"}}
		})
		c, got := loginVersion(t, g.addr, "somebody", "something", version32)
		if got != "RKZ" || !bytes.Equal(c.key, key) {
			t.Errorf("%d bytes: %s, %d came", n, got, len(c.key))
		}
		for name, k := range map[string][]byte{"its key": key, "another's": append(bytes.Clone(key[:n-1]), 'x')} {
			c.key = k
			c.cancel(g.addr)
			select {
			case request := <-cancels:
				if want := wire.AppendCancel(nil, c.pid, k); !bytes.Equal(request, want) {
					t.Errorf("%d bytes, %s: the server got %x, want %x", n, name, request, want)
				}
			case <-time.After(rawPatience):
				t.Fatalf("%d bytes, %s: the server got nothing", n, name)
			}
		}
	}
}
