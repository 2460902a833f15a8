package pgtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// processAttributes make the child leave our process group, so that a Ctrl-C
// at the terminal does not reach it before us, and end with an immediate
// shutdown when we die. The kernel ties Pdeathsig to the thread that started
// the child: whoever uses this must keep that thread (see Server.own).
func processAttributes(a account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT, Credential: a.credential()}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var children []int
	for _, path := range stats {
		child, parent, _ := readStat(path)
		if child != 0 && parent == pid {
			children = append(children, child)
		}
	}
	return children
}

// gone reports whether process pid has ended; one that only waits to be reaped
// has.
func gone(pid int) bool {
	id, _, state := readStat(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return id == 0 || state == 'Z' || state == 'X'
}

// readStat reads "pid (name) state parent …"; the name may hold anything.
func readStat(path string) (pid, parent int, state byte) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, 0
	}
	first := bytes.IndexByte(b, ' ')
	last := bytes.LastIndexByte(b, ')')
	if first < 0 || last < 0 {
		return 0, 0, 0
	}
	fields := bytes.Fields(b[last+1:])
	if len(fields) < 2 {
		return 0, 0, 0
	}
	pid, err = strconv.Atoi(string(b[:first]))
	if err != nil {
		return 0, 0, 0
	}
	parent, err = strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0, 0, 0
	}
	return pid, parent, fields[0][0]
}
