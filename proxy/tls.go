package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
)

// alpn is the protocol's name in TLS. Source: manual, 55.2.11.
const alpn = "postgresql"

// TLSVersions bound what TLS may be agreed on, on one side.
type TLSVersions struct {
	MinVersion string   `yaml:"min_version"` // TLSv1, TLSv1.1, TLSv1.2 (default), TLSv1.3: the words of PostgreSQL's ssl_min_protocol_version
	Ciphers    []string `yaml:"ciphers"`     // IANA's names, for TLSv1.2 and older; empty: those that Go holds to be safe
}

// tlsVersions are PostgreSQL's names.
func tlsVersions() map[string]uint16 {
	return map[string]uint16{
		"": tls.VersionTLS12, "TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13,
	}
}

// apply sets what is configured; it was validated.
func (v *TLSVersions) apply(cfg *tls.Config) {
	cfg.MinVersion = tlsVersions()[v.MinVersion]
	for _, c := range tls.CipherSuites() {
		if slices.Contains(v.Ciphers, c.Name) {
			cfg.CipherSuites = append(cfg.CipherSuites, c.ID)
		}
	}
}

func (v *TLSVersions) validate() error {
	var all []error
	if _, ok := tlsVersions()[v.MinVersion]; !ok {
		all = append(all, fmt.Errorf("min_version: %q is none of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3", v.MinVersion))
	}
	if v.MinVersion == "TLSv1.3" && len(v.Ciphers) > 0 {
		all = append(all, errors.New("ciphers: those of TLSv1.3 cannot be chosen, and min_version allows nothing older"))
	}
	known := oldCiphers()
	for _, name := range v.Ciphers {
		if !slices.Contains(known, name) {
			all = append(all, fmt.Errorf("ciphers: %q is none of %s", name, strings.Join(known, ", ")))
		}
	}
	return errors.Join(all...)
}

// oldCiphers are the cipher suites that can be chosen: safe ones of TLSv1.2
// and older.
func oldCiphers() []string {
	var out []string
	for _, c := range tls.CipherSuites() {
		if !slices.Equal(c.SupportedVersions, []uint16{tls.VersionTLS13}) {
			out = append(out, c.Name)
		}
	}
	return out
}

// clientTLS is the client side's TLS; load replaces it while clients come.
type clientTLS struct {
	mode    string
	current atomic.Pointer[tls.Config]
}

// load reads the files. On an error what was loaded before stays in use.
func (c *clientTLS) load(cfg *ClientTLS) error {
	if c.mode == "" {
		c.mode = cfg.Mode
	}
	if cfg.Mode == "" || cfg.Mode == "disable" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return fmt.Errorf("load tls.cert and tls.key: %w", err)
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{alpn}}
	cfg.apply(out)
	if cfg.CA != "" {
		roots, err := loadRoots(cfg.CA)
		if err != nil {
			return fmt.Errorf("tls.ca: %w", err)
		}
		out.ClientCAs = roots
		out.ClientAuth = tls.RequestClientCert // not validated, as by PgBouncer; auth: cert does so later
	}
	if cfg.Mode == "verify-ca" || cfg.Mode == "verify-full" {
		out.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.current.Store(out)
	return nil
}

// config returns nil when TLS is not offered.
func (c *clientTLS) config() *tls.Config { return c.current.Load() }

// required reports whether plaintext clients are refused.
func (c *clientTLS) required() bool {
	switch c.mode {
	case "require", "verify-ca", "verify-full":
		return true
	}
	return false
}

// commonName returns the CN of the client's certificate; "" without one.
func commonName(c net.Conn) string {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ""
	}
	certs := t.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return ""
	}
	return certs[0].Subject.CommonName
}
