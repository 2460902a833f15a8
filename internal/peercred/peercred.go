// Package peercred says which process is at the other end of a unix socket.
package peercred

import "os"

// Process is a process, as it was when it connected or began to listen.
type Process struct {
	PID int
	UID int
}

// Trusted reports whether the process runs as our own account or as root.
func (p Process) Trusted() bool { return p.UID == 0 || p.UID == os.Geteuid() }
