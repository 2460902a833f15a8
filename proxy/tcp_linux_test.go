package proxy

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The options reach the kernel, for accepted and for dialled connections.
func TestTCPOptionsAreSet(t *testing.T) {
	o := TCP{KeepaliveIdle: 7 * time.Second, KeepaliveInterval: 3 * time.Second, KeepaliveCount: 5, UserTimeout: 11 * time.Second}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
		}
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	target := Target{Host: host, tcp: o}
	c, err := target.open(t.Context(), &endpoint{host: host, port: port, network: "tcp", address: l.Addr().String()}, attempt{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := tcpOptions(t, c.Conn.(*net.TCPConn)), [4]int{7, 3, 5, 11_000}; got != want {
		t.Errorf("the kernel has %v, want %v", got, want)
	}
}

// tcpOptions reads what a connection really has: idle, interval and count of
// keepalive, and the user timeout.
func tcpOptions(t *testing.T, c *net.TCPConn) (got [4]int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for i, option := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT} {
			if got[i], err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	return got
}
