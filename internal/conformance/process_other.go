//go:build !linux

package main

import "syscall"

// childAttributes let a child outlive a Ctrl-C at the terminal, so that we end
// it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
