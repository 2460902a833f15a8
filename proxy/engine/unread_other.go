//go:build !linux

package engine

import "net"

// unread cannot be asked for here: a cancel request may overtake a statement
// that has only just arrived, as it may on the way.
func unread(net.Conn) bool { return false }
