package takeover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lockkeeper/internal/peercred"
	"lockkeeper/proxy"
)

// Holder is the running lockkeeper.
type Holder interface {
	// Offer lets nothing be changed any more and says what is handed over, or
	// says why it cannot be.
	Offer() (*Estate, error)
	// Keep goes on as before: the successor has given up.
	Keep()
	// HandOver stops accepting, for the successor does so, and gives up the
	// state folder; or it says why it cannot, and changes nothing.
	HandOver(t Terms) error
	// Finish ends sessions as soon as they are outside a transaction, and all
	// when the time is over.
	Finish(within time.Duration)
	// Orphan ends every session: the successor is gone, and with it whoever
	// could contain them. It does not wait.
	Orphan()

	Sessions
}

// Offering waits in the state folder for a successor.
type Offering struct {
	holder   Holder
	program  string
	log      *slog.Logger
	path     string
	listener *net.UnixListener
	turn     sync.Mutex // held by the one successor that is served
	wait     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[*net.UnixConn]bool
	done  bool
}

// Offer listens in the state folder. program is the version of this one.
func Offer(dir, program string, h Holder, log *slog.Logger) (*Offering, error) {
	path := filepath.Join(dir, socketFile)
	temp := path + ".new"
	_ = os.Remove(temp) // it is in the way only if a process died here
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("offer to be taken over from: %w", err)
	}
	l.SetUnlinkOnClose(false) // its name is about to change
	err = os.Chmod(temp, 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("offer to be taken over from: %w", err), l.Close())
	}
	o := &Offering{holder: h, program: program, log: log, path: path, listener: l, conns: map[*net.UnixConn]bool{}}
	o.wait.Add(1)
	go o.acceptLoop()
	return o, nil
}

func (o *Offering) acceptLoop() {
	defer o.wait.Done()
	for {
		c, err := o.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: whoever asks waits
			time.Sleep(acceptPause)
			continue
		}
		o.mu.Lock()
		if o.done {
			_ = c.Close()
		} else {
			o.conns[c] = true
			o.wait.Add(1)
			go o.serve(c)
		}
		o.mu.Unlock()
	}
}

// Hide lets nobody find the offer any more. It is for a process that still has
// the lock of the state folder: the next to have it offers at the same path.
func (o *Offering) Hide() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return nil
	}
	o.done = true
	if err := os.Remove(o.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end the offer to be taken over from: %w", err)
	}
	return nil
}

// Close ends the offer and the link to a successor.
func (o *Offering) Close() {
	o.mu.Lock()
	o.done = true
	for c := range o.conns {
		_ = c.Close() // the other side finds out
	}
	o.mu.Unlock()
	_ = o.listener.Close() // in a takeover it is closed already
	o.wait.Wait()
}

// serve talks to one process that connects, to the end.
func (o *Offering) serve(c *net.UnixConn) {
	defer o.wait.Done()
	defer func() {
		o.mu.Lock()
		delete(o.conns, c)
		o.mu.Unlock()
		_ = c.Close() // nothing is left to be said
	}()
	if err := o.handshake(c); err != nil {
		o.log.LogAttrs(context.Background(), slog.LevelWarn, "nobody has taken over, going on", slog.String("cause", err.Error()))
		return
	}
	serveLink(c, o.holder)
}

// handshake returns an error where there is no successor after all.
func (o *Offering) handshake(c *net.UnixConn) error {
	if p, ok := peercred.Of(c); !ok || !p.Trusted() {
		return errors.New("a process of another user has asked")
	}
	late := time.AfterFunc(helloTime, func() { _ = c.Close() })
	defer late.Stop()
	var h hello
	files, err := receive(c, &h)
	closeFiles(files)
	if err != nil {
		return fmt.Errorf("hear who asks: %w", err)
	}
	if !o.turn.TryLock() {
		return o.refuse(c, errors.New("another takeover is under way or over"))
	}
	late.Reset(HandoverTime)
	if err := o.handOver(c, &h); err != nil {
		o.turn.Unlock()
		return err
	}
	return nil // the turn stays taken: there is one successor
}

func (o *Offering) refuse(c *net.UnixConn, why error) error {
	return errors.Join(why, send(c, welcome{Refused: why.Error(), Formats: ours(), Program: o.program}))
}

// handOver hands over; until it has succeeded nothing is lost.
func (o *Offering) handOver(c *net.UnixConn, h *hello) error {
	if err := h.Formats.agree(ours()); err != nil {
		return o.refuse(c, err)
	}
	e, err := o.holder.Offer()
	if err != nil {
		return o.refuse(c, err)
	}
	a, err := o.await(c, e)
	if err == nil && hasLeft(c) {
		err = errors.New("the successor has said that it accepts, and has not waited for the answer")
	}
	if err == nil {
		err = o.holder.HandOver(a.Terms)
	}
	if err != nil {
		o.holder.Keep()
		return err
	}
	o.log.LogAttrs(context.Background(), slog.LevelInfo, "handed over", slog.String("to_version", h.Program),
		slog.Duration("sessions_stay", a.Terms.Wait))
	o.mu.Lock()
	o.done = true // the path is the successor's
	o.mu.Unlock()
	_ = o.listener.Close()                      // before the successor offers itself
	if err := send(c, struct{}{}); err != nil { // it said that it accepts: there is no way back
		o.log.LogAttrs(context.Background(), slog.LevelError, "the successor was lost", slog.String("cause", err.Error()))
	}
	return nil
}

// await hands over the descriptors and waits until the successor accepts.
func (o *Offering) await(c *net.UnixConn, e *Estate) (*accept, error) {
	w := welcome{Formats: ours(), Program: o.program, Admin: e.Admin.Configured, Processes: e.Processes, LastSession: e.LastSession}
	copies := []*descriptor{}
	defer func() {
		for _, d := range copies {
			d.close()
		}
	}()
	add := func(s syscall.Conn) error {
		d, err := copyOf(s)
		if err == nil {
			copies = append(copies, d)
		}
		return err
	}
	if err := errors.Join(add(e.Lock), addListener(add, e.Admin)); err != nil {
		return nil, err
	}
	for _, l := range e.Listeners {
		w.Listeners = append(w.Listeners, l.Configured)
		if err := addListener(add, l); err != nil {
			return nil, err
		}
	}
	fds := make([]int, 0, len(copies))
	for _, d := range copies {
		fds = append(fds, d.fd)
	}
	if err := send(c, w, fds...); err != nil {
		return nil, fmt.Errorf("hand over sockets: %w", err)
	}
	var a accept
	files, err := receive(c, &a)
	closeFiles(files)
	if err != nil {
		return nil, fmt.Errorf("wait until the successor accepts: %w", err)
	}
	return &a, nil
}

func addListener(add func(syscall.Conn) error, l proxy.Listener) error {
	s, ok := l.Listener.(syscall.Conn)
	if !ok {
		return fmt.Errorf("the listener on %s has no descriptor", l.Addr())
	}
	return add(s)
}

// descriptor is a copy that shares everything with the original, its flags
// included: os.File would change them.
type descriptor struct{ fd int }

func copyOf(s syscall.Conn) (*descriptor, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("copy a descriptor: %w", err)
	}
	d := &descriptor{}
	var failed error
	err = raw.Control(func(fd uintptr) {
		d.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("copy a descriptor: %w", err)
	}
	return d, nil
}

func (d *descriptor) close() { _ = unix.Close(d.fd) } // the original stays

// hasLeft reports whether the other side has closed a connection of which
// everything was read.
func hasLeft(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var n int
	var failed error
	var b [1]byte
	err = raw.Control(func(fd uintptr) {
		n, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) //nolint:gosec // descriptors are small
	})
	return err != nil || n == 0 && failed == nil
}
