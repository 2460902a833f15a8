//go:build !linux

package main

import "syscall"

func processAttributes() *syscall.SysProcAttr { return nil }
