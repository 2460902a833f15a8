package api

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

func (h *Handler) healthz(*http.Request) (any, error) { return Done{Done: true}, nil }

func (h *Handler) readyz(*http.Request) (any, error) {
	if err := h.deps.Control.Ready(); err != nil {
		return nil, err
	}
	return Done{Done: true}, nil
}

func (h *Handler) status(*http.Request) (any, error) {
	s := Status{Version: h.deps.Version, JournalFailing: h.deps.Journal.Failing(), Status: h.deps.Control.Status()}
	if h.deps.Unwatched != nil {
		s.Unwatched = h.deps.Unwatched()
	}
	return s, nil
}

func (h *Handler) sessions(*http.Request) (any, error) {
	return SessionList{Sessions: h.deps.Control.Sessions()}, nil
}

func (h *Handler) cancel(r *http.Request) (any, error) { return onSession(r, h.deps.Control.Cancel) }

func (h *Handler) terminate(r *http.Request) (any, error) {
	return onSession(r, h.deps.Control.Terminate)
}

func onSession(r *http.Request, do func(context.Context, uint64, control.By) error) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, &control.Error{Kind: control.Invalid, What: "a session's id is a number", Hint: "`lockkeeper sessions` lists them."}
	}
	req, err := read[ReasonRequest](r)
	if err != nil {
		return nil, err
	}
	if err := do(r.Context(), id, by(r, req.Reason)); err != nil {
		return nil, err
	}
	return Done{Done: true}, nil
}

func (h *Handler) getMode(*http.Request) (any, error) {
	s := h.deps.Control.Status()
	list := h.of(policy.ReadOnlyMode).Containments
	return Mode{Mode: s.Mode, Scoped: s.Scoped, Containments: append(list, h.of(policy.ObserveMode).Containments...)}, nil
}

func (h *Handler) setMode(r *http.Request) (any, error) {
	req, err := read[ModeRequest](r)
	if err != nil {
		return nil, err
	}
	who := by(r, req.Reason)
	switch req.Mode {
	case control.ModeReadOnly, control.ModeHold:
		hold := time.Duration(req.MaxHold)
		if req.Mode == control.ModeHold && hold == 0 {
			hold = control.DefaultMaxHold
		}
		if req.Mode == control.ModeReadOnly && hold != 0 {
			return nil, &control.Error{Kind: control.Invalid, What: "read-only holds nothing", Hint: "Use mode hold, or leave max_hold out."}
		}
		// The switch is seen through even if the client goes away.
		in, err := h.deps.Control.SetReadOnly(context.WithoutCancel(r.Context()), control.ReadOnly{
			Scope: req.Scope, InFlight: req.InFlight, Drain: time.Duration(req.Drain),
			MaxWait: time.Duration(req.MaxWait), For: time.Duration(req.For), Hold: hold, Except: req.Except,
			Writable: req.Writable, NoWritable: req.NoWritable,
		}, who)
		if err != nil {
			return nil, err
		}
		return Change{Began: &in}, nil
	case control.ModeNormal:
		lifted, err := h.deps.Control.SetNormal(r.Context(), req.Scope, who)
		return Change{Lifted: lifted}, err
	case control.ModeObserve:
		c, err := h.deps.Control.Observe(r.Context(), req.Scope, time.Duration(req.For), who)
		if err != nil {
			return nil, err
		}
		return Change{Began: asInForce(c)}, nil
	}
	return nil, &control.Error{Kind: control.Invalid, What: "unknown mode " + strconv.Quote(req.Mode), Hint: "Use read-only, hold, normal or observe."}
}

func (h *Handler) containments(*http.Request) (any, error) {
	return ContainmentList{Containments: h.deps.Control.Containments()}, nil
}

func (h *Handler) lift(r *http.Request) (any, error) {
	req, err := read[ReasonRequest](r)
	if err != nil {
		return nil, err
	}
	c, err := h.deps.Control.Lift(r.Context(), r.PathValue("id"), by(r, req.Reason))
	if err != nil {
		return nil, err
	}
	return Change{Lifted: []policy.Containment{c}}, nil
}

// of returns what is in force of one kind.
func (h *Handler) of(kind policy.ContainmentKind) ContainmentList {
	list := ContainmentList{Containments: []control.InForce{}}
	for _, c := range h.deps.Control.Containments() {
		if c.Kind == kind {
			list.Containments = append(list.Containments, c)
		}
	}
	return list
}

func (h *Handler) getFreeze(*http.Request) (any, error) { return h.of(policy.FreezeDDL), nil }

func (h *Handler) freeze(r *http.Request) (any, error) {
	req, err := read[FreezeRequest](r)
	if err != nil {
		return nil, err
	}
	c, err := h.deps.Control.Freeze(r.Context(), req.Scope, time.Duration(req.For), by(r, req.Reason))
	if err != nil {
		return nil, err
	}
	return Change{Began: asInForce(c)}, nil
}

func (h *Handler) unfreeze(r *http.Request) (any, error) {
	req, err := read[LiftRequest](r)
	if err != nil {
		return nil, err
	}
	lifted, err := h.deps.Control.Unfreeze(r.Context(), req.Scope, by(r, req.Reason))
	return Change{Lifted: lifted}, err
}

func (h *Handler) getPauses(*http.Request) (any, error) { return h.of(policy.Pause), nil }

func (h *Handler) pause(r *http.Request) (any, error) {
	req, err := read[PauseRequest](r)
	if err != nil {
		return nil, err
	}
	c, err := h.deps.Control.Pause(r.Context(), control.PauseOptions{
		Scope: req.Scope, Refuse: req.Refuse, MaxHold: time.Duration(req.MaxHold), For: time.Duration(req.For),
	}, by(r, req.Reason))
	if err != nil {
		return nil, err
	}
	return Change{Began: asInForce(c)}, nil
}

func (h *Handler) resume(r *http.Request) (any, error) {
	req, err := read[LiftRequest](r)
	if err != nil {
		return nil, err
	}
	lifted, err := h.deps.Control.Resume(r.Context(), req.Scope, by(r, req.Reason))
	return Change{Lifted: lifted}, err
}

// locks asks all servers at the same time: one that does not answer should
// not hide the others.
func (h *Handler) locks(r *http.Request) (any, error) {
	list := LockList{Servers: make([]ServerLocks, len(h.deps.Locks))}
	var asked sync.WaitGroup
	for i, s := range h.deps.Locks {
		asked.Add(1)
		go snapshot(r.Context(), s, h.deps.Control.Sessions, &list.Servers[i], &asked)
	}
	asked.Wait()
	return list, nil
}

// snapshot is a goroutine of locks.
func snapshot(ctx context.Context, s *locks.Server, sessions func() []proxy.SessionInfo, to *ServerLocks, asked *sync.WaitGroup) {
	defer asked.Done()
	to.Server = s.Name
	snap, err := s.Snapshot(ctx, sessions)
	if err != nil {
		to.Error = err.Error()
		return
	}
	to.Snapshot = snap
}

func (h *Handler) policy(*http.Request) (any, error) { return h.deps.Control.Policy(), nil }

func (h *Handler) checkPolicy(r *http.Request) (any, error) {
	req, err := read[PolicyText](r)
	if err != nil {
		return nil, err
	}
	return h.deps.Control.CheckPolicy(req.Policy)
}

func (h *Handler) reloadPolicy(r *http.Request) (any, error) {
	req, err := read[ReasonRequest](r)
	if err != nil {
		return nil, err
	}
	return h.deps.Control.Reload(r.Context(), by(r, req.Reason))
}

func (h *Handler) explain(r *http.Request) (any, error) {
	req, err := read[ExplainRequest](r)
	if err != nil {
		return nil, err
	}
	tx := policy.TxIdle
	if req.InTransaction {
		tx = policy.TxActive
	}
	sub := policy.Subject{User: req.User, Database: req.Database, Application: req.Application, Address: req.Address, Tags: req.Tags}
	e, err := h.deps.Control.Explain(r.Context(), sub, req.SQL, tx)
	if err != nil {
		return nil, err
	}
	return Explanation{Explanation: e, Text: e.Text()}, nil
}

func (h *Handler) journal(r *http.Request) (any, error) {
	f, err := h.filter(r)
	if err != nil {
		return nil, err
	}
	entries, err := h.deps.Journal.Query(r.Context(), f)
	if err != nil {
		return nil, err
	}
	return JournalList{Entries: entries}, nil
}

func (h *Handler) filter(r *http.Request) (journal.Filter, error) {
	q := r.URL.Query()
	f := journal.Filter{
		Table: q.Get("table"), User: q.Get("user"), Database: q.Get("database"), Kind: journal.Kind(q.Get("kind")), Rule: q.Get("rule"),
	}
	var err error
	if f.Since, err = h.timeOrAgo("since", q.Get("since")); err != nil {
		return f, err
	}
	if f.Until, err = h.timeOrAgo("until", q.Get("until")); err != nil {
		return f, err
	}
	if s := q.Get("session"); s != "" {
		if f.Session, err = strconv.ParseUint(s, 10, 64); err != nil {
			return f, &control.Error{Kind: control.Invalid, What: "session is not a number"}
		}
	}
	if s := q.Get("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil || f.Limit < 1 {
			return f, &control.Error{Kind: control.Invalid, What: "limit is not a positive number"}
		}
	}
	return f, nil
}

// timeOrAgo reads "30m" (so long ago) or a time.
func (h *Handler) timeOrAgo(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return h.deps.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, &control.Error{
			Kind: control.Invalid, What: name + " is neither a duration nor a time",
			Hint: "Use 30m for the last half hour, or 2006-01-02T15:04:05Z.",
		}
	}
	return t, nil
}
