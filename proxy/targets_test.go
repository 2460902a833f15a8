package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// pair is a primary and its standby.
func pair(t *testing.T) (primary, standby *pgtest.Server) {
	t.Helper()
	primary = pgtest.Start(t)
	primary.OdooDatabase(t, 500)
	return primary, pgtest.StartStandby(t, primary)
}

// both is a target with two servers, the second first.
func both(one, two *pgtest.Server, attrs string) proxy.Target {
	return proxy.Target{
		Host: two.Host() + "," + one.Host(), Ports: proxy.Ports{uint16(two.Port()), uint16(one.Port())}, SSLMode: "disable",
		TargetSessionAttrs: attrs, Control: one.ConnString("postgres"),
	}
}

func TestSessionsGoWhereTargetSessionAttrsSays(t *testing.T) {
	primary, standby := pair(t)
	wants := map[string]*pgtest.Server{
		"any": standby, "read-write": primary, "primary": primary, "read-only": standby, "standby": standby, "prefer-standby": standby,
	}
	controls := map[string]string{
		"probe": primary.ConnString("postgres"), "url": "postgres://postgres@unused.invalid:1/postgres?sslmode=disable", "own login": "",
	}
	servers := map[string]proxy.Target{}
	for attrs := range wants {
		for name, control := range controls {
			target := both(primary, standby, attrs)
			target.Control, target.Database = control, "postgres"
			servers[attrs+" by "+name] = target
		}
	}
	g := newGuard(t, func(s *setup) { s.pg, s.cfg.Servers = primary, servers })
	for attrs, want := range wants {
		for name := range controls {
			p := newPeer(t, g.addr, pgtest.Superuser, attrs+" by "+name)
			if port := p.value("show port"); port != fmt.Sprint(want.Port()) {
				t.Errorf("%s by %s: port %s, want %d", attrs, name, port, want.Port())
			}
		}
	}
	for _, i := range g.srv.Sessions() {
		attrs, _, _ := strings.Cut(i.Database, " by ")
		if want := wants[attrs].Addr(); i.ServerAddress != want {
			t.Errorf("%s: the session is said to be at %s, not %s", i.Database, i.ServerAddress, want)
		}
	}
}

// TestUnknownRoleIsAnError: the server asks for a password first, and there is
// no login of lockkeeper's own to ask it with.
func TestUnknownRoleIsAnError(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("host all all 127.0.0.1/32 scram-sha-256"))
	g := newGuard(t, func(s *setup) {
		s.pg = pg
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: pg.Host(), Port: uint16(pg.Port()), TargetSessionAttrs: "primary"}}
	})
	if _, err := pgx.Connect(t.Context(), g.url("password=x")); sqlstate(err) != "08001" {
		t.Errorf("got %v, want 08001", err)
	}
}

// TestFailover kills the primary under a guard and promotes the standby: a
// client that comes meanwhile is held, and gets a session with the new primary.
func TestFailover(t *testing.T) {
	primary, standby := pair(t)
	g := newGuard(t, func(s *setup) {
		s.pg = primary
		s.cfg.Servers = map[string]proxy.Target{"*": both(primary, standby, "read-write")}
		s.cfg.Limits.ConnectHold = time.Minute
	})
	before := newPeer(t, g.addr, pgtest.Superuser, "postgres")
	if port := before.value("show port"); port != fmt.Sprint(primary.Port()) {
		t.Fatalf("before: port %s", port)
	}
	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	if _, err := before.read(0); err == nil {
		t.Error("the session with the old primary goes on")
	}
	held := make(chan error, 1)
	go func() {
		c, err := pgx.Connect(context.Background(), strings.Replace(g.url(""), g.db, "postgres", 1))
		if err == nil {
			_, err = c.Exec(context.Background(), "create table after_failover ()")
			err = errors.Join(err, c.Close(context.Background()))
		}
		held <- err
	}()
	g.wait("lockkeeper_connect_held", 1)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Errorf("the client that was held: %v", err)
	}
	if rows, err := standby.Query(t.Context(), "postgres", "select 1 from pg_class where relname = 'after_failover'"); err != nil || len(rows) != 1 {
		t.Errorf("its table is not there: %v, %v", rows, err)
	}
	if g.reading("lockkeeper_connect_retries_total") == 0 || g.reading("lockkeeper_server_wrong_role_total") == 0 {
		t.Error("retries and wrong roles were not counted")
	}
}

func TestCancelAndBarrierReachTheServerOfTheSession(t *testing.T) {
	primary, standby := pair(t)
	g := newGuard(t, func(s *setup) {
		s.pg = primary
		s.cfg.Servers = map[string]proxy.Target{"*": both(primary, standby, "read-write")}
	})
	c := loginRaw(t, g.addr, g.db)
	c.query("select pg_sleep(60)")
	c.flush()
	eventually(t, "the statement runs", func() bool {
		rows, err := primary.Query(t.Context(), "postgres", "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'")
		return err == nil && len(rows) == 1
	})
	c.cancel(g.addr)
	if got := show(c.until('Z', 1)[0]); !strings.Contains(got, "57014") && !strings.Contains(got, "RowDescription") {
		t.Errorf("after the cancel: %s", got)
	}
	// Another guard's client: the key is unknown here and goes everywhere.
	other := newGuard(t, func(s *setup) {
		s.pg = primary
		s.cfg.Servers = map[string]proxy.Target{"*": both(primary, standby, "read-write")}
	})
	c.query("select pg_sleep(60)")
	c.flush()
	eventually(t, "the statement runs again", func() bool {
		rows, err := primary.Query(t.Context(), "postgres", "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'")
		return err == nil && len(rows) == 1
	})
	c.cancel(other.addr)
	c.until('Z', 1)
	contained := g.contain(policy.Containment{Kind: policy.ReadOnlyMode})
	reports, err := g.srv.Barrier(t.Context(), contained[0])
	if err != nil || len(reports) != 1 || reports[0].LSN == "" || len(reports[0].Lacking) > 0 {
		t.Errorf("barrier: %+v, %v", reports, err)
	}
}

// TestClientThatGoesWhileItIsHeldIsDropped holds a client in front of a port
// where nobody listens.
func TestClientThatGoesWhileItIsHeldIsDropped(t *testing.T) {
	g := newGuard(t, unreachableServers(t, time.Hour))
	c := dialRaw(t, g.addr)
	c.conn.Write(append(startupPacket(g.db), 'X', 0, 0, 0, 4)) // what it sent before does not hide that it went
	g.wait("lockkeeper_connect_held", 1)
	c.conn.Close()
	g.wait("lockkeeper_connect_held", 0)
	g.wait("lockkeeper_connections", 0)
}

func TestNoServerIsAnErrorWhenTheHoldIsOver(t *testing.T) {
	for _, hold := range []time.Duration{0, 300 * time.Millisecond} {
		g := newGuard(t, unreachableServers(t, hold))
		begun := time.Now()
		_, err := pgx.Connect(t.Context(), g.url(""))
		if took := time.Since(begun); sqlstate(err) != "08001" || took < hold/2 || took > hold+time.Minute {
			t.Errorf("hold %v: %v after %v, want 08001", hold, err, took)
		}
	}
}

// unreachableServers is two hosts where nobody listens.
func unreachableServers(t *testing.T, hold time.Duration) func(*setup) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	return func(s *setup) {
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: "127.0.0.1,127.0.0.2", Port: port, SSLMode: "disable"}}
		s.cfg.Limits.ConnectHold = hold
	}
}

// TestNamesAreResolvedForEverySession changes what a name means.
func TestNamesAreResolvedForEverySession(t *testing.T) {
	pg := pgtest.Shared(t)
	var mu sync.Mutex
	address := pg.Host()
	g := newGuard(t, func(s *setup) {
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: "db.invalid", Port: uint16(pg.Port())}}
		s.deps.LookupHost = func(_ context.Context, host string) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			if host != "db.invalid" || address == "" {
				return nil, errors.New("no such host")
			}
			return []string{address}, nil
		}
	})
	g.peer().value("select 1")
	mu.Lock()
	address = ""
	mu.Unlock()
	if _, err := pgx.Connect(t.Context(), g.url("")); sqlstate(err) != "08001" {
		t.Errorf("the name means nothing any more: %v, want 08001", err)
	}
	mu.Lock()
	address = pg.Host()
	mu.Unlock()
	g.peer().value("select 1")
}

// TestServersOwnWordsWhenItIsNotReady has one server that is starting up.
func TestServersOwnWordsWhenItIsNotReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	version := message('v', []byte{0, 3, 0, 0, 0, 0, 0, 0})
	answer := message('E', []byte("SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1000))
			c.Write(append(version, answer...))
			c.Close()
		}
	}()
	g := newGuard(t, func(s *setup) {
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), SSLMode: "disable"}}
	})
	c := dialRaw(t, g.addr)
	c.conn.Write(startupPacket(g.db))
	for _, want := range [][]byte{version, answer} {
		if m := c.read(); string(m) != string(want) {
			t.Errorf("got %q, want %q", m, want)
		}
	}
}

func TestConfigOfHosts(t *testing.T) {
	for text, want := range map[string]string{
		`{host: a, port: 5432}`:                              "",
		`{host: "a, b", port: "5432,5433"}`:                  "",
		`{host: "a,b", port: 5433}`:                          "",
		`{host: "a,b"}`:                                      "",
		`{host: "a,,b"}`:                                     "names nothing between two commas",
		`{host: "a,b", port: "1,2,3"}`:                       "3 ports do not fit 2 hosts",
		`{host: a, port: "x"}`:                               "no number from 0 to 65535",
		`{host: a, port: 65536}`:                             "no number from 0 to 65535",
		`{host: a, prot: 1}`:                                 "field prot not found",
		`{host: a, target_session_attrs: master}`:            `target_session_attrs "master" is none of any, read-write`,
		`{host: a, target_session_attrs: read-write, ca: x}`: "",
	} {
		c := proxy.Default()
		err := yaml.Load([]byte("server: {'*': "+text+"}"), &c, yaml.WithKnownFields())
		if err == nil {
			err = c.Validate()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// reading returns the value of a metric without labels.
func (g *guard) reading(name string) float64 {
	g.t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	g.t.Fatalf("no metric %s", name)
	return 0
}

// wait waits until a metric has a value.
func (g *guard) wait(name string, want float64) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("%s is %v", name, want), func() bool { return g.reading(name) == want })
}
