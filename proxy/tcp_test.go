package proxy

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestTCPOptionsAreChecked(t *testing.T) {
	c := Config{Servers: map[string]Target{"*": {Host: "127.0.0.1"}}}
	for want, change := range map[string]func(*TCP){
		"":                   func(*TCP) {},
		"keepalive_idle":     func(o *TCP) { o.KeepaliveIdle = 1500 * time.Millisecond },
		"keepalive_interval": func(o *TCP) { o.KeepaliveInterval = 10 * time.Hour },
		"keepalive_count":    func(o *TCP) { o.KeepaliveCount = 128 },
		"user_timeout":       func(o *TCP) { o.UserTimeout = time.Microsecond },
	} {
		wrong := c
		change(&wrong.TCP)
		err := wrong.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), "tcp."+want)) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestDescriptorsAreDivided(t *testing.T) {
	for limit, want := range map[uint64]descriptors{
		100:            {clients: 50, all: 75},
		1024:           {clients: 896, all: 960},
		65536:          {clients: 65408, all: 65472},
		math.MaxUint64: {clients: math.MaxInt64, all: math.MaxInt64},
	} {
		if got := descriptorsOf(limit); got != want {
			t.Errorf("%d: got %v, want %v", limit, got, want)
		}
	}
}
