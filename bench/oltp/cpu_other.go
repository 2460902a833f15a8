//go:build !linux

package main

import (
	"errors"
	"time"
)

var errOnlyLinux = errors.New("the CPU time of another process can be measured on Linux only")

func (t *target) cpu() (time.Duration, error) { return 0, errOnlyLinux }

func (t *target) split() (user, system time.Duration, err error) { return 0, 0, errOnlyLinux }
