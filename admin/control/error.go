package control

import "fmt"

// ErrorKind says what whoever asked can do about an error.
type ErrorKind uint8

// The kinds of error.
const (
	Failed      ErrorKind = iota // nobody's fault who asked
	Invalid                      // ask otherwise
	NotFound                     // it is not there, or not any more
	Unavailable                  // not now, or not with this configuration
	Incomplete                   // in force, but what it waits for has not happened
	Unsaved                      // in force, but not on disk: a restart undoes it
)

// Error is what went wrong, with what to do about it.
type Error struct {
	Kind ErrorKind
	What string // what we tried
	Hint string // what to do; "" when there is nothing
	Err  error  // the cause; nil when What says all
}

// Error returns what went wrong, without the hint.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.What
	}
	return e.What + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func invalid(hint, format string, args ...any) *Error {
	return &Error{Kind: Invalid, What: fmt.Sprintf(format, args...), Hint: hint}
}
