// Command lockkeeper guards PostgreSQL: flags, files, signals and wiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"lockkeeper/admin/client"
	"lockkeeper/admin/control"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string //nolint:gochecknoglobals // the linker sets variables only

// The exit codes.
const (
	exitFine   = 0
	exitNo     = 1 // asked properly, and the answer is no
	exitMisuse = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := execute(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, io stdio) int {
	root := newRoot(io) //nolint:contextcheck // the commands get theirs from ExecuteContextC
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	var no *noError
	if errors.As(err, &no) {
		if no.err != nil {
			complain(io.err, no.err)
		}
		return exitNo
	}
	fmt.Fprintf(io.err, "lockkeeper: %v\nRun \"%s --help\" for usage.\n", err, cmd.CommandPath())
	return exitMisuse
}

// noError marks an error of a command that was used properly. Without it the
// command line is at fault. A nil err has been reported already.
type noError struct{ err error }

// Error returns what went wrong.
func (e *noError) Error() string {
	if e.err == nil {
		return "no"
	}
	return e.err.Error()
}

// Unwrap returns the cause.
func (e *noError) Unwrap() error { return e.err }

// errNo is for commands that have said on their own what is wrong.
func errNo() error { return &noError{} }

// complain writes an error and what to do about it.
func complain(w io.Writer, err error) {
	fmt.Fprintf(w, "lockkeeper: %v\n", err)
	hint := ""
	if e, ok := errors.AsType[*client.Error](err); ok {
		hint = e.Hint
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		hint = e.Hint
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// versionString is what was linked in, or what Go knows of the build.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		return "devel"
	}
	return v
}
