package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpu returns the CPU time, user and system, that the proxy has used: the
// process's CPU clock, which is exact to nanoseconds where /proc counts ticks.
// Source: clock_getcpuclockid(3).
func (t *target) cpu() (time.Duration, error) {
	if t.pid == 0 {
		return 0, nil
	}
	var ts unix.Timespec
	clock := int32(^t.pid<<3 | 2) //nolint:gosec // process ids are small
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", t.name, err)
	}
	return time.Duration(ts.Nano()), nil
}

// tick is the unit of CPU times in /proc. Source: sysconf(3), _SC_CLK_TCK,
// which Linux has at 100 for every program.
const tick = 10 * time.Millisecond

// split returns the same time as user and system, to ticks: good for a share
// over many measurements. Source: proc_pid_stat(5), utime and stime.
func (t *target) split() (user, system time.Duration, err error) {
	if t.pid == 0 {
		return 0, 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.pid))
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("CPU time of %s: %q", t.name, stat)
	}
	u, err1 := strconv.Atoi(string(fields[11]))
	s, err2 := strconv.Atoi(string(fields[12]))
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("CPU time of %s: %q", t.name, stat)
	}
	return time.Duration(u) * tick, time.Duration(s) * tick, nil
}
