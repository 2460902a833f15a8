package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Config is what the proxy needs to serve: the keys listen, server, tls, tcp
// and limits of lockkeeper.yaml.
type Config struct {
	Listen  Listen            `yaml:"listen"`
	Servers map[string]Target `yaml:"server"` // database → server; "*" is every other database
	TLS     ClientTLS         `yaml:"tls"`
	TCP     TCP               `yaml:"tcp"`
	Limits  Limits            `yaml:"limits"`

	// Engine is what moves the bytes of sessions: poll (default on Linux, nowhere
	// else) or goroutines. Sessions with TLS on either side run on goroutines always.
	Engine string `yaml:"engine"`

	// Peers are other lockkeepers that clients may reach at the same address:
	// host:port, or a socket's path. Cancel requests are passed on to them.
	Peers []string `yaml:"peers"`
}

// The values of Config.Engine.
const (
	EngineGoroutines = "goroutines"
	EnginePoll       = "poll"
)

// Listen says where clients connect.
type Listen struct {
	TCP      []string `yaml:"tcp"`       // host:port
	Unix     []string `yaml:"unix"`      // socket paths, by convention DIR/.s.PGSQL.PORT
	UnixMode uint32   `yaml:"unix_mode"` // permission bits of the sockets, 0777 by default, as PostgreSQL's

	// ProxyProtocolFrom are addresses and networks of load balancers: a TCP
	// connection from there has to begin with a PROXY header, version 1 or 2,
	// and is its client's from then on.
	ProxyProtocolFrom []string `yaml:"proxy_protocol_from"`
}

// Target is one PostgreSQL server.
type Target struct {
	Host  string `yaml:"host"` // host names, addresses, or directories of unix sockets, parted by commas: tried in this order
	Port  uint16 `yaml:"-"`    // of all hosts, or of the first
	Ports Ports  `yaml:"port"` // as configured: one for all, or one for each; set either

	// TargetSessionAttrs is what the server has to be: any (default),
	// read-write, read-only, primary, standby, prefer-standby; libpq's meaning.
	TargetSessionAttrs string `yaml:"target_session_attrs"`

	Database string      `yaml:"database"` // the database's name on that server, if it differs
	SSLMode  string      `yaml:"sslmode"`  // disable, allow, prefer, require, verify-ca, verify-full; libpq's meaning
	CA       string      `yaml:"ca"`       // file
	Cert     string      `yaml:"cert"`     // file: lockkeeper's certificate towards the server
	Key      string      `yaml:"key"`      // file
	TLS      TLSVersions `yaml:"tls"`

	// ApplicationNameAddHost appends " - host:port" of the client to the
	// application_name that it logs in with.
	ApplicationNameAddHost bool `yaml:"application_name_add_host"`

	SSLNegotiation string `yaml:"sslnegotiation"` // postgres (default): ask for TLS; direct: begin with it (PostgreSQL 17)

	tcp TCP // Config.TCP, put here by withDefaults

	// Control is lockkeeper's own login on that server: a libpq connection
	// string for a role with pg_monitor and pg_signal_backend. Empty: locks,
	// blocking graph and the barrier for lost sessions are not available, and
	// the commands that need them say so.
	Control string `yaml:"control"`

	Auth `yaml:",inline"`
}

// ClientTLS is the client side's TLS.
type ClientTLS struct {
	Mode string `yaml:"sslmode"` // disable (default), allow, prefer, require, verify-ca, verify-full; PgBouncer's meaning
	Cert string `yaml:"cert"`    // file
	Key  string `yaml:"key"`     // file
	CA   string `yaml:"ca"`      // file: who signs client certificates (verify-ca, verify-full, and auth: cert)

	TLSVersions `yaml:",inline"`
}

// Limits bound what clients may cost. Zero means the default.
type Limits struct {
	Sessions       int           `yaml:"sessions"`        // all clients together
	StatementBytes int           `yaml:"statement_bytes"` // the longest text that is collected to be inspected
	CollectedBytes int64         `yaml:"collected_bytes"` // all texts being collected together
	CacheBytes     int64         `yaml:"cache_bytes"`     // facts kept
	ParseSlots     int           `yaml:"parse_slots"`     // texts being parsed at a time
	ParseBytes     int           `yaml:"parse_bytes"`     // the longest text given to the parser
	CommentNesting int           `yaml:"comment_nesting"` // levels of comments in comments; deeper ones are refused
	LoginTimeout   time.Duration `yaml:"login_timeout"`   // from accept to the first ReadyForQuery
	ConnectTimeout time.Duration `yaml:"connect_timeout"` // to one address of a server

	// ConnectHold is how long a new session waits for a server where a failover
	// can be waited for: several hosts, or target_session_attrs. Zero is not at
	// all.
	ConnectHold     time.Duration `yaml:"connect_hold"`
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"` // TERM: transactions may finish for this long

	// TakeoverWait is how long the sessions of a process that was taken over
	// from may stay, before they are ended as at TERM. Zero is at once.
	TakeoverWait time.Duration `yaml:"takeover_wait"`

	HeldBytes    int `yaml:"held_bytes"`    // what a session may send while it is held
	HeldSessions int `yaml:"held_sessions"` // sessions held at a time, by pauses, mode hold and throttles

	// What is kept of the catalogs of databases in use: how many databases, how
	// many relations of each, and how often is looked for changes that did not
	// pass through lockkeeper.
	CatalogDatabases int           `yaml:"catalog_databases"`
	CatalogRelations int           `yaml:"catalog_relations"`
	CatalogPoll      time.Duration `yaml:"catalog_poll"`

	// Logins bounds clients that have not said who they are (then the oldest
	// goes), and again those that have and are not logged in (then the new one
	// is refused).
	Logins int `yaml:"logins"`

	// Sessions of one user and of one database, by the client's names; zero is
	// as many as there may be.
	UserSessions     int `yaml:"user_sessions"`
	DatabaseSessions int `yaml:"database_sessions"`

	// Timeouts of sessions; zero is none.
	IdleTimeout              time.Duration `yaml:"idle_timeout"`
	IdleInTransactionTimeout time.Duration `yaml:"idle_in_transaction_timeout"`
	TransactionTimeout       time.Duration `yaml:"transaction_timeout"` // of BEGIN … COMMIT
	StatementTimeout         time.Duration `yaml:"statement_timeout"`   // of what the server works on

	Users     map[string]NamedLimits `yaml:"users"`
	Databases map[string]NamedLimits `yaml:"databases"`
}

// Default returns the configuration of lockkeeper before any file is read.
func Default() Config {
	return Config{
		Listen: Listen{TCP: []string{"127.0.0.1:6433"}, UnixMode: 0o777},
		Engine: defaultEngine(),
		TLS:    ClientTLS{Mode: "disable", TLSVersions: TLSVersions{MinVersion: "TLSv1.2"}},
		TCP:    TCP{KeepaliveIdle: 15 * time.Second, KeepaliveInterval: 15 * time.Second, KeepaliveCount: 9},
		Limits: Limits{
			Sessions: 10_000, StatementBytes: 64 << 20, CollectedBytes: 512 << 20, CacheBytes: 64 << 20,
			ParseSlots: 2, ParseBytes: 4 << 20, CommentNesting: 64, LoginTimeout: time.Minute, ConnectTimeout: 15 * time.Second, ConnectHold: 10 * time.Second,
			ShutdownTimeout: 30 * time.Second, TakeoverWait: 5 * time.Minute, HeldBytes: 64 << 10, HeldSessions: 1000, Logins: 1000,
			CatalogDatabases: 16, CatalogRelations: 100_000, CatalogPoll: 10 * time.Second,
		},
	}
}

func defaultEngine() string {
	if runtime.GOOS == "linux" {
		return EnginePoll
	}
	return EngineGoroutines
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	d := Default()
	if len(c.Listen.TCP) == 0 && len(c.Listen.Unix) == 0 {
		c.Listen.TCP = d.Listen.TCP
	}
	if c.Listen.UnixMode == 0 {
		c.Listen.UnixMode = d.Listen.UnixMode
	}
	if c.Engine == "" {
		c.Engine = d.Engine
	}
	c.TCP.withDefaults(&d.TCP)
	l := &c.Limits
	orInt(&l.Sessions, d.Limits.Sessions)
	orInt(&l.StatementBytes, d.Limits.StatementBytes)
	orInt(&l.CollectedBytes, d.Limits.CollectedBytes)
	orInt(&l.CacheBytes, d.Limits.CacheBytes)
	orInt(&l.ParseSlots, d.Limits.ParseSlots)
	orInt(&l.ParseBytes, d.Limits.ParseBytes)
	orInt(&l.CommentNesting, d.Limits.CommentNesting)
	orInt(&l.LoginTimeout, d.Limits.LoginTimeout)
	orInt(&l.ConnectTimeout, d.Limits.ConnectTimeout)
	orInt(&l.ShutdownTimeout, d.Limits.ShutdownTimeout)
	orInt(&l.HeldBytes, d.Limits.HeldBytes)
	orInt(&l.HeldSessions, d.Limits.HeldSessions)
	orInt(&l.Logins, d.Limits.Logins)
	orInt(&l.CatalogDatabases, d.Limits.CatalogDatabases)
	orInt(&l.CatalogRelations, d.Limits.CatalogRelations)
	orInt(&l.CatalogPoll, d.Limits.CatalogPoll)
	c.Servers = maps.Clone(c.Servers)
	for key, t := range c.Servers {
		switch {
		case t.Port == 0 && len(t.Ports) > 0:
			t.Port = t.Ports[0]
		case t.Port == 0:
			t.Port = 5432
		}
		if t.SSLMode == "" {
			t.SSLMode = "prefer"
		}
		t.tcp = c.TCP
		c.Servers[key] = t
	}
	return c
}

func orInt[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// sslModes are libpq's.
const sslModes = "disable, allow, prefer, require, verify-ca, verify-full"

func sslModeKnown(mode string) bool {
	return slices.Contains(strings.Split(sslModes, ", "), mode)
}

// Validate reports everything that is wrong with a configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var all []error
	complain := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if !slices.Contains([]string{EngineGoroutines, EnginePoll}, c.Engine) {
		complain("engine: %q is neither goroutines nor poll", c.Engine)
	}
	if len(c.Servers) == 0 {
		complain(`server: no server is configured; add for example "*": {host: 127.0.0.1, port: 5432}`)
	}
	for _, key := range sortedKeys(c.Servers) {
		t := c.Servers[key]
		if err := t.validateHosts(); err != nil {
			complain("server.%s: %w", key, err)
		}
		if !sslModeKnown(t.SSLMode) {
			complain("server.%s: sslmode %q is none of %s", key, t.SSLMode, sslModes)
		}
		if err := t.TLS.validate(); err != nil {
			complain("server.%s: tls: %w", key, err)
		}
		if err := t.Auth.validate(&c); err != nil {
			complain("server.%s: %w", key, err)
		}
		switch {
		case t.SSLNegotiation != "" && t.SSLNegotiation != "postgres" && t.SSLNegotiation != direct:
			complain("server.%s: sslnegotiation %q is neither postgres nor direct", key, t.SSLNegotiation)
		case t.SSLNegotiation == direct && slices.Contains([]string{"disable", "allow", "prefer"}, t.SSLMode):
			complain("server.%s: sslnegotiation direct needs sslmode require, verify-ca or verify-full", key)
		}
		if (t.Cert == "") != (t.Key == "") {
			complain("server.%s: cert and key go together", key)
		}
	}
	for _, address := range c.Listen.TCP {
		if _, _, err := net.SplitHostPort(address); err != nil {
			complain("listen.tcp: %q is not host:port", address)
		}
	}
	if _, err := prefixes(c.Listen.ProxyProtocolFrom); err != nil {
		complain("listen.proxy_protocol_from: %w", err)
	}
	if m := c.TLS.Mode; m != "" && m != "disable" {
		if !sslModeKnown(m) {
			complain("tls.sslmode: %q is none of %s", m, sslModes)
		}
		if c.TLS.Cert == "" || c.TLS.Key == "" {
			complain("tls: sslmode %s needs cert and key", m)
		}
		if strings.HasPrefix(m, "verify-") && c.TLS.CA == "" {
			complain("tls: sslmode %s needs ca", m)
		}
	}
	if err := c.TLS.validate(); err != nil {
		complain("tls: %w", err)
	}
	all = append(all, c.TCP.validate(), validatePeers(c.Peers), c.Limits.validate())
	return errors.Join(all...)
}

func (l *Limits) validate() error {
	var all []error
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"sessions", int64(l.Sessions)},
		{"statement_bytes", int64(l.StatementBytes)},
		{"collected_bytes", l.CollectedBytes},
		{"cache_bytes", l.CacheBytes},
		{"parse_slots", int64(l.ParseSlots)},
		{"parse_bytes", int64(l.ParseBytes)},
		{"comment_nesting", int64(l.CommentNesting)},
		{"login_timeout", int64(l.LoginTimeout)},
		{"connect_timeout", int64(l.ConnectTimeout)},
		{"connect_hold", int64(l.ConnectHold)},
		{"shutdown_timeout", int64(l.ShutdownTimeout)},
		{"takeover_wait", int64(l.TakeoverWait)},
		{"held_bytes", int64(l.HeldBytes)},
		{"held_sessions", int64(l.HeldSessions)},
		{"logins", int64(l.Logins)},
		{"catalog_databases", int64(l.CatalogDatabases)},
		{"catalog_relations", int64(l.CatalogRelations)},
		{"catalog_poll", int64(l.CatalogPoll)},
		{"user_sessions", int64(l.UserSessions)},
		{"database_sessions", int64(l.DatabaseSessions)},
		{"idle_timeout", int64(l.IdleTimeout)},
		{"idle_in_transaction_timeout", int64(l.IdleInTransactionTimeout)},
		{"transaction_timeout", int64(l.TransactionTimeout)},
		{"statement_timeout", int64(l.StatementTimeout)},
	} {
		if v.value < 0 {
			all = append(all, fmt.Errorf("limits.%s: must not be negative", v.name))
		}
	}
	all = append(all, l.validateNames())
	return errors.Join(all...)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
