//go:build !linux

package main

import (
	"errors"
	"time"
)

func (t *target) cpu() (time.Duration, error) {
	return 0, errors.New("the CPU time of another process can be measured on Linux only")
}
