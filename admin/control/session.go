package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lockkeeper/inspect/catalog"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// Sessions lists the live sessions; none before the proxy serves.
func (c *Control) Sessions() []proxy.SessionInfo {
	p, err := c.attached()
	if err != nil {
		return []proxy.SessionInfo{}
	}
	return p.Sessions()
}

// Cancel cancels what a session runs, or what is held of it.
func (c *Control) Cancel(ctx context.Context, id uint64, by By) error {
	return c.act(ctx, "cancel", id, by, Proxy.CancelSession)
}

// Terminate closes both sides of a session.
func (c *Control) Terminate(ctx context.Context, id uint64, by By) error {
	return c.act(ctx, "terminate", id, by, Proxy.TerminateSession)
}

func (c *Control) act(ctx context.Context, action string, id uint64, by By, do func(Proxy, context.Context, uint64) error) error {
	if err := by.validate(); err != nil {
		return err
	}
	p, err := c.attached()
	if err != nil {
		return err
	}
	victim, ok := find(p.Sessions(), id)
	if !ok {
		return &Error{Kind: NotFound, What: fmt.Sprintf("there is no session %d", id), Hint: "`lockkeeper sessions` lists them."}
	}
	err = do(p, ctx, id)
	c.record(ctx, journal.Entry{
		Action: action, User: by.Author, Reason: by.Reason, Outcome: outcome(err), Session: id, ServerPID: victim.ServerPID,
		Database: victim.Database, Application: victim.Application, Address: victim.Address, Fingerprint: victim.Fingerprint,
		Detail: fmt.Sprintf("session %d of user %s", id, victim.User),
	})
	if err != nil {
		return &Error{Kind: Failed, What: fmt.Sprintf("%s session %d", action, id), Err: err}
	}
	return nil
}

func find(list []proxy.SessionInfo, id uint64) (proxy.SessionInfo, bool) {
	for i := range list {
		if list[i].ID == id {
			return list[i], true
		}
	}
	return proxy.SessionInfo{}, false
}

// The modes that Status tells.
const (
	ModeNormal   = "normal"
	ModeReadOnly = "read-only"
	ModeHold     = "hold"
	ModeObserve  = "observe"
)

// Status is what operators look at first.
type Status struct {
	Mode         string         `json:"mode"`   // the strictest that is in force for anybody
	Scoped       bool           `json:"scoped"` // it is in force for some only
	Since        time.Time      `json:"since"`  // of the mode
	Now          time.Time      `json:"now"`
	Started      time.Time      `json:"started"`
	Epoch        uint64         `json:"epoch"`
	Containments []InForce      `json:"containments"`
	Profile      string         `json:"profile"`
	Rules        int            `json:"rules"`
	PolicyFile   string         `json:"policy_file"`
	PolicyLoaded time.Time      `json:"policy_loaded"`
	Sessions     map[string]int `json:"sessions"` // by state
	SessionCount int            `json:"session_count"`

	Catalogs []catalog.State `json:"catalogs"` // of the databases in use

	Unsaved string `json:"unsaved,omitempty"` // why what is in force is not on disk, where it is not
}

// Status returns what operators look at first.
func (c *Control) Status() Status {
	info := c.Policy()
	s := Status{
		Mode: ModeNormal, Since: c.started, Now: c.opts.Now(), Started: c.started, Containments: c.Containments(),
		Profile: info.Profile, Rules: len(info.Rules), PolicyFile: info.Source.File, PolicyLoaded: info.LoadedAt,
		Sessions: map[string]int{}, Epoch: c.opts.Decider.Current().Epoch, Catalogs: c.opts.Catalogs.States(),
	}
	if err := c.Unsaved(); err != nil {
		s.Unsaved = err.Error()
	}
	s.setMode(policy.ObserveMode, ModeObserve)
	s.setMode(policy.ReadOnlyMode, ModeReadOnly)
	if s.Mode == ModeReadOnly && s.onlyHolds() {
		s.Mode = ModeHold
	}
	for _, one := range c.Sessions() {
		s.Sessions[one.State]++
		s.SessionCount++
	}
	return s
}

// onlyHolds reports whether every read-only containment is one of mode hold.
func (s *Status) onlyHolds() bool {
	for i := range s.Containments {
		if o := &s.Containments[i]; o.Kind == policy.ReadOnlyMode && !o.Holds() {
			return false
		}
	}
	return true
}

// WritableTables returns, sorted, what some read-only containment in force lets
// be written.
func (s *Status) WritableTables() []string {
	var all []string
	for i := range s.Containments {
		all = append(all, s.Containments[i].Writable...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// setMode sets the mode if a containment of the kind is in force, unscoped
// ones first.
func (s *Status) setMode(kind policy.ContainmentKind, mode string) {
	found := false
	for i := range s.Containments {
		o := &s.Containments[i]
		scoped := o.Scope != policy.Scope{}
		if o.Kind != kind || found && scoped {
			continue
		}
		s.Mode, s.Scoped, s.Since = mode, scoped, o.Since
		found = true
	}
}

// Ready reports why lockkeeper should get no clients; nil when it should.
func (c *Control) Ready() error {
	if _, err := c.attached(); err != nil {
		return err
	}
	c.proxyMu.Lock()
	defer c.proxyMu.Unlock()
	if c.draining {
		return &Error{Kind: Unavailable, What: "lockkeeper is shutting down"}
	}
	return nil
}
