// Package auth has what lockkeeper needs to authenticate clients and to log in to servers in their place: users' secrets, and the answers that servers want; no I/O.
package auth

import (
	"crypto/md5" //nolint:gosec // PostgreSQL's authentication method md5 is made of it
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"lockkeeper/proxy/scram"
)

// MaxSecret is the longest secret or password, in bytes.
const MaxSecret = 2048

// Secret is what is known of a user's password, in one of the three forms that
// PostgreSQL and PgBouncer know: a SCRAM-SHA-256 secret, an MD5 hash, or the
// password itself.
type Secret struct {
	verifier *scram.Verifier // of a password: derived from it
	hash     string          // md5 and 32 hexadecimal digits
	password *string
}

// Format keeps a secret out of texts, whatever the verb.
func (*Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// Kind names the secret's form: scram-sha-256, md5 or password.
func (s *Secret) Kind() string {
	switch {
	case s.password != nil:
		return "password"
	case s.hash != "":
		return "md5"
	}
	return scram.Name
}

// errTooLong says so.
var errTooLong = fmt.Errorf("the secret is longer than %d bytes", MaxSecret)

// ParseSecret tells the three forms apart as PostgreSQL does, but that what
// begins as a SCRAM secret has to be one. The error does not quote the text.
// Source: get_password_type in src/backend/libpq/crypt.c.
func ParseSecret(text string) (*Secret, error) {
	switch digits, isMD5 := strings.CutPrefix(text, "md5"); {
	case len(text) > MaxSecret:
		return nil, errTooLong
	case isMD5 && len(digits) == 2*md5.Size && strings.Trim(digits, "0123456789abcdef") == "":
		return &Secret{hash: text}, nil
	case strings.HasPrefix(text, scram.Name+"$"):
		v, err := scram.ParseVerifier(text)
		if err != nil {
			return nil, err
		}
		return &Secret{verifier: &v}, nil
	}
	return NewPassword(text)
}

// NewPassword returns a secret that is a password, whatever it looks like.
func NewPassword(password string) (*Secret, error) {
	if len(password) > MaxSecret {
		return nil, errTooLong
	}
	if strings.IndexByte(password, 0) >= 0 {
		return nil, errors.New("the password has a zero byte")
	}
	return &Secret{password: &password}, nil
}

// same reports whether two secrets are the same password with the same
// verifier still to come.
func (s *Secret) same(other *Secret) bool {
	return other != nil && s.password != nil && other.password != nil && *s.password == *other.password
}

// md5Hash returns the hash that method md5 wants: of the password and the
// user's name. Source: pg_md5_encrypt in src/common/md5_common.c.
func (s *Secret) md5Hash(user string) (digits string, ok bool) {
	switch {
	case s.hash != "":
		return strings.TrimPrefix(s.hash, "md5"), true
	case s.password != nil:
		sum := md5.Sum([]byte(*s.password + user)) //nolint:gosec // as above
		return hex.EncodeToString(sum[:]), true
	}
	return "", false
}
