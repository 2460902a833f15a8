package proxy

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"
)

// TCP says how lockkeeper finds out that a peer is gone without a word: its
// machine lost power, or packets vanish on the way. It is the same for clients
// and servers.
type TCP struct {
	KeepaliveIdle     time.Duration `yaml:"keepalive_idle"`     // a silent connection is probed after this
	KeepaliveInterval time.Duration `yaml:"keepalive_interval"` // and again after this
	KeepaliveCount    int           `yaml:"keepalive_count"`    // and is lost when so many probes had no answer

	// UserTimeout is how long data that was sent may stay unacknowledged before
	// the connection is lost. Zero leaves that to the system, about 15 minutes
	// on Linux: a peer that is there and does not read for longer is lost, too.
	// Source: tcp(7), TCP_USER_TIMEOUT.
	UserTimeout time.Duration `yaml:"user_timeout"`
}

func (o *TCP) withDefaults(d *TCP) {
	orInt(&o.KeepaliveIdle, d.KeepaliveIdle)
	orInt(&o.KeepaliveInterval, d.KeepaliveInterval)
	orInt(&o.KeepaliveCount, d.KeepaliveCount)
}

// validate holds the options to what Linux takes: it counts the times of
// keepalive in seconds, up to MAX_TCP_KEEPIDLE, the other in milliseconds.
func (o *TCP) validate() error {
	var all []error
	for _, v := range []struct {
		name      string
		value, of time.Duration
		most      int64
	}{
		{"keepalive_idle", o.KeepaliveIdle, time.Second, math.MaxInt16},
		{"keepalive_interval", o.KeepaliveInterval, time.Second, math.MaxInt16},
		{"user_timeout", o.UserTimeout, time.Millisecond, math.MaxInt32},
	} {
		if v.value < 0 || v.value%v.of != 0 || int64(v.value/v.of) > v.most {
			all = append(all, fmt.Errorf("tcp.%s: %v is not a whole number of %v, up to %v", v.name, v.value, v.of, time.Duration(v.most)*v.of))
		}
	}
	if o.KeepaliveCount < 0 || o.KeepaliveCount > maxKeepaliveCount {
		all = append(all, fmt.Errorf("tcp.keepalive_count: want 1 to %d", maxKeepaliveCount))
	}
	if o.UserTimeout > 0 && !hasUserTimeout {
		all = append(all, errors.New("tcp.user_timeout: this system has no such option; leave it out"))
	}
	return errors.Join(all...)
}

// maxKeepaliveCount is Linux's MAX_TCP_KEEPCNT.
const maxKeepaliveCount = 127

// apply sets the options of a connection; others than TCP have none.
func (o *TCP) apply(c net.Conn) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	err := t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: o.KeepaliveIdle, Interval: o.KeepaliveInterval, Count: o.KeepaliveCount})
	if err == nil && o.UserTimeout > 0 {
		err = setUserTimeout(t, o.UserTimeout)
	}
	if err != nil {
		return fmt.Errorf("set tcp options: %w", err)
	}
	return nil
}
