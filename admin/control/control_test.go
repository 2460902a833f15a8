package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// fakeProxy records what control asks of it.
type fakeProxy struct {
	mu        sync.Mutex
	wakes     int
	cancelled []uint64
	barrier   func(context.Context, policy.Containment) ([]proxy.BarrierReport, error)
	failing   error
}

func (f *fakeProxy) Sessions() []proxy.SessionInfo {
	return []proxy.SessionInfo{{ID: 7, User: "odoo", Database: "prod", State: "active", ServerPID: 11}}
}

func (f *fakeProxy) CancelSession(_ context.Context, id uint64) error {
	f.cancelled = append(f.cancelled, id)
	return f.failing
}

func (f *fakeProxy) TerminateSession(context.Context, uint64) error { return f.failing }

func (f *fakeProxy) Wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakes++
}

func (f *fakeProxy) Barrier(ctx context.Context, c policy.Containment) ([]proxy.BarrierReport, error) {
	if f.barrier != nil {
		return f.barrier(ctx, c)
	}
	return []proxy.BarrierReport{{Target: "*", LSN: "0/1", Time: time.Unix(1, 0)}}, nil
}

// memory is a journal in memory.
type memory struct {
	mu      sync.Mutex
	entries []journal.Entry
	failing error
}

func (m *memory) Submit(e journal.Entry) { _ = m.SubmitDurable(context.Background(), e) }

func (m *memory) SubmitDurable(_ context.Context, e journal.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, e)
	return m.failing
}

// actions lists what was recorded, as "action outcome".
func (m *memory) actions() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, e := range m.entries {
		all = append(all, e.Action+" "+e.Outcome)
	}
	return strings.Join(all, ", ")
}

type noInspector struct{}

func (noInspector) Inspect(context.Context, []byte, inspect.Lexing) *inspect.Batch {
	return inspect.NewUnknown("test", nil)
}

// fixture is a control with its surroundings.
type fixture struct {
	*Control
	path    string
	proxy   *fakeProxy
	journal *memory
	decider *policy.Decider
	policy  string
	err     error
}

func open(t *testing.T, path string) *fixture {
	t.Helper()
	f := &fixture{path: path, proxy: &fakeProxy{}, journal: &memory{}, decider: &policy.Decider{}, policy: "profile: odoo\n"}
	if path == "" {
		f.path = filepath.Join(t.TempDir(), "state.json")
	}
	f.Control, f.err = Open(Options{
		StatePath: f.path, Decider: f.decider, Inspector: noInspector{}, Journal: f.journal,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		LoadPolicy: func() (*policy.Policy, Source, error) {
			p, err := policy.Parse([]byte(f.policy), "p.yaml")
			return p, Source{File: "p.yaml", Text: f.policy}, err
		},
	})
	if f.err == nil {
		f.Attach(f.proxy)
	}
	return f
}

var me = By{Author: "ann", Reason: "incident 42"}

// kind returns the kind of control's error.
func kind(t *testing.T, err error) ErrorKind {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want a control.Error", err)
	}
	return e.Kind
}

func TestReadOnlyIsPersistedThenInForceThenAwaited(t *testing.T) {
	f := open(t, "")
	if f.err != nil {
		t.Fatal(f.err)
	}
	before := f.decider.Current().Epoch
	f.proxy.barrier = func(_ context.Context, c policy.Containment) ([]proxy.BarrierReport, error) {
		onDisk, err := loadState(f.path)
		if err != nil || len(onDisk.Containments) != 1 || onDisk.Containments[0].ID != c.ID {
			t.Errorf("at the barrier the file holds %+v, %v", onDisk, err)
		}
		snap := f.decider.Current()
		if len(snap.Containments) != 1 || snap.Epoch != before+1 || snap.Containments[0].Epoch != snap.Epoch {
			t.Errorf("at the barrier epoch %d (before: %d) with %+v is in force", snap.Epoch, before, snap.Containments)
		}
		if f.proxy.wakes == 0 {
			t.Error("sessions were not woken")
		}
		return []proxy.BarrierReport{{Target: "*", LSN: "0/ABC"}}, nil
	}
	got, err := f.SetReadOnly(t.Context(), ReadOnly{InFlight: policy.RefuseCommit}, me)
	if err != nil || got.Barrier == nil || !got.Barrier.Holds || got.Barrier.Reports[0].LSN != "0/ABC" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got.Author != "ann" || got.Reason != "incident 42" || got.Since.IsZero() || !got.DrainUntil.IsZero() {
		t.Errorf("the containment is %+v", got.Containment)
	}
	if want := "mode read-only ok, read-only barrier ok"; f.journal.actions() != want {
		t.Errorf("journal: %s, want %s", f.journal.actions(), want)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info.Mode(), err)
	}
}

func TestReadOnlyStaysWhereTheBarrierFails(t *testing.T) {
	f := open(t, "")
	f.proxy.barrier = func(context.Context, policy.Containment) ([]proxy.BarrierReport, error) {
		return nil, errors.New("waiting for session 7")
	}
	_, err := f.SetReadOnly(t.Context(), ReadOnly{}, me)
	if kind(t, err) != Incomplete || !strings.Contains(err.Error(), "session 7") {
		t.Errorf("got %v", err)
	}
	in := f.Containments()
	if len(in) != 1 || in[0].Barrier == nil || in[0].Barrier.Holds || f.Status().Mode != ModeReadOnly {
		t.Errorf("in force: %+v", in)
	}
	if want := "mode read-only ok, read-only barrier error"; f.journal.actions() != want {
		t.Errorf("journal: %s, want %s", f.journal.actions(), want)
	}
}

func TestReadOnlyThatIsLiftedMeanwhileDoesNotHold(t *testing.T) {
	f := open(t, "")
	f.proxy.barrier = func(ctx context.Context, _ policy.Containment) ([]proxy.BarrierReport, error) {
		if _, err := f.SetNormal(ctx, policy.Scope{}, me); err != nil {
			t.Error(err)
		}
		return nil, nil
	}
	if _, err := f.SetReadOnly(t.Context(), ReadOnly{}, me); kind(t, err) != Incomplete {
		t.Errorf("got %v", err)
	}
	if len(f.Containments()) != 0 {
		t.Errorf("in force: %+v", f.Containments())
	}
}

func TestBarrierIsWaitedForAsLongAsTransactionsMayGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			r    ReadOnly
			want time.Duration
		}{
			{ReadOnly{}, DefaultMaxWait},
			{ReadOnly{InFlight: policy.Finish, MaxWait: time.Minute}, time.Minute},
			{ReadOnly{InFlight: policy.Drain, Drain: 10 * time.Second}, 10 * time.Second},
			{ReadOnly{InFlight: policy.RefuseCommit}, 0},
		} {
			f := open(t, "")
			f.proxy.barrier = func(ctx context.Context, c policy.Containment) ([]proxy.BarrierReport, error) {
				if test.want > 0 && time.Until(c.DrainUntil) != test.want {
					t.Errorf("%+v: transactions may go on for %s", test.r, time.Until(c.DrainUntil))
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			began := time.Now()
			if _, err := f.SetReadOnly(t.Context(), test.r, me); kind(t, err) != Incomplete {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took != test.want+barrierGrace {
				t.Errorf("%+v: waited for %s", test.r, took)
			}
		}
	})
}

func TestStateSurvivesARestart(t *testing.T) {
	f := open(t, "")
	if _, err := f.SetReadOnly(t.Context(), ReadOnly{Scope: policy.Scope{Database: "prod"}}, me); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Pause(t.Context(), PauseOptions{Scope: policy.Scope{Tag: "cron"}, For: time.Hour}, me); err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(f.decider.Current().Containments)
	if err != nil {
		t.Fatal(err)
	}
	epoch := f.decider.Current().Epoch
	f = open(t, f.path)
	got, err := json.Marshal(f.decider.Current().Containments)
	if err != nil || string(got) != string(want) {
		t.Errorf("after the restart %s\nbefore %s", got, want)
	}
	if f.decider.Current().Epoch <= epoch {
		t.Errorf("the epoch did not grow: %d, before %d", f.decider.Current().Epoch, epoch)
	}
}

func TestRestoredReadOnlyGetsItsBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, "")
		if _, err := f.SetReadOnly(t.Context(), ReadOnly{}, me); err != nil {
			t.Fatal(err)
		}
		f = open(t, f.path)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		synctest.Wait()
		if in := f.Containments(); len(in) != 1 || in[0].Barrier == nil || !in[0].Barrier.Holds {
			t.Errorf("in force: %+v", in)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestUnreadableStateRefusesToStart(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut": `{"version": 1, "containments": [{"id": "read`, "text": "hello", "newer": `{"version": 2}`,
		"unknown key":  `{"version": 1, "epoch": 1, "last_id": 1, "containments": [], "hold": true}`,
		"unknown kind": `{"version": 1, "epoch": 1, "last_id": 1, "containments": [{"id": "x-1", "kind": "hold", "scope": {}, "reason": "", "author": "", "since": "2026-01-01T00:00:00Z", "epoch": 1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			f := open(t, path)
			e, ok := errors.AsType[*Error](f.err)
			if !ok || !strings.Contains(e.Hint, "move it away") || !strings.Contains(e.Error(), path) {
				t.Errorf("got %v", f.err)
			}
			if f.decider.Current() != nil {
				t.Error("a snapshot is in force: statements would be let through")
			}
			if left, err := os.ReadFile(path); err != nil || string(left) != content {
				t.Errorf("the file was changed: %q, %v", left, err)
			}
		})
	}
}

func TestChangesThatTheDiskDoesNotTakeAreInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f := open(t, filepath.Join(dir, "state.json"))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.Run(ctx)
		_, err := f.Freeze(t.Context(), policy.Scope{}, 0, me)
		if kind(t, err) != Unsaved || !strings.Contains(err.Error(), "it is in force, but not on disk") {
			t.Errorf("got %v", err)
		}
		in, err := f.SetReadOnly(t.Context(), ReadOnly{}, me)
		if kind(t, err) != Unsaved || !strings.Contains(err.Error(), "read-only-2 holds") || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("got %v", err)
		}
		if in.Barrier == nil || !in.Barrier.Holds || len(f.decider.Current().Containments) != 2 {
			t.Errorf("got %+v, and %d are in force", in.Barrier, len(f.decider.Current().Containments))
		}
		if lifted, err := f.Unfreeze(t.Context(), policy.Scope{}, me); kind(t, err) != Unsaved || len(lifted) != 1 {
			t.Errorf("lifted %v, %v", lifted, err)
		}
		if time.Sleep(2 * saveAgain); f.Status().Unsaved == "" {
			t.Error("status says that the state is on disk")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if time.Sleep(2 * saveAgain); f.Status().Unsaved != "" {
			t.Errorf("with room again: %s", f.Status().Unsaved)
		}
		if again := open(t, f.path); again.err != nil || again.Status().Mode != ModeReadOnly {
			t.Errorf("after a restart: %v, mode %s", again.err, again.Status().Mode)
		}
	})
}

func TestContainmentsEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, "")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		if _, err := f.Freeze(t.Context(), policy.Scope{}, 30*time.Minute, me); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Observe(t.Context(), policy.Scope{}, 0, me); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Minute - time.Second)
		synctest.Wait()
		if len(f.decider.Current().Containments) != 2 {
			t.Error("the freeze ended early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := f.decider.Current().Containments; len(got) != 1 || got[0].Kind != policy.ObserveMode {
			t.Errorf("in force: %+v", got)
		}
		if onDisk, err := loadState(f.path); err != nil || len(onDisk.Containments) != 1 {
			t.Errorf("on disk: %+v, %v", onDisk, err)
		}
		if want := "freeze ddl ok, mode observe ok, expired ok"; f.journal.actions() != want {
			t.Errorf("journal: %s, want %s", f.journal.actions(), want)
		}
		cancel()
		<-ended
	})
}

func TestSameKindAndScopeIsReplaced(t *testing.T) {
	f := open(t, "")
	for _, s := range []policy.Scope{{}, {User: "a"}, {}} {
		if _, err := f.Freeze(t.Context(), s, 0, me); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, c := range f.Containments() {
		ids = append(ids, c.ID)
	}
	if got := strings.Join(ids, " "); got != "freeze-2 freeze-3" {
		t.Errorf("in force: %s", got)
	}
}

func TestLiftingKnowsScopes(t *testing.T) {
	f := open(t, "")
	a, b := policy.Scope{User: "a"}, policy.Scope{User: "b"}
	for _, s := range []policy.Scope{a, b} {
		if _, err := f.Pause(t.Context(), PauseOptions{Scope: s}, me); err != nil {
			t.Fatal(err)
		}
	}
	lifted, err := f.Resume(t.Context(), a, me)
	if err != nil || len(lifted) != 1 || lifted[0].Scope != a {
		t.Errorf("lifted %+v, %v", lifted, err)
	}
	if lifted, err = f.Unfreeze(t.Context(), policy.Scope{}, me); err != nil || len(lifted) != 0 {
		t.Errorf("unfreeze lifted %+v, %v", lifted, err)
	}
	if lifted, err = f.Resume(t.Context(), policy.Scope{}, me); err != nil || len(lifted) != 1 || lifted[0].Scope != b {
		t.Errorf("lifted %+v, %v", lifted, err)
	}
	if _, err = f.Lift(t.Context(), "pause-1", me); kind(t, err) != NotFound {
		t.Errorf("got %v", err)
	}
}

func TestEveryChangeNeedsAuthorAndReason(t *testing.T) {
	f := open(t, "")
	ctx := t.Context()
	changes := map[string]func(By) error{
		"read-only": func(b By) error { _, err := f.SetReadOnly(ctx, ReadOnly{}, b); return err },
		"normal":    func(b By) error { _, err := f.SetNormal(ctx, policy.Scope{}, b); return err },
		"observe":   func(b By) error { _, err := f.Observe(ctx, policy.Scope{}, 0, b); return err },
		"freeze":    func(b By) error { _, err := f.Freeze(ctx, policy.Scope{}, 0, b); return err },
		"unfreeze":  func(b By) error { _, err := f.Unfreeze(ctx, policy.Scope{}, b); return err },
		"pause":     func(b By) error { _, err := f.Pause(ctx, PauseOptions{}, b); return err },
		"resume":    func(b By) error { _, err := f.Resume(ctx, policy.Scope{}, b); return err },
		"lift":      func(b By) error { _, err := f.Lift(ctx, "x", b); return err },
		"cancel":    func(b By) error { return f.Cancel(ctx, 7, b) },
		"terminate": func(b By) error { return f.Terminate(ctx, 7, b) },
		"reload":    func(b By) error { _, err := f.Reload(ctx, b); return err },
	}
	for name, change := range changes {
		for _, b := range []By{{Author: "ann"}, {Reason: "why"}, {Author: "ann", Reason: "  "}, {Author: "ann", Reason: strings.Repeat("x", maxReasonBytes+1)}} {
			if err := change(b); err == nil || kind(t, err) != Invalid {
				t.Errorf("%s by %+v: %v", name, b, err)
			}
		}
	}
	if f.journal.actions() != "" || len(f.Containments()) != 0 {
		t.Errorf("something was done: %s", f.journal.actions())
	}
}

func TestMisuseIsInvalid(t *testing.T) {
	f := open(t, "")
	for name, err := range map[string]error{
		"drain without a time":   second(f.SetReadOnly(t.Context(), ReadOnly{InFlight: policy.Drain}, me)),
		"unknown treatment":      second(f.SetReadOnly(t.Context(), ReadOnly{InFlight: "now"}, me)),
		"negative wait":          second(f.SetReadOnly(t.Context(), ReadOnly{MaxWait: -1}, me)),
		"negative lifetime":      second(f.Freeze(t.Context(), policy.Scope{}, -1, me)),
		"bad pattern":            second(f.Freeze(t.Context(), policy.Scope{Application: "["}, 0, me)),
		"refuse and hold":        second(f.Pause(t.Context(), PauseOptions{Refuse: true, MaxHold: 1}, me)),
		"statement far too long": second(f.Explain(t.Context(), policy.Subject{}, strings.Repeat(" ", maxExplainedBytes+1), policy.TxIdle)),
	} {
		if err == nil || kind(t, err) != Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSessionsAreCancelledAndJournalled(t *testing.T) {
	f := open(t, "")
	if err := f.Cancel(t.Context(), 7, me); err != nil || len(f.proxy.cancelled) != 1 {
		t.Errorf("cancelled %v, %v", f.proxy.cancelled, err)
	}
	if e := f.journal.entries[0]; e.Session != 7 || e.ServerPID != 11 || e.User != "ann" || e.Database != "prod" {
		t.Errorf("journal: %+v", e)
	}
	if err := f.Cancel(t.Context(), 8, me); kind(t, err) != NotFound {
		t.Errorf("got %v", err)
	}
	f.proxy.failing = errors.New("the server is gone")
	if err := f.Terminate(t.Context(), 7, me); kind(t, err) != Failed {
		t.Errorf("got %v", err)
	}
	if want := "cancel ok, terminate error"; f.journal.actions() != want {
		t.Errorf("journal: %s, want %s", f.journal.actions(), want)
	}
}

func TestActionGoesOnWhereTheJournalFails(t *testing.T) {
	f := open(t, "")
	f.journal.failing = errors.New("disk full")
	if _, err := f.SetReadOnly(t.Context(), ReadOnly{}, me); err != nil {
		t.Error(err)
	}
}

func TestBadPolicyKeepsTheOldOne(t *testing.T) {
	f := open(t, "")
	old := f.decider.Current().Policy
	f.policy = "profile: odoo\nrulez: []\n"
	_, err := f.Reload(t.Context(), me)
	if kind(t, err) != Invalid || !strings.Contains(err.Error(), "p.yaml:2:") {
		t.Errorf("got %v", err)
	}
	if f.decider.Current().Policy != old || strings.Contains(f.Policy().Source.Text, "rulez") {
		t.Error("the policy changed")
	}
	f.policy = "profile: postgres\n"
	if got, err := f.Reload(t.Context(), me); err != nil || got.Profile != policy.ProfilePostgres || f.decider.Current().Policy == old {
		t.Errorf("got %+v, %v", got, err)
	}
	if want := "policy reload error, policy reload ok"; f.journal.actions() != want {
		t.Errorf("journal: %s, want %s", f.journal.actions(), want)
	}
}

func TestStatusTellsTheStrictestMode(t *testing.T) {
	f := open(t, "")
	if s := f.Status(); s.Mode != ModeNormal || s.SessionCount != 1 || s.Sessions["active"] != 1 {
		t.Errorf("got %+v", s)
	}
	if _, err := f.Observe(t.Context(), policy.Scope{}, 0, me); err != nil {
		t.Fatal(err)
	}
	if s := f.Status(); s.Mode != ModeObserve || s.Scoped {
		t.Errorf("got %+v", s)
	}
	if _, err := f.SetReadOnly(t.Context(), ReadOnly{Scope: policy.Scope{User: "a"}}, me); err != nil {
		t.Fatal(err)
	}
	if s := f.Status(); s.Mode != ModeReadOnly || !s.Scoped {
		t.Errorf("got %+v", s)
	}
}

func TestNothingWorksWithoutAProxyButLooking(t *testing.T) {
	f := open(t, "")
	f.Attach(nil)
	if _, err := f.SetReadOnly(t.Context(), ReadOnly{}, me); kind(t, err) != Unavailable {
		t.Errorf("got %v", err)
	}
	if len(f.Containments()) != 0 || len(f.Sessions()) != 0 {
		t.Error("something is there")
	}
	if err := f.Ready(); err == nil {
		t.Error("ready without a proxy")
	}
	f.Attach(f.proxy)
	if err := f.Ready(); err != nil {
		t.Error(err)
	}
	f.Drain()
	if err := f.Ready(); err == nil {
		t.Error("ready while draining")
	}
}

func TestReplacedReadOnlyKeepsItsPromise(t *testing.T) {
	for _, test := range []struct {
		name          string
		old, replaced ReadOnly
		want          policy.InFlight
		within        time.Duration
	}{
		{"refuse-commit stays", ReadOnly{InFlight: policy.RefuseCommit}, ReadOnly{InFlight: policy.Finish}, policy.RefuseCommit, 0},
		{"the earlier end stays", ReadOnly{InFlight: policy.Drain, Drain: time.Second}, ReadOnly{InFlight: policy.Finish}, policy.Drain, time.Second},
		{"an earlier end comes", ReadOnly{InFlight: policy.Finish}, ReadOnly{InFlight: policy.Drain, Drain: time.Second}, policy.Drain, time.Second},
		{"refuse-commit comes", ReadOnly{InFlight: policy.Finish}, ReadOnly{InFlight: policy.RefuseCommit}, policy.RefuseCommit, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t, "")
			old, err := f.SetReadOnly(t.Context(), test.old, me)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.SetReadOnly(t.Context(), test.replaced, me)
			if err != nil || got.InFlight != test.want || got.Epoch != old.Epoch || got.ID == old.ID {
				t.Errorf("got %+v, %v, in place of %+v", got.Containment, err, old.Containment)
			}
			if end := got.DrainUntil.Sub(old.Since); got.DrainUntil.IsZero() != (test.within == 0) || end > test.within+time.Second {
				t.Errorf("transactions may go on until %s, %s after the first", got.DrainUntil, end)
			}
		})
	}
}

func TestModeHoldAndItsExceptions(t *testing.T) {
	f := open(t, "")
	scope := policy.Scope{Database: "prod"}
	got, err := f.SetReadOnly(t.Context(), ReadOnly{Scope: scope, Hold: time.Minute, InFlight: policy.RefuseCommit}, me)
	if err != nil || got.ID != "hold-1" || got.MaxHold != policy.Duration(time.Minute) {
		t.Fatalf("%+v, %v", got, err)
	}
	if s := f.Status(); s.Mode != ModeHold || !s.Scoped {
		t.Errorf("mode %s, scoped %v", s.Mode, s.Scoped)
	}
	first := got.Epoch
	got, err = f.SetReadOnly(t.Context(), ReadOnly{Scope: scope, Except: []string{"repair"}}, me)
	if err != nil || got.ID != "read-only-2" || got.Epoch != first || got.InFlight != policy.RefuseCommit {
		t.Errorf("in its place: %+v, %v: what began since could not write, and must not now", got, err)
	}
	got, err = f.SetReadOnly(t.Context(), ReadOnly{Scope: scope}, me)
	if err != nil || got.Epoch == first {
		t.Errorf("without the exception: %+v, %v: what repair began since may have written", got, err)
	}
	if s := f.Status(); s.Mode != ModeReadOnly {
		t.Errorf("mode %s", s.Mode)
	}
	again := open(t, f.path)
	if again.err != nil || len(again.Containments()) != 1 {
		t.Errorf("after a restart: %+v, %v", again.Containments(), again.err)
	}
	for _, bad := range []ReadOnly{{Hold: -1}, {Hold: maxDuration + 1}, {Except: []string{"*"}}, {Except: []string{""}}, {Except: make([]string, maxExcept+1)}} {
		if _, err := f.SetReadOnly(t.Context(), bad, me); kind(t, err) != Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if f.journal.actions() != "mode hold ok, read-only barrier ok, mode read-only ok, read-only barrier ok, mode read-only ok, read-only barrier ok" {
		t.Errorf("journal: %s", f.journal.actions())
	}
}
