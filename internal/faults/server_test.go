package faults

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
)

// A restart ends every session; those that come after it find the server by
// themselves.
func TestTheServerIsRestarted(t *testing.T) {
	for _, mode := range []pgtest.Mode{pgtest.Immediate, pgtest.Fast} {
		t.Run(string(mode), func(t *testing.T) {
			pg := pgtest.Start(t, pgtest.Durable())
			g := start(t, setup{pg: pg})
			idle := g.login(g.front.Addr(), g.db, "victim")
			inTransaction := g.victim()
			inCopy := g.login(g.front.Addr(), g.db, "victim")
			inCopy.ok("begin")
			inCopy.query("copy changed from stdin")
			inCopy.until('G')
			inCopy.send(&pgproto3.CopyData{Data: []byte("1\n")})
			prepared := g.login(g.front.Addr(), g.db, "victim") // and idle
			prepared.send(&pgproto3.Parse{Name: "s", Query: "select 1"}, &pgproto3.Sync{})
			prepared.until('Z')
			if err := pg.Stop(mode); err != nil {
				t.Fatal(err)
			}
			saw := "idle: " + idle.fate() + "; in a transaction: " + inTransaction.fate() + "; in COPY: " + inCopy.fate()
			prepared.fate()
			g.bystander.fate()
			if strings.Count(saw, "57P01") != 3 {
				t.Errorf("clients see %s, want 57P01 three times", saw)
			}
			_, refused := try(t, g.front.Addr(), g.db, "new")
			if !strings.HasPrefix(refused, "08001") {
				t.Errorf("a new session while the server is down: %s", refused)
			}
			if err := pg.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.bystander = g.login(g.addr, "beside", "bystander")
			g.fill(row{
				fault: "server restarted (" + string(mode) + ")", client: saw + "; a new session meanwhile: " + refused, server: g.left(),
				recovery: g.recovers() + "; no session outlives the server",
			})
		})
	}
}

// A server process is killed: PostgreSQL ends all others with it.
func TestAServerProcessIsKilled(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Durable())
	g := start(t, setup{pg: pg})
	c := g.victim()
	if err := pg.Kill9(); err != nil {
		t.Fatal(err)
	}
	saw := c.fate()
	g.bystander.fate()
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.bystander = g.login(g.addr, "beside", "bystander")
	g.fill(row{fault: "server and all its processes killed (kill -9)", client: saw, server: g.left(), recovery: g.recovers() + "; no session outlives the server"})
}

// fakeServer is a server whose connections do what talk does, until healed is
// called: then they are passed on to a real one.
type fakeServer struct {
	addr string
	open atomic.Int64 // connections
	mu   sync.Mutex
	talk func(net.Conn)
}

func newFakeServer(t *testing.T, pg *pgtest.Server) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &fakeServer{addr: l.Addr().String()}
	real := between(t, pg.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			talk := f.talk
			f.mu.Unlock()
			if talk == nil {
				talk = func(c net.Conn) { splice(c, real.Addr()) }
			}
			f.open.Add(1)
			go func() {
				defer f.open.Add(-1)
				defer c.Close()
				talk(c)
			}()
		}
	}()
	return f
}

func (f *fakeServer) set(talk func(net.Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.talk = talk
}

// splice passes a connection on.
func splice(c net.Conn, addr string) {
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer up.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			_, _ = way[1].(*net.TCPConn).ReadFrom(way[0])
			_ = way[1].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}

// What a server does that is broken itself.
func TestServersThatAreBroken(t *testing.T) {
	var fake pgtest.Fake
	quiet := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	fails := func(last func(b *pgproto3.Backend, c net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			if fake.Login(c) != nil {
				return
			}
			b := pgproto3.NewBackend(c, c)
			if _, err := b.Receive(); err == nil {
				last(b, c)
			}
		}
	}
	failure := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: "it breaks"}
	for _, w := range []struct {
		name string
		talk func(net.Conn)
		want string
	}{
		{"accepts and says nothing", quiet, "08001, connection closed"},
		{"accepts and closes", func(net.Conn) {}, "08001, connection closed"},
		{"says nothing after AuthenticationOk", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 10_000))
			_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00"))
			quiet(c)
		}, "connection closed"},
		{"dies between ErrorResponse and ReadyForQuery", fails(func(b *pgproto3.Backend, _ net.Conn) { b.Send(failure); _ = b.Flush() }), "XX000, connection closed"},
		{"is reset between ErrorResponse and ReadyForQuery", fails(func(b *pgproto3.Backend, c net.Conn) {
			b.Send(failure)
			_ = b.Flush()
			_ = c.(*net.TCPConn).SetLinger(0)
		}), "XX000, connection closed"},
		{"sends half a message and dies", fails(func(_ *pgproto3.Backend, c net.Conn) { _, _ = c.Write([]byte("D\x00\x00\x01\x00half")) }), "connection closed"},
		{"sends what is no message", fails(func(_ *pgproto3.Backend, c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }), "bytes that are no message, connection closed"},
	} {
		t.Run(w.name, func(t *testing.T) {
			aside(t)
			pg := pgtest.Shared(t)
			f := newFakeServer(t, pg)
			g := start(t, setup{pg: pg, server: f.addr, config: "limits: {connect_timeout: 1s, login_timeout: 2s}"})
			f.set(w.talk)
			c, saw := try(t, g.front.Addr(), g.db, "victim")
			if c != nil {
				c.query("select 1")
				saw = c.fate()
			}
			g.undisturbed()
			if saw != w.want {
				t.Errorf("the client sees %s, want %s", saw, w.want)
			}
			settle(t, "no connection to the server is left", func() bool { return f.open.Load() == 0 })
			f.set(nil)
			g.fill(row{fault: "a server that " + w.name, client: saw, server: "no connection (it is a fake one)", recovery: g.recovers()})
		})
	}
}
