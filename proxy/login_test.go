package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// authServer is a server with TLS and a role for each way to log in: the role's
// name is its method, its password "secret".
func authServer(t *testing.T) *pgtest.Server {
	t.Helper()
	pg := pgtest.Start(t, pgtest.TLS(), pgtest.HBA(
		"host all postgres 127.0.0.1/32 trust",
		"host all trusted 127.0.0.1/32 trust",
		"host all password 127.0.0.1/32 password",
		"host all md5 127.0.0.1/32 md5",
		"host all scram 127.0.0.1/32 scram-sha-256",
		"hostssl all only_ssl 127.0.0.1/32 trust",
		"hostnossl all only_plain 127.0.0.1/32 trust",
		"hostssl all certified 127.0.0.1/32 cert",
	))
	for _, role := range []string{"trusted", "password", "scram", "only_ssl", "only_plain", "certified"} {
		pg.MustExec(t, "postgres", "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	}
	pg.MustExec(t, "postgres", "SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'secret'")
	return pg
}

// between is a guard with TLS or without on each side.
func between(t *testing.T, pg *pgtest.Server, client proxy.ClientTLS, server proxy.Target) *guard {
	t.Helper()
	return newGuard(t, func(s *setup) {
		s.pg, s.policy, s.cfg.TLS = pg, transparent, client
		server.Host, server.Port = pg.Host(), uint16(pg.Port())
		s.cfg.Servers = map[string]proxy.Target{"*": server}
	})
}

func clientSide(pg *pgtest.Server, mode string) proxy.ClientTLS {
	c := pg.Certificates()
	return proxy.ClientTLS{Mode: mode, Cert: c.ServerCert, Key: c.ServerKey, CA: c.CA}
}

// login connects with pgx and reports whether the server's connection has TLS.
func (g *guard) login(user, sslmode, more string) (serverTLS bool, err error) {
	host, port, _ := net.SplitHostPort(g.addr)
	c, err := pgx.Connect(g.t.Context(), fmt.Sprintf("host=%s port=%s user=%s password=secret dbname=%s sslmode=%s %s", host, port, user, g.db, sslmode, more))
	if err != nil {
		return false, err
	}
	defer c.Close(context.Background())
	err = c.QueryRow(g.t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&serverTLS)
	return serverTLS, err
}

func TestEveryLoginWorksWithTLSOnEitherSide(t *testing.T) {
	pg := authServer(t)
	for _, serverMode := range []string{"disable", "verify-full"} {
		for _, clientMode := range []string{"disable", "allow"} {
			g := between(t, pg, clientSide(pg, clientMode), proxy.Target{SSLMode: serverMode, CA: pg.Certificates().CA})
			sslmode := map[string]string{"disable": "disable", "allow": "require"}[clientMode]
			for _, user := range []string{"trusted", "password", "md5", "scram"} {
				withTLS, err := g.login(user, sslmode, "channel_binding=disable")
				if err != nil || withTLS != (serverMode != "disable") {
					t.Errorf("%s, client %s, server %s: TLS %v, %v", user, clientMode, serverMode, withTLS, err)
				}
			}
			for _, user := range []string{"password", "md5", "scram"} {
				if _, err := g.login(user, sslmode, "channel_binding=disable password=wrong"); sqlstate(err) != "28P01" {
					t.Errorf("%s with a wrong password, client %s, server %s: %v", user, clientMode, serverMode, err)
				}
			}
			if clientMode == "disable" {
				if _, err := g.login("trusted", "require", ""); err == nil || sqlstate(err) != "" {
					t.Errorf("TLS where none is offered: %v", err)
				}
			} else if _, err := g.login("trusted", "disable", ""); err != nil {
				t.Errorf("plain where TLS is offered: %v", err)
			}
		}
	}
}

// libpq asks for channel binding where both sides have TLS; it cannot be
// relayed, and the client is told what to set.
func TestChannelBindingIsExplained(t *testing.T) {
	pg := authServer(t)
	for _, tt := range []struct {
		client, server, binding string
		want                    string
	}{
		{"allow", "require", "disable", "1"},
		{"allow", "require", "prefer", "channel_binding=disable"},
		{"allow", "disable", "prefer", "1"},
		{"disable", "require", "prefer", "1"},
		{"allow", "require", "require", "channel binding"},
	} {
		g := between(t, pg, clientSide(pg, tt.client), proxy.Target{SSLMode: tt.server})
		sslmode := map[string]string{"allow": "require", "disable": "disable"}[tt.client]
		out, err := g.psql(t, "user=scram password=secret sslmode="+sslmode+" channel_binding="+tt.binding, "select 1")
		if !strings.Contains(out, tt.want) || (err == nil) != (tt.want == "1") {
			t.Errorf("client %s, server %s, channel_binding %s: %v, %s", tt.client, tt.server, tt.binding, err, out)
		}
	}
}

// psql runs one command of psql through the guard.
func (g *guard) psql(t *testing.T, conninfo, command string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(g.addr)
	cmd := exec.CommandContext(t.Context(), g.pg.Program(t, "psql"), "-XAtq", "-c", command,
		"host="+host+" port="+port+" dbname="+g.db+" "+conninfo)
	cmd.Env = append(os.Environ(), "PGPASSFILE=/dev/null", "PGSSLROOTCERT=/nonexistent")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestServerSideModesFallBackAsLibpqDoes(t *testing.T) {
	pg := authServer(t)
	for _, tt := range []struct {
		mode, user string
		tls        bool
		refused    string // SQLSTATE
	}{
		{"allow", "trusted", false, ""},
		{"allow", "only_ssl", true, ""},
		{"allow", "only_plain", false, ""},
		{"prefer", "trusted", true, ""},
		{"prefer", "only_ssl", true, ""},
		{"prefer", "only_plain", false, ""},
		{"require", "only_plain", false, "28000"},
		{"disable", "only_ssl", false, "28000"},
		{"prefer", "nobody_at_all", false, "28000"},
	} {
		g := between(t, pg, proxy.ClientTLS{}, proxy.Target{SSLMode: tt.mode})
		withTLS, err := g.login(tt.user, "disable", "")
		if withTLS != tt.tls || sqlstate(err) != tt.refused || (err != nil) != (tt.refused != "") {
			t.Errorf("sslmode %s, %s: TLS %v, %v", tt.mode, tt.user, withTLS, err)
		}
	}
}

func TestServerCertificatesAreVerified(t *testing.T) {
	pg := authServer(t)
	other, err := pgtest.WriteCertificates(t.TempDir(), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"verify-ca", "verify-full"} {
		g := between(t, pg, proxy.ClientTLS{}, proxy.Target{SSLMode: mode, CA: other.CA})
		if _, err := g.login("trusted", "disable", ""); sqlstate(err) != "08001" {
			t.Errorf("%s: a server whose certificate another authority has signed: %v", mode, err)
		}
	}
	c := pg.Certificates()
	g := between(t, pg, proxy.ClientTLS{}, proxy.Target{SSLMode: "verify-full", CA: c.CA, Cert: c.ClientCert, Key: c.ClientKey})
	if _, err := g.login("postgres", "disable", ""); err != nil {
		t.Errorf("with a certificate of lockkeeper's: %v", err)
	}
}

func TestClientCertificatesNameTheUser(t *testing.T) {
	pg := authServer(t)
	dir := t.TempDir()
	mine, err := pgtest.WriteCertificates(dir, "trusted")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode, user, more string
		refused          bool
	}{
		{"verify-full", "trusted", "sslcert=" + mine.ClientCert + " sslkey=" + mine.ClientKey, false},
		{"verify-full", "password", "sslcert=" + mine.ClientCert + " sslkey=" + mine.ClientKey, true},
		{"verify-ca", "password", "sslcert=" + mine.ClientCert + " sslkey=" + mine.ClientKey, false},
		{"verify-ca", "trusted", "", true},
		{"verify-full", "trusted", "", true},
	} {
		g := between(t, pg, proxy.ClientTLS{Mode: tt.mode, Cert: mine.ServerCert, Key: mine.ServerKey, CA: mine.CA}, proxy.Target{SSLMode: "disable"})
		if _, err := g.login(tt.user, "require", tt.more); (err != nil) != tt.refused {
			t.Errorf("%s, %s with %q: %v", tt.mode, tt.user, tt.more, err)
		}
		if _, err := g.login("trusted", "disable", ""); sqlstate(err) != "28000" {
			t.Errorf("%s without TLS: %v", tt.mode, err)
		}
	}
}

func TestCertificatesAreReloadedWithoutARestart(t *testing.T) {
	pg := authServer(t)
	dir := t.TempDir()
	if _, err := pgtest.WriteCertificates(dir, "x"); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	g := between(t, pg, proxy.ClientTLS{Mode: "require", Cert: in("server.crt"), Key: in("server.key")}, proxy.Target{SSLMode: "disable"})
	verify := "sslrootcert=" + in("ca.crt")
	if _, err := g.login("trusted", "verify-full", verify); err != nil {
		t.Fatal(err)
	}
	if _, err := pgtest.WriteCertificates(dir, "x"); err != nil { // another authority
		t.Fatal(err)
	}
	var unknown *tls.CertificateVerificationError
	if _, err := g.login("trusted", "verify-full", verify); !errors.As(err, &unknown) {
		t.Fatalf("the new authority and the old certificate: %v", err)
	}
	if err := g.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.login("trusted", "verify-full", verify); err != nil {
		t.Fatalf("after Reload: %v", err)
	}
	if err := os.WriteFile(in("server.crt"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.srv.Reload(); err == nil {
		t.Error("a broken certificate was loaded")
	}
	if _, err := g.login("trusted", "verify-full", verify); err != nil {
		t.Errorf("after a Reload that failed: %v", err)
	}
}

// With TLS on both sides COPY passes unchanged, a client that ends is the
// server's news, and nothing stays behind.
func TestCopyAndTheEndOfClientsWithTLSOnBothSides(t *testing.T) {
	pg := authServer(t)
	g := between(t, pg, clientSide(pg, "require"), proxy.Target{SSLMode: "require"})
	before := goroutines(t, g.addr)
	host, port, _ := net.SplitHostPort(g.addr)
	for range 3 {
		c, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=require", host, port, g.db))
		if err != nil {
			t.Fatal(err)
		}
		rows := bytes.Repeat([]byte("a row of some length that is copied through TLS twice\n"), 100_000)
		var back bytes.Buffer
		if _, err := c.Exec(t.Context(), "create temp table copied(t text)"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PgConn().CopyFrom(t.Context(), bytes.NewReader(rows), "copy copied from stdin"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PgConn().CopyTo(t.Context(), &back, "copy copied to stdout"); err != nil || !bytes.Equal(rows, back.Bytes()) {
			t.Fatalf("%d bytes became %d, %v", len(rows), back.Len(), err)
		}
		if err := c.PgConn().Conn().Close(); err != nil { // without Terminate
			t.Fatal(err)
		}
	}
	settle(t, "every session ends", func() bool { return len(g.srv.Sessions()) == 0 })
	settle(t, "every server process ends", func() bool {
		return pg.Value(t, g.db, "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()") == "0"
	})
	settle(t, "every goroutine ends", func() bool { return runtime.NumGoroutine() <= before+2 })
}
