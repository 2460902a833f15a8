// Package scram speaks SCRAM-SHA-256 and SCRAM-SHA-256-PLUS in both roles; it needs no password where a verifier or a client key will do, and does no I/O.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/stringprep"
)

// The mechanisms' names. Source: RFC 5802, section 4, and RFC 7677.
const (
	Name     = "SCRAM-SHA-256"
	NamePlus = "SCRAM-SHA-256-PLUS"
)

// DefaultIterations is what PostgreSQL gives a new password, and answers for a
// user that it does not know. Source: SCRAM_SHA_256_DEFAULT_ITERATIONS in
// src/include/common/scram-common.h.
const DefaultIterations = 4096

// MaxIterations bounds the work that a secret or a server may ask for: some
// seconds.
const MaxIterations = 10_000_000

// Key is one of the keys that are made of a password.
type Key [sha256.Size]byte

// Format keeps a key out of texts, whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[key]")) }

// Verifier is what a server keeps of a password: enough to check a proof, and
// to prove that it is the server, but not to log in.
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  Key
	ServerKey  Key
}

// ErrVerifier says that a text is no SCRAM-SHA-256 secret. It does not quote
// it.
var ErrVerifier = errors.New(`not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`)

// ParseVerifier reads a secret as pg_authid has it. Source: parse_scram_secret
// in src/backend/libpq/auth-scram.c.
func ParseVerifier(text string) (Verifier, error) {
	var v Verifier
	rest, ok := strings.CutPrefix(text, Name+"$")
	factors, keys, ok2 := strings.Cut(rest, "$")
	iterations, salt, ok3 := strings.Cut(factors, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return v, ErrVerifier
	}
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 || n > MaxIterations {
		return v, ErrVerifier
	}
	v.Iterations = n
	if v.Salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(v.Salt) == 0 {
		return v, ErrVerifier
	}
	if !decodeKey(&v.StoredKey, stored) || !decodeKey(&v.ServerKey, server) {
		return v, ErrVerifier
	}
	return v, nil
}

func decodeKey(k *Key, text string) bool {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != len(k) {
		return false
	}
	copy(k[:], b)
	return true
}

// Derive makes a password's verifier, and the key with which its owner logs in.
func Derive(password string, salt []byte, iterations int) (Verifier, Key, error) {
	salted, err := pbkdf2.Key(sha256.New, Prepare(password), salt, iterations, sha256.Size)
	if err != nil {
		return Verifier{}, Key{}, fmt.Errorf("derive SCRAM keys: %w", err)
	}
	client := mac(salted, "Client Key")
	return Verifier{
		Salt: salt, Iterations: iterations, StoredKey: sha256.Sum256(client[:]), ServerKey: mac(salted, "Server Key"),
	}, client, nil
}

// Prepare is SASLprep as PostgreSQL does it: a password that it does not allow
// is used as it is. Source: RFC 4013; pg_saslprep in src/common/saslprep.c and
// its callers.
func Prepare(password string) string {
	if strings.IndexFunc(password, func(r rune) bool { return r > 0x7f }) < 0 {
		return password
	}
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil || prepared == "" {
		return password
	}
	return prepared
}

func mac(key []byte, text string) Key {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return Key(h.Sum(nil))
}

func xor(a, b Key) Key {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}
