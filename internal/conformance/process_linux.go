package main

import "syscall"

// childAttributes let a child outlive a Ctrl-C at the terminal, so that we end
// it in order, but not our own death.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
