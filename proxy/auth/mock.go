package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"lockkeeper/proxy/scram"
)

// Mock makes up what there is not: a verifier for a user whom nobody knows, so
// that the exchange with them looks like any other up to its end. Equal users
// get equal salts, or asking twice would tell. Source: mock_scram_secret in
// src/backend/libpq/auth-scram.c.
type Mock [sha256.Size]byte

// NewMock returns one that nobody can guess.
func NewMock() *Mock {
	var m Mock
	_, _ = rand.Read(m[:]) // does not fail
	return &m
}

func (m *Mock) about(what, user string) scram.Key {
	h := hmac.New(sha256.New, m[:])
	h.Write([]byte(what + "\x00" + user))
	return scram.Key(h.Sum(nil))
}

// saltBytes is what PostgreSQL's salts have.
const saltBytes = 16

// salt is for a user of whom no salt is known: there is none, or there is a
// password in auth_file.
func (m *Mock) salt(user string) []byte {
	k := m.about("salt", user)
	return k[:saltBytes]
}

func (m *Mock) verifier(user string) scram.Verifier {
	return scram.Verifier{
		Salt: m.salt(user), Iterations: scram.DefaultIterations, StoredKey: m.about("stored key", user), ServerKey: m.about("server key", user),
	}
}

// Server returns the server's side of a SCRAM exchange with a user. Without a
// secret that SCRAM can use (nil, or an MD5 hash) no proof will do, and nothing
// tells before the end.
func (m *Mock) Server(user string, s *Secret, binding []byte) *scram.Server {
	server := &scram.Server{Verifier: m.verifier(user), Doomed: true, Binding: binding}
	if s != nil && s.verifier != nil {
		server.Verifier, server.Doomed = *s.verifier, false
	}
	return server
}

// Prepare derives a password's verifier, which takes about a millisecond.
// Other secrets are left as they are.
func (m *Mock) Prepare(user string, s *Secret) error {
	if s.password == nil {
		return nil
	}
	v, _, err := scram.Derive(*s.password, m.salt(user), scram.DefaultIterations)
	s.verifier = &v
	return err
}
