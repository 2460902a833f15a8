package faults

import (
	"os"
	"syscall"
)

// processAttributes lets a process end with its test, and gives it mounts of
// its own where it may have them.
func processAttributes(mounts bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if mounts {
		a.Cloneflags = syscall.CLONE_NEWNS
		if os.Getuid() != 0 {
			a.Cloneflags |= syscall.CLONE_NEWUSER
			a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
	}
	return a
}
