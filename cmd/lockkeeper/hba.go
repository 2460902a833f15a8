package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/admin/locks"
	"lockkeeper/internal/sqlstate"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// lines splits a joined error.
func lines(err error) []string { return strings.Split(err.Error(), "\n") }

// containsPassword reports whether a connection string has one.
func containsPassword(connString string) bool {
	cfg, err := pgx.ParseConfig(connString)
	return err == nil && cfg.Password != "" && strings.Contains(connString, cfg.Password)
}

// hbaRule is a line of pg_hba.conf.
type hbaRule struct {
	Line             int
	Type             string
	Databases, Users []string
	Address, Netmask string
	Method           string
}

// hbaLines returns the lines by which somebody gets in without a secret.
const hbaLines = `
SELECT r.line_number, r.type, COALESCE(r.database, '{}'), COALESCE(r.user_name, '{}'), COALESCE(r.address, ''), COALESCE(r.netmask, ''), r.auth_method
FROM pg_catalog.pg_hba_file_rules AS r
WHERE r.auth_method OPERATOR(pg_catalog.=) ANY ('{trust,peer,ident}'::pg_catalog.text[])
ORDER BY r.line_number
LIMIT 1000`

const ownAddress = "SELECT COALESCE(pg_catalog.host(pg_catalog.inet_client_addr()), '')"

// checkServers asks each server for the lines that would admit everybody.
func (r *report) checkServers(ctx context.Context, cfg *config) {
	for _, s := range locks.Servers(cfg.Servers) {
		if s.Control == "" {
			continue // warned about already
		}
		rules, address, err := readHBA(ctx, s.Control)
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == sqlstate.InsufficientPrivilege {
			r.warn("server %s: pg_hba.conf cannot be seen by the control login; look at it yourself, or as a superuser "+
				"GRANT SELECT ON pg_hba_file_rules and GRANT EXECUTE ON FUNCTION pg_hba_file_rules() to it", s.Name)
			continue
		}
		if err != nil {
			r.warn("server %s: pg_hba.conf was not looked at: %v", s.Name, err)
			continue
		}
		for _, rule := range rules {
			if rule.admits(address) {
				r.warn("server %s: pg_hba.conf line %d (%s) admits everybody who reaches lockkeeper as %s to %s without a password",
					s.Name, rule.Line, rule.text(), strings.Join(rule.Users, ","), strings.Join(rule.Databases, ","))
			}
		}
	}
}

// readHBA returns the lines, and lockkeeper's address as the server sees it:
// "" for the unix socket.
func readHBA(ctx context.Context, control string) ([]hbaRule, string, error) {
	conn, err := locks.Connect(ctx, control, "")
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	var address string
	if err := conn.QueryRow(ctx, ownAddress).Scan(&address); err != nil {
		return nil, "", fmt.Errorf("ask for the own address: %w", err)
	}
	rows, err := conn.Query(ctx, hbaLines)
	if err != nil {
		return nil, "", fmt.Errorf("read pg_hba_file_rules: %w", err)
	}
	rules, err := pgx.CollectRows(rows, pgx.RowToStructByPos[hbaRule])
	if err != nil {
		return nil, "", fmt.Errorf("read pg_hba_file_rules: %w", err)
	}
	return rules, address, nil
}

func (h *hbaRule) text() string {
	parts := []string{h.Type, strings.Join(h.Databases, ","), strings.Join(h.Users, ",")}
	if h.Address != "" {
		parts = append(parts, strings.TrimSpace(h.Address+" "+h.Netmask))
	}
	return strings.Join(append(parts, h.Method), " ")
}

// admits reports whether the line lets in who comes from lockkeeper's address.
// An address that is a host name or a keyword is taken to match.
func (h *hbaRule) admits(address string) bool {
	if len(h.Users) == 1 && len(h.Databases) == 1 && h.Databases[0] == "replication" {
		return false
	}
	if h.Type == "local" || address == "" {
		return h.Type == "local" && address == ""
	}
	if h.Method != "trust" {
		return false // peer is for the socket; ident asks the client's machine
	}
	client, err := netip.ParseAddr(address)
	network, errNet := netip.ParseAddr(h.Address)
	mask, errMask := netip.ParseAddr(h.Netmask)
	if err != nil || errNet != nil || errMask != nil {
		return true
	}
	return sameNetwork(client.AsSlice(), network.AsSlice(), mask.AsSlice())
}

func sameNetwork(a, b, mask []byte) bool {
	if len(a) != len(b) || len(a) != len(mask) {
		return false
	}
	for i := range a {
		if a[i]&mask[i] != b[i]&mask[i] {
			return false
		}
	}
	return true
}
