package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lockkeeper/proxy/session"
)

// loopBuffer is what a loop reads at once from a server, in bytes. Its sessions
// share it: what they cannot pass on at once is copied. Long streams cost the
// less CPU the larger it is, up to a quarter of a megabyte.
const loopBuffer = 256 << 10

// clientRead is what is read at once from a client, as long as the budget has as
// much for every loop.
const clientRead = 64 << 10

// loopEvents is how many ready connections are asked for at once.
const loopEvents = 128

// Poller moves the bytes of sessions in a few loops, each with an epoll
// instance of its own. A session belongs to one loop for its life. Source:
// epoll(7); TCP is edge-triggered, unix sockets are level-triggered.
type Poller struct {
	loops   []*loop
	next    atomic.Uint32
	streams atomic.Int64 // of all loops
}

// NewPoller starts loops. They end with Close.
func NewPoller(loops int) (*Poller, error) {
	p := &Poller{}
	keeps := runtime.GOMAXPROCS(0) > loops && !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1")
	for range loops {
		l, err := newLoop(p, loops, keeps)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.loops = append(p.loops, l)
		go l.run()
	}
	return p, nil
}

// Close ends the loops; sessions that still run get no bytes any more.
func (p *Poller) Close() {
	if p == nil {
		return
	}
	for _, l := range p.loops {
		l.stop()
	}
	p.loops = nil
}

// Streams is how many long answers are read in batches.
func (p *Poller) Streams() int {
	if p == nil {
		return 0
	}
	return int(p.streams.Load())
}

// pair returns a pair in one of the loops; nil where that cannot be.
func (p *Poller) pair(cfg *Config, client, server net.Conn, s *session.Session, pending []byte) Pair {
	if p == nil || len(p.loops) == 0 {
		return nil
	}
	from, err := own(client)
	if err != nil {
		return nil
	}
	to, err := own(server)
	if err != nil {
		_ = unix.Close(from) // nobody else has it
		return nil
	}
	_ = client.Close() // the sockets live on in the descriptors that are ours
	_ = server.Close()
	l := p.loops[int(p.next.Add(1))%len(p.loops)]
	return newPolled(cfg, l, from, to, s, pending)
}

var errNoSocket = errors.New("no plain socket")

// own returns a descriptor of c's socket that Go's runtime does not watch.
func own(c net.Conn) (int, error) {
	var s syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		s = c
	case *net.UnixConn:
		s = c
	default:
		return 0, errNoSocket
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("own a socket: %w", err)
	}
	mine := -1
	var failed error
	err = raw.Control(func(fd uintptr) { mine, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("own a socket: %w", err)
	}
	return mine, nil
}

// loop watches the connections of its sessions and lets them work.
type loop struct {
	of      *Poller
	epoll   int
	bell    int  // an eventfd that ends the loop
	keeps   bool // it may keep its processor while it waits: there are others
	peak    int  // bytes that all loops read of clients at once at most
	began   time.Time
	patient bool     // it can wait for parts of a millisecond: Linux 5.11
	timeout [2]int64 // seconds and nanoseconds, as the kernel has them
	events  [loopEvents]unix.EpollEvent
	ready   [loopEvents]*polled // whose they are
	started atomic.Bool         // a goroutine was started that may wait for the loop's processor
	ended   chan struct{}
	shift   session.Shift
	streams []stream // which it reads when there is much

	mu    sync.Mutex
	pairs []*polled // by their number; the first is nobody's: it is the bell's
	free  []int32
}

// newLoop makes one of so many loops.
func newLoop(p *Poller, loops int, keeps bool) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a poll loop: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("make a poll loop: %w", err)
	}
	began := time.Now() //nolint:forbidigo // of waits; nothing is decided by it
	l := &loop{of: p, epoll: epoll, bell: bell, keeps: keeps, peak: loops * clientRead, began: began, ended: make(chan struct{}), pairs: make([]*polled, 1)}
	_, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&l.events)), 1, uintptr(unsafe.Pointer(&l.timeout)), 0, 0)
	l.patient = errno == 0
	return l, nil
}

// stop ends the loop and waits for that.
func (l *loop) stop() {
	_, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes it
	<-l.ended
	_ = unix.Close(l.bell)
	_ = unix.Close(l.epoll)
}

// enter gives a pair its number.
func (l *loop) enter(p *polled) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		number := l.free[n-1]
		l.free = l.free[:n-1]
		l.pairs[number] = p
		return number
	}
	l.pairs = append(l.pairs, p)
	return int32(len(l.pairs) - 1) //nolint:gosec // bounded by file descriptors
}

// leave frees a number. An event that is under way may then meet another pair,
// which finds nothing to read.
func (l *loop) leave(number int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs[number] = nil
	l.free = append(l.free, number)
}

// run lets sessions work until stop.
func (l *loop) run() {
	defer close(l.ended)
	buf := make([]byte, loopBuffer)
	for busy := false; ; {
		n := l.wait(busy)
		busy = n > 0
		l.shift.Clock.Reset()
		l.mu.Lock()
		for i, e := range l.events[:n] {
			l.ready[i] = l.pairs[e.Fd]
		}
		l.mu.Unlock()
		for done := 0; done < n; {
			g := l.group(done, n, buf)
			if g == 0 {
				return
			}
			done += g
		}
		if len(l.streams) > 0 && l.hurry(buf) {
			busy = true
		}
	}
}

// groupEvents is how many events are a group at most.
const groupEvents = 8

// group lets the pairs of the next events up to end work, as far as they belong
// together, and returns how many events these were; 0 for the bell. What all of
// them have read and decided about is written then: to do the same for several
// sessions and then the next thing finds the code, the session's and the
// kernel's, in the processor's caches. Their mutexes are held until it is
// written, for it is in the loop's buffer, where each has a part of its own.
// Nobody else holds more than one.
func (l *loop) group(begin, end int, buf []byte) int {
	var parts [groupEvents][]byte
	i, used := begin, 0
	for i < min(end, begin+groupEvents) && used < len(buf)/2 {
		e, p := &l.events[i], l.ready[i]
		if e.Fd == 0 {
			break
		}
		if p != nil {
			if p.onShift { // its other side is in the group
				break
			}
			if parts[i-begin] = p.hear(side(e.Pad), e.Events, buf[used:]); !p.onShift {
				l.ready[i] = nil
			}
			used += len(parts[i-begin])
		}
		i++
	}
	for k := begin; k < i; k++ {
		if p := l.ready[k]; p != nil {
			p.answer(parts[k-begin])
			l.ready[k] = nil
		}
	}
	return i - begin
}

const forever time.Duration = -1

// wait returns how many events there are, and waits for the first; none after
// a signal. A busy loop keeps its processor meanwhile: Go's scheduler is not
// told of the wait, which would cost as much as the relay of a message, and
// would keep its monitor awake. Whoever wants the loop's goroutine to stop (the
// collector; the monitor, after 10 ms) sends its thread a signal, again and
// again until it has stopped, and a signal ends the wait. After one the loop is
// not busy any more. Source: sysmon and retake in runtime/proc.go, suspendG in
// runtime/preempt.go; signal(7): epoll_wait is not begun again.
func (l *loop) wait(busy bool) int {
	keep := busy && l.keeps
	if keep && l.started.Swap(false) {
		if n := l.await(0, true); n > 0 {
			l.started.Store(true)
			return n
		}
		runtime.Gosched() // what was started waits for this processor, or has another
	}
	return l.await(l.patience(), keep)
}

// await waits for at most so long; more than 0 is for a loop that is patient.
func (l *loop) await(most time.Duration, keep bool) int {
	call, timeout := uintptr(unix.SYS_EPOLL_PWAIT), uintptr(most) // 0 and forever are the same in ms
	if most > 0 {
		l.timeout = [2]int64{int64(most / time.Second), int64(most % time.Second)}
		call, timeout = unix.SYS_EPOLL_PWAIT2, uintptr(unsafe.Pointer(&l.timeout))
	}
	var n uintptr
	var errno syscall.Errno
	events := uintptr(unsafe.Pointer(&l.events))
	if keep {
		n, _, errno = syscall.RawSyscall6(call, uintptr(l.epoll), events, loopEvents, timeout, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(call, uintptr(l.epoll), events, loopEvents, timeout, 0, 0)
	}
	if errno != 0 && errno != unix.EINTR {
		panic("epoll_wait: " + errno.Error()) // only a descriptor of ours that is not ours any more
	}
	return taken(n, errno)
}

// watch changes what the loop watches a descriptor for. The kernel may have no
// room for one more; any other error would mean that the descriptor is not ours.
// Source: epoll_ctl(2), ENOSPC; epoll(7), max_user_watches.
func (l *loop) watch(fd int32, number int32, s side, before, after uint32) error {
	op := unix.EPOLL_CTL_MOD
	switch {
	case before == 0:
		op = unix.EPOLL_CTL_ADD
	case after == 0:
		op = unix.EPOLL_CTL_DEL
	}
	err := unix.EpollCtl(l.epoll, op, int(fd), &unix.EpollEvent{Events: after, Fd: number, Pad: int32(s)})
	switch {
	case err == nil || errors.Is(err, unix.EBADF): // EBADF: the loop has ended
		return nil
	case before == 0:
		return os.NewSyscallError("epoll_ctl", err)
	}
	panic("epoll_ctl: " + err.Error())
}
