package proxy_test

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// syncBuffer is a log that a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestClientsAddressFromProxyHeader(t *testing.T) {
	headers := map[string][]byte{
		"version 1": []byte("PROXY TCP4 192.0.2.1 192.0.2.9 40000 5432\r\n"),
		"version 2": []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x09\x9c\x40\x15\x38"),
	}
	for name, header := range headers {
		t.Run(name, func(t *testing.T) {
			log := &syncBuffer{}
			g := newGuard(t, func(s *setup) {
				s.cfg.Listen.ProxyProtocolFrom = []string{"127.0.0.0/8"}
				s.deps.Logger = slog.New(slog.NewTextHandler(log, nil))
			})
			c := dialRaw(t, g.addr)
			c.conn.Write(append(bytes.Clone(header), startupPacket(g.db)...))
			c.until('Z', 1)
			if all := g.srv.Sessions(); len(all) != 1 || all[0].Address != "192.0.2.1" {
				t.Errorf("sessions %+v, want one of 192.0.2.1", all)
			}
			c.exec("update res_partner set name = name where id = 1")
			if e := g.journal(journal.StatementEntry); len(e) != 1 || e[0].Address != "192.0.2.1" {
				t.Errorf("journal: %+v, want an entry of 192.0.2.1", e)
			}
			c.conn.Close()
			g.wait("lockkeeper_connections", 0)
			if !strings.Contains(log.String(), "address=192.0.2.1") {
				t.Errorf("the log does not name the client:\n%s", log.String())
			}
		})
	}
}

func TestProxyHeaderIsTakenFromBalancersOnly(t *testing.T) {
	header := []byte("PROXY TCP4 192.0.2.1 192.0.2.9 40000 5432\r\n")
	for _, tt := range []struct {
		name string
		from []string
		send []byte
		want string
	}{
		{"a stranger's", []string{"10.0.0.0/8"}, header, "closed"},
		{"a balancer's, without", []string{"127.0.0.1"}, nil, "closed"},
		{"a balancer's own connection", []string{"127.0.0.1"}, []byte("PROXY UNKNOWN\r\n"), ""},
		{"a stranger's, without", []string{"10.0.0.0/8"}, nil, ""},
	} {
		g := newGuard(t, func(s *setup) { s.cfg.Listen.ProxyProtocolFrom = tt.from })
		c := dialRaw(t, g.addr)
		c.conn.Write(append(bytes.Clone(tt.send), startupPacket(g.db)...))
		m := c.until('Z', 1)
		if got := m[len(m)-1]; (got == nil) != (tt.want == "closed") {
			t.Errorf("%s: %s", tt.name, show(got))
		}
	}
}

func TestApplicationNameWithHost(t *testing.T) {
	pg := pgtest.Shared(t)
	g := newGuard(t, func(s *setup) {
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: pg.Host(), Port: uint16(pg.Port()), ApplicationNameAddHost: true}}
	})
	p := g.peer("application_name", "odoo")
	if got, want := p.value("show application_name"), "odoo - "+p.conn.LocalAddr().String(); got != want {
		t.Errorf("application_name is %q, want %q", got, want)
	}
	p = g.peer()
	if got, want := p.value("show application_name"), "app - "+p.conn.LocalAddr().String(); got != want {
		t.Errorf("application_name is %q, want %q", got, want)
	}
}

func TestApplicationNameOfProxiedClients(t *testing.T) {
	pg := pgtest.Shared(t)
	g := newGuard(t, func(s *setup) {
		s.cfg.Listen.ProxyProtocolFrom = []string{"127.0.0.1", "::1"}
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: pg.Host(), Port: uint16(pg.Port()), ApplicationNameAddHost: true}}
	})
	c := dialRaw(t, g.addr)
	c.conn.Write(append([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 40000 5432\r\n"), startupPacket(g.db)...))
	c.until('Z', 1)
	rows := c.exec("show application_name")
	row := rows[1].Body()
	if got := string(row[6:]); binary.BigEndian.Uint16(row) != 1 || got != "app - [2001:db8::1]:40000" {
		t.Errorf("application_name is %q", got)
	}
}

func TestConfigOfProxyProtocol(t *testing.T) {
	c := proxy.Default()
	c.Servers = map[string]proxy.Target{"*": {Host: "h"}}
	c.Listen.ProxyProtocolFrom = []string{"10.0.0.0/8", "::1", "balancer"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `listen.proxy_protocol_from: "balancer"`) {
		t.Errorf("got %v", err)
	}
	c.Listen.ProxyProtocolFrom = c.Listen.ProxyProtocolFrom[:2]
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
