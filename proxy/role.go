package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"lockkeeper/proxy/wire"
)

// sessionAttr is libpq's target_session_attrs: what a server has to be.
type sessionAttr string

const (
	sessionAny           sessionAttr = "any"
	sessionReadWrite     sessionAttr = "read-write"
	sessionReadOnly      sessionAttr = "read-only"
	sessionPrimary       sessionAttr = "primary"
	sessionStandby       sessionAttr = "standby"
	sessionPreferStandby sessionAttr = "prefer-standby"
)

// sessionAttrs are all of them.
const sessionAttrs = "any, read-write, read-only, primary, standby, prefer-standby"

func (t *Target) wants() sessionAttr {
	if t.TargetSessionAttrs == "" {
		return sessionAny
	}
	return sessionAttr(t.TargetSessionAttrs)
}

// rounds returns what is looked for first, and after that.
func (a sessionAttr) rounds() []sessionAttr {
	if a == sessionPreferStandby {
		return []sessionAttr{sessionStandby, sessionAny}
	}
	return []sessionAttr{a}
}

// role is what a server says of itself.
type role struct {
	standby  bool // in_hot_standby
	readOnly bool // default_transaction_read_only
}

// fits reports whether a server of that role will do. Source: manual, 34.1.2
// "Parameter Key Words", target_session_attrs.
func (r role) fits(want sessionAttr) bool {
	switch want {
	case sessionReadWrite:
		return !r.standby && !r.readOnly
	case sessionReadOnly:
		return r.standby || r.readOnly
	case sessionPrimary:
		return !r.standby
	case sessionStandby:
		return r.standby
	case sessionAny, sessionPreferStandby:
		return true
	}
	return false
}

// errRole says that a server answered and is not what is wanted.
var errRole = errors.New("is not what target_session_attrs asks for")

// roles keeps what servers said a moment ago, so that a crowd of clients does
// not become a crowd of questions.
type roles struct {
	flight singleflight.Group

	mu    sync.Mutex
	known map[string]knownRole // by address
}

type knownRole struct {
	role
	since time.Time
}

const (
	roleAge  = time.Second // how old an answer may be
	maxRoles = 1000        // answers kept
)

// roleOf asks a server for its role over lockkeeper's own connection.
func (s *Server) roleOf(ctx context.Context, t *Target, e *endpoint) (role, error) {
	s.roles.mu.Lock()
	k, ok := s.roles.known[e.address]
	s.roles.mu.Unlock()
	if ok && s.deps.Now().Sub(k.since) < roleAge {
		return k.role, nil
	}
	asked := s.roles.flight.DoChan(e.address, func() (any, error) {
		return s.askRole(context.WithoutCancel(ctx), t, e) // whoever asked first may leave
	})
	select {
	case <-ctx.Done():
		return role{}, ctx.Err()
	case r := <-asked:
		if r.Err != nil {
			return role{}, r.Err
		}
		answer, _ := r.Val.(role) // nothing else is returned
		return answer, nil
	}
}

func (s *Server) askRole(ctx context.Context, t *Target, e *endpoint) (role, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	c, err := connectControl(ctx, t, e)
	if err != nil {
		return role{}, err
	}
	defer closeControl(ctx, c)
	row, err := oneRow(ctx, c, "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')")
	if err != nil {
		return role{}, fmt.Errorf("ask server for its role: %w", err)
	}
	r := role{standby: string(row[0]) == "t", readOnly: string(row[1]) == "on"}
	s.roles.mu.Lock()
	defer s.roles.mu.Unlock()
	if s.roles.known == nil || len(s.roles.known) >= maxRoles {
		s.roles.known = map[string]knownRole{}
	}
	s.roles.known[e.address] = knownRole{r, s.deps.Now()}
	return r, nil
}

// readRole reads on after AuthenticationOk, up to where the server has said
// what it is. What is read is kept for the client.
func (c *connected) readRole() (role, error) {
	var r role
	if !c.loggedIn && !authenticated(c.first) {
		return r, errors.New("the server asks the client for a password before it says whether it is what target_session_attrs asks for: set server.*.control")
	}
	known := 0
	for len(c.first) < maxFirst {
		m, err := readMessage(c)
		if err != nil {
			return r, fmt.Errorf("read the server's settings: %w", err)
		}
		c.first = append(c.first, m...)
		switch m[0] {
		case 'E':
			return r, errServerRefuses
		case 'Z':
			return r, errors.New("the server does not say whether it is a standby: it is older than version 14; set server.*.control")
		case 'S':
			name, rest, _ := wire.CString(m[wire.HeaderLen:])
			value, _, _ := wire.CString(rest)
			switch string(name) {
			case "in_hot_standby":
				r.standby = string(value) == "on"
				known++
			case "default_transaction_read_only":
				r.readOnly = string(value) == "on"
				known++
			}
		}
		if known == 2 {
			return r, nil
		}
	}
	return r, errors.New("read the server's settings: too many")
}

// errServerRefuses says that the server has refused the client, whatever its
// role: the client is to hear of that.
var errServerRefuses = errors.New("the server refuses the login")

// authenticated reports whether a message is AuthenticationOk.
func authenticated(m []byte) bool {
	return len(m) == wire.HeaderLen+4 && m[0] == 'R' && binary.BigEndian.Uint32(m[wire.HeaderLen:]) == 0
}
