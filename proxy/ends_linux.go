package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerPID returns the process at the other end of a unix socket; 0 where that
// is not known.
func peerPID(c net.Conn) int {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, failed := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil { //nolint:gosec // descriptors are small
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}
