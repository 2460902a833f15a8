package faults

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropPackets puts a filter on a socket that takes no packet: the kernel drops
// what comes before TCP sees it. Source: socket(7), SO_ATTACH_FILTER.
func dropPackets(c syscall.Conn) error {
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return control(c, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
}

func takePackets(c syscall.Conn) error {
	return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
}

func control(c syscall.Conn, do func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = do(int(fd)) }) //nolint:gosec // descriptors are small
	return errors.Join(err, done)
}
