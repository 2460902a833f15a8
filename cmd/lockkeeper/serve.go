package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oklog/run"
	"github.com/spf13/cobra"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/admin/takeover"
	"lockkeeper/proxy"
)

// adminShutdown is how long requests may take after the proxy has ended.
const adminShutdown = 5 * time.Second

func newServe(g *global) *cobra.Command {
	var format, level string
	var take bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve clients",
		Long: `serve listens for clients and opens one server connection for each.

SIGTERM and SIGINT stop accepting and let transactions finish for limits.shutdown_timeout; a second one ends lockkeeper at once. SIGQUIT does so
by itself. SIGHUP reads the policy, the certificates and the files of users again; what has mistakes changes nothing. SIGUSR1 pauses everything
new, SIGUSR2 resumes. Restrictions that were in force before a restart are in
force after it.

Under systemd it says when it is ready, reloads and stops (Type=notify), and takes the sockets that a socket unit has opened in
place of those of listen: then new clients wait while lockkeeper is restarted, and none is refused.

With --takeover it replaces the lockkeeper that runs with the same state folder, without refusing a client: it checks its own
configuration, takes over the listening sockets and the state folder, and accepts; only then does the other stop accepting. That one's
sessions stay where they are for limits.takeover_wait, then transactions may finish for limits.shutdown_timeout. Until it has ended
restrictions and commands cover its sessions, too. What goes wrong before leaves it as it was. Where none runs, it starts as usual.`,
		Example: "  lockkeeper serve -c /etc/lockkeeper/lockkeeper.yaml\n  lockkeeper serve -c lockkeeper.yaml --log-format text --log-level debug",
		Args:    cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(g.err, format, level)
			if err != nil {
				return err
			}
			file, _ := g.configFile()
			if file == "" {
				return misused("serve needs a configuration: -c FILE")
			}
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			if !take {
				return serve(cmd.Context(), cfg, log, nil)
			}
			pre, err := findPredecessor(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, log, pre)
		}),
	}
	cmd.Flags().BoolVar(&take, "takeover", false, "take over from the lockkeeper that runs with the same state folder, if there is one")
	cmd.Flags().StringVar(&format, "log-format", "json", "json or text")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, misused("--log-level: %v", err)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	}
	return nil, misused("--log-format: want json or text, not %q", format)
}

// serve runs lockkeeper until a signal, or until one of its parts fails. pre,
// if any, is taken over from.
func serve(ctx context.Context, cfg *config, log *slog.Logger, pre *takeover.Predecessor) (err error) {
	a, err := newApp(ctx, cfg, log, pre, nil)
	defer func() { err = errors.Join(err, a.close()) }()
	if err != nil {
		return err
	}
	if err := a.listen(ctx); err != nil {
		return err
	}
	if a.admin, err = a.listenAdmin(ctx); err != nil {
		// The proxy listens already: Shutdown closes that.
		return errors.Join(err, a.proxy.Shutdown(ctx))
	}
	a.control.Attach(a.both)
	// Before the first operator is answered, who may send one then.
	signal.Notify(a.signalled, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT)
	served := make(chan error, 1)
	go func() { served <- a.proxy.Serve() }() //nolint:contextcheck // Shutdown ends it
	if err := a.succeed(ctx); err != nil {
		ctx, cancel := context.WithCancel(ctx)
		cancel() // who was accepted meanwhile cannot stay
		_ = a.proxy.Shutdown(ctx)
		<-served //nolint:errcheck // err is why
		return err
	}
	h := a.offer() //nolint:contextcheck // close ends it
	defer h.close()
	defer func() { err = errors.Join(err, h.hide(), a.close()) }()
	a.announce(ctx, a.admin)
	err = a.group(ctx, h, served).Run()
	if errors.Is(err, context.Canceled) { // whichever part noticed first
		err = errStopped
	}
	log.LogAttrs(ctx, slog.LevelInfo, "stopped", slog.String("cause", err.Error()))
	if expectedEnd(err) {
		return nil
	}
	return err
}

// errStopped is why the parts end after a signal.
var errStopped = errors.New("asked to stop")

func expectedEnd(err error) bool {
	return errors.Is(err, errStopped) || errors.Is(err, errHandedOver) || errors.Is(err, proxy.ErrServerClosed) || errors.Is(err, http.ErrServerClosed)
}

func (a *app) announce(ctx context.Context, admin *api.Server) {
	for _, addr := range a.proxy.Addresses() {
		a.log.LogAttrs(ctx, slog.LevelInfo, "listening for clients", slog.String("network", addr.Network()), slog.String("address", addr.String()))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "listening for operators", slog.String("address", admin.Addr().String()))
	for _, c := range a.control.Containments() {
		a.log.LogAttrs(ctx, slog.LevelWarn, "restriction in force from before the start", slog.String("containment", c.ID),
			slog.String("author", c.Author), slog.String("reason", c.Reason), slog.Time("since", c.Since))
	}
}

// group is the parts that run, each with what interrupts it. The first to end
// interrupts the others, in this order: the admin interface outlives the
// proxy's last transactions.
func (a *app) group(ctx context.Context, h *holder, served <-chan error) *run.Group {
	g := &run.Group{}
	over := context.WithoutCancel(ctx) // for what follows the end
	ctx, cancel := context.WithCancel(ctx)
	g.Add(func() error { return a.signals(ctx, a.admin) }, func(error) { cancel() })
	g.Add(func() error { return a.watchPredecessor(ctx) }, func(error) { cancel() })
	g.Add(func() error { return h.drain(ctx) }, func(error) { cancel() })
	g.Add(func() error { return <-served }, func(error) { a.stopProxy(over, h) })
	g.Add(func() error { return a.control.Run(ctx) }, func(error) { cancel() })
	g.Add(func() error { return a.serveAdmin(ctx, h) }, func(error) { a.stopAdmin(over, a.admin) })
	return g
}

// serveAdmin answers operators, until a successor does so.
func (a *app) serveAdmin(ctx context.Context, h *holder) error {
	served := make(chan error, 1)
	go func() { served <- a.admin.Serve() }()
	select {
	case err := <-served:
		return err
	case <-h.handed:
	}
	a.admin.HandOver()
	<-served //nolint:errcheck // that it was handed over
	<-ctx.Done()
	return errStopped
}

// signals waits for what ends lockkeeper, and does what the other signals ask
// for.
func (a *app) signals(ctx context.Context, admin *api.Server) error {
	defer signal.Stop(a.signalled)
	a.tellSystemd(ctx, systemdReady) // from now on SIGHUP does not end us
	for {
		select {
		case <-ctx.Done():
			return errStopped
		case <-a.stopping.asked:
			return errStopped
		case s := <-a.signalled:
			a.signal(ctx, s, admin)
		}
	}
}

// signal does what PgBouncer does for the same signal.
func (a *app) signal(ctx context.Context, s os.Signal, admin *api.Server) {
	var err error
	switch s {
	case syscall.SIGHUP:
		a.reload(ctx, admin)
	case syscall.SIGUSR1:
		err = a.pauseBySignal(ctx)
	case syscall.SIGUSR2:
		err = a.resumeBySignal(ctx)
	case syscall.SIGQUIT:
		err = a.control.Note(ctx, "shutdown", "at once", signalled("SIGQUIT"))
		a.stopping.begin(true)
	}
	if err != nil {
		a.log.LogAttrs(ctx, slog.LevelError, "signal not obeyed", slog.String("signal", s.String()), slog.String("cause", err.Error()))
	}
}

// reload reads policy, certificates and users again; what fails stays as it was.
func (a *app) reload(ctx context.Context, admin *api.Server) {
	a.tellSystemd(ctx, systemdReloading)
	defer a.tellSystemd(ctx, systemdReady)
	if _, err := a.control.Reload(ctx, control.By{Author: "signal", Reason: "SIGHUP"}); err != nil {
		a.log.LogAttrs(ctx, slog.LevelError, "policy not reloaded, the old one stays in force", slog.String("cause", err.Error()))
	}
	if err := errors.Join(a.proxy.Reload(), admin.Reload()); err != nil {
		a.log.LogAttrs(ctx, slog.LevelError, "certificates or users not reloaded, the old ones stay in use", slog.String("cause", err.Error()))
	}
}

// stopProxy lets transactions finish, then closes what is left; the
// predecessor's, too.
func (a *app) stopProxy(ctx context.Context, h *holder) {
	timeout := h.stop()
	a.tellSystemd(ctx, systemdStopping)
	a.log.LogAttrs(ctx, slog.LevelInfo, "stopping, transactions may finish", slog.Duration("timeout", timeout))
	a.control.Drain()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go a.endAtOnce(cancel, ended)
	finished := make(chan struct{})
	go a.finishPredecessor(ctx, timeout, finished)
	if err := a.proxy.Shutdown(ctx); err != nil {
		a.log.LogAttrs(ctx, slog.LevelWarn, "transactions did not finish in time", slog.String("cause", err.Error()))
	}
	<-finished
}

// endAtOnce cuts a shutdown short when that is asked for.
func (a *app) endAtOnce(cancel context.CancelFunc, ended <-chan struct{}) {
	select {
	case <-a.stopping.now:
		cancel()
	case <-ended:
	}
}

func (a *app) stopAdmin(ctx context.Context, admin *api.Server) {
	ctx, cancel := context.WithTimeout(ctx, adminShutdown)
	defer cancel()
	if err := admin.Shutdown(ctx); err != nil {
		a.log.LogAttrs(ctx, slog.LevelWarn, "requests did not finish in time", slog.String("cause", err.Error()))
	}
}
