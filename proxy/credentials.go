package proxy

import (
	"fmt"

	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/scram"
)

// credentials are the secrets that files and the environment hold. They are
// replaced whole, never changed.
type credentials struct {
	users     map[string]*auth.Userlist // by auth_file
	passwords map[string]*auth.Secret   // by the key of the server map
}

// loadCredentials reads every auth_file and password. On an error what was
// loaded before stays in use.
func (s *Server) loadCredentials() error {
	before := s.credentials.Load()
	if before == nil {
		before = &credentials{}
	}
	c := &credentials{users: map[string]*auth.Userlist{}, passwords: map[string]*auth.Secret{}}
	for _, key := range sortedKeys(s.cfg.Servers) {
		t := s.cfg.Servers[key]
		if t.Auth.method() == AuthRelay {
			continue
		}
		if err := c.read(&t.Auth, key); err != nil {
			return fmt.Errorf("server.%s: %w", key, err)
		}
	}
	for file, list := range c.users {
		if err := list.Prepare(s.mock, before.users[file]); err != nil {
			return fmt.Errorf("auth_file %s: %w", file, err)
		}
	}
	s.credentials.Store(c)
	s.queries.forgetAll()
	return nil
}

// read reads what one server's keys name.
func (c *credentials) read(a *Auth, key string) error {
	if a.File != "" && c.users[a.File] == nil {
		list, err := ReadUserlist(a.File)
		if err != nil {
			return err
		}
		c.users[a.File] = list
	}
	password, err := a.ReadPassword()
	if err != nil {
		return err
	}
	c.passwords[key] = password
	return nil
}

// ours returns what lockkeeper can log in with as a user by itself, without a
// client: nil when there is nothing.
func (c *credentials) ours(key string, a *Auth, user string) *auth.Secret {
	if s := c.users[a.File].Secret(user); s != nil && s.Kind() != scram.Name {
		return s
	}
	return c.passwords[key]
}

// userCount is how many users all files have.
func (s *Server) userCount() int {
	c := s.credentials.Load()
	if c == nil {
		return 0
	}
	n := 0
	for _, list := range c.users {
		n += list.Len()
	}
	return n
}
