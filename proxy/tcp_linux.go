package proxy

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const hasUserTimeout = true

func setUserTimeout(t *net.TCPConn, d time.Duration) error {
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds())) //nolint:gosec // descriptors are small
	})
	return errors.Join(err, set)
}
