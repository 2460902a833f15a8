package session

import (
	"testing"

	"lockkeeper/policy"
)

// failingCopy returns a session whose server has begun a COPY that will fail
// before it reads anything: its CopyInResponse has arrived, its error has not.
// What the client sends first goes before it, what it pipelines directly behind it.
func failingCopy(t *testing.T, first, pipelined []byte) *run {
	t.Helper()
	r := newRun(t, 1)
	r.h.slow = func() bool { return false }
	r.play()
	r.client = first
	r.play()
	r.says(msg('Q', "y\x00"))
	r.says(pipelined)
	begins := len(r.server.out)
	r.server.step()
	r.delivered = begins + len(msg('G', "\x00\x00\x00"))
	r.fromServer()
	return r
}

// says lets the session take what the client sends, and no answers yet.
func (r *run) says(b []byte) {
	r.client = append(r.client, b...)
	r.offered = len(r.client)
	r.fromClient()
}

// What stands behind a message that no COPY bears is not that COPY's, though
// the server has begun it: an end of data belongs to a COPY further behind, and
// a Sync is answered. Counted with the first COPY they would put the session out
// of step, and it would take what the server discards for done: here the name of
// a write for that of a read.
func TestWhatIsSentBehindAFailingCopy(t *testing.T) {
	write := join(msg('P', "a\x00i\x00\x00\x00"), msg('S'))
	second := msg('Q', "w;s\x00")
	rest := join(msg('c'), msg('S'), msg('c'), msg('Q', "s\x00"), msg('B', "\x00none\x00\x00\x00\x00\x00\x00\x00"))
	for name, early := range map[string]bool{"sent before it began": true, "sent while it runs": false} {
		t.Run(name, func(t *testing.T) {
			var r *run
			if early {
				r = failingCopy(t, write, second)
			} else {
				r = failingCopy(t, write, nil)
				r.says(second)
			}
			r.says(rest)
			r.play()
			r.says(join(msg('C', "Sa\x00"), msg('P', "a\x00s\x00\x00\x00"), msg('S')))
			r.play()
			r.check()
			if why := r.s.Closing(); why != "" {
				t.Errorf("closed: %s", why)
			}
		})
	}
}

// A write behind a COPY that may have failed commits without another message of
// the client: read-only has to wait for it, whatever becomes of the COPY.
func TestAWriteBehindAFailingCopyIsUnaided(t *testing.T) {
	c := &policy.Containment{Epoch: 2}
	r := failingCopy(t, nil, nil)
	if open, unaided := r.s.InFlight(c); !open || unaided {
		t.Errorf("the COPY alone: open %v, unaided %v", open, unaided)
	}
	r.says(msg('Q', "i\x00"))
	if open, unaided := r.s.InFlight(c); !open || !unaided {
		t.Errorf("sent while it runs: open %v, unaided %v", open, unaided)
	}
	r = failingCopy(t, nil, msg('Q', "i\x00"))
	if open, unaided := r.s.InFlight(c); !open || !unaided {
		t.Errorf("sent before it began: open %v, unaided %v", open, unaided)
	}
}

// A message that has to wait for replies waits, though the server has begun a
// COPY: it does not wait for data, for it has been sent something else.
func TestAMessageBehindAFailingCopyWaits(t *testing.T) {
	r := failingCopy(t, nil, msg('Q', "n\x00")) // may give names to statements
	r.says(msg('B', "\x00none\x00\x00\x00\x00\x00\x00\x00"))
	if !r.s.WaitsForReplies() {
		t.Error("it does not wait")
	}
	r.play()
	r.check()
	if why := r.s.Closing(); why != "" {
		t.Errorf("closed: %s", why)
	}
}
