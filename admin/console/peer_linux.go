package console

import (
	"net"
	"os"
	"syscall"
)

// trusted reports whether the peer of a unix socket runs as lockkeeper's own
// account or as root.
func trusted(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok || c.LocalAddr().Network() != "unix" {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return err == nil && failed == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}
