// Package policy turns facts and a subject into a decision; no I/O, no clock, no goroutine.
package policy
