// Package control keeps the desired state: mode, freeze and pauses, and the policy in force.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// Proxy is what control asks of the proxy.
type Proxy interface {
	// Sessions lists the live sessions.
	Sessions() []proxy.SessionInfo
	// CancelSession cancels what the session runs, or what is held of it.
	CancelSession(ctx context.Context, id uint64) error
	// TerminateSession closes both sides of the session.
	TerminateSession(ctx context.Context, id uint64) error
	// Wake makes held sessions look at the containments again.
	Wake()
	// Barrier returns when the read-only containment holds for everything
	// that came through lockkeeper.
	Barrier(ctx context.Context, c policy.Containment) ([]proxy.BarrierReport, error)
}

// Journal is where control records what it did.
type Journal interface {
	Submit(e journal.Entry)
	SubmitDurable(ctx context.Context, e journal.Entry) error
}

// Inspector turns text into facts, for explanations.
type Inspector interface {
	Inspect(ctx context.Context, text []byte, lex inspect.Lexing) *inspect.Batch
}

// Source is where a policy came from.
type Source struct {
	File string `json:"file"` // of the policy, or of the configuration that holds it
	Text string `json:"text"` // as it was read
}

// Options are what Open needs; all of them.
type Options struct {
	StatePath  string
	Decider    *policy.Decider
	LoadPolicy func() (*policy.Policy, Source, error) // reads the configured policy
	Inspector  Inspector
	Catalogs   *catalog.Catalogs // of the databases in use; nil where there are none
	Journal    Journal
	Logger     *slog.Logger
	Registerer prometheus.Registerer // may be nil
	Now        func() time.Time
}

// The limits of control.
const (
	maxContainments = 1000
	maxReasonBytes  = 500
	journalWait     = 5 * time.Second // for an action's record to be on disk
)

// Control changes what is in force. Changes are made one after the other, and
// each is on disk before it holds; what the disk does not take holds all the
// same, with an error of kind Unsaved. Its methods are safe for concurrent use.
type Control struct {
	opts    Options
	started time.Time
	metrics *metrics
	changed chan struct{} // tells Run that there is a new end to wait for

	mu       sync.Mutex // serialises changes; never held while the barrier is waited for
	state    state
	unsaved  error // why state is not on disk; nil when it is
	policy   *policy.Policy
	source   Source
	loadedAt time.Time
	barriers map[string]Barrier // by containment
	held     *Error             // why nothing may be changed; nil when it may
	follower Follower           // has to hold what is decided here; may be nil

	proxyMu  sync.Mutex
	proxy    Proxy
	draining bool
}

// Open loads the policy and the desired state and puts both in force. It
// fails where either cannot be read: lockkeeper does not serve without knowing
// what is restricted.
func Open(opts Options) (*Control, error) {
	s, err := loadState(opts.StatePath)
	if err != nil {
		return nil, err
	}
	p, source, err := opts.LoadPolicy()
	if err != nil {
		return nil, fmt.Errorf("load the policy: %w", err)
	}
	now := opts.Now()
	c := &Control{
		opts: opts, started: now, changed: make(chan struct{}, 1), state: s, policy: p, source: source, loadedAt: now,
		barriers: map[string]Barrier{},
	}
	c.metrics = newMetrics(opts.Registerer, c)
	// The epoch grows, so that nothing of this run is taken for in flight of
	// an earlier one.
	next := c.state
	next.Epoch++
	if err := next.save(opts.StatePath); err != nil {
		return nil, &Error{Kind: Failed, What: "write the state file", Hint: "Give the state folder room and its owner's rights.", Err: err}
	}
	c.put(next)
	return c, nil
}

// Attach names the proxy, which is made after control because it needs the
// Decider to be filled. Until then what needs the proxy is Unavailable.
func (c *Control) Attach(p Proxy) {
	c.proxyMu.Lock()
	defer c.proxyMu.Unlock()
	c.proxy = p
}

// Drain makes Ready say no: the proxy is about to stop accepting. Everything
// else goes on.
func (c *Control) Drain() {
	c.proxyMu.Lock()
	defer c.proxyMu.Unlock()
	c.draining = true
}

func (c *Control) attached() (Proxy, error) {
	c.proxyMu.Lock()
	defer c.proxyMu.Unlock()
	if c.proxy == nil {
		return nil, &Error{Kind: Unavailable, What: "the proxy is not serving yet", Hint: "Try again in a moment."}
	}
	return c.proxy, nil
}

// enforce persists next and puts it in force, here and in the process that
// follows. It is put in force even where it cannot be persisted: whoever stops
// writes because a disk is full cannot make room first. Callers hold mu.
func (c *Control) enforce(next state) error {
	if c.held != nil {
		return c.held
	}
	c.unsaved = next.save(c.opts.StatePath)
	c.put(next)
	select {
	case c.changed <- struct{}{}:
	default:
	}
	if err := c.tellFollower(); err != nil || c.unsaved == nil {
		return err
	}
	return notOnDisk("it is in force", c.unsaved)
}

// put puts next in force in this process. Callers hold mu.
func (c *Control) put(next state) {
	c.state = next
	c.opts.Decider.Replace(&policy.Snapshot{Epoch: next.Epoch, Policy: c.policy, Containments: slices.Clone(next.Containments)})
	if p, err := c.attached(); err == nil {
		p.Wake()
	}
}

// By says who wants a change, and why.
type By struct {
	Author string // the token's name
	Reason string
}

func (b *By) validate() error {
	b.Reason = strings.TrimSpace(b.Reason)
	switch {
	case b.Author == "":
		return invalid("", "a change needs an author")
	case b.Reason == "":
		return invalid("Say why with --reason (reason in JSON); whoever sees this restriction later will want to know.", "a change needs a reason")
	case len(b.Reason) > maxReasonBytes:
		return invalid("", "the reason is longer than %d bytes", maxReasonBytes)
	}
	return nil
}

// add puts a new containment in force in place of the ones of its kind and
// scope, and returns it complete.
func (c *Control) add(n policy.Containment, by By, lifetime time.Duration) (policy.Containment, error) {
	if err := by.validate(); err != nil {
		return n, err
	}
	if err := validateScope(n.Scope); err != nil {
		return n, err
	}
	if lifetime < 0 || lifetime > maxDuration {
		return n, invalid("Leave it out for no end.", "the duration must be between 0 and %s", maxDuration)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.state
	next.Epoch++
	next.LastID++
	n.ID = fmt.Sprintf("%s-%d", nameOf(&n), next.LastID)
	n.Reason, n.Author, n.Since, n.Epoch = by.Reason, by.Author, c.opts.Now().UTC(), next.Epoch
	if lifetime > 0 {
		n.Until = n.Since.Add(lifetime)
	}
	next.Containments = slices.DeleteFunc(slices.Clone(next.Containments), func(o policy.Containment) bool {
		replaced := o.Kind == n.Kind && o.Scope == n.Scope
		if replaced && o.Active(n.Since) {
			keepPromise(&n, &o)
		}
		return replaced
	})
	if len(next.Containments) >= maxContainments {
		return n, &Error{Kind: Unavailable, What: fmt.Sprintf("%d containments are in force already", maxContainments), Hint: "Lift some first."}
	}
	next.Containments = append(next.Containments, n)
	return n, c.enforce(next)
}

// nameOf is what a containment's id begins with.
func nameOf(c *policy.Containment) string {
	if c.Holds() {
		return ModeHold
	}
	return string(c.Kind)
}

// keepPromise gives a containment that replaces another what that one
// promised: transactions that may not commit a change any more, or only until
// some time, are not let go on.
func keepPromise(n, old *policy.Containment) {
	if n.Kind != policy.ReadOnlyMode {
		return
	}
	if (len(old.Except) == 0 || slices.Equal(old.Except, n.Except)) && n.LetsWrite(old.Writable) {
		n.Epoch = old.Epoch // nothing that began since could write what n does not let be written
	}
	switch {
	case n.InFlight == policy.RefuseCommit:
	case old.InFlight == policy.RefuseCommit:
		n.InFlight, n.DrainUntil = policy.RefuseCommit, time.Time{}
	case old.DrainUntil.Before(n.DrainUntil):
		n.InFlight, n.DrainUntil = old.InFlight, old.DrainUntil
	}
}

// refused reports whether a change was not made. One that only the follower or
// the disk does not hold was made.
func refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return err != nil && (!ok || e.Kind != Incomplete && e.Kind != Unsaved)
}

// lift ends the containments that match, and returns them.
func (c *Control) lift(matches func(*policy.Containment) bool) ([]policy.Containment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		return nil, c.held
	}
	next := c.state
	next.Containments = nil
	var lifted []policy.Containment
	for _, o := range c.state.Containments {
		if matches(&o) {
			lifted = append(lifted, o)
		} else {
			next.Containments = append(next.Containments, o)
		}
	}
	if len(lifted) == 0 {
		return nil, nil
	}
	next.Epoch++
	err := c.enforce(next)
	if refused(err) {
		return nil, err
	}
	for i := range lifted {
		delete(c.barriers, lifted[i].ID)
	}
	return lifted, err
}

// record journals an action and returns when it is on disk. The action has
// been taken: what the journal cannot take it writes to the log.
func (c *Control) record(ctx context.Context, e journal.Entry) {
	e.Kind, e.Time = journal.ActionEntry, c.opts.Now()
	attrs := []slog.Attr{slog.String("action", e.Action), slog.String("author", e.User), slog.String("reason", e.Reason)}
	if e.Detail != "" {
		attrs = append(attrs, slog.String("detail", e.Detail))
	}
	if e.Outcome != "" {
		attrs = append(attrs, slog.String("outcome", e.Outcome))
	}
	c.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "operator's action", attrs...)
	c.metrics.actions.WithLabelValues(e.Action, e.Outcome).Inc()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalWait)
	defer cancel()
	if err := c.opts.Journal.SubmitDurable(ctx, e); err != nil {
		c.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "operator's action is not in the journal yet", slog.String("cause", err.Error()))
	}
}

// outcome is how an action ended, for its record.
func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// Containments returns what is in force, with the state of read-only's
// barriers.
func (c *Control) Containments() []InForce {
	now := c.opts.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []InForce{}
	for _, o := range c.state.Containments {
		if !o.Active(now) {
			continue
		}
		f := InForce{Containment: o}
		if b, ok := c.barriers[o.ID]; ok {
			f.Barrier = &b
		}
		out = append(out, f)
	}
	return out
}

// InForce is a containment and, for read-only, how far its barrier is.
type InForce struct {
	policy.Containment
	Barrier *Barrier `json:"barrier,omitempty"`
}

// Barrier is how far read-only's barrier is.
type Barrier struct {
	Holds   bool                  `json:"holds"`
	Reports []proxy.BarrierReport `json:"servers,omitempty"` // one for each server, when it holds
	Waits   string                `json:"waits,omitempty"`   // what it waits for, or why it is not known to hold
}
