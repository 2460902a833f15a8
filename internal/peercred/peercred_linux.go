package peercred

import (
	"net"
	"syscall"
)

// Of returns the process at the other end; false where that cannot be known.
func Of(c net.Conn) (Process, bool) {
	s, ok := c.(syscall.Conn)
	if !ok || c.LocalAddr().Network() != "unix" {
		return Process{}, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return Process{}, false
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || failed != nil {
		return Process{}, false
	}
	return Process{PID: int(cred.Pid), UID: int(cred.Uid)}, true
}
