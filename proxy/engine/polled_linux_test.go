package engine

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
	"lockkeeper/proxy/wire"
)

// pausing is a host, and a sink, under which every statement is held.
type pausing struct{ session.Host }

func (pausing) Lookup([]byte, inspect.Lexing) *inspect.Batch { return reads }
func (pausing) Elapsed() time.Duration                       { return 1 }
func (pausing) Now() time.Time                               { return time.Unix(1, 0) }
func (pausing) Hold() bool                                   { return true }
func (pausing) LetGo()                                       {}
func (pausing) Snapshot() *policy.Snapshot {
	return &policy.Snapshot{
		Epoch: 1, Policy: policySet(), Containments: []policy.Containment{{ID: "pause-1", Kind: policy.Pause, MaxHold: policy.Duration(time.Hour)}},
	}
}

func (pausing) Count(*session.Counts)       {}
func (pausing) Stage(string, time.Duration) {}
func (pausing) Record([]journal.Entry)      {}
func (pausing) Roomy() bool                 { return true }

var reads = &inspect.Batch{Class: inspect.Read, Statements: []inspect.Statement{{Class: inspect.Read, Kind: inspect.KindSelect}}}

var policySet = sync.OnceValue(func() *policy.Policy {
	p, err := policy.Parse([]byte("profile: postgres\n"), "test")
	if err != nil {
		panic(err)
	}
	return p
})

func runningLoop(t *testing.T) *loop {
	t.Helper()
	l := stoppedLoop(t)
	run(t, l)
	return l
}

func stoppedLoop(t *testing.T) *loop {
	t.Helper()
	l, err := newLoop(&Poller{}, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func run(t *testing.T, l *loop) {
	t.Helper()
	go l.run()
	t.Cleanup(l.stop)
}

// pausedPair is a pair whose statements are held.
func pausedPair(l *loop, client, server int) *polled { return pairUnder(pausing{}, l, client, server) }

// greeting is what the server says when it has accepted a login.
const greeting = "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"

// pairUnder is a pair with a login on its way and no budget.
func pairUnder(around interface {
	session.Host
	Sink
}, l *loop, client, server int,
) *polled {
	cfg := &Config{Sink: around, Now: around.Now, Budget: NewBudget(0), HeldBytes: 64 << 10}
	s := session.New(session.Config{ID: 1, Subject: policy.Subject{User: "u", Database: "d"}, StatementBytes: 1 << 20}, around)
	return newPolled(cfg, l, client, server, s, []byte(greeting))
}

func sockets(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// owner hears why its pair has ended.
type owner chan string

func (owner) LoggedIn(uint32)      {}
func (o owner) Ended(cause string) { o <- cause }

// slow is an owner that takes its time when it is told of the login.
type slow struct {
	owner
	asked chan<- struct{}
	goOn  <-chan struct{}
}

func (s slow) LoggedIn(uint32) { close(s.asked); <-s.goOn }

func (p *polled) watches() (client, server uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client.watched, p.server.watched
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + ": not in time")
		}
	}
}

// What a loop watches and does not act on wakes it in vain.
func TestNothingIsWatchedInVain(t *testing.T) {
	ours, client := sockets(t)
	server, _ := sockets(t)
	p := pausedPair(runningLoop(t), ours, server)
	asked, goOn := make(chan struct{}), make(chan struct{})
	ended := make(owner, 1)
	p.Begin(slow{ended, asked, goOn})
	<-asked
	await(t, "the login is kept back", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.aside && len(p.client.out) > 0
	})
	if c, s := p.watches(); c != 0 || s != 0 {
		t.Errorf("while something slow comes first the loop watches for %#x and %#x", c, s)
	}
	close(goOn)
	await(t, "the client is heard", func() bool { c, _ := p.watches(); return c == readableLocally })

	query := wire.Append(nil, 'Q', strings.Repeat("x", 8<<10), "\x00")
	send := func() {
		if _, err := unix.Write(client, query); err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	send()
	await(t, "the session is held", func() (held bool) {
		p.Do(func(s *session.Session) { _, _, held = s.Held() })
		return held
	})
	await(t, "there is no more room", func() bool { send(); c, _ := p.watches(); return c == 0 })
	p.Close("enough")
	<-ended
}

// The kernel bounds what a user may watch: that ends a session, not lockkeeper.
func TestAConnectionThatCannotBeWatched(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "") // epoll takes no files
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	ours, _ := sockets(t)
	ended := make(owner, 1)
	pausedPair(runningLoop(t), ours, fd).Begin(ended)
	if cause := <-ended; !strings.HasPrefix(cause, "no poll loop can watch the connection") {
		t.Errorf("it ended because %q", cause)
	}
}

// An operator may end a session before it has begun; the loop's others go on.
func TestAPairThatEndsBeforeItBegins(t *testing.T) {
	l := runningLoop(t)
	ours, client := sockets(t)
	server, _ := sockets(t)
	p := pausedPair(l, ours, server)
	p.Fail(&policy.Refusal{SQLSTATE: "57P01", Message: "too early"})
	early := make(owner, 1)
	p.Begin(early)
	if cause := <-early; cause != "too early" {
		t.Errorf("it ended because %q", cause)
	}
	said := make([]byte, 100)
	if n, err := unix.Read(client, said); err != nil || !strings.Contains(string(said[:n]), "too early") {
		t.Errorf("the client is told %q, %v", said[:max(0, n)], err)
	}

	ours, another := sockets(t)
	server, _ = sockets(t)
	next := pausedPair(l, ours, server)
	ended := make(owner, 1)
	next.Begin(ended)
	await(t, "the client is heard", func() bool { c, _ := next.watches(); return c == readableLocally })
	if err := unix.Shutdown(another, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	await(t, "the loop goes on", func() bool {
		next.mu.Lock()
		defer next.mu.Unlock()
		return next.gone
	})
	next.Close("enough")
	<-ended
}

// A busy loop waits without telling Go's scheduler, which has to be able to
// stop it all the same.
func TestAWaitingLoopStopsForTheCollector(t *testing.T) {
	ours, client := sockets(t)
	server, theirs := sockets(t)
	p := pausedPair(runningLoop(t), ours, server)
	ended := make(owner, 1)
	p.Begin(ended)
	await(t, "the client is heard", func() bool { c, _ := p.watches(); return c == readableLocally })
	flush := wire.Append(nil, 'H')
	for range 20 {
		if _, err := unix.Write(client, flush); err != nil {
			t.Fatal(err)
		}
		await(t, "the server has it", func() bool {
			n, err := unix.Read(theirs, make([]byte, len(flush)))
			return n == len(flush) && err == nil
		})
		runtime.GC()
	}
	p.Close("enough")
	<-ended
}

// tcpSockets is sockets with TCP between them.
func tcpSockets(t *testing.T) (ours, theirs int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = own(near); err == nil {
		theirs, err = own(far)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = near.Close(), far.Close() // own has duplicates
	t.Cleanup(func() { _ = unix.Close(theirs) })
	return ours, theirs
}

// The loop hears once of what comes: a read that leaves something behind is not
// the last one.
func TestNothingIsLeftUnread(t *testing.T) {
	flush := string(wire.Append(nil, 'H'))
	notice := string(wire.Append(nil, 'N', strings.Repeat("x", 1<<10)))
	for _, c := range []struct {
		name   string
		local  bool              // both sides are unix sockets
		server bool              // it speaks, not the client
		say    func(speaker int) // behind a first message
		heard  string            // of it
		ends   bool              // the other side hears the end behind it
	}{
		{name: "more of a client than is read at once", heard: strings.Repeat(flush, 3*clientRead/len(flush))},
		{name: "as much of a client as is read at once", heard: string(wire.Append(nil, 'd', strings.Repeat("x", clientRead-5)))},
		{name: "more of a server than is read at once", server: true, heard: strings.Repeat(notice, 3*loopBuffer/len(notice))},
		{name: "a client's end behind what it says", heard: flush, ends: true, say: func(fd int) {
			say(t, fd, []byte(flush))
			_ = unix.Shutdown(fd, unix.SHUT_WR)
		}},
		{name: "a server's end behind what it says", server: true, heard: notice, ends: true, say: func(fd int) {
			say(t, fd, []byte(notice))
			_ = unix.Shutdown(fd, unix.SHUT_WR)
		}},
		{name: "a client's urgent byte", heard: flush + flush, say: func(fd int) {
			say(t, fd, []byte(flush))
			if err := unix.Sendto(fd, []byte{1}, unix.MSG_OOB, nil); err != nil {
				t.Error(err)
			}
			say(t, fd, []byte(flush))
		}},
		{name: "what comes behind descriptors", local: true, heard: flush + flush, say: func(fd int) {
			if err := unix.Sendmsg(fd, []byte(flush), unix.UnixRights(fd), nil, 0); err != nil {
				t.Error(err)
			}
			say(t, fd, []byte(flush))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := runningLoop(t)
			connect := tcpSockets
			if c.local {
				connect = sockets
			}
			near, client := connect(t)
			far, server := connect(t)
			p := pausedPair(l, near, far)
			ended := make(owner, 1)
			p.Begin(ended)
			hear(t, client, len(greeting))
			speaker, listener := client, server
			if c.server {
				speaker, listener = server, client
			}
			p.mu.Lock() // the loop comes to it when everything is there
			if c.say == nil {
				go say(t, speaker, []byte(c.heard))
			} else {
				c.say(speaker)
			}
			time.Sleep(10 * time.Millisecond)
			p.mu.Unlock()
			if got := hear(t, listener, len(c.heard)); string(got) != c.heard {
				t.Error("what is heard is not what was said")
			}
			if c.ends {
				await(t, "the end", func() bool { n, err := unix.Read(listener, make([]byte, 1)); return n == 0 && err == nil })
			}
			p.Close("enough")
			<-ended
		})
	}
}

// Whatever the pieces in which bytes come, and however slowly they are taken,
// all of them arrive.
func TestAllBytesArrive(t *testing.T) {
	l := runningLoop(t)
	var all sync.WaitGroup
	for seed := range uint64(24) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			connect := sockets
			if seed%3 > 0 {
				connect = tcpSockets
			}
			near, client := connect(t)
			far, server := connect(t)
			for _, fd := range []int{near, client, far, server} {
				if random.IntN(2) == 0 { // much has to wait
					_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 128<<10)
					_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10)
				}
			}
			p := pausedPair(l, near, far)
			ended := make(owner, 1)
			p.Begin(ended)
			hear(t, client, len(greeting))
			var way sync.WaitGroup
			relay := func(from, to int, kind byte) {
				what := traffic(random, kind)
				says, hears := rand.New(rand.NewPCG(random.Uint64(), 1)), rand.New(rand.NewPCG(random.Uint64(), 1))
				way.Go(func() { dribble(t, from, what, says) })
				way.Go(func() {
					if got := sip(t, to, len(what), hears); !bytes.Equal(got, what) {
						t.Errorf("seed %d: what arrives of %c is not what was said", seed, kind)
					}
				})
			}
			relay(client, server, 'd')
			relay(server, client, 'N')
			way.Wait()
			_ = unix.Shutdown(client, unix.SHUT_WR)
			await(t, "the server's hearing of the end", func() bool { n, err := unix.Read(server, make([]byte, 1)); return n == 0 && err == nil })
			_ = unix.Shutdown(server, unix.SHUT_WR)
			<-ended
		})
	}
	all.Wait()
}

// traffic is messages of many sizes, a megabyte of them or so.
func traffic(random *rand.Rand, kind byte) (b []byte) {
	for len(b) < 1<<20 {
		size := random.IntN(1 << random.IntN(18))
		b = wire.Append(b, kind, strings.Repeat(string(rune('a'+random.IntN(26))), size))
	}
	return b
}

// dribble says something in pieces, with pauses between some.
func dribble(t *testing.T, fd int, what []byte, random *rand.Rand) {
	for len(what) > 0 {
		n := min(1+random.IntN(1<<random.IntN(18)), len(what))
		say(t, fd, what[:n])
		what = what[n:]
		if random.IntN(8) == 0 {
			time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
		}
	}
}

// sip hears something in pieces, with pauses between some.
func sip(t *testing.T, fd, total int, random *rand.Rand) (heard []byte) {
	for len(heard) < total {
		n := min(1+random.IntN(1<<random.IntN(18)), total-len(heard))
		heard = append(heard, hear(t, fd, n)...)
		if random.IntN(8) == 0 {
			time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
		}
	}
	return heard
}
