package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
)

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
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if cfg.CA != "" {
		roots, err := loadRoots(cfg.CA)
		if err != nil {
			return fmt.Errorf("tls.ca: %w", err)
		}
		out.ClientCAs = roots
		out.ClientAuth = tls.VerifyClientCertIfGiven
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
