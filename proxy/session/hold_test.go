package session

import (
	"math"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
)

// timed is a host whose time is set.
type timed struct {
	*knowing
	now time.Time
}

func (h *timed) Now() time.Time         { return h.now }
func (h *timed) Elapsed() time.Duration { return h.now.Sub(time.Unix(0, 0)) }

func (h *timed) pause() {
	h.snap = &policy.Snapshot{Epoch: 2, Policy: h.snap.Policy, Containments: []policy.Containment{{ID: "pause-1", Kind: policy.Pause, MaxHold: policy.Duration(time.Hour)}}}
}

func newTimed(t *testing.T) *timed { return &timed{newKnowing(t), time.Unix(100, 0)} }

// A message may be decided more than once behind its hold: DDL waits for the
// settings that it is bracketed with.
func TestAHoldIsCountedOnce(t *testing.T) {
	h := newTimed(t)
	s := loggedIn(t, h)
	leave(s)
	table := inspect.Relation{Name: "x", Access: inspect.AccessDefine, Lock: inspect.AccessExclusive}
	h.batch = &inspect.Batch{Class: inspect.Define, Statements: []inspect.Statement{{Class: inspect.Define, Kind: "ALTER TABLE", Relations: []inspect.Relation{table}}}}
	open := h.snap
	holds := 0
	client := func() {
		s.FromClient(msg('Q', "alter table x\x00"))
		if n := s.Counts.Incidents; n != nil {
			holds += len(n.Holds)
		}
		s.ToServer.Reset()
		leave(s)
	}
	h.pause()
	client()
	h.snap, h.now = open, h.now.Add(10*time.Second)
	s.Resume()
	client()
	if !s.WaitsForReplies() {
		t.Fatal("the ALTER does not wait for its SHOW")
	}
	h.now = h.now.Add(10 * time.Second)
	s.FromServer(join(msg('T', "\x00\x00"), msg('D', "\x00\x01\x00\x00\x00\x010"), msg('C', "SHOW\x00"), msg('Z', "I")))
	leave(s)
	client()
	if holds != 1 || s.Work().WaitTime != 10*time.Second {
		t.Errorf("%d holds of %v in all are counted, want one of 10s", holds, s.Work().WaitTime)
	}
}

// An Execute with no Bind before it, of a portal that SQL has made, is held, too.
func TestAHoldOfAnExecuteGivesItsPlaceBack(t *testing.T) {
	h := newTimed(t)
	first, second := loggedIn(t, h), loggedIn(t, h)
	loop := &Shift{}
	heard := func(s *Session, messages ...[]byte) {
		s.Wake(loop)
		s.FromClient(join(messages...))
		s.ToServer.Reset()
		leave(s)
	}
	leave(first)
	leave(second)
	h.pause()
	execute := []([]byte){msg('E', "c\x00\x00\x00\x00\x00"), msg('S')}
	heard(first, execute...)
	if !first.Cancel(&policy.Refusal{SQLSTATE: "57014", Message: "cancelled"}) {
		t.Fatal("the Execute is not held")
	}
	heard(first, execute...)
	if first.holding {
		t.Error("the place of a session that is not held any more is still taken")
	}
	first.Wake(loop)
	first.FromServer(join(msg('E', "SERROR\x00C22P02\x00Mx\x00\x00"), msg('Z', "I")))
	first.ToClient.Reset()
	leave(first)
	h.now = h.now.Add(time.Hour)
	loop.Clock.Reset()
	heard(second, msg('Q', "select 1\x00"))
	if st := second.State(); st.HeldBy != "pause-1" || !st.Since.Equal(h.now) {
		t.Errorf("the second session is held by %q since %v, want pause-1 since %v", st.HeldBy, st.Since, h.now)
	}
}

// A client may put as many Syncs into COPY data as it likes.
func TestSyncsInCopyDataAreCountedWithoutEnd(t *testing.T) {
	h := newKnowing(t)
	s := loggedIn(t, h)
	h.batch = &inspect.Batch{Class: inspect.Write, Statements: []inspect.Statement{{Class: inspect.Write, Kind: inspect.KindCopyFrom}}}
	s.FromClient(msg('Q', "copy t from stdin\x00"))
	s.FromServer(msg('G', "\x00\x00\x00"))
	s.out.slack = math.MaxInt32
	s.FromClient(msg('S'))
	s.FromClient(msg('Q', "select 1\x00"))
	if s.Closing() == "" {
		t.Error("a Query in COPY data goes on behind 2^31 Syncs")
	}
}
