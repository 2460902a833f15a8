package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"lockkeeper/proxy/wire"
)

// direct is the sslnegotiation that begins with TLS.
const direct = "direct"

// attempt is one way to try a connection: with TLS or without.
type attempt struct {
	tls      bool
	required bool // the server must agree to TLS
}

// attempts returns what sslmode tries, in order. Source: manual, 34.19.3
// "Protection Provided in Different Modes".
func (t *Target) attempts(e *endpoint) []attempt {
	if e.unix() {
		return []attempt{{}}
	}
	switch t.SSLMode {
	case "disable":
		return []attempt{{}}
	case "allow":
		return []attempt{{}, {tls: true, required: true}}
	case "require", "verify-ca", "verify-full":
		return []attempt{{tls: true, required: true}}
	default: // prefer
		return []attempt{{tls: true}, {}}
	}
}

// connected is a server connection on which the startup packet was sent and
// the server's answer was received.
type connected struct {
	net.Conn
	version []byte // NegotiateProtocolVersion, which comes before the answer; most servers need none
	first   []byte // the first message of the answer
	tls     bool
	reached endpoint

	loggedIn bool // by lockkeeper, in the client's place
}

// said returns all that the server has sent.
func (c *connected) said() []byte { return slices.Concat(c.version, c.first) }

// connect opens a server connection and sends the startup packet. Where
// sslmode allows both, an authorization error (28000: no pg_hba.conf line for
// this kind of connection) leads to the other kind, as in libpq.
func (t *Target) connect(ctx context.Context, e *endpoint, startup []byte) (*connected, error) {
	var last error
	tries := t.attempts(e)
	for i, a := range tries {
		c, err := t.try(ctx, e, a, startup)
		if err != nil {
			last = err
			continue
		}
		if i+1 < len(tries) && unauthorized(c.first) && (tries[i+1].tls || c.tls) {
			_ = c.Close() // the other kind may be allowed
			next, err := t.try(ctx, e, tries[i+1], startup)
			if err == nil {
				return next, nil
			}
			return t.try(ctx, e, a, startup)
		}
		return c, nil
	}
	return nil, last
}

// unauthorized reports whether the server's first message is the error that it
// has no line for such a connection.
func unauthorized(first []byte) bool {
	return len(first) > wire.HeaderLen && first[0] == 'E' && string(wire.Field(first[wire.HeaderLen:], 'C')) == "28000"
}

func (t *Target) try(ctx context.Context, e *endpoint, a attempt, startup []byte) (*connected, error) {
	c, err := t.open(ctx, e, a)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write(startup); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("send startup packet: %w", err)
	}
	if err := c.readFirst(); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("read the server's first message: %w", err)
	}
	return c, nil
}

// readFirst reads the server's answer to the startup packet. Source: manual,
// 55.2.1 "Start-up", NegotiateProtocolVersion.
func (c *connected) readFirst() (err error) {
	c.first, err = readMessage(c)
	if err == nil && c.first[0] == 'v' && len(c.first) > wire.HeaderLen {
		c.version = c.first
		c.first, err = readMessage(c)
	}
	return err
}

// open dials an address and negotiates TLS.
func (t *Target) open(ctx context.Context, e *endpoint, a attempt) (*connected, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, e.network, e.address)
	if err != nil {
		return nil, fmt.Errorf("connect to server: %w", err)
	}
	if err := t.tcp.apply(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if !a.tls {
		return &connected{Conn: conn}, nil
	}
	c, err := t.secure(ctx, e, conn, a)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// secure asks the server for TLS. Nothing may be buffered behind its answer:
// exactly one byte is read. Source: manual, 55.2.10 "SSL Session Encryption".
func (t *Target) secure(ctx context.Context, e *endpoint, conn net.Conn, a attempt) (*connected, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if t.SSLNegotiation == direct {
		return t.handshake(ctx, e, conn)
	}
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, wire.SSLCode)
	if _, err := conn.Write(request); err != nil {
		return nil, fmt.Errorf("ask server for TLS: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, fmt.Errorf("ask server for TLS: %w", err)
	}
	switch {
	case answer[0] == 'S':
	case answer[0] == 'N' && !a.required:
		return &connected{Conn: conn}, nil
	case answer[0] == 'N':
		return nil, errors.New("server does not support TLS, but sslmode requires it")
	default:
		return nil, errors.New("ask server for TLS: unexpected answer")
	}
	return t.handshake(ctx, e, conn)
}

// handshake puts TLS on a connection.
func (t *Target) handshake(ctx context.Context, e *endpoint, conn net.Conn) (*connected, error) {
	cfg, err := t.tlsConfig(e.host)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with server: %w", err)
	}
	if t.SSLNegotiation == direct && secured.ConnectionState().NegotiatedProtocol != alpn {
		return nil, errors.New("TLS with server: it did not say by ALPN that it speaks PostgreSQL's protocol")
	}
	return &connected{Conn: secured, tls: true}, nil
}

// tlsConfig reads the files anew, so that a renewed certificate is used by the
// next connection.
func (t *Target) tlsConfig(host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, NextProtos: []string{alpn}}
	t.TLS.apply(cfg)
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate for server: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	verify := t.SSLMode == "verify-ca" || t.SSLMode == "verify-full" || t.SSLMode == "require" && t.CA != ""
	if !verify {
		cfg.InsecureSkipVerify = true // libpq's prefer and require encrypt and do not verify
		return cfg, nil
	}
	if t.CA != "" {
		roots, err := loadRoots(t.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if t.SSLMode != "verify-full" {
		cfg.InsecureSkipVerify = true // the chain is verified below, the name is not
		roots := cfg.RootCAs
		cfg.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(state, roots) }
	}
	return cfg, nil
}

func loadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authority: no certificate in %s", file)
	}
	return roots, nil
}

func verifyChain(state tls.ConnectionState, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	if err != nil {
		return fmt.Errorf("verify the server's certificate: %w", err)
	}
	return nil
}

// maxFirst bounds the server's first message, in bytes.
const maxFirst = 64 << 10

// readMessage reads exactly one message.
func readMessage(r io.Reader) ([]byte, error) {
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := wire.Size(header[:])
	if size < 0 || size > maxFirst {
		return header[:], nil // relayed as it is; the client finds out
	}
	m := append(make([]byte, 0, size), header[:]...)[:size]
	_, err := io.ReadFull(r, m[wire.HeaderLen:])
	return m, err
}
