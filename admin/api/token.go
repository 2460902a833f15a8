package api

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Role is what a token may do; each role may do what the ones before it may.
type Role uint8

// The roles. The zero value may do nothing.
const (
	NoRole   Role = iota
	Viewer        // look at everything
	Operator      // contain: mode, freeze, pauses, cancel and terminate
	Admin         // change the policy
)

var roleNames = [...]string{"", "viewer", "operator", "admin"}

// String returns the name used in the configuration and in docs.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return roleNames[NoRole]
}

// ParseRole is the inverse of String.
func ParseRole(s string) (Role, error) {
	for i, n := range roleNames {
		if i > 0 && n == s {
			return Role(i), nil
		}
	}
	return NoRole, fmt.Errorf("unknown role %q: want one of viewer, operator, admin", s)
}

// Token is one bearer token as it is configured. One of SHA256 and Token is
// set: a hash is better where others can read the file.
type Token struct {
	Name   string `yaml:"name"`   // whom its actions are attributed to
	Role   string `yaml:"role"`   // viewer, operator or admin
	SHA256 string `yaml:"sha256"` // of the token, in hex: printf %s TOKEN | sha256sum
	Token  string `yaml:"token"`  // the token itself
}

// identity is who holds a token.
type identity struct {
	name string
	role Role
	sum  [sha256.Size]byte
}

// minTokenBytes is the shortest token that is taken; what is shorter can be
// guessed.
const minTokenBytes = 16

// identities makes configured tokens comparable.
func identities(tokens []Token) ([]identity, error) {
	list := make([]identity, 0, len(tokens))
	names := map[string]bool{}
	for i := range tokens {
		id, err := tokens[i].identity()
		if err != nil {
			return nil, fmt.Errorf("token %d (%q): %w", i+1, tokens[i].Name, err)
		}
		if names[id.name] {
			return nil, fmt.Errorf("token %d: the name %q is taken", i+1, id.name)
		}
		names[id.name] = true
		list = append(list, id)
	}
	return list, nil
}

// ValidateTokens says what is wrong with configured tokens.
func ValidateTokens(tokens []Token) error {
	_, err := identities(tokens)
	return err
}

func (t *Token) identity() (identity, error) {
	role, err := ParseRole(t.Role)
	if err != nil {
		return identity{}, err
	}
	id := identity{name: t.Name, role: role}
	switch {
	case t.Name == "":
		return id, errors.New("it needs a name")
	case (t.Token == "") == (t.SHA256 == ""):
		return id, errors.New("it needs either sha256 or token")
	case t.SHA256 != "":
		sum, err := hex.DecodeString(t.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return id, fmt.Errorf("sha256 is not %d hexadecimal digits", 2*sha256.Size)
		}
		copy(id.sum[:], sum)
	case len(t.Token) < minTokenBytes:
		return id, fmt.Errorf("the token is shorter than %d characters", minTokenBytes)
	default:
		id.sum = sha256.Sum256([]byte(t.Token))
	}
	return id, nil
}

// LoadTokens reads a file with one token a line: name, role and the token's
// SHA-256 in hex. Empty lines and those that begin with # are skipped.
func LoadTokens(path string) ([]Token, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var tokens []Token
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s:%d: want a name, a role and a SHA-256", path, n)
		}
		t := Token{Name: f[0], Role: f[1], SHA256: f[2]}
		if _, err := t.identity(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		tokens = append(tokens, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	return tokens, nil
}

// LocalToken returns the token in a file that only its owner can read, and
// makes it when there is none: whoever may read lockkeeper's state is its
// administrator.
func LocalToken(path string) (Token, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = newLocalToken(path)
	}
	if err != nil {
		return Token{}, fmt.Errorf("local token: %w", err)
	}
	return Token{Name: "local-admin", Role: Admin.String(), Token: strings.TrimSpace(string(data))}, nil
}

func newLocalToken(path string) ([]byte, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	data := []byte(base64.RawURLEncoding.EncodeToString(secret) + "\n")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	return data, errors.Join(err, f.Sync(), f.Close())
}

// who returns whose token it is. Every token is compared, in constant time.
func who(list []identity, token string) (identity, bool) {
	sum := sha256.Sum256([]byte(token))
	var found identity
	for i := range list {
		if subtle.ConstantTimeCompare(sum[:], list[i].sum[:]) == 1 {
			found = list[i]
		}
	}
	return found, found.role != NoRole
}
