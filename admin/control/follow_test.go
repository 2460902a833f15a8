package control

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"lockkeeper/policy"
)

// following is a follower that is another control, over JSON as in a takeover.
type following struct {
	*fixture
	keeps   error
	told    int
	failing error
}

func (f *following) Follow(d *Desired) error {
	f.told++
	if f.failing != nil {
		return f.failing
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	var same Desired
	if err := json.Unmarshal(text, &same); err != nil {
		return err
	}
	f.keeps, err = f.fixture.Follow(&same)
	return err
}

// takenOver is a control and the one that it has taken over from.
func takenOver(t *testing.T) (next *fixture, old *following) {
	t.Helper()
	old = &following{fixture: open(t, "")}
	old.Hold("another process has taken over", "Repeat the command.")
	next = open(t, old.path)
	if err := next.Lead(old); err != nil {
		t.Fatal(err)
	}
	return next, old
}

func TestWhatIsDecidedIsFollowed(t *testing.T) {
	next, old := takenOver(t)
	woken := old.proxy.wakes
	frozen, err := next.Freeze(t.Context(), policy.Scope{Database: "prod"}, time.Hour, me)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := old.decider.Current(), next.decider.Current()
	if theirs.Epoch != ours.Epoch || len(theirs.Containments) != 1 || !reflect.DeepEqual(theirs.Containments[0], frozen) {
		t.Errorf("the follower has %+v, want %+v", theirs, ours)
	}
	if old.proxy.wakes == woken {
		t.Error("held sessions were not woken")
	}
	next.policy = "profile: postgres\n"
	if _, err := next.Reload(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	if p := old.Policy(); p.Profile != "postgres" || old.decider.Current().Policy.Profile() != "postgres" {
		t.Errorf("the follower's profile is %s", p.Profile)
	}
	if _, err := next.Unfreeze(t.Context(), policy.Scope{}, me); err != nil {
		t.Fatal(err)
	}
	if n := len(old.decider.Current().Containments); n != 0 {
		t.Errorf("%d containments are in force with the follower", n)
	}
	if _, err := old.fixture.Follow(&Desired{Epoch: next.decider.Current().Epoch, Profile: "odoo"}); err != nil || old.Policy().Profile != "odoo" {
		t.Errorf("a built-in policy: %v, profile %s", err, old.Policy().Profile)
	}
	next.LeadNobody()
	told := old.told
	if _, err := next.Freeze(t.Context(), policy.Scope{}, 0, me); err != nil || old.told != told {
		t.Errorf("%v; the follower that is gone was told", err)
	}
}

// The policy of a newer program may hold what this one does not know.
func TestAPolicyThatCannotBeReadLeavesTheOldOne(t *testing.T) {
	_, old := takenOver(t)
	d := &Desired{
		Epoch: 100, Profile: "odoo", Policy: Source{File: "p.yaml", Text: "profile: odoo\nfrom_the_future: 1\n"},
		Containments: []policy.Containment{{ID: "freeze-1", Kind: policy.FreezeDDL}},
	}
	keeps, err := old.fixture.Follow(d)
	if err != nil || keeps == nil || !strings.Contains(keeps.Error(), "from_the_future") {
		t.Errorf("got %v, %v", keeps, err)
	}
	if s := old.decider.Current(); len(s.Containments) != 1 || s.Policy.Profile() != "odoo" {
		t.Errorf("in force is %+v", s)
	}
	d.Containments[0].Kind = "quarantine"
	if _, err := old.fixture.Follow(d); err == nil {
		t.Error("a containment that is not known was followed")
	}
	d.Containments, d.Epoch = nil, 1
	if _, err := old.fixture.Follow(d); err == nil || len(old.decider.Current().Containments) != 1 {
		t.Errorf("what was decided before is followed: %v", err)
	}
}

// What the follower cannot hold is in force here, is recorded, and is not said
// to be well.
func TestAFollowerThatCannotFollow(t *testing.T) {
	next, old := takenOver(t)
	old.failing = errors.New("no answer")
	for what, do := range map[string]func() error{
		"freeze ddl": func() error { _, err := next.Freeze(t.Context(), policy.Scope{}, 0, me); return err },
		"mode read-only": func() error {
			_, err := next.SetReadOnly(t.Context(), ReadOnly{InFlight: policy.RefuseCommit}, me)
			return err
		},
		"policy reload": func() error { _, err := next.Reload(t.Context(), me); return err },
	} {
		err := do()
		if kind(t, err) != Incomplete || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v", what, err)
		}
		if !strings.Contains(next.journal.actions(), what+" error") {
			t.Errorf("%s: recorded are %s", what, next.journal.actions())
		}
	}
	if n := len(next.Containments()); n != 2 {
		t.Errorf("%d containments are in force, want 2", n)
	}
	lifted, err := next.Unfreeze(t.Context(), policy.Scope{}, me)
	if len(lifted) != 1 || kind(t, err) != Incomplete {
		t.Errorf("lifted %v, %v", lifted, err)
	}
}

func TestNothingIsChangedDuringATakeover(t *testing.T) {
	f := open(t, "")
	if _, err := f.Freeze(t.Context(), policy.Scope{}, time.Nanosecond, me); err != nil {
		t.Fatal(err)
	}
	f.Hold("a takeover is under way", "Try again.")
	before, epoch := f.journal.actions(), f.decider.Current().Epoch
	for what, do := range map[string]func() error{
		"freeze":   func() error { _, err := f.Freeze(t.Context(), policy.Scope{}, 0, me); return err },
		"unfreeze": func() error { _, err := f.Unfreeze(t.Context(), policy.Scope{}, me); return err },
		"lift":     func() error { _, err := f.Lift(t.Context(), "freeze-1", me); return err },
		"pause":    func() error { _, err := f.Pause(t.Context(), PauseOptions{}, me); return err },
		"read-only": func() error {
			_, err := f.SetReadOnly(t.Context(), ReadOnly{InFlight: policy.RefuseCommit}, me)
			return err
		},
	} {
		if err := do(); kind(t, err) != Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	if now := f.journal.actions(); now != before || f.decider.Current().Epoch != epoch {
		t.Errorf("recorded are %s, the epoch is %d", now, f.decider.Current().Epoch)
	}
	f.Release()
	if _, err := f.Unfreeze(t.Context(), policy.Scope{}, me); err != nil {
		t.Error(err)
	}
}
