package proxy_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// guard is a lockkeeper in front of a real server, without its control plane.
type guard struct {
	t       *testing.T
	pg      *pgtest.Server
	db      string
	srv     *proxy.Server
	decider *policy.Decider
	policy  *policy.Policy
	epoch   uint64
	reg     *prometheus.Registry
	addr    string
	served  chan error // what Serve returned

	catalogs *catalog.Catalogs // nil where names are not looked up

	mu      sync.Mutex
	entries []journal.Entry
}

// Submit keeps entries, for tests to look at.
// Roomy: a list has room.
func (g *guard) Roomy() bool { return true }

func (g *guard) Submit(e journal.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = append(g.entries, e)
}

// journal returns the entries of one kind.
func (g *guard) journal(kind journal.Kind) []journal.Entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []journal.Entry
	for _, e := range g.entries {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// setup changes how a guard is made.
type setup struct {
	pg     *pgtest.Server
	policy string // YAML; "" is the default of profile odoo
	cfg    proxy.Config
	deps   proxy.Deps
	parse  inspect.ParseFunc // nil: the real one

	catalog    bool // names are looked up; by whom is asked, not by polling
	catalogNow func() time.Time
}

// newGuard starts a guard on a free port, in front of an Odoo-like database.
func newGuard(t *testing.T, change ...func(*setup)) *guard {
	t.Helper()
	s := &setup{cfg: proxy.Default(), catalogNow: time.Now}
	s.cfg.Listen.TCP = []string{"127.0.0.1:0"}
	s.cfg.Engine = os.Getenv("LOCKKEEPER_TEST_ENGINE") // empty: the default
	for _, f := range change {
		f(s)
	}
	if s.pg == nil {
		s.pg = pgtest.Shared(t)
	}
	g := &guard{t: t, pg: s.pg, db: s.pg.OdooDatabase(t, 500), decider: &policy.Decider{}, reg: prometheus.NewRegistry()}
	g.policy = mustPolicy(t, s.policy)
	g.contain()
	if s.cfg.Servers == nil {
		host, port := s.pg.Host(), s.pg.Port()
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: host, Port: uint16(port), SSLMode: "prefer", Control: s.pg.ConnString("postgres")}}
	}
	if s.parse == nil {
		s.parse = pgquery.Parse
	}
	s.deps.Inspector = inspect.NewInspector(inspect.DefaultLimits(), s.parse, g.reg)
	s.deps.Decider, s.deps.Journal, s.deps.Registerer, s.deps.Now = g.decider, g, g.reg, time.Now
	if s.deps.Logger == nil {
		s.deps.Logger = slog.New(slog.DiscardHandler)
	}
	if s.catalog {
		g.catalogs = catalog.New(catalog.Config{
			Databases: 4, Relations: 100_000, Poll: time.Hour, FirstWait: time.Minute, Parse: pgquery.Parse,
			Logger: s.deps.Logger, Registerer: g.reg, Now: s.catalogNow,
		})
		t.Cleanup(g.catalogs.Close)
		s.deps.Catalogs = g.catalogs
	}
	srv, err := proxy.New(s.cfg, s.deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.srv = srv
	g.addr = srv.Addresses()[0].String()
	g.served = make(chan error, 1)
	go func() { g.served <- srv.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = srv.Shutdown(ctx)
		if err := <-g.served; !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return g
}

func mustPolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Default(policy.ProfileOdoo)
	if text != "" {
		p, err = policy.Parse([]byte(text), "policy.yaml")
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// contain puts containments in force, and returns them as they are.
func (g *guard) contain(cs ...policy.Containment) []policy.Containment {
	g.epoch++
	for i := range cs {
		if cs[i].Epoch == 0 {
			cs[i].Epoch = g.epoch
			cs[i].Since = time.Now()
		}
		if cs[i].ID == "" {
			cs[i].ID, cs[i].Reason, cs[i].Author = "c1", "test", "tester"
		}
	}
	g.decider.Replace(&policy.Snapshot{Epoch: g.epoch, Policy: g.policy, Containments: cs})
	if g.srv != nil {
		g.srv.Wake()
	}
	return cs
}

// url is a connection string for pgx through the guard.
func (g *guard) url(more string) string {
	host, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	return "host=" + host + " port=" + port + " user=postgres dbname=" + g.db + " sslmode=disable " + more
}

// connect opens a pgx connection through the guard.
func (g *guard) connect(more string) *pgx.Conn {
	g.t.Helper()
	c, err := pgx.Connect(g.t.Context(), g.url(more))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// direct opens a pgx connection to the server itself.
func (g *guard) direct() *pgx.Conn {
	g.t.Helper()
	c, err := g.pg.Connect(g.t.Context(), g.db)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}
