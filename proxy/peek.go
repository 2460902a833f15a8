package proxy

import (
	"io"
	"net"
	"syscall"
)

// peekFirst waits for the first byte of a connection and leaves it where it
// is. The connection's read deadline bounds the wait.
func peekFirst(c net.Conn) (byte, error) {
	var first [1]byte
	n, err := peek(c, first[:], true)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return first[0], err
}

// pending reports whether a connection has bytes that nobody has read yet.
func pending(c net.Conn) bool {
	var one [1]byte
	n, err := peek(c, one[:], false)
	return err == nil && n > 0
}

// peek reads what has arrived without taking it: with wait at least one byte
// or the end, which is n == 0 without an error.
func peek(c net.Conn, buf []byte, wait bool) (n int, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, syscall.EINVAL
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
			if failed != syscall.EINTR {
				break
			}
		}
		return !wait || failed != syscall.EAGAIN
	})
	if err == nil {
		err = failed
	}
	return max(n, 0), err
}
