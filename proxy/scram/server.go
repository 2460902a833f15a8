package scram

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrProof says that the client does not know the password, or that there is
// no such user.
var ErrProof = errors.New("the client's proof does not fit the verifier")

// ErrBinding says that the exchange belongs to another TLS connection: somebody
// is in between.
var ErrBinding = errors.New("SCRAM channel binding check failed")

// Server is the server's side of one exchange. The order of its methods is
// Mechanisms, First, Final.
type Server struct {
	Verifier Verifier
	Doomed   bool   // the verifier is made up, for a user that there is not: no proof is accepted
	Binding  []byte // of the TLS connection (EndPoint); nil offers no channel binding
	Nonce    string // the server's part; "" makes one

	client clientFirst
	nonce  string
	first  string
}

// Mechanisms returns what the client may choose from.
func (s *Server) Mechanisms() []string {
	if s.Binding != nil {
		return []string{NamePlus, Name}
	}
	return []string{Name}
}

// newNonce returns what a new exchange calls itself: 18 random bytes, as
// PostgreSQL's.
func newNonce() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // does not fail
	return base64.StdEncoding.EncodeToString(b[:])
}

// First takes the client's first message and returns the answer.
func (s *Server) First(mechanism string, message []byte) ([]byte, error) {
	m, err := readClientFirst(message)
	if err != nil {
		return nil, err
	}
	if err := s.agree(mechanism, &m); err != nil {
		return nil, err
	}
	if s.Nonce == "" {
		s.Nonce = newNonce()
	}
	s.client, s.nonce = m, m.nonce+s.Nonce
	s.first = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.Verifier.Salt), s.Verifier.Iterations)
	return []byte(s.first), nil
}

// agree checks that the client's flag fits the mechanism that it chose. Source:
// RFC 5802, section 6; read_client_first_message in
// src/backend/libpq/auth-scram.c.
func (s *Server) agree(mechanism string, m *clientFirst) error {
	switch plus := mechanism == NamePlus && s.Binding != nil; {
	case !plus && mechanism != Name:
		return malformed("a mechanism that was not offered")
	case plus && m.flag != 'p':
		return malformed("the client chose " + NamePlus + " and binds no channel")
	case plus && m.kind != "tls-server-end-point":
		return malformed("a type of channel binding that is not supported")
	case !plus && m.flag == 'p':
		return malformed("the client binds a channel and did not choose " + NamePlus)
	case m.flag == 'y' && s.Binding != nil:
		return malformed("the client thinks that channel binding is not offered, but it is")
	}
	return nil
}

// Final takes the client's last message and returns the answer, which proves
// that the server has the verifier, and the key with which the client could log
// in elsewhere. On an error the client is not who it says.
func (s *Server) Final(message []byte) (answer []byte, clientKey Key, err error) {
	m, err := readClientFinal(message)
	if err != nil {
		return nil, Key{}, err
	}
	want := []byte(s.client.header)
	if s.client.flag == 'p' {
		want = append(want, s.Binding...)
	}
	switch same := subtle.ConstantTimeCompare(m.binding, want) == 1; {
	case !same && s.client.flag == 'p':
		return nil, Key{}, ErrBinding
	case !same:
		return nil, Key{}, malformed("attribute c is not what the first message began with")
	}
	if s.nonce == "" || subtle.ConstantTimeCompare([]byte(m.nonce), []byte(s.nonce)) != 1 {
		return nil, Key{}, malformed("it has another exchange's nonce")
	}
	text := s.client.bare + "," + s.first + "," + m.without
	clientKey = xor(m.proof, mac(s.Verifier.StoredKey[:], text))
	stored := sha256.Sum256(clientKey[:])
	if subtle.ConstantTimeCompare(stored[:], s.Verifier.StoredKey[:]) != 1 || s.Doomed {
		return nil, Key{}, ErrProof
	}
	signature := mac(s.Verifier.ServerKey[:], text)
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature[:])), clientKey, nil
}
