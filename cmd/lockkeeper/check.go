package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockkeeper/admin/control"
	"lockkeeper/proxy"
)

// checkTime is how long the servers may take to answer.
const checkTime = 15 * time.Second

// hbaAdvice is printed whatever was found.
const hbaAdvice = "PostgreSQL's pg_hba.conf sees lockkeeper's address and not the client's: a trust line that matches lockkeeper's " +
	"address (or a peer line, for its unix socket) admits everybody who reaches lockkeeper. Use scram-sha-256 there, and say who may reach lockkeeper with a firewall."

// report is what check found.
type report struct {
	File     string   `json:"file"`
	OK       bool     `json:"ok"`
	Profile  string   `json:"profile,omitempty"`
	Rules    int      `json:"rules,omitempty"`
	Errors   []string `json:"errors,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Advice   []string `json:"advice"`
}

func newCheck(g *global) *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration without serving",
		Long: `check reads the configuration and the policy as serve would, and says what is wrong with either, with line numbers.
Through the control login it looks for lines in pg_hba.conf that would admit everybody. It exits with 1 when serve would not start;
warnings do not change that.`,
		Example: "  lockkeeper check -c lockkeeper.yaml\n  lockkeeper check -c lockkeeper.yaml --offline --json",
		Args:    cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			file, _ := g.configFile()
			if file == "" {
				return misused("check needs a configuration: -c FILE")
			}
			r := check(cmd.Context(), file, offline)
			if err := g.print(r, func() { r.write(g) }); err != nil {
				return err
			}
			if !r.OK {
				return errNo()
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the servers")
	return cmd
}

func (r *report) write(g *global) {
	for _, e := range r.Errors {
		fmt.Fprintf(g.err, "error: %s\n", e)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(g.out, "warning: %s\n", w)
	}
	for _, a := range r.Advice {
		fmt.Fprintf(g.out, "note: %s\n", a)
	}
	if r.OK {
		fmt.Fprintf(g.out, "%s: ok, profile %s, %d rules\n", r.File, r.Profile, r.Rules)
	}
}

func check(ctx context.Context, file string, offline bool) *report {
	r := &report{File: file, Advice: []string{hbaAdvice}}
	cfg, err := loadConfig(file)
	if err != nil {
		r.Errors = lines(err)
		return r
	}
	p, _, err := cfg.loadPolicy()
	if err != nil {
		r.Errors = lines(err)
		return r
	}
	r.Profile, r.Rules = p.Profile(), len(p.Rules())
	r.checkFiles(cfg)
	r.checkState(cfg)
	r.warnExposure(cfg)
	if !offline {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		r.checkServers(ctx, cfg)
	}
	r.OK = len(r.Errors) == 0
	return r
}

func (r *report) fail(format string, args ...any) {
	r.Errors = append(r.Errors, fmt.Sprintf(format, args...))
}

func (r *report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// checkFiles opens what the configuration names and serve would read.
func (r *report) checkFiles(cfg *config) {
	for _, pair := range [][3]string{{"tls", cfg.TLS.Cert, cfg.TLS.Key}, {"admin", cfg.Admin.Cert, cfg.Admin.Key}} {
		if pair[1] == "" || pair[0] == "tls" && cfg.TLS.Mode == "disable" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(pair[1], pair[2]); err != nil {
			r.fail("%s: %v", pair[0], err)
		}
	}
	if cfg.Admin.TokenFile != "" {
		if _, err := cfg.tokens(); err != nil {
			r.fail("admin: %v", err)
		}
	}
	for _, key := range sortedKeys(cfg.Servers) {
		t := cfg.Servers[key]
		if t.CA != "" {
			if _, err := os.Stat(t.CA); err != nil {
				r.fail("server.%s: ca: %v", key, err)
			}
		}
		r.checkAuth(cfg, key, &t)
	}
}

// checkState reads the state file if it may: serve refuses to start without
// knowing what is restricted.
func (r *report) checkState(cfg *config) {
	err := control.CheckState(cfg.state(stateFile))
	if errors.Is(err, fs.ErrPermission) {
		return // the service's user may read it
	}
	if err != nil {
		r.fail("%v", err)
	}
}

// warnExposure warns about what others could read or reach.
func (r *report) warnExposure(cfg *config) {
	if cfg.TLS.Mode == "" || cfg.TLS.Mode == "disable" {
		for _, addr := range cfg.Listen.TCP {
			if !loopback(addr) {
				r.warn("listen.tcp: %s is reachable by others and tls.sslmode is disable: statements and rows pass in the clear", addr)
			}
		}
	}
	for _, key := range sortedKeys(cfg.Servers) {
		t := cfg.Servers[key]
		if t.Control == "" {
			r.warn("server.%s: no control login: locks, terminating lost server processes and read-only's WAL position are not available, and DDL inside functions may wait for its lock for ever", key)
		}
		if a := t.TargetSessionAttrs; t.Control == "" && a != "" && a != "any" {
			r.warn("server.%s: target_session_attrs without a control login: clients are refused wherever the server asks for a password", key)
		}
		if insecure(&t) {
			mode := t.SSLMode
			if mode == "" {
				mode = "prefer"
			}
			r.warn("server.%s: sslmode %s to %s does not keep others on the network from reading along; use require or verify-full", key, mode, t.Host)
		}
	}
	info, err := os.Stat(cfg.file)
	if err == nil && info.Mode().Perm()&0o077 != 0 && cfg.holdsSecrets() {
		r.warn("%s holds a token or a password and has mode %04o: chmod 0600, or use sha256 and a passfile", cfg.file, info.Mode().Perm())
	}
}

// holdsSecrets reports whether the file itself lets its readers in somewhere.
func (c *config) holdsSecrets() bool {
	for i := range c.Admin.Tokens {
		if c.Admin.Tokens[i].Token != "" {
			return true
		}
	}
	for _, t := range c.Servers {
		if containsPassword(t.Control) {
			return true
		}
	}
	return false
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// insecure reports whether the way to a server may be in the clear and leaves
// the machine.
func insecure(t *proxy.Target) bool {
	if !slices.ContainsFunc(t.Hosts(), remote) {
		return false
	}
	return t.SSLMode == "disable" || t.SSLMode == "allow" || t.SSLMode == "prefer" || t.SSLMode == ""
}

// remote reports whether a host is another machine.
func remote(host string) bool {
	return !strings.HasPrefix(host, "/") && !loopback(net.JoinHostPort(host, "0"))
}
