package auth

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// MaxUserlist bounds an auth_file, in bytes: about 100,000 users.
const MaxUserlist = 16 << 20

// maxMistakes is how many of a file's mistakes are told.
const maxMistakes = 10

// Userlist is the contents of an auth_file: who there is, and their secrets. It
// is not changed after it was read.
type Userlist struct{ users map[string]*Secret }

// Secret returns what is known of a user; nil for nobody. u may be nil.
func (u *Userlist) Secret(user string) *Secret {
	if u == nil {
		return nil
	}
	return u.users[user]
}

// Len returns how many users there are.
func (u *Userlist) Len() int { return len(u.users) }

// Kinds counts the users by the form of their secrets.
func (u *Userlist) Kinds() map[string]int {
	kinds := map[string]int{}
	for _, s := range u.users {
		kinds[s.Kind()]++
	}
	return kinds
}

// ParseUserlist reads PgBouncer's userlist.txt: lines of "user" "secret", both in
// double quotes, which are doubled within; what follows on a line is passed
// over, and so are empty lines and those that begin with a semicolon. Errors
// are of the form file:line: mistake, and quote no secret. Source: PgBouncer's
// manual, "Authentication file format".
func ParseUserlist(file string, data []byte) (*Userlist, error) {
	u := &Userlist{users: map[string]*Secret{}}
	seen := map[string]int{} // lines
	var mistakes []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		user, secret, err := parseLine(strings.TrimSpace(string(line)))
		switch {
		case err == nil && secret == nil:
			continue
		case err == nil && seen[user] > 0:
			err = fmt.Errorf("user %q is on line %d already", user, seen[user])
		case err == nil:
			u.users[user], seen[user] = secret, number
			continue
		}
		mistakes = append(mistakes, fmt.Errorf("%s:%d: %w", file, number, err))
		if len(mistakes) == maxMistakes {
			mistakes = append(mistakes, fmt.Errorf("%s: and perhaps more", file))
			break
		}
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	return u, nil
}

// parseLine returns no secret for a line that says nothing.
func parseLine(line string) (user string, s *Secret, err error) {
	if line == "" || line[0] == ';' {
		return "", nil, nil
	}
	user, rest, ok := cutQuoted(line)
	if !ok {
		return "", nil, errors.New(`"user" "secret" expected, both in double quotes`)
	}
	if user == "" {
		return "", nil, errors.New("the user's name is empty")
	}
	text, _, ok := cutQuoted(strings.TrimLeft(rest, " \t"))
	if !ok {
		return "", nil, fmt.Errorf(`user %q: a secret in double quotes expected`, user)
	}
	if s, err = ParseSecret(text); err != nil {
		return "", nil, fmt.Errorf("user %q: %w", user, err)
	}
	return user, s, nil
}

// cutQuoted cuts a text in double quotes from the beginning of a line.
func cutQuoted(line string) (text, rest string, ok bool) {
	rest, ok = strings.CutPrefix(line, `"`)
	for ok {
		part, after, closed := strings.Cut(rest, `"`)
		text += part
		if !closed {
			return "", "", false
		}
		if rest, ok = strings.CutPrefix(after, `"`); !ok {
			return text, after, true
		}
		text += `"`
	}
	return "", "", false
}

// Prepare derives what passwords need. before, if any, is the list that this one
// follows: passwords that have not changed are not derived again.
func (u *Userlist) Prepare(m *Mock, before *Userlist) error {
	for user, s := range u.users {
		if old := before.Secret(user); s.same(old) {
			u.users[user] = old
			continue
		}
		if err := m.Prepare(user, s); err != nil {
			return fmt.Errorf("user %q: %w", user, err)
		}
	}
	return nil
}
