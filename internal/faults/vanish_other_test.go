//go:build !linux

package faults

import (
	"errors"
	"syscall"
)

func dropPackets(syscall.Conn) error { return errors.ErrUnsupported }
func takePackets(syscall.Conn) error { return errors.ErrUnsupported }
