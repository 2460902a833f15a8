//go:build !linux

package faults

import "syscall"

func processAttributes(bool) *syscall.SysProcAttr { return nil }
