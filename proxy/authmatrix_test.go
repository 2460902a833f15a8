package proxy_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// matrixPage is written by TestAuthenticationMatrix.
const matrixPage = "../docs/authentication-matrix.md"

// matrixMethods are what a server may ask lockkeeper for, and the role that it
// asks so. All have the password "secret".
var matrixMethods = []struct{ name, role string }{
	{"scram-sha-256", "scram"},
	{"md5", "md5"},
	{"password", "password"},
	{"trust", "trusted"},
	{"cert", pgtest.Superuser},
}

// matrixServer is a server with a role for each method. All tests share it:
// they leave its roles alone.
func matrixServer(t *testing.T) *pgtest.Server {
	t.Helper()
	pg, err := sharedMatrixServer()
	if err != nil {
		t.Fatal(err)
	}
	return pg
}

// sharedMatrixServer ends with the test binary, as pgtest.Shared does.
var sharedMatrixServer = sync.OnceValues(func() (*pgtest.Server, error) {
	pg, err := pgtest.Run(context.Background(), matrixConfig())
	if err != nil {
		return nil, err
	}
	return pg, matrixRoles(pg)
})

// ownMatrixServer is one for a test that changes roles.
func ownMatrixServer(t *testing.T) *pgtest.Server {
	t.Helper()
	config := matrixConfig()
	pg := pgtest.Start(t, pgtest.TLS(), pgtest.HBA(config.HBA...))
	if err := matrixRoles(pg); err != nil {
		t.Fatal(err)
	}
	return pg
}

func matrixConfig() pgtest.Config {
	return pgtest.Config{TLS: true, HBA: []string{
		"host all trusted 127.0.0.1/32 trust",
		"host all password 127.0.0.1/32 password",
		"host all md5 127.0.0.1/32 md5",
		"host all scram,asker 127.0.0.1/32 scram-sha-256",
		"hostssl all postgres 127.0.0.1/32 cert",
	}}
}

func matrixRoles(pg *pgtest.Server) error {
	return pg.Exec(context.Background(), "postgres", `CREATE ROLE trusted LOGIN PASSWORD 'secret'; CREATE ROLE password LOGIN PASSWORD 'secret';
		CREATE ROLE scram LOGIN PASSWORD 'secret'; CREATE ROLE asker LOGIN PASSWORD 'secret'; GRANT SELECT ON pg_authid TO asker;
		ALTER ROLE postgres PASSWORD 'secret'; SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'secret'`)
}

// secretOf is a role's secret as the server has it.
func secretOf(t *testing.T, pg *pgtest.Server, role string) string {
	t.Helper()
	return pg.Value(t, "postgres", "select rolpassword from pg_authid where rolname = '"+role+"'")
}

// userlist writes an auth_file.
func userlist(t *testing.T, secrets map[string]string) string {
	t.Helper()
	text := "; made by a test\n"
	for name, secret := range secrets {
		text += fmt.Sprintf("%q %q\n", name, secret)
	}
	file := filepath.Join(t.TempDir(), "userlist.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// secretFile writes a file that holds a password.
func secretFile(t *testing.T, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// myName is the system's user that runs the test.
func myName(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return me.Username
}

// matrixRow is how lockkeeper authenticates, and a client that connects.
type matrixRow struct {
	auth    string // a key of matrixAuth
	client  string // as the page has it
	options string // of the client's connection string
	socket  bool
}

func matrixRows(client pgtest.Certificates) []matrixRow {
	const plain, tls = "sslmode=disable", "sslmode=require channel_binding="
	certificate := " sslcert=" + client.ClientCert + " sslkey=" + client.ClientKey
	var rows []matrixRow
	for _, auth := range []string{"`relay`", "`scram`, SCRAM secret in `auth_file`", "`scram`, password in `auth_file`", "`scram`, `auth_query`"} {
		rows = append(rows,
			matrixRow{auth, "no TLS", plain, false},
			matrixRow{auth, "TLS, `channel_binding=disable`", tls + "disable", false},
			matrixRow{auth, "TLS, `channel_binding=prefer`", tls + "prefer", false},
			matrixRow{auth, "TLS, `channel_binding=require`", tls + "require", false},
		)
	}
	return append(rows,
		matrixRow{"`cert`, `auth_password_file`", "TLS with certificate", tls + "prefer" + certificate, false},
		matrixRow{"`cert`, `auth_password_file`", "TLS with certificate, `channel_binding=require`", tls + "require" + certificate, false},
		matrixRow{"`cert`, `auth_password_file`", "TLS without certificate", tls + "prefer", false},
		matrixRow{"`cert`, `auth_password_file`", "no TLS", plain, false},
		matrixRow{"`peer`, `auth_password_file`", "unix socket", plain, true},
		matrixRow{"`peer`, `auth_password_file`", "no TLS", plain, false},
	)
}

func matrixAuth(t *testing.T, pg *pgtest.Server) map[string]proxy.Auth {
	t.Helper()
	secrets, passwords, roles := map[string]string{}, map[string]string{}, []string{}
	for _, m := range matrixMethods {
		secrets[m.role], passwords[m.role] = secretOf(t, pg, m.role), "secret"
		roles = append(roles, m.role)
	}
	secrets["md5"] = secrets["scram"] // a secret that SCRAM can use, for a role whose secret on the server is not
	password := secretFile(t, "secret")
	return map[string]proxy.Auth{
		"`relay`":                              {},
		"`scram`, SCRAM secret in `auth_file`": {Method: proxy.AuthSCRAM, File: userlist(t, secrets)},
		"`scram`, password in `auth_file`":     {Method: proxy.AuthSCRAM, File: userlist(t, passwords)},
		"`scram`, `auth_query`":                {Method: proxy.AuthSCRAM, User: "asker", PasswordFile: password},
		"`cert`, `auth_password_file`":         {Method: proxy.AuthCert, PasswordFile: password, Map: map[string][]string{"tester": roles}},
		"`peer`, `auth_password_file`":         {Method: proxy.AuthPeer, PasswordFile: password, Map: map[string][]string{myName(t): roles}},
	}
}

// terminating is a guard that offers TLS and a unix socket, whose folder it
// returns.
func terminating(t *testing.T, pg *pgtest.Server, certs pgtest.Certificates, a proxy.Auth, serverMode string) (g *guard, socket string) {
	t.Helper()
	socket, err := os.MkdirTemp("", "lk") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(socket) })
	return newGuard(t, func(s *setup) {
		s.pg, s.policy = pg, transparent
		s.cfg.Listen.Unix = []string{filepath.Join(socket, ".s.PGSQL.6433")}
		s.cfg.TLS = proxy.ClientTLS{Mode: "prefer", Cert: certs.ServerCert, Key: certs.ServerKey, CA: certs.CA}
		mine := pg.Certificates()
		s.cfg.Servers = map[string]proxy.Target{"*": {
			Host: pg.Host(), Port: uint16(pg.Port()), SSLMode: serverMode, Cert: mine.ClientCert, Key: mine.ClientKey, Auth: a,
		}}
	}), socket
}

// TestAuthenticationMatrix logs in with psql and with pgx in every combination
// of client, lockkeeper's auth, TLS to the server and the server's method, and
// compares with the page; UPDATE_GOLDEN=1 writes it.
func TestAuthenticationMatrix(t *testing.T) {
	pg := matrixServer(t)
	certs, err := pgtest.WriteCertificates(t.TempDir(), "tester")
	if err != nil {
		t.Fatal(err)
	}
	auths := matrixAuth(t, pg)
	cells := map[matrixRow][]string{}
	for _, mode := range []string{"disable", "require"} {
		for name, a := range auths {
			g, socket := terminating(t, pg, certs, a, mode)
			for _, row := range matrixRows(certs) {
				if row.auth != name {
					continue
				}
				for _, m := range matrixMethods {
					cells[row] = append(cells[row], g.cell(&row, m.role, socket))
				}
			}
		}
	}
	var b strings.Builder
	b.WriteString(matrixHead)
	for _, row := range matrixRows(certs) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.auth, row.client, strings.Join(cells[row], " | "))
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(matrixPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(matrixPage)
	if err != nil || string(want) != b.String() {
		t.Errorf("%s is not what is so (%v); UPDATE_GOLDEN=1 writes it:\n%s", matrixPage, err, b.String())
	}
}

const matrixHead = `<!-- Written by TestAuthenticationMatrix of package proxy; UPDATE_GOLDEN=1 writes it again. -->

# Who can log in how

Every cell was tried with psql and with pgx, with a password that is right. A number is the SQLSTATE of a refusal; "client" means that the
client itself did not want to go on. Columns: TLS to the server (off is ` + "`sslmode: disable`, on is `require`" + `, with a certificate of lockkeeper's), and the
method in the server's ` + "`pg_hba.conf`" + `, which for ` + "`cert`" + ` has no line without TLS.

| ` + "`auth`" + ` | client | off: scram-sha-256 | off: md5 | off: password | off: trust | off: cert | on: scram-sha-256 | on: md5 | on: password | on: trust | on: cert |
|---|---|---|---|---|---|---|---|---|---|---|---|
`

// cell logs in with both drivers.
func (g *guard) cell(row *matrixRow, role, socket string) string {
	host, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	if row.socket {
		host, port = socket, "6433"
	}
	conninfo := fmt.Sprintf("host=%s port=%s dbname=%s user=%s password=secret %s", host, port, g.db, role, row.options)
	byPgx := "yes"
	c, err := pgx.Connect(g.t.Context(), conninfo)
	switch {
	case err == nil:
		err = c.QueryRow(g.t.Context(), "select current_user").Scan(&host)
		if err != nil || host != role {
			g.t.Errorf("%s as %s: current_user is %s, %v", row.client, role, host, err)
		}
		_ = c.Close(context.Background())
	case sqlstate(err) != "":
		byPgx = sqlstate(err)
	default:
		byPgx = "client"
	}
	cmd := exec.CommandContext(g.t.Context(), g.pg.Program(g.t, "psql"), "-XAtqw", "-c", "select current_user", conninfo)
	cmd.Env = append(os.Environ(), "PGPASSFILE=/dev/null", "PGSSLROOTCERT=/nonexistent")
	out, err := cmd.CombinedOutput()
	if (err == nil) != (byPgx == "yes") || err == nil && string(out) != role+"\n" {
		g.t.Errorf("%s, %s as %s: pgx %s, psql %v: %s", row.auth, row.client, role, byPgx, err, out)
	}
	return byPgx
}
