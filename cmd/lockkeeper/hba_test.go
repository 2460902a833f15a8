package main

import (
	"context"
	"strings"
	"testing"

	"lockkeeper/internal/pgtest"
)

func TestHBARuleAdmits(t *testing.T) {
	host := func(address, mask, method string) hbaRule {
		return hbaRule{Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: address, Netmask: mask, Method: method}
	}
	local := hbaRule{Type: "local", Databases: []string{"all"}, Users: []string{"all"}, Method: "peer"}
	for _, test := range []struct {
		name    string
		rule    hbaRule
		address string
		want    bool
	}{
		{"our address", host("10.0.0.5", "255.255.255.255", "trust"), "10.0.0.5", true},
		{"our network", host("10.0.0.0", "255.0.0.0", "trust"), "10.9.8.7", true},
		{"another network", host("192.168.0.0", "255.255.0.0", "trust"), "10.9.8.7", false},
		{"IPv6", host("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "trust"), "::1", true},
		{"IPv6 for IPv4", host("::", "::", "trust"), "127.0.0.1", false},
		{"everybody", host("all", "", "trust"), "127.0.0.1", true},
		{"a host name may be ours", host("db.example.com", "", "trust"), "127.0.0.1", true},
		{"ident asks the client's machine", host("all", "", "ident"), "127.0.0.1", false},
		{"the socket, and we are on it", local, "", true},
		{"the socket, and we are not", local, "127.0.0.1", false},
		{"TCP, and we are on the socket", host("all", "", "trust"), "", false},
		{"replication only", hbaRule{Type: "host", Databases: []string{"replication"}, Users: []string{"all"}, Address: "all", Method: "trust"}, "127.0.0.1", false},
	} {
		if got := test.rule.admits(test.address); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestCheckSaysWhereItCannotSeeHBA(t *testing.T) {
	pg := pgtest.Shared(t)
	pg.MustExec(t, "postgres", "CREATE ROLE hba_blind LOGIN PASSWORD 'x' IN ROLE pg_monitor")
	t.Cleanup(func() { _ = pg.Exec(context.Background(), "postgres", "DROP ROLE hba_blind") })
	cfg := defaults()
	cfg.Servers = docsServers()
	target := docsServers()["*"]
	target.Control = pg.ConnString("postgres") + " user=hba_blind password=x"
	cfg.Servers["*"] = target
	r := &report{}
	r.checkServers(t.Context(), cfg)
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "cannot be seen by the control login") {
		t.Errorf("got %q", r.Warnings)
	}
	target.Control = "host=127.0.0.1 port=1 user=x password=hunter2 dbname=x"
	cfg.Servers["*"] = target
	r = &report{}
	r.checkServers(t.Context(), cfg)
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "was not looked at") || strings.Contains(r.Warnings[0], "hunter2") {
		t.Errorf("got %q", r.Warnings)
	}
}
