// Command demo shows what lockkeeper does: a throwaway PostgreSQL with an Odoo-like database, lockkeeper in front, and a tour.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	runtime.LockOSThread() // lockkeeper ends with the thread that starts it, see childAttributes
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case interrupted:
		fmt.Fprintln(os.Stderr, "\nInterrupted.")
		os.Exit(130)
	default:
		fmt.Fprintf(os.Stderr, "\nThe demo did not go as told: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	exit := flags.Bool("exit", false, "end after the tour instead of waiting for Ctrl-C")
	rows := flags.Int("rows", 100_000, "rows in account_move")
	dir := flags.String("dir", ".demo", "folder for everything that the demo writes; it is removed at the end")
	bin := flags.String("bin", "bin", "folder that lockkeeper is built into")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &stage{dir: *dir, bin: *bin, rows: *rows, out: out}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	t := &tour{
		stage: s,
		now:   time.Now, //nolint:forbidigo // a program's main: the tour is given its clock here
	}
	if err := t.run(ctx); err != nil {
		return err
	}
	s.printConnections()
	if *exit {
		return nil
	}
	fmt.Fprintf(out, "\nBoth run until you press Ctrl-C.\n")
	return s.waitForEnd(ctx)
}
