//go:build !linux

package proxy

import (
	"crypto/tls"
	"net"
)

// gone reports whether a peer has closed its side; one that has sent something
// before is taken to be there.
func gone(c net.Conn) bool {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	n, err := peek(c, make([]byte, 1), false)
	return err == nil && n == 0
}
