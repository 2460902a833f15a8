package takeover

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/admin/control"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// process is a lockkeeper that only notes what becomes of it.
type process struct {
	t        *testing.T
	estate   Estate
	refuses  error
	late     error // why it cannot hand over any more
	barrier  func(ctx context.Context) error
	follows  func(*control.Desired) (keeps, err error)
	sessions []proxy.SessionInfo

	mu       sync.Mutex
	events   []string
	orphaned chan struct{}
	once     sync.Once
}

func newProcess(t *testing.T) *process {
	t.Helper()
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	t.Cleanup(func() { _ = lock.Close() })
	return &process{
		t: t, orphaned: make(chan struct{}),
		estate: Estate{
			Lock: lock, Admin: proxy.Listener{Listener: listen(), Configured: "admin"}, Processes: "processes", LastSession: 1000,
			Listeners: []proxy.Listener{{Listener: listen(), Configured: "one"}, {Listener: listen(), Configured: "two"}},
		},
	}
}

// set changes what the process does.
func (p *process) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *process) note(event string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, event)
}

func (p *process) history() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.events, ", ")
}

func (p *process) Offer() (*Estate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses != nil {
		return nil, p.refuses
	}
	p.events = append(p.events, "offer")
	return &p.estate, nil
}

func (p *process) HandOver(t Terms) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.late == nil {
		p.events = append(p.events, "hand over, "+t.Wait.String())
	}
	return p.late
}

func (p *process) Keep()                       { p.note("keep") }
func (p *process) Finish(within time.Duration) { p.note("finish in " + within.String()) }
func (p *process) Orphan()                     { p.once.Do(func() { close(p.orphaned) }) }
func (p *process) Wake()                       {}
func (p *process) Addresses() []net.Addr       { return nil }

func (p *process) Sessions() []proxy.SessionInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions
}

func (p *process) CancelSession(_ context.Context, id uint64) error {
	p.note("cancel")
	if id == 7 {
		return errors.New("no such session")
	}
	return nil
}

func (p *process) TerminateSession(context.Context, uint64) error {
	p.note("terminate")
	return nil
}

func (p *process) Stats() []proxy.DatabaseStats { return nil }

func (p *process) EndQuietSession(id uint64) bool {
	p.note("end quiet")
	return id == 1
}

func (p *process) CancelHere(_ context.Context, pid uint32, key []byte) bool {
	return pid == 1 && string(key) == "key"
}

func (p *process) Follow(d *control.Desired) (keeps, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.follows != nil {
		return p.follows(d)
	}
	return nil, nil
}

func (p *process) Barrier(ctx context.Context, _ policy.Containment) ([]proxy.BarrierReport, error) {
	p.note("barrier")
	var wait func(context.Context) error
	p.set(func() { wait = p.barrier })
	if wait != nil {
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
	return []proxy.BarrierReport{{Target: "*", LSN: "0/1", Waited: 1, Cancelled: 2, Terminated: 3, Lacking: []string{"nothing"}}}, nil
}

var quiet = slog.New(slog.DiscardHandler)

func (p *process) offer(dir string) *Offering {
	p.t.Helper()
	o, err := Offer(dir, "v1", p, quiet)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(o.Close)
	return o
}

// find finds a predecessor, as soon as nobody else is served.
func find(t *testing.T, dir string) *Predecessor {
	t.Helper()
	var p *Predecessor
	eventually(t, "the predecessor is found", func() bool {
		var err error
		p, err = Find(t.Context(), dir, "v2", quiet)
		if err != nil && !strings.Contains(err.Error(), "another takeover") || err == nil && p == nil {
			t.Fatalf("found %v, %v", p, err)
		}
		return err == nil
	})
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// succeeded is a predecessor that has handed over, and the sessions of both.
func succeeded(t *testing.T) (old, local *process, p *Predecessor, both *Both) {
	t.Helper()
	dir := t.TempDir()
	old, local = newProcess(t), newProcess(t)
	old.offer(dir)
	p = find(t, dir)
	if alive, err := p.Accept(t.Context(), Terms{Wait: time.Minute}); !alive || err != nil {
		t.Fatalf("alive %v, %v", alive, err)
	}
	both = NewBoth(local, prometheus.NewRegistry(), quiet)
	return old, local, p, both
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestWhatIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	if p, err := Find(t.Context(), dir, "v2", quiet); p != nil || err != nil {
		t.Fatalf("found %v, %v where nobody is", p, err)
	}
	old := newProcess(t)
	old.offer(dir)
	p := find(t, dir)
	if p.Program() != "v1" || p.Processes != "processes" || p.LastSession != 1000 {
		t.Errorf("handed over: %+v", p.Estate)
	}
	if a, b := p.Admin.Addr().String(), old.estate.Admin.Addr().String(); a != b || p.Admin.Configured != "admin" {
		t.Errorf("the admin interface's socket is %s (%s), want %s", a, p.Admin.Configured, b)
	}
	theirs, errTheirs := old.estate.Lock.Stat()
	ours, errOurs := p.Lock.Stat()
	if errTheirs != nil || errOurs != nil || !os.SameFile(theirs, ours) {
		t.Error("the lock is another file")
	}
	for i, want := range []string{"one", "two"} {
		l := p.Listeners[i]
		if l.Configured != want || l.Addr().String() != old.estate.Listeners[i].Addr().String() {
			t.Errorf("listener %d is %s on %s", i, l.Configured, l.Addr())
		}
	}
	// Both accept on one socket; the one that closes does not disturb the other.
	client, err := net.Dial("tcp", old.estate.Listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := old.estate.Listeners[0].Close(); err != nil {
		t.Fatal(err)
	}
	c, err := p.Listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestASuccessorThatGivesUp(t *testing.T) {
	dir := t.TempDir()
	old := newProcess(t)
	old.offer(dir)
	for range 3 {
		if err := find(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it goes on", func() bool { return strings.HasSuffix(old.history(), "keep") })
	}
	old.set(func() { old.late = errors.New("it is stopping") })
	if alive, err := find(t, dir).Accept(t.Context(), Terms{}); alive || err == nil || !strings.Contains(err.Error(), "goes on") {
		t.Errorf("alive %v, %v", alive, err)
	}
	old.set(func() { old.late, old.refuses = nil, errors.New("not today") })
	eventually(t, "it refuses", func() bool {
		_, err := Find(t.Context(), dir, "v2", quiet)
		return err != nil && strings.Contains(err.Error(), "not today")
	})
	old.set(func() { old.refuses = nil })
	p := find(t, dir)
	if _, err := Find(t.Context(), dir, "v2", quiet); err == nil || !strings.Contains(err.Error(), "another takeover") {
		t.Errorf("two at once: %v", err)
	}
	if alive, err := p.Accept(t.Context(), Terms{Wait: time.Minute}); !alive || err != nil {
		t.Errorf("alive %v, %v", alive, err)
	}
	if got := old.history(); !strings.HasSuffix(got, "offer, hand over, 1m0s") {
		t.Errorf("history: %s", got)
	}
	if p, err := Find(t.Context(), dir, "v2", quiet); p != nil || err != nil {
		t.Errorf("found %v, %v after it was taken over from", p, err)
	}
}

func TestFormatsHaveToAgree(t *testing.T) {
	for _, f := range []func(*formats){
		func(f *formats) { f.Takeover++ }, func(f *formats) { f.State-- }, func(f *formats) { f.Journal++ },
	} {
		other := ours()
		f(&other)
		if err := other.agree(ours()); err == nil {
			t.Errorf("%+v and %+v agree", other, ours())
		}
	}
	if err := ours().agree(ours()); err != nil {
		t.Error(err)
	}
}

// Whatever is sent in place of a message is an error, and nothing else.
func TestMessagesThatAreNone(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, maxMessageBytes+1)
	for name, sent := range map[string]string{
		"nothing": "", "a part of the length": "\x00\x00", "a part of the message": "\x00\x00\x00\x09{", "too long": string(long), "no JSON": "\x00\x00\x00\x01x",
	} {
		dir := t.TempDir()
		old := newProcess(t)
		old.offer(dir)
		c, err := net.Dial("unix", filepath.Join(dir, socketFile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		c.(*net.UnixConn).CloseWrite()
		if answer, err := io.ReadAll(c); err != nil || len(answer) != 0 {
			t.Errorf("%s: answered %q, %v", name, answer, err)
		}
		c.Close()
		if got := old.history(); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestTheSessionsOfBoth(t *testing.T) {
	old, local, p, both := succeeded(t)
	old.set(func() { old.sessions = []proxy.SessionInfo{{ID: 1}} })
	local.set(func() { local.sessions = []proxy.SessionInfo{{ID: 1001}} })
	over := both.Add(p)
	all := both.Sessions()
	if len(all) != 2 || all[0].ID != 1 || !all[0].Draining || all[1].ID != 1001 || all[1].Draining {
		t.Errorf("sessions %+v", all)
	}
	for _, id := range []uint64{1, 1001} {
		if err := errors.Join(both.CancelSession(t.Context(), id), both.TerminateSession(t.Context(), id)); err != nil {
			t.Error(err)
		}
		if busy := both.EndQuietSession(id); busy != (id == 1) {
			t.Errorf("%d is busy: %v", id, busy)
		}
	}
	if a, b := old.history(), local.history(); !strings.HasSuffix(a, ", cancel, terminate, end quiet") || b != "cancel, terminate, end quiet" {
		t.Errorf("asked were %s and %s", a, b)
	}
	if err := both.CancelSession(t.Context(), 7); err == nil || err.Error() != "no such session" {
		t.Errorf("got %v", err)
	}
	for key, want := range map[string]bool{"key": true, "yek": false} {
		if known, err := p.Cancel(t.Context(), 1, []byte(key)); known != want || err != nil {
			t.Errorf("%s: known %v, %v", key, known, err)
		}
	}
	p.Close()
	<-p.Ended()
	<-old.orphaned
	over()
	if all := both.Sessions(); len(all) != 1 || both.Draining() {
		t.Errorf("sessions %+v", all)
	}
}

func TestTheBarrierOfBoth(t *testing.T) {
	old, local, p, both := succeeded(t)
	over := both.Add(p)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reports, err := both.Barrier(ctx, policy.Containment{})
	if err != nil || len(reports) != 1 || reports[0].Waited != 3 || reports[0].Cancelled != 6 || reports[0].Terminated != 9 || len(reports[0].Lacking) != 1 {
		t.Errorf("got %+v, %v", reports, err)
	}
	old.set(func() { old.barrier = func(context.Context) error { return errors.New("waiting for sessions 3, 4") } })
	if _, err := both.Barrier(ctx, policy.Containment{}); err == nil || !strings.Contains(err.Error(), "sessions 3, 4") {
		t.Errorf("got %v", err)
	}
	// It dies while it is waited for: the local barrier looks again, but not
	// before what it left is known.
	asked := make(chan struct{})
	old.set(func() { old.barrier = func(ctx context.Context) error { close(asked); <-ctx.Done(); return ctx.Err() } })
	result := make(chan error, 1)
	go func() { _, err := both.Barrier(ctx, policy.Containment{}); result <- err }()
	<-asked
	p.Close()
	<-old.orphaned
	<-p.Ended()
	before := strings.Count(local.history(), "barrier")
	select {
	case err := <-result:
		t.Errorf("the barrier holds before it is known what was left: %v", err)
	default:
	}
	over()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if after := strings.Count(local.history(), "barrier"); after != before+1 {
		t.Errorf("the local barrier was asked %d times more, want 1", after-before)
	}
}

func TestFollowingAndFinishing(t *testing.T) {
	old, _, p, _ := succeeded(t)
	var got *control.Desired
	old.set(func() {
		old.follows = func(d *control.Desired) (keeps, err error) { got = d; return errors.New("a newer policy"), nil }
	})
	if err := p.Follow(&control.Desired{Epoch: 7, Profile: "odoo"}); err != nil || got.Epoch != 7 || got.Profile != "odoo" {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Finish(ctx, time.Second)
	eventually(t, "it finishes", func() bool { return strings.HasSuffix(old.history(), "finish in 1s") })
	p.Close()
	<-p.Ended()
	if err := p.Follow(&control.Desired{}); err != nil {
		t.Errorf("one that has ended has to follow: %v", err)
	}
}

// One that answers nothing costs a bounded number of questions.
func TestAPredecessorThatAnswersNothing(t *testing.T) {
	old, _, p, _ := succeeded(t)
	release := make(chan struct{})
	defer close(release)
	old.set(func() { old.barrier = func(context.Context) error { <-release; return nil } })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	for range maxCalls {
		go func() { _, _ = p.barrier(ctx, policy.Containment{}, nil) }()
	}
	eventually(t, "all are asked", func() bool { return len(p.calls) == maxCalls })
	if _, err := p.Cancel(ctx, 1, nil); !errors.Is(err, errBusy) {
		t.Errorf("got %v", err)
	}
	cancel()
}

// A successor that gave up waiting must not leave nobody who accepts.
func TestASuccessorThatDoesNotWait(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: l.Addr().String(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := send(next, accept{}); err != nil {
		t.Fatal(err)
	}
	var a accept
	if _, err := receive(old, &a); err != nil {
		t.Fatal(err)
	}
	if hasLeft(old) {
		t.Error("it waits")
	}
	next.Close()
	if !hasLeft(old) {
		t.Error("it has left")
	}
}
