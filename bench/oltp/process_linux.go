package main

import "syscall"

// processAttributes make a child end with us, however we end, and not by a
// Ctrl-C before us. The kernel ties the first to the thread that started the
// child, which is why main keeps its thread.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
