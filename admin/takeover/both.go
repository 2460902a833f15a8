package takeover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"lockkeeper/admin/control"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// Local is this process's proxy.
type Local interface {
	control.Proxy
	EndQuietSession(id uint64) (busy bool)
	Addresses() []net.Addr
	Stats() []proxy.DatabaseStats
}

// Both are the sessions of this process and those of the one that it has taken
// over from, as long as there are any: what control and the console see.
type Both struct {
	Local
	log *slog.Logger

	mu    sync.Mutex
	other *Predecessor
	over  chan struct{} // closed when the other's server processes have been taken over
}

// NewBoth returns the local sessions, with nobody else's yet.
func NewBoth(local Local, reg prometheus.Registerer, log *slog.Logger) *Both {
	b := &Both{Local: local, log: log}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockkeeper_draining_sessions", Help: "Sessions of the process that was taken over from; its other metrics end with the takeover.",
	}, func() float64 { return float64(len(b.others())) }))
	return b
}

// Add adds the predecessor's sessions. over must be called when it has ended and
// what it noted of server processes has been taken over.
func (b *Both) Add(p *Predecessor) (over func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.other, b.over = p, make(chan struct{})
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.other = nil
		close(b.over)
	}
}

// Draining reports whether the predecessor is still there.
func (b *Both) Draining() bool {
	p, _ := b.predecessor()
	return p != nil
}

func (b *Both) predecessor() (p *Predecessor, over <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.other, b.over
}

// of returns the predecessor if the session is one of its.
func (b *Both) of(id uint64) *Predecessor {
	if p, _ := b.predecessor(); p != nil && id <= p.LastSession {
		return p
	}
	return nil
}

// others lists the predecessor's sessions.
func (b *Both) others() []proxy.SessionInfo {
	p, _ := b.predecessor()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), listTime)
	defer cancel()
	var list []proxy.SessionInfo
	if err := p.call(ctx, "List", struct{}{}, &list); err != nil {
		b.log.LogAttrs(ctx, slog.LevelWarn, "sessions of the process that was taken over from are not known", slog.String("cause", err.Error()))
		return nil
	}
	for i := range list {
		list[i].Draining = true
	}
	return list
}

// Sessions lists all of them; the predecessor's, which are older, first.
func (b *Both) Sessions() []proxy.SessionInfo {
	return append(b.others(), b.Local.Sessions()...)
}

// CancelSession cancels what a session runs or waits for.
func (b *Both) CancelSession(ctx context.Context, id uint64) error {
	if p := b.of(id); p != nil {
		return p.call(ctx, "Cancel", id, &struct{}{})
	}
	return b.Local.CancelSession(ctx, id)
}

// TerminateSession closes both sides of a session.
func (b *Both) TerminateSession(ctx context.Context, id uint64) error {
	if p := b.of(id); p != nil {
		return p.call(ctx, "Terminate", id, &struct{}{})
	}
	return b.Local.TerminateSession(ctx, id)
}

// EndQuietSession ends a session outside a transaction, and reports whether it
// was busy instead.
func (b *Both) EndQuietSession(id uint64) (busy bool) {
	p := b.of(id)
	if p == nil {
		return b.Local.EndQuietSession(id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), listTime)
	defer cancel()
	var answer bool
	if err := p.call(ctx, "EndQuiet", id, &answer); err != nil {
		return !isEnded(err) // it is asked again
	}
	return answer
}

// isEnded reports whether a call failed because the link has ended, and not
// because the predecessor said so.
func isEnded(err error) bool {
	_, said := errors.AsType[rpc.ServerError](err)
	return err != nil && !said && !errors.Is(err, errBusy)
}

// Barrier returns when the containment, which the predecessor follows already,
// holds for the sessions of both. Positions are read after both hold.
func (b *Both) Barrier(ctx context.Context, c policy.Containment) ([]proxy.BarrierReport, error) {
	p, over := b.predecessor()
	if p == nil {
		return b.Local.Barrier(ctx, c)
	}
	var here, there []proxy.BarrierReport
	g, waits := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		here, err = b.Local.Barrier(waits, c)
		return err
	})
	g.Go(func() (err error) {
		there, err = p.barrier(waits, c, over)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all, err := b.Local.Barrier(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range all {
		add(&all[i], here)
		add(&all[i], there)
	}
	return all, nil
}

// barrier is the predecessor's. Where it ends meanwhile, its server processes
// are looked up by the local one.
func (p *Predecessor) barrier(ctx context.Context, c policy.Containment, over <-chan struct{}) ([]proxy.BarrierReport, error) {
	until, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("a barrier needs an end") // control gives it one
	}
	var reports []proxy.BarrierReport
	err := p.call(ctx, "Barrier", BarrierCall{c, until}, &reports)
	if !isEnded(err) {
		if err != nil {
			return nil, fmt.Errorf("sessions of the process that was taken over from: %w", err)
		}
		return reports, nil
	}
	select {
	case <-over:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// add adds what was done for the same server.
func add(r *proxy.BarrierReport, done []proxy.BarrierReport) {
	i := slices.IndexFunc(done, func(d proxy.BarrierReport) bool { return d.Target == r.Target })
	if i < 0 {
		return
	}
	r.Waited += done[i].Waited
	r.Cancelled += done[i].Cancelled
	r.Terminated += done[i].Terminated
	for _, lack := range done[i].Lacking {
		if !slices.Contains(r.Lacking, lack) {
			r.Lacking = append(r.Lacking, lack)
		}
	}
}
