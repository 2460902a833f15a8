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
	"lockkeeper/inspect"
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
	api        *api.Handler
	console    *console.Console
	admin      *api.Server // once it listens
	stopping   *stopping
	cleanups   []cleanup
}

// cleanup is what must be undone, and its name in errors.
type cleanup struct {
	name string
	do   func() error
}

// newApp makes the parts in the order in which they need each other. Callers
// must close even after an error. watch, if any, sees what is registered.
func newApp(ctx context.Context, cfg *config, log *slog.Logger, watch *collecting) (*app, error) {
	a := &app{cfg: cfg, log: log, stopping: newStopping(), registry: prometheus.NewRegistry()}
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
	if a.journal, err = journal.Open(ctx, cfg.journalConfig(), log, a.registerer); err != nil {
		return a, err
	}
	a.later("close the journal", a.journal.Close)
	decider := &policy.Decider{}
	a.control, err = control.Open(control.Options{
		StatePath: cfg.state(stateFile), Decider: decider, LoadPolicy: cfg.reloadPolicy, Inspector: inspector,
		Journal: a.journal, Logger: log, Registerer: a.registerer, Now: time.Now,
	})
	if err != nil {
		return a, err
	}
	a.locks = locks.Servers(cfg.Servers)
	for _, s := range a.locks {
		a.later("close the control login", func() error { s.Close(context.WithoutCancel(ctx)); return nil })
	}
	if err := a.makeConsole(); err != nil {
		return a, err
	}
	a.proxy, err = proxy.New(cfg.Config, proxy.Deps{
		Inspector: inspector, Decider: decider, Journal: a.journal, Logger: log, Registerer: a.registerer,
		Now: time.Now, Processes: cfg.state(processesFile), Console: a.console,
	})
	if err != nil {
		return a, fmt.Errorf("proxy: %w", err)
	}
	a.console.Attach(a.proxy)
	return a, a.makeAPI()
}

// lockState keeps a second lockkeeper from the state folder: each would
// overwrite what the other restricts.
func (a *app) lockState() error {
	f, err := os.OpenFile(a.cfg.state(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the state folder: %w", err)
	}
	a.later("unlock the state folder", f.Close)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock the state folder %s, which another lockkeeper may use: %w", a.cfg.Admin.State, err)
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
		Gatherer: a.registry, Registerer: a.registerer, Logger: a.log, Now: time.Now,
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
