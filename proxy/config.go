package proxy

import "time"

// Config is what the proxy needs to serve: the keys listen, server, tls and
// limits of lockkeeper.yaml.
type Config struct {
	Listen  Listen            `yaml:"listen"`
	Servers map[string]Target `yaml:"server"` // database → server; "*" is every other database
	TLS     ClientTLS         `yaml:"tls"`
	Limits  Limits            `yaml:"limits"`
}

// Listen says where clients connect.
type Listen struct {
	TCP      []string `yaml:"tcp"`       // host:port
	Unix     []string `yaml:"unix"`      // socket paths, by convention DIR/.s.PGSQL.PORT
	UnixMode uint32   `yaml:"unix_mode"` // permission bits of the sockets, 0777 by default, as PostgreSQL's
}

// Target is one PostgreSQL server.
type Target struct {
	Host     string `yaml:"host"` // host name, address, or directory of a unix socket
	Port     uint16 `yaml:"port"`
	Database string `yaml:"database"` // the database's name on that server, if it differs
	SSLMode  string `yaml:"sslmode"`  // disable, allow, prefer, require, verify-ca, verify-full; libpq's meaning
	CA       string `yaml:"ca"`       // file
	Cert     string `yaml:"cert"`     // file: lockkeeper's certificate towards the server
	Key      string `yaml:"key"`      // file

	// Control is lockkeeper's own login on that server: a libpq connection
	// string for a role with pg_monitor and pg_signal_backend. Empty: locks,
	// blocking graph and the barrier for lost sessions are not available, and
	// the commands that need them say so.
	Control string `yaml:"control"`
}

// ClientTLS is the client side's TLS.
type ClientTLS struct {
	Mode string `yaml:"sslmode"` // disable (default), allow, require, verify-ca, verify-full
	Cert string `yaml:"cert"`    // file
	Key  string `yaml:"key"`     // file
	CA   string `yaml:"ca"`      // file: who signs client certificates (verify-ca, verify-full)
}

// Limits bound what clients may cost. Zero means the default.
type Limits struct {
	Sessions        int           `yaml:"sessions"`         // all clients together
	StatementBytes  int           `yaml:"statement_bytes"`  // the longest text that is collected to be inspected
	CollectedBytes  int64         `yaml:"collected_bytes"`  // all texts being collected together
	CacheBytes      int64         `yaml:"cache_bytes"`      // facts kept
	ParseSlots      int           `yaml:"parse_slots"`      // texts being parsed at a time
	ParseBytes      int           `yaml:"parse_bytes"`      // the longest text given to the parser
	LoginTimeout    time.Duration `yaml:"login_timeout"`    // from accept to the first ReadyForQuery
	ConnectTimeout  time.Duration `yaml:"connect_timeout"`  // to the server
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"` // TERM: transactions may finish for this long
	HeldBytes       int           `yaml:"held_bytes"`       // what a session may send while it is held
}
