package session

import (
	"bytes"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
)

// clocked is a host whose time is set.
type clocked struct {
	open
	now time.Time
}

func (h *clocked) Now() time.Time { return h.now }

// TestADecisionRestsOnNoTimeOfAnotherSession: the sessions of a loop have one
// clock for durations. A COMMIT that comes when a drain is over must not be judged
// by the time of another session's message before it: the barrier, which looks in
// between, does not wait for a transaction that cannot commit any more.
func TestADecisionRestsOnNoTimeOfAnotherSession(t *testing.T) {
	snap, err := openSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1_000_000, 0)
	drained := began.Add(10 * time.Millisecond)
	h := &clocked{open: open{snap: &policy.Snapshot{Epoch: 1, Policy: snap.Policy}, batches: map[string]*inspect.Batch{}, slow: func() bool { return false }}, now: began}
	loop := &Shift{}
	client := func(s *Session, text string) []byte {
		s.Wake(loop)
		s.FromClient(msg('Q', text+"\x00"))
		sent := bytes.Join(s.ToServer.Take(nil), nil)
		leave(s)
		return sent
	}
	server := func(s *Session, messages ...[]byte) {
		s.Wake(loop)
		s.FromServer(join(messages...))
		s.ToClient.Take(nil)
		leave(s)
	}
	s, other := loggedIn(t, h), loggedIn(t, h)
	client(s, "b")
	server(s, msg('C', "BEGIN\x00"), msg('Z', "T"))
	client(s, "i")
	server(s, msg('C', "INSERT 0 1\x00"), msg('Z', "T"))
	c := policy.Containment{ID: "c", Kind: policy.ReadOnlyMode, Epoch: 2, InFlight: policy.Drain, DrainUntil: drained}
	h.snap = &policy.Snapshot{Epoch: 2, Policy: snap.Policy, Containments: []policy.Containment{c}}

	loop.Clock.Reset() // the loop comes back from a wait with something of both
	h.now = drained.Add(-time.Millisecond)
	client(other, "i")
	h.now = drained.Add(time.Millisecond)
	if sent := client(s, "c"); bytes.Equal(sent, msg('Q', "c\x00")) {
		t.Error("the COMMIT of a write passes when the drain is over")
	}
}
