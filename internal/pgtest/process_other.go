//go:build !linux

package pgtest

import "syscall"

// processAttributes make the child leave our process group; where there is no
// Pdeathsig only the janitor ends it when we die.
func processAttributes(a account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: a.credential()}
}

// childrenOf is not known here: server processes end by themselves when they
// notice that the postmaster is gone.
func childrenOf(int) []int { return nil }

// gone reports whether process pid has ended.
func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }
