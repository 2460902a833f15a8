package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"lockkeeper/admin/api"
	"lockkeeper/admin/console"
	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/admin/takeover"
	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// app is everything that serve runs, made and not listening yet.
type app struct {
	cfg        *config
	log        *slog.Logger
	registry   *prometheus.Registry
	registerer prometheus.Registerer
	journal    *journal.Journal
	control    *control.Control
	proxy      *proxy.Server
	locks      []*locks.Server
	catalogs   *catalog.Catalogs
	api        *api.Handler
	console    *console.Console
	admin      *api.Server // once it listens
	stopping   *stopping
	signalled  chan os.Signal
	cleanups   []cleanup

	both        *takeover.Both
	predecessor *takeover.Predecessor // nil where there is none
	overs       []func()              // what is to be done when it has ended
	lock        *os.File              // of the state folder
	processes   string                // the name of the file of server processes
}

// cleanup is what must be undone, and its name in errors.
type cleanup struct {
	name string
	do   func() error
}

// newApp makes the parts in the order in which they need each other. Callers
// must close even after an error. pre, if any, is taken over from; watch, if
// any, sees what is registered.
func newApp(ctx context.Context, cfg *config, log *slog.Logger, pre *takeover.Predecessor, watch *collecting) (*app, error) {
	a := &app{cfg: cfg, log: log, stopping: newStopping(), signalled: make(chan os.Signal, 4), registry: prometheus.NewRegistry(), predecessor: pre, processes: processesFile}
	if pre != nil {
		a.later("end the link", pre.Close)
		if pre.Processes == processesFile {
			a.processes = processesFile2
		}
	}
	a.registerer = a.registry
	if watch != nil {
		watch.Registerer = a.registry
		a.registerer = watch
	}
	a.registerer.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	if err := os.MkdirAll(cfg.Admin.State, 0o700); err != nil {
		return a, fmt.Errorf("make the state folder: %w", err)
	}
	if err := a.lockState(); err != nil {
		return a, err
	}
	inspector := inspect.NewInspector(inspectLimits(&cfg.Limits), pgquery.Parse, a.registerer)
	var err error
	journalConfig := cfg.journalConfig()
	journalConfig.Joins = pre != nil
	if a.journal, err = journal.Open(ctx, journalConfig, log, a.registerer); err != nil {
		return a, err
	}
	a.later("close the journal", a.journal.Close)
	decider := &policy.Decider{}
	a.makeCatalogs()
	a.control, err = control.Open(control.Options{
		StatePath: cfg.state(stateFile), Decider: decider, LoadPolicy: cfg.reloadPolicy, Inspector: inspector, Catalogs: a.catalogs,
		Journal: a.journal, Logger: log, Registerer: a.registerer, Now: time.Now,
	})
	if err != nil {
		return a, err
	}
	if pre != nil {
		a.control.Hold(underWay())
	}
	a.locks = locks.Servers(cfg.Servers)
	for _, s := range a.locks {
		a.later("close the control login", func() error { s.Close(context.WithoutCancel(ctx)); return nil })
	}
	if err := a.makeConsole(); err != nil {
		return a, err
	}
	if err := a.makeProxy(proxy.Deps{Inspector: inspector, Decider: decider, Catalogs: a.catalogs}); err != nil { //nolint:contextcheck // what is made outlives the making
		return a, fmt.Errorf("proxy: %w", err)
	}
	return a, a.makeAPI()
}

// makeCatalogs makes what looks names up in the databases.
func (a *app) makeCatalogs() {
	l := &a.cfg.Limits
	a.catalogs = catalog.New(catalog.Config{
		Databases: l.CatalogDatabases, Relations: l.CatalogRelations, Poll: l.CatalogPoll, Parse: pgquery.Parse, Logger: a.log, Registerer: a.registerer, Now: time.Now,
	})
	a.later("close the catalogs", func() error { a.catalogs.Close(); return nil })
}

// makeProxy makes the proxy, and what control and the console see of it.
func (a *app) makeProxy(d proxy.Deps) (err error) {
	d.Journal, d.Logger, d.Registerer, d.Now = a.journal, a.log, a.registerer, time.Now
	d.Processes, d.Console = a.cfg.state(a.processes), a.console
	if d.Mock, err = a.cfg.mock(); err != nil {
		return err
	}
	if a.predecessor != nil {
		d.LastSession = a.predecessor.LastSession
	}
	if a.proxy, err = proxy.New(a.cfg.Config, d); err != nil {
		return err
	}
	a.both = takeover.NewBoth(a.proxy, a.registerer, a.log)
	a.console.Attach(a.both)
	if a.predecessor != nil {
		return nil
	}
	return a.proxy.AbsorbProcesses(a.cfg.state(processesFile2)) // of processes that have ended
}

// lockState keeps a second lockkeeper from the state folder: each would
// overwrite what the other restricts. A lock that was handed over stays locked
// when the process that had it ends: it belongs to what both have open.
func (a *app) lockState() error {
	a.later("unlock the state folder", a.unlockState)
	if a.predecessor != nil {
		a.lock = a.predecessor.Lock
		return nil
	}
	f, err := os.OpenFile(a.cfg.state(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the state folder: %w", err)
	}
	a.lock = f
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock the state folder %s, which another lockkeeper may use (serve --takeover replaces it): %w", a.cfg.Admin.State, err)
	}
	return nil
}

// unlockState gives up the state folder, where that has not been done before.
func (a *app) unlockState() error {
	if a.lock == nil {
		return nil
	}
	if err := a.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func (a *app) makeAPI() error {
	tokens, err := a.cfg.tokens()
	if err != nil {
		return err
	}
	a.api, err = api.New(api.Deps{
		Control: a.control, Locks: a.locks, Journal: a.journal, Tokens: tokens, Version: versionString(),
		Gatherer: a.registry, Registerer: a.registerer, Logger: a.log, Now: time.Now, Unwatched: a.proxy.Unwatched,
	})
	return err
}

// later puts a cleanup on the stack.
func (a *app) later(name string, do func() error) {
	a.cleanups = append(a.cleanups, cleanup{name, do})
}

// close undoes what newApp did, last things first.
func (a *app) close() error {
	var errs []error
	for i := len(a.cleanups) - 1; i >= 0; i-- {
		if err := a.cleanups[i].do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.cleanups[i].name, err))
		}
	}
	a.cleanups = nil
	return errors.Join(errs...)
}

// inspectLimits takes the inspector's limits from the proxy's.
func inspectLimits(l *proxy.Limits) inspect.Limits {
	return inspect.Limits{CacheBytes: l.CacheBytes, ParseSlots: l.ParseSlots, ParseBytes: l.ParseBytes, CommentNesting: l.CommentNesting}
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lockkeeper_build_info", Help: "Always 1; the label says which version runs.",
	}, []string{"version"})
	g.WithLabelValues(versionString()).Set(1)
	return g
}
