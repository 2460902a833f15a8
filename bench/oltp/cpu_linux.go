package main

import (
	"fmt"
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
