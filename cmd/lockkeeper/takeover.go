package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/admin/takeover"
	"lockkeeper/proxy"
)

// errHandedOver is why a process ends that was taken over from.
var errHandedOver = errors.New("another process has taken over")

// underWay is what whoever wants a change is told during a takeover.
func underWay() (what, hint string) {
	return "a takeover by another process is under way", "Try again in a moment."
}

// findPredecessor asks the running lockkeeper to be taken over from, once our
// own configuration is known to be good. It returns nil where none runs.
func findPredecessor(ctx context.Context, cfg *config, log *slog.Logger) (*takeover.Predecessor, error) {
	if r := check(ctx, cfg.file, true); !r.OK {
		var errs []error
		for _, e := range r.Errors {
			errs = append(errs, errors.New(e))
		}
		return nil, errors.Join(errs...)
	}
	pre, err := takeover.Find(ctx, cfg.Admin.State, versionString(), log)
	if err != nil {
		return nil, err
	}
	if pre == nil {
		log.LogAttrs(ctx, slog.LevelInfo, "no lockkeeper runs that could be taken over from")
		return nil, nil //nolint:nilnil // and that is no error
	}
	log.LogAttrs(ctx, slog.LevelInfo, "taking over", slog.String("from_version", pre.Program()))
	return pre, nil
}

// listenAdmin opens the admin interface's port, or takes the predecessor's.
func (a *app) listenAdmin(ctx context.Context) (*api.Server, error) {
	if a.predecessor == nil {
		return api.Listen(ctx, a.cfg.adminListen(), a.api, a.log)
	}
	theirs := a.predecessor.Admin
	if theirs.Configured == a.cfg.Admin.Listen {
		return api.Inherit(theirs.Listener, a.cfg.adminListen(), a.api, a.log)
	}
	_ = theirs.Close() // the predecessor has it, too
	return api.Listen(ctx, a.cfg.adminListen(), a.api, a.log)
}

// succeed tells the predecessor, if there is one, that we accept clients; from
// then on it follows. An error means that it goes on as if nothing had been.
func (a *app) succeed(ctx context.Context) error {
	if a.predecessor == nil {
		return nil
	}
	l := &a.cfg.Limits
	alive, err := a.predecessor.Accept(ctx, takeover.Terms{Wait: l.TakeoverWait, Finish: l.ShutdownTimeout})
	if err != nil {
		return err
	}
	a.proxy.OwnSockets()
	if !alive {
		a.inherit(ctx)
		a.predecessor = nil
		a.control.Release()
		return nil
	}
	a.overs = append(a.overs, a.proxy.AddPeer(a.predecessor), a.both.Add(a.predecessor))
	if err := a.control.Lead(a.predecessor); err != nil {
		a.log.LogAttrs(ctx, slog.LevelError, "sessions of the process that was taken over from are not contained", slog.String("cause", err.Error()))
	}
	return nil
}

// watchPredecessor takes in what is left of the predecessor when it ends.
func (a *app) watchPredecessor(ctx context.Context) error {
	if a.predecessor != nil {
		select {
		case <-ctx.Done():
			return errStopped
		case <-a.predecessor.Ended():
		}
		a.inherit(ctx)
		for _, over := range a.overs {
			over()
		}
		a.control.LeadNobody()
		a.log.LogAttrs(ctx, slog.LevelInfo, "the process that was taken over from has ended")
	}
	<-ctx.Done()
	return errStopped
}

// inherit takes in what a predecessor that has ended has left: server processes
// that may go on, and transactions in the journal whose end nobody saw.
func (a *app) inherit(ctx context.Context) {
	err := errors.Join(
		a.proxy.AbsorbProcesses(a.cfg.state(a.predecessor.Processes)),
		a.journal.Lose(ctx, a.predecessor.LastSession),
	)
	if err != nil {
		a.log.LogAttrs(ctx, slog.LevelError, "what the process left that was taken over from is not known", slog.String("cause", err.Error()))
	}
}

// finishPredecessor lets the predecessor end in the time that we have.
func (a *app) finishPredecessor(ctx context.Context, within time.Duration, finished chan<- struct{}) {
	defer close(finished)
	if a.predecessor != nil {
		a.predecessor.Finish(ctx, within)
	}
}

// holder is this process as its successor sees it.
type holder struct {
	*proxy.Server
	a        *app
	offering *takeover.Offering // nil where nobody can take over
	handed   chan struct{}      // closed when a successor accepts
	finish   chan struct{}      // closed when sessions are to end

	mu       sync.Mutex // guards what follows
	stopped  bool
	terms    takeover.Terms
	finished bool // finish is closed
}

// offer lets a successor take over, from now on.
func (a *app) offer() *holder {
	h := &holder{Server: a.proxy, a: a, handed: make(chan struct{}), finish: make(chan struct{})}
	h.terms.Finish = a.cfg.Limits.ShutdownTimeout
	var err error
	if h.offering, err = takeover.Offer(a.cfg.Admin.State, versionString(), h, a.log); err != nil {
		a.log.LogAttrs(context.Background(), slog.LevelWarn, "nobody can take over from this process", slog.String("cause", err.Error()))
	}
	return h
}

// hide keeps successors away, while the state folder is still ours.
func (h *holder) hide() error {
	if h.offering == nil {
		return nil
	}
	return h.offering.Hide()
}

// close ends the link to a successor, which takes in what we have left then.
func (h *holder) close() {
	if h.offering != nil {
		h.offering.Close()
	}
}

// Offer lets nothing be changed and says what is handed over.
func (h *holder) Offer() (*takeover.Estate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return nil, errors.New("it is stopping")
	case h.a.both.Draining():
		return nil, errors.New("sessions of an earlier takeover have not ended; wait, or end that process (SIGTERM lets transactions finish)")
	}
	h.a.control.Hold(underWay())
	if err := h.a.control.Unsaved(); err != nil {
		h.a.control.Release()
		return nil, fmt.Errorf("what is in force is not on disk, where a successor looks for it: %w", err)
	}
	return &takeover.Estate{
		Lock: h.a.lock, Admin: proxy.Listener{Listener: h.a.admin.Socket(), Configured: h.a.cfg.Admin.Listen},
		Listeners: h.Listeners(), Processes: h.a.processes, LastSession: h.LastSessionOfBlock(),
	}, nil
}

// Keep goes on as if nothing had been. The successor may have had clients.
func (h *holder) Keep() {
	theirs := processesFile2
	if h.a.processes == theirs {
		theirs = processesFile
	}
	if err := h.AbsorbProcesses(h.a.cfg.state(theirs)); err != nil {
		h.a.log.LogAttrs(context.Background(), slog.LevelWarn, "what a takeover that failed has left is not known", slog.String("cause", err.Error()))
	}
	h.a.control.Release()
}

// HandOver stops accepting and gives up the state folder.
func (h *holder) HandOver(t takeover.Terms) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return errors.New("it is stopping")
	}
	h.a.control.Hold("another process has taken over", "Give the command again: that one answers.")
	h.Server.HandOver()
	if err := h.a.unlockState(); err != nil {
		h.a.log.LogAttrs(context.Background(), slog.LevelWarn, "unlock the state folder", slog.String("cause", err.Error()))
	}
	h.terms = t
	close(h.handed)
	return nil
}

// Finish ends sessions as soon as they are outside a transaction.
func (h *holder) Finish(within time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.terms.Finish = within
	if !h.finished {
		h.finished = true
		close(h.finish)
	}
}

// Orphan ends every session.
func (h *holder) Orphan() { h.a.stopping.begin(true) }

// Follow puts in force what the successor has decided.
func (h *holder) Follow(d *control.Desired) (keeps, err error) { return h.a.control.Follow(d) }

// stop keeps successors away and returns how long transactions may take.
func (h *holder) stop() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	return h.terms.Finish
}

// drain waits, once a successor has taken over, until sessions are to end.
func (h *holder) drain(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return errStopped
	case <-h.handed:
	}
	h.mu.Lock()
	t := h.terms
	h.mu.Unlock()
	h.a.tellSystemd(ctx, systemdStopping+"\nEXTEND_TIMEOUT_USEC="+strconv.FormatInt((t.Wait+t.Finish+adminShutdown).Microseconds(), 10))
	wait := time.NewTimer(t.Wait)
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	case <-h.Left():
	case <-h.finish:
	}
	return errHandedOver
}
