package session

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTimeout reads a value of lock_timeout or statement_timeout as SHOW
// prints it or SET takes it: a number of milliseconds or with a unit. ok is
// false for what the server would refuse. Source: manual, 20.1.1 "Parameter
// Names and Values", parse_int in src/backend/utils/misc/guc.c.
func parseTimeout(v string) (d time.Duration, ok bool) {
	v = strings.TrimSpace(v)
	end := 0
	for end < len(v) && (v[end] >= '0' && v[end] <= '9' || v[end] == '.' || v[end] == '+') {
		end++
	}
	n, err := strconv.ParseFloat(v[:end], 64)
	if err != nil {
		return 0, false
	}
	unit, known := timeUnits[strings.TrimSpace(v[end:])]
	if !known {
		return 0, false
	}
	ns := n * float64(unit)
	if ns > math.MaxInt32*float64(time.Millisecond) {
		return 0, false
	}
	return time.Duration(ns).Round(time.Millisecond), true
}

// timeUnits are the units of memory_unit GUC_UNIT_TIME settings; read only.
var timeUnits = map[string]time.Duration{
	"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second,
	"min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// formatTimeout writes a timeout as the server reads it, in milliseconds.
func formatTimeout(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}

// lower returns the timeout to set where the client's is have: never above it.
// 0 is no limit. changed is false when the client's is strict enough.
func lower(have, want time.Duration) (d time.Duration, changed bool) {
	if want <= 0 || have > 0 && have <= want {
		return have, false
	}
	return want, true
}
