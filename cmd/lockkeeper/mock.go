package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lockkeeper/proxy/auth"
)

// mock returns what the secrets of unknown users are made up from. It is kept:
// a salt that changes with a restart would tell that there is no such user.
func (c *config) mock() (*auth.Mock, error) {
	file := c.state(mockFile)
	data, err := os.ReadFile(file)
	if err == nil {
		m := &auth.Mock{}
		if len(data) != len(m) {
			return nil, fmt.Errorf("%s is damaged: remove it, and a new one is made", file)
		}
		copy(m[:], data)
		return m, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what unknown users' secrets are made of: %w", err)
	}
	m := auth.NewMock()
	if err := os.WriteFile(file, m[:], 0o600); err != nil {
		return nil, fmt.Errorf("keep what unknown users' secrets are made of: %w", err)
	}
	return m, nil
}
