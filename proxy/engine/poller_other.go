//go:build !linux

package engine

import (
	"errors"
	"net"

	"lockkeeper/proxy/session"
)

// Poller is Linux's only.
type Poller struct{}

// NewPoller says that there is none here.
func NewPoller(int) (*Poller, error) {
	return nil, errors.New("the poll loop is for Linux only")
}

// Close does nothing.
func (p *Poller) Close() {}

func (p *Poller) pair(*Config, net.Conn, net.Conn, *session.Session, []byte) Pair { return nil }

// Streams is 0.
func (p *Poller) Streams() int { return 0 }
