//go:build !linux

package proxy

import (
	"net"
	"time"
)

const hasUserTimeout = false

func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
