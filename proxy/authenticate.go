package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"

	"lockkeeper/internal/peercred"
	"lockkeeper/internal/sqlstate"
	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

// maxUserName is the longest name of a user, NAMEDATALEN less one: the server
// would cut a longer one, and log somebody else in.
const maxUserName = 63

// authenticate makes sure who the client is, where that is lockkeeper's to do,
// and returns what to log in to the server with in its place; nil where the
// client does so itself.
func (s *Server) authenticate(h *hello, key string, t *Target, user string) (*auth.Credential, error) {
	method := t.Auth.method()
	if method == AuthRelay {
		return nil, nil //nolint:nilnil // nothing is one of the answers
	}
	stop := context.AfterFunc(s.ctx, func() { _ = h.conn.Close() }) // the end of a shutdown
	defer stop()
	c, err := s.authenticateBy(method, h, key, t, user)
	s.metrics.auth.WithLabelValues(string(method), authOutcome(err)).Inc()
	return c, err
}

// authOutcome is the label of what became of an authentication.
func authOutcome(err error) string {
	f, ok := errors.AsType[*fatal](err)
	switch {
	case err == nil:
		return "ok"
	case ok && f.sqlstate != sqlstate.CannotEstablishConnection:
		return "refused"
	default:
		return "failed"
	}
}

func (s *Server) authenticateBy(method AuthMethod, h *hello, key string, t *Target, user string) (*auth.Credential, error) {
	switch {
	case h.startup.Code>>16 != wire.Version3>>16: // an older protocol is never passed on: old servers would speak it
		return nil, &fatal{sqlstate: "0A000", message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.0", h.startup.Code>>16, h.startup.Code&0xffff)}
	case user == "":
		return nil, &fatal{sqlstate: sqlstate.InvalidAuthorization, message: "no PostgreSQL user name specified in startup packet"}
	}
	var err error
	switch method {
	case AuthSCRAM:
		return s.bySCRAM(h, key, t, user)
	case AuthCert:
		err = h.byCertificate(&t.Auth, user)
	case AuthPeer:
		err = h.byPeer(&t.Auth, user)
	case AuthRelay:
	}
	if err != nil {
		return nil, err
	}
	return &auth.Credential{User: user, Secret: s.credentials.Load().ours(key, &t.Auth, user)}, nil
}

// bySCRAM lets the client prove that it knows the password. A user that there
// is not, or whose secret SCRAM cannot use, is asked like any other and fails
// like one with a wrong password; the log says which.
func (s *Server) bySCRAM(h *hello, key string, t *Target, user string) (*auth.Credential, error) {
	secret, why, err := s.secretOf(key, t, user)
	if err != nil {
		return nil, err
	}
	exchange := s.mock.Server(user, secret, h.binding)
	clientKey, err := h.converse(exchange)
	switch {
	case errors.Is(err, scram.ErrProof):
		s.queries.suspect(key, user, s.deps.Now())
		return nil, &fatal{sqlstate: sqlstate.InvalidPassword, message: fmt.Sprintf("password authentication failed for user %q", user), cause: why}
	case errors.Is(err, scram.ErrBinding):
		return nil, &fatal{
			sqlstate: sqlstate.InvalidAuthorization, message: err.Error(),
			hint: "The client's TLS connection does not end at lockkeeper: look for what is in between, or for lockkeepers with different certificates.",
		}
	case errors.Is(err, scram.ErrMalformed):
		return nil, &fatal{sqlstate: sqlstate.ProtocolViolation, message: err.Error()}
	case err != nil:
		return nil, err
	}
	return &auth.Credential{User: user, Secret: secret, Proven: &scram.Proven{Verifier: exchange.Verifier, ClientKey: clientKey}}, nil
}

// Why a proof cannot succeed, for the log.
var (
	errWrongPassword = errors.New("wrong password")
	errUnknownUser   = errors.New("neither auth_file nor auth_query knows the user, or it has no password that is valid")
	errNoVerifier    = errors.New("the user's secret is an MD5 hash: SCRAM needs the password, or a SCRAM-SHA-256 secret")
)

// secretOf returns a user's secret, and why its proof will fail if it does; no
// secret is nobody.
func (s *Server) secretOf(key string, t *Target, user string) (secret *auth.Secret, why, err error) {
	if len(user) > maxUserName {
		return nil, errUnknownUser, nil
	}
	secret = s.credentials.Load().users[t.Auth.File].Secret(user)
	if secret == nil && t.Auth.User != "" {
		if secret, err = s.askSecretHeld(key, t, user); err != nil {
			return nil, nil, &fatal{
				sqlstate: sqlstate.CannotEstablishConnection, message: "lockkeeper cannot look up the passwords of users", cause: err,
				hint: "See lockkeeper's log; check auth_user, auth_query and auth_dbname.",
			}
		}
	}
	switch {
	case secret == nil:
		return nil, errUnknownUser, nil
	case secret.Kind() == "md5":
		return secret, errNoVerifier, nil
	}
	return secret, errWrongPassword, nil
}

// converse holds a SCRAM exchange with the client, up to the server's
// signature; AuthenticationOk is the server's to say.
func (h *hello) converse(x *scram.Server) (scram.Key, error) {
	body, err := h.ask(auth.SASLRequest(x.Mechanisms()))
	if err != nil {
		return scram.Key{}, err
	}
	mechanism, first, err := auth.SASLInitial(body)
	if err != nil {
		return scram.Key{}, err
	}
	if first == nil {
		if first, err = h.ask(auth.SASLContinue(nil)); err != nil {
			return scram.Key{}, err
		}
	}
	challenge, err := x.First(mechanism, first)
	if err != nil {
		return scram.Key{}, err
	}
	final, err := h.ask(auth.SASLContinue(challenge))
	if err != nil {
		return scram.Key{}, err
	}
	signature, key, err := x.Final(final)
	if err != nil {
		return scram.Key{}, err
	}
	if _, err := h.conn.Write(auth.SASLFinal(signature)); err != nil {
		return scram.Key{}, fmt.Errorf("authenticate client: %w", err)
	}
	return key, nil
}

// ask sends a message and returns the body of the client's answer. The
// deadline of the login is on the connection.
func (h *hello) ask(message []byte) ([]byte, error) {
	if _, err := h.conn.Write(message); err != nil {
		return nil, fmt.Errorf("authenticate client: %w", err)
	}
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(h.conn, header[:]); err != nil {
		return nil, fmt.Errorf("authenticate client: %w", err)
	}
	if header[0] != 'p' {
		return nil, &fatal{sqlstate: sqlstate.ProtocolViolation, message: "expected SASL response, got message type " + strconv.Itoa(int(header[0]))}
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n < 4 || n > auth.MaxSASL+4 {
		return nil, &fatal{sqlstate: sqlstate.ProtocolViolation, message: "invalid message length"}
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(h.conn, body); err != nil {
		return nil, fmt.Errorf("authenticate client: %w", err)
	}
	return body, nil
}

// byCertificate takes the common name of the client's certificate.
func (h *hello) byCertificate(a *Auth, user string) error {
	name, err := h.certified()
	if err != nil {
		return &fatal{
			sqlstate: sqlstate.InvalidAuthorization, message: "connection requires a valid client certificate", cause: err,
			hint: "Connect with TLS (sslmode) and a certificate (sslcert, sslkey) that an authority in lockkeeper's tls.ca has signed.",
		}
	}
	if len(user) > maxUserName || !a.permits(name, user) {
		return &fatal{
			sqlstate: sqlstate.InvalidAuthorization, message: fmt.Sprintf("certificate authentication failed for user %q", user),
			cause: fmt.Errorf("the certificate is that of %q", name),
		}
	}
	return nil
}

// certified returns the common name of the client's certificate, which is
// valid. Under the modes that do not validate certificates in the handshake
// that is done here.
func (h *hello) certified() (name string, err error) {
	t, ok := h.conn.(*tls.Conn)
	if !ok {
		return "", errors.New("the client has no TLS")
	}
	state := t.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return "", errors.New("the client has no certificate")
	}
	if len(state.VerifiedChains) == 0 {
		if h.authorities == nil {
			return "", errors.New("tls.ca is not set")
		}
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		options := x509.VerifyOptions{Roots: h.authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := state.PeerCertificates[0].Verify(options); err != nil {
			return "", fmt.Errorf("verify the client's certificate: %w", err)
		}
	}
	return state.PeerCertificates[0].Subject.CommonName, nil
}

// byPeer asks the kernel who is at the other end of the unix socket.
func (h *hello) byPeer(a *Auth, name string) error {
	refused := func(cause error) error {
		return &fatal{sqlstate: sqlstate.InvalidAuthorization, message: fmt.Sprintf("Peer authentication failed for user %q", name), cause: cause}
	}
	peer, ok := peercred.Of(h.conn)
	if !ok {
		return refused(errors.New("the client has not come through a unix socket, or this system does not say who it is"))
	}
	account, err := user.LookupId(strconv.Itoa(peer.UID))
	if err != nil {
		return refused(fmt.Errorf("look up the client's account: %w", err))
	}
	if len(name) > maxUserName || !a.permits(account.Username, name) {
		return refused(fmt.Errorf("the client is the system's user %q", account.Username))
	}
	return nil
}
