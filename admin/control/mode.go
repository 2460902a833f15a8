package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// The defaults of changes that do not say.
const (
	DefaultMaxWait = 5 * time.Minute  // read-only, finish: how long transactions may go on
	DefaultMaxHold = 30 * time.Second // pause: how long a statement waits
)

// barrierGrace is how long the barrier may take beyond the time that
// transactions in flight were given.
const barrierGrace = 30 * time.Second

// maxDuration bounds every duration that an operator gives.
const maxDuration = 365 * 24 * time.Hour

// ReadOnly says how to switch to read-only.
type ReadOnly struct {
	Scope    policy.Scope
	InFlight policy.InFlight // Finish where it is empty
	Drain    time.Duration   // Drain: how long transactions may go on
	MaxWait  time.Duration   // Finish: the same; DefaultMaxWait where it is 0
	For      time.Duration   // 0: until lifted
	Hold     time.Duration   // mode hold: how long what may write waits before it is treated as in read-only; 0 is read-only
	Except   []string        // users, or patterns of them, who may write all the same

	Writable   []string // tables that may be written all the same; those of the policy where it is empty
	NoWritable bool     // none may be
}

// maxExcept bounds the users who may write all the same.
const maxExcept = 32

// action names the switch in the journal.
func (r *ReadOnly) action() string {
	if r.Hold > 0 {
		return "mode hold"
	}
	return "mode read-only"
}

func (r *ReadOnly) validate() error {
	if r.Hold < 0 || r.Hold > maxDuration {
		return invalid("", "a hold must be between 0 and %s", maxDuration)
	}
	if len(r.Except) > maxExcept {
		return invalid("Use a pattern, as in repair_*.", "there are more than %d exceptions", maxExcept)
	}
	if r.NoWritable && len(r.Writable) > 0 {
		return invalid("Choose one.", "no table may be written, and some are named")
	}
	if len(r.Writable) > policy.MaxWritable {
		return invalid("", "more than %d tables may be written", policy.MaxWritable)
	}
	for _, table := range r.Writable {
		if wrong := policy.CheckWritable(table); wrong != "" {
			return invalid("", "%s", wrong)
		}
	}
	for _, user := range r.Except {
		if strings.Trim(user, "*") == "" {
			return invalid("Name a user, or a pattern as in repair_*.", "an exception for %q is one for everybody", user)
		}
	}
	return nil
}

// drainFor returns how long transactions in flight may go on.
func (r *ReadOnly) drainFor() (time.Duration, error) {
	if r.Drain < 0 || r.MaxWait < 0 || r.Drain > maxDuration || r.MaxWait > maxDuration {
		return 0, invalid("", "a wait must be between 0 and %s", maxDuration)
	}
	switch r.InFlight {
	case policy.Finish:
		if r.MaxWait == 0 {
			return DefaultMaxWait, nil
		}
		return r.MaxWait, nil
	case policy.Drain:
		if r.Drain == 0 {
			return 0, invalid("Say --in-flight drain=10s.", "drain needs a duration")
		}
		return r.Drain, nil
	case policy.RefuseCommit:
		return 0, nil
	}
	return 0, invalid("Use finish, drain=DURATION or refuse-commit.", "unknown treatment of transactions in flight %q", r.InFlight)
}

// SetReadOnly puts read-only in force and returns when its barrier holds:
// from then on nothing that came through lockkeeper can commit a change. When
// the barrier cannot be reached read-only stays in force, and the error, of
// kind Incomplete, says what it waits for.
func (c *Control) SetReadOnly(ctx context.Context, r ReadOnly, by By) (InForce, error) {
	if r.InFlight == "" {
		r.InFlight = policy.Finish
	}
	drain, err := r.drainFor()
	if err == nil {
		err = r.validate()
	}
	if err != nil {
		return InForce{}, err
	}
	p, err := c.attached()
	if err != nil {
		return InForce{}, err
	}
	n := policy.Containment{
		Kind: policy.ReadOnlyMode, Scope: r.Scope, InFlight: r.InFlight, MaxHold: policy.Duration(r.Hold), Except: r.Except,
		Writable: c.writable(&r),
	}
	if drain > 0 {
		n.DrainUntil = c.opts.Now().UTC().Add(drain)
	}
	n, unsaved := c.addRecorded(ctx, r.action(), n, r.For, by)
	if unsaved != nil && !isUnsaved(unsaved) {
		return InForce{Containment: n}, unsaved
	}
	in, err := c.awaitBarrier(ctx, p, n, max(0, n.DrainUntil.Sub(c.opts.Now()))+barrierGrace)
	if err == nil && unsaved != nil {
		err = notOnDisk(in.Barrier.describe(n.ID), errors.Unwrap(unsaved))
	}
	return in, err
}

// writable returns the tables that may be written during read-only.
func (c *Control) writable(r *ReadOnly) []string {
	snap := c.opts.Decider.Current()
	if r.NoWritable || len(r.Writable) > 0 || snap == nil || snap.Policy == nil {
		return r.Writable
	}
	return snap.Policy.WritableTables()
}

// awaitBarrier waits until the containment holds, and keeps and records how
// that ended.
func (c *Control) awaitBarrier(ctx context.Context, p Proxy, n policy.Containment, wait time.Duration) (InForce, error) {
	c.setBarrier(n.ID, Barrier{Waits: "transactions in flight"})
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	reports, err := p.Barrier(ctx, n)
	b := Barrier{Holds: err == nil, Reports: reports}
	if err == nil && !c.inForce(n.ID) {
		err = errors.New("it was lifted or replaced meanwhile")
	}
	if err != nil {
		b = Barrier{Waits: err.Error(), Reports: reports}
	}
	c.setBarrier(n.ID, b)
	e := journal.Entry{Action: "read-only barrier", User: n.Author, Reason: n.Reason, Outcome: outcome(err), Detail: b.describe(n.ID)}
	c.record(ctx, e)
	if err != nil {
		return InForce{Containment: n, Barrier: &b}, &Error{
			Kind: Incomplete,
			What: "read-only is in force, but is not known to hold for what was in flight",
			Hint: "Look at `lockkeeper sessions`, then run the command again, with --in-flight refuse-commit to end what is in flight.",
			Err:  err,
		}
	}
	return InForce{Containment: n, Barrier: &b}, nil
}

func (c *Control) setBarrier(id string, b Barrier) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.state.Containments {
		if c.state.Containments[i].ID == id {
			c.barriers[id] = b
			return
		}
	}
	delete(c.barriers, id)
}

func (c *Control) inForce(id string) bool {
	now := c.opts.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.state.Containments {
		if o := &c.state.Containments[i]; o.ID == id && o.Active(now) {
			return true
		}
	}
	return false
}

func (b *Barrier) describe(id string) string {
	if !b.Holds {
		return id + ": " + b.Waits
	}
	var parts []string
	for _, r := range b.Reports {
		lsn := r.LSN
		if lsn == "" {
			lsn = "position unknown"
		}
		parts = append(parts, fmt.Sprintf("server %s: %s, %s", r.Target, lsn, r.Time.UTC().Format(time.RFC3339Nano)))
	}
	return strings.TrimSuffix(id+" holds; "+strings.Join(parts, "; "), "; ")
}

// SetNormal lifts read-only and observe of the scope, or all of both where
// the scope is empty, and returns what it lifted.
func (c *Control) SetNormal(ctx context.Context, scope policy.Scope, by By) ([]policy.Containment, error) {
	return c.liftKinds(ctx, "mode normal", scope, by, policy.ReadOnlyMode, policy.ObserveMode)
}

// Observe puts the break-glass mode in force: rules are counted and
// journalled, and not acted on. Read-only, freeze and pauses stay in force.
func (c *Control) Observe(ctx context.Context, scope policy.Scope, lifetime time.Duration, by By) (policy.Containment, error) {
	return c.addRecorded(ctx, "mode observe", policy.Containment{Kind: policy.ObserveMode, Scope: scope}, lifetime, by)
}

// Freeze refuses DDL in the scope.
func (c *Control) Freeze(ctx context.Context, scope policy.Scope, lifetime time.Duration, by By) (policy.Containment, error) {
	return c.addRecorded(ctx, "freeze ddl", policy.Containment{Kind: policy.FreezeDDL, Scope: scope}, lifetime, by)
}

// Unfreeze lifts freezes of the scope, or all where it is empty.
func (c *Control) Unfreeze(ctx context.Context, scope policy.Scope, by By) ([]policy.Containment, error) {
	return c.liftKinds(ctx, "freeze off", scope, by, policy.FreezeDDL)
}

// PauseOptions say how to pause.
type PauseOptions struct {
	Scope   policy.Scope
	Refuse  bool          // refuse at once instead of holding
	MaxHold time.Duration // hold for at most this long, then refuse; DefaultMaxHold where it is 0
	For     time.Duration // 0: until lifted
}

// Pause holds or refuses new transactions in the scope.
func (c *Control) Pause(ctx context.Context, o PauseOptions, by By) (policy.Containment, error) {
	n := policy.Containment{Kind: policy.Pause, Scope: o.Scope, Refuse: o.Refuse, MaxHold: policy.Duration(o.MaxHold)}
	switch {
	case o.MaxHold < 0 || o.MaxHold > maxDuration:
		return n, invalid("", "a hold must be between 0 and %s", maxDuration)
	case o.Refuse && o.MaxHold != 0:
		return n, invalid("Choose one.", "a pause that refuses at once holds nothing")
	case !o.Refuse && o.MaxHold == 0:
		n.MaxHold = policy.Duration(DefaultMaxHold)
	}
	return c.addRecorded(ctx, "pause", n, o.For, by)
}

// Resume lifts the pauses of the scope, or all where it is empty.
func (c *Control) Resume(ctx context.Context, scope policy.Scope, by By) ([]policy.Containment, error) {
	return c.liftKinds(ctx, "resume", scope, by, policy.Pause)
}

// Lift ends one containment, whatever its kind.
func (c *Control) Lift(ctx context.Context, id string, by By) (policy.Containment, error) {
	if err := by.validate(); err != nil {
		return policy.Containment{}, err
	}
	lifted, err := c.lift(func(o *policy.Containment) bool { return o.ID == id })
	if refused(err) {
		return policy.Containment{}, err
	}
	if len(lifted) == 0 {
		return policy.Containment{}, &Error{Kind: NotFound, What: "no containment " + id + " is in force", Hint: "`lockkeeper status` lists them."}
	}
	c.record(ctx, journal.Entry{Action: "lift", User: by.Author, Reason: by.Reason, Outcome: outcome(err), Detail: describeAll(lifted)})
	return lifted[0], err
}

func (c *Control) addRecorded(ctx context.Context, action string, n policy.Containment, lifetime time.Duration, by By) (policy.Containment, error) {
	n, err := c.add(n, by, lifetime)
	if refused(err) {
		return n, err
	}
	c.record(ctx, journal.Entry{Action: action, User: by.Author, Reason: by.Reason, Outcome: outcome(err), Detail: describe(&n)})
	return n, err
}

func (c *Control) liftKinds(ctx context.Context, action string, scope policy.Scope, by By, kinds ...policy.ContainmentKind) ([]policy.Containment, error) {
	if err := by.validate(); err != nil {
		return nil, err
	}
	lifted, err := c.lift(func(o *policy.Containment) bool {
		for _, k := range kinds {
			if o.Kind == k && (scope == policy.Scope{} || o.Scope == scope) {
				return true
			}
		}
		return false
	})
	if refused(err) {
		return nil, err
	}
	detail := describeAll(lifted)
	if len(lifted) == 0 {
		detail = "nothing was in force"
	}
	c.record(ctx, journal.Entry{Action: action, User: by.Author, Reason: by.Reason, Outcome: outcome(err), Detail: detail})
	return lifted, err
}

// validateScope refuses patterns that match nothing by mistake.
func validateScope(s policy.Scope) error {
	if _, err := path.Match(s.Application, ""); err != nil {
		return invalid(`Use * for any letters, as in "odoo-*".`, "application %q is no pattern", s.Application)
	}
	return nil
}

// describe says in words what a containment does; its reason and author stand
// elsewhere.
func describe(o *policy.Containment) string {
	parts := []string{o.ID, "for " + describeScope(o.Scope)}
	if o.InFlight != "" {
		parts = append(parts, "in flight: "+string(o.InFlight))
	}
	if !o.DrainUntil.IsZero() {
		parts = append(parts, "which may go on until "+o.DrainUntil.Format(time.RFC3339))
	}
	if len(o.Except) > 0 {
		parts = append(parts, "except user "+strings.Join(o.Except, ", "))
	}
	if len(o.Writable) > 0 {
		parts = append(parts, "but for writes to "+strings.Join(o.Writable, ", "))
	}
	if o.Kind == policy.Pause && o.Refuse {
		parts = append(parts, "refused at once")
	}
	if o.MaxHold > 0 {
		parts = append(parts, "held for at most "+time.Duration(o.MaxHold).String())
	}
	if !o.Until.IsZero() {
		parts = append(parts, "until "+o.Until.Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

func describeAll(list []policy.Containment) string {
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = describe(&list[i])
	}
	return strings.Join(parts, "; ")
}

// describeScope names the subjects in a scope.
func describeScope(s policy.Scope) string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"database", s.Database}, {"user", s.User}, {"application", s.Application}, {"tag", s.Tag},
	} {
		if f.value != "" {
			parts = append(parts, f.name+" "+f.value)
		}
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// Run ends containments whose time has come, writes what the disk did not take
// and, once at the beginning, sees to the barrier of a read-only mode that was in
// force before. It returns when ctx is done.
func (c *Control) Run(ctx context.Context) error {
	restored := make(chan struct{})
	go c.restoreBarriers(ctx, restored)
	defer func() { <-restored }()
	for {
		wait := time.NewTimer(c.untilNextEnd())
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-c.changed:
		case <-wait.C:
			if c.mayChange() != nil {
				c.backOff(ctx, time.Second) // somebody else does it, or in a moment
				break
			}
			c.trySaving(ctx)
			c.expire(ctx)
		}
		wait.Stop()
	}
}

// restoreBarriers waits for the barriers of read-only modes from before the
// start: server processes of then may still run.
func (c *Control) restoreBarriers(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	p, err := c.attached()
	if err != nil {
		return
	}
	for _, o := range c.Containments() {
		if o.Kind != policy.ReadOnlyMode || o.Barrier != nil {
			continue
		}
		drain := max(0, o.DrainUntil.Sub(c.opts.Now()))
		if _, err := c.awaitBarrier(ctx, p, o.Containment, drain+barrierGrace); err != nil {
			c.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "read-only from before the start is not known to hold",
				slog.String("containment", o.ID), slog.String("cause", err.Error()))
		}
	}
}

// idleWait is how long Run sleeps where nothing has an end: until something
// changes, in effect.
const idleWait = time.Hour

func (c *Control) untilNextEnd() time.Duration {
	now := c.opts.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := idleWait
	if c.unsaved != nil {
		wait = saveAgain
	}
	for i := range c.state.Containments {
		if o := &c.state.Containments[i]; !o.Until.IsZero() {
			wait = min(wait, max(0, o.Until.Sub(now)))
		}
	}
	return wait
}

// expire removes what is no longer in force. The policy stopped to heed it at
// its end already; here the file and the journal learn of it.
func (c *Control) expire(ctx context.Context) {
	now := c.opts.Now()
	ended, err := c.lift(func(o *policy.Containment) bool { return !o.Active(now) })
	if refused(err) {
		c.opts.Logger.LogAttrs(ctx, slog.LevelError, "expired containments stay in the state file", slog.String("cause", err.Error()))
		c.backOff(ctx, time.Minute)
		return
	}
	for i := range ended {
		e := &ended[i]
		c.record(ctx, journal.Entry{Action: "expired", User: e.Author, Reason: e.Reason, Outcome: "ok", Detail: string(e.Kind) + ": " + describe(e)})
	}
}

// backOff keeps expire from trying again at once.
func (c *Control) backOff(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}
