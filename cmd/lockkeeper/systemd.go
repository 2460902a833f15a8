package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"
)

// What systemd is told. Source: sd_notify(3).
const (
	systemdReady     = "READY=1"
	systemdReloading = "RELOADING=1"
	systemdStopping  = "STOPPING=1"
)

// notify tells systemd, or whoever else listens on $NOTIFY_SOCKET, how far
// lockkeeper is. Without that variable nobody wants to know.
func notify(ctx context.Context, state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixgram", path) // "@" stands for the abstract namespace in Go, too
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer func() { _ = c.Close() }() // what was written has arrived
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

func (a *app) tellSystemd(ctx context.Context, state string) {
	if err := notify(ctx, state); err != nil {
		a.log.LogAttrs(ctx, slog.LevelWarn, "systemd was not told", slog.String("state", state), slog.String("cause", err.Error()))
	}
}

// firstPassed is the first descriptor that systemd passes. Source:
// sd_listen_fds(3).
const firstPassed = 3

// passedListeners returns the sockets that systemd has opened for us; none
// without socket activation. They stay open when lockkeeper ends, so that
// clients of a restart wait in their queue.
func passedListeners() ([]net.Listener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if fds == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS: %q is no number of sockets", fds)
	}
	var all []net.Listener
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd)) //nolint:gosec // descriptors are small
		l, err := net.FileListener(f)
		_ = f.Close() // the listener has a descriptor of its own
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %d of systemd: %w", fd, err), closeAll(all))
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(all []net.Listener) error {
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// listen opens the configured listeners, or takes those that systemd has
// opened in their place, or the predecessor's.
func (a *app) listen(ctx context.Context) error {
	if a.predecessor != nil {
		return a.proxy.Inherit(ctx, a.predecessor.Listeners)
	}
	passed, err := passedListeners()
	if err != nil {
		return err
	}
	if len(passed) == 0 {
		return a.proxy.Listen(ctx)
	}
	a.proxy.Adopt(passed)
	return nil
}
