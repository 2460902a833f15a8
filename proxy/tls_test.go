package proxy_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
	"lockkeeper/proxy/wire"
)

// withTLS offers TLS to clients.
func withTLS(t *testing.T, versions proxy.TLSVersions) func(*setup) {
	t.Helper()
	certs, err := pgtest.WriteCertificates(t.TempDir(), pgtest.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	return func(s *setup) {
		s.cfg.TLS = proxy.ClientTLS{Mode: "allow", Cert: certs.ServerCert, Key: certs.ServerKey, TLSVersions: versions}
	}
}

// encrypted is a connection string with other TLS settings than url's.
func (g *guard) encrypted(more string) string {
	return strings.Replace(g.url(more), "sslmode=disable", "sslmode=require", 1)
}

func TestDirectTLSFromClients(t *testing.T) {
	g := newGuard(t, withTLS(t, proxy.TLSVersions{}))
	c, err := pgx.Connect(t.Context(), g.encrypted("sslnegotiation=direct"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var one int
	if err := c.QueryRow(t.Context(), "select 1").Scan(&one); err != nil || one != 1 {
		t.Errorf("select 1: %d, %v", one, err)
	}
	if all := g.srv.Sessions(); len(all) != 1 || !all[0].TLS {
		t.Errorf("sessions %+v, want one with TLS", all)
	}
}

func TestDirectTLSNeedsALPN(t *testing.T) {
	g := newGuard(t, withTLS(t, proxy.TLSVersions{}))
	for name, protocols := range map[string][]string{"none": nil, "another": {"h2"}} {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(rawPatience))
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		err = c.Handshake()
		if err == nil {
			c.Write(startupPacket(g.db))
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("ALPN %s: lockkeeper answers", name)
		}
		conn.Close()
	}
}

func TestDirectTLSIsNotAnsweredWhereTLSIsNotOffered(t *testing.T) {
	g := newGuard(t)
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rawPatience))
	conn.Write([]byte{0x16, 3, 1, 0, 1})
	if b, _ := io.ReadAll(conn); len(b) > 0 {
		t.Errorf("got %x, want nothing", b)
	}
}

// startupPacket is what a client logs in with.
func startupPacket(database string) []byte {
	body := binary.BigEndian.AppendUint32(nil, wire.Version3)
	body = append(body, "user\x00postgres\x00database\x00"+database+"\x00\x00"...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// sslRequest asks for TLS.
func sslRequest() []byte { return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, wire.SSLCode) }

func TestNothingIsTakenFromBeforeTLS(t *testing.T) {
	g := newGuard(t, withTLS(t, proxy.TLSVersions{}))
	t.Run("with the request", func(t *testing.T) {
		c := dialRaw(t, g.addr)
		c.conn.Write(append(sslRequest(), startupPacket(g.db)...))
		if m := c.read(); m == nil || m.Type() != 'E' || string(wire.Field(m.Body(), 'C')) != "08P01" {
			t.Errorf("got %s, want 08P01", show(m))
		}
	})
	t.Run("after the answer", func(t *testing.T) {
		c := dialRaw(t, g.addr)
		c.conn.Write(sslRequest())
		c.conn.SetDeadline(time.Now().Add(rawPatience))
		if _, err := io.ReadFull(c.conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		c.conn.Write(startupPacket(g.db))
		if b, _ := io.ReadAll(c.conn); len(b) > 0 && b[0] != 0x15 {
			t.Errorf("got %x, want nothing but a TLS alert", b)
		}
	})
	if n := len(g.srv.Sessions()); n != 0 {
		t.Errorf("%d sessions began", n)
	}
}

func TestTLSVersionsOfClients(t *testing.T) {
	const suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
	tests := map[string]struct {
		versions proxy.TLSVersions
		client   *tls.Config
		want     bool
	}{
		"at least 1.3, client 1.2":  {proxy.TLSVersions{MinVersion: "TLSv1.3"}, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		"at least 1.3, client 1.3":  {proxy.TLSVersions{MinVersion: "TLSv1.3"}, &tls.Config{}, true},
		"default, client 1.1":       {proxy.TLSVersions{}, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		"at least 1.1, client 1.1":  {proxy.TLSVersions{MinVersion: "TLSv1.1"}, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, true},
		"a cipher the client lacks": {proxy.TLSVersions{Ciphers: []string{suite}}, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, false},
		"a cipher the client has":   {proxy.TLSVersions{Ciphers: []string{suite}}, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, withTLS(t, tt.versions))
			config, err := pgx.ParseConfig(g.encrypted(""))
			if err != nil {
				t.Fatal(err)
			}
			tt.client.InsecureSkipVerify = true
			config.TLSConfig = tt.client
			c, err := pgx.ConnectConfig(t.Context(), config)
			if (err == nil) != tt.want {
				t.Errorf("connected: %v, want %v (%v)", err == nil, tt.want, err)
			}
			if err == nil {
				c.Close(t.Context())
			}
		})
	}
}

func TestTLSVersionsTowardsServers(t *testing.T) {
	pg := pgtest.Start(t, pgtest.TLS(), pgtest.Setting("ssl_max_protocol_version", "TLSv1.2"))
	for version, want := range map[string]bool{"TLSv1.2": true, "TLSv1.3": false} {
		g := newGuard(t, func(s *setup) {
			s.pg = pg
			s.cfg.Servers = map[string]proxy.Target{"*": {
				Host: pg.Host(), Port: uint16(pg.Port()), SSLMode: "require", TLS: proxy.TLSVersions{MinVersion: version},
			}}
		})
		c, err := pgx.Connect(t.Context(), g.url(""))
		if (err == nil) != want || err != nil && sqlstate(err) != "08001" {
			t.Errorf("at least %s: %v", version, err)
		}
		if err == nil {
			c.Close(t.Context())
		}
	}
}

// TestDirectTLSTowardsServers has a guard as the server, for PostgreSQL does
// it from version 17 on; there it has a real one, too.
func TestDirectTLSTowardsServers(t *testing.T) {
	inner := newGuard(t, withTLS(t, proxy.TLSVersions{}))
	host, port, err := net.SplitHostPort(inner.addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	outer := newGuard(t, func(s *setup) {
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: host, Port: uint16(number), SSLMode: "require", SSLNegotiation: "direct"}}
	})
	p := outer.peer()
	if v := p.value("select 1"); v != "1" {
		t.Errorf("select 1 is %s", v)
	}
	if all := inner.srv.Sessions(); len(all) != 1 || !all[0].TLS {
		t.Errorf("the inner guard's sessions: %+v", all)
	}
	if inner.pg.Major(t) < 17 {
		return
	}
	pg := authServer(t)
	g := between(t, pg, proxy.ClientTLS{}, proxy.Target{SSLMode: "verify-full", CA: pg.Certificates().CA, SSLNegotiation: "direct"})
	for _, user := range []string{"only_ssl", "scram"} {
		if withTLS, err := g.login(user, "disable", ""); err != nil || !withTLS {
			t.Errorf("%s: TLS %v, %v", user, withTLS, err)
		}
	}
}

func TestConfigOfTLS(t *testing.T) {
	tests := map[string]struct {
		change func(*proxy.Config)
		want   string
	}{
		"unknown version": {func(c *proxy.Config) { c.TLS.MinVersion = "1.2" }, `tls: min_version: "1.2" is none of`},
		"unknown cipher":  {func(c *proxy.Config) { c.TLS.Ciphers = []string{"RC4"} }, `tls: ciphers: "RC4" is none of`},
		"ciphers of 1.3": {func(c *proxy.Config) {
			c.TLS.TLSVersions = proxy.TLSVersions{MinVersion: "TLSv1.3", Ciphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}
		}, "those of TLSv1.3 cannot be chosen"},
		"of a server":          {server(func(s *proxy.Target) { s.TLS.MinVersion = "SSLv3" }), `server.*: tls: min_version: "SSLv3"`},
		"unknown negotiation":  {server(func(s *proxy.Target) { s.SSLNegotiation = "fast" }), `server.*: sslnegotiation "fast"`},
		"direct, but optional": {server(func(s *proxy.Target) { s.SSLNegotiation = "direct" }), "server.*: sslnegotiation direct needs sslmode require"},
		"direct, but disabled": {server(func(s *proxy.Target) { s.SSLNegotiation, s.SSLMode = "direct", "disable" }), "server.*: sslnegotiation direct needs"},
	}
	for name, tt := range tests {
		c := proxy.Default()
		c.Servers = map[string]proxy.Target{"*": {Host: "h"}}
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// server changes the only server of a configuration.
func server(change func(*proxy.Target)) func(*proxy.Config) {
	return func(c *proxy.Config) {
		s := c.Servers["*"]
		change(&s)
		c.Servers["*"] = s
	}
}
