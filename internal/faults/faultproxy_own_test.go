package faults

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// echo answers every connection with what it says, to its end.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func between(t *testing.T, upstream string) *Proxy {
	t.Helper()
	p, err := New(upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func TestTheProxyPassesBytesAndHalfClosedConnections(t *testing.T) {
	p := between(t, echo(t))
	p.Set(Up, Fault{Latency: time.Millisecond, Jitter: time.Millisecond})
	c := dial(t, p.Addr())
	sent := bytes.Repeat([]byte("some bytes "), 20_000)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes became %d, %v", len(sent), len(got), err)
	}
}

func TestTheProxyCutsAfterTheByteThatItIsTold(t *testing.T) {
	p := between(t, echo(t))
	c := dial(t, p.Addr())
	_, _ = c.Write([]byte("first"))
	_, _ = io.ReadFull(c, make([]byte, 5))
	p.Set(Down, Fault{Cut: true, After: 3})
	_, _ = c.Write([]byte("second"))
	got, err := io.ReadAll(c)
	if string(got) != "sec" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v", got, err)
	}
}

// What vanishes is not acknowledged: a probe neither.
func TestPacketsVanish(t *testing.T) {
	p := between(t, echo(t))
	c := dial(t, p.Addr())
	_, _ = c.Write([]byte("x"))
	_, _ = io.ReadFull(c, make([]byte, 1))
	if err := p.Vanish(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent connection ended with %v", err)
	}
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	if c, err := d.Dial("tcp", p.Addr()); err == nil {
		c.Close()
		t.Error("somebody answers")
	}
	if err := p.Appear(); err != nil {
		t.Fatal(err)
	}
	again := dial(t, p.Addr())
	_, _ = again.Write([]byte("y"))
	if _, err := io.ReadFull(again, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
