package engine

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// allowing is a host, and a sink, under which every statement runs.
type allowing struct{ pausing }

func (allowing) Snapshot() *policy.Snapshot { return &policy.Snapshot{Epoch: 1, Policy: policySet()} }

// An idle pair in the poll loop holds neither a buffer nor a goroutine, also
// when it has run statements.
func TestAnIdlePairHoldsNeitherBufferNorGoroutine(t *testing.T) {
	const pairs, most = 200, 3 << 10 // bytes for each: any buffer would be more
	l := runningLoop(t)
	goroutines, bytes := runtime.NumGoroutine(), live()
	ended := make(owner, pairs)
	all := make([]*polled, pairs)
	for i := range all {
		ours, client := sockets(t)
		other, server := sockets(t)
		all[i] = pairUnder(allowing{}, l, ours, other)
		all[i].Begin(ended)
		hear(t, client, len(greeting))
		query := wire.Append(nil, 'Q', strings.Repeat("q", 12<<10), "\x00")
		say(t, client, query)
		hear(t, server, len(query))
		answer := wire.Append(wire.Append(wire.Append(nil, 'D', strings.Repeat("r", 40<<10)), 'C', "SELECT 1\x00"), 'Z', "I")
		say(t, server, answer)
		hear(t, client, len(answer))
	}
	for _, p := range all {
		await(t, "a pair that has nothing to do", p.atRest)
	}
	await(t, "no goroutine of a pair", func() bool { return runtime.NumGoroutine() <= goroutines })
	if each := (live() - bytes) / pairs; each > most {
		t.Errorf("%d bytes for each idle pair, want at most %d", each, most)
	}
	for _, p := range all {
		p.Close("enough")
		<-ended
	}
}

func (p *polled) atRest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range []*half{&p.client, &p.server} {
		if h.in != nil || h.out != nil {
			return false
		}
	}
	return p.loggedIn && !p.aside && p.s.Resting()
}

// live returns the bytes of the heap that are in use, without what pools keep
// for one more cycle.
func live() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// say writes all of b.
func say(t *testing.T, fd int, b []byte) {
	t.Helper()
	for begun := time.Now(); len(b) > 0; {
		n, err := unix.Write(fd, b)
		b = b[max(n, 0):]
		if err != nil && !errors.Is(err, unix.EAGAIN) || time.Since(begun) > 30*time.Second {
			t.Errorf("%d bytes are not written: %v", len(b), err)
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// hear reads so many bytes.
func hear(t *testing.T, fd, bytes int) []byte {
	t.Helper()
	heard := make([]byte, bytes)
	buf := heard
	await(t, "the bytes that were sent", func() bool {
		n, err := unix.Read(fd, buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		buf = buf[max(n, 0):]
		return len(buf) == 0
	})
	return heard
}
