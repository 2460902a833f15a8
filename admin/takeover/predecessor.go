package takeover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"lockkeeper/admin/control"
	"lockkeeper/internal/peercred"
	"lockkeeper/proxy"
)

// Predecessor is the process that this one takes over from.
type Predecessor struct {
	Estate

	program string
	path    string
	log     *slog.Logger
	conn    *net.UnixConn
	process peercred.Process
	client  *rpc.Client
	calls   chan struct{} // one token for each question that is not answered
	ended   chan struct{} // closed when the link has ended
	once    sync.Once
}

// Find asks the lockkeeper of a state folder to be taken over from. It returns
// nil where there is none, and what the running one says where it refuses.
// program is the version of this one.
func Find(ctx context.Context, dir, program string, log *slog.Logger) (*Predecessor, error) {
	p := &Predecessor{
		path: filepath.Join(dir, socketFile), log: log, calls: make(chan struct{}, maxCalls), ended: make(chan struct{}),
	}
	err := p.connect(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	if err == nil {
		err = p.greet(ctx, program)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over: %w", err), p.Close())
	}
	return p, nil
}

func (p *Predecessor) connect(ctx context.Context) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", p.path)
	if err != nil {
		return err
	}
	p.conn, _ = c.(*net.UnixConn) // the network is unix
	process, ok := peercred.Of(c)
	if !ok || !process.Trusted() {
		return errors.New("the process that listens in the state folder is another user's: run as the same")
	}
	p.process = process
	return nil
}

// greet says who we are and receives what is handed over.
func (p *Predecessor) greet(ctx context.Context, program string) error {
	stop := p.bound(ctx, helloTime)
	defer stop()
	if err := send(p.conn, hello{Formats: ours(), Program: program}); err != nil {
		return fmt.Errorf("ask the running lockkeeper: %w", err)
	}
	var w welcome
	files, err := receive(p.conn, &w)
	if err != nil {
		return fmt.Errorf("hear the running lockkeeper: %w", err)
	}
	if w.Refused != "" {
		closeFiles(files)
		return fmt.Errorf("the running lockkeeper (%s) refuses: %s", w.Program, w.Refused)
	}
	p.program, p.Processes, p.LastSession = w.Program, filepath.Base(w.Processes), w.LastSession
	if err := ours().agree(w.Formats); err != nil {
		closeFiles(files)
		return err
	}
	return p.take(&w, files)
}

// take makes listeners of descriptors.
func (p *Predecessor) take(w *welcome, files []*os.File) error {
	if len(files) != 2+len(w.Listeners) {
		closeFiles(files)
		return fmt.Errorf("%d descriptors came with %d listeners", len(files), len(w.Listeners))
	}
	p.Lock = files[0]
	var errs []error
	for i, f := range files[1:] {
		l, err := net.FileListener(f)
		_ = f.Close() // the listener has a descriptor of its own
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("take a socket: %w", err))
		case i == 0:
			p.Admin = proxy.Listener{Listener: l, Configured: w.Admin}
		default:
			p.Listeners = append(p.Listeners, proxy.Listener{Listener: l, Configured: w.Listeners[i-1]})
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the predecessor may go on with it
		}
	}
	return errors.Join(errs...)
}

// bound ends the connection when a wait takes too long.
func (p *Predecessor) bound(ctx context.Context, most time.Duration) (stop func()) {
	late := time.AfterFunc(most, func() { _ = p.conn.Close() })
	left := context.AfterFunc(ctx, func() { _ = p.conn.Close() })
	return func() { late.Stop(); left() }
}

// Program is the predecessor's version.
func (p *Predecessor) Program() string { return p.program }

// Accept tells the predecessor that this process accepts clients. When it
// returns nil the predecessor does so no more, and the link is open; or it has
// died, and alive is false.
func (p *Predecessor) Accept(ctx context.Context, t Terms) (alive bool, err error) {
	stop := p.bound(ctx, HandoverTime)
	defer stop()
	err = send(p.conn, accept{t})
	if err == nil {
		var stopped struct{}
		_, err = receive(p.conn, &stopped)
	}
	if err != nil {
		return false, p.whyNot(ctx, err)
	}
	p.client = jsonrpc.NewClient(&watched{Conn: p.conn, ended: func() { p.once.Do(func() { close(p.ended) }) }})
	return true, nil
}

// whyNot tells a predecessor that has died, which is no error, from one that
// goes on: that listens.
func (p *Predecessor) whyNot(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("take over: %w", ctx.Err())
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", p.path)
	if errors.Is(err, syscall.ECONNREFUSED) {
		p.log.LogAttrs(ctx, slog.LevelWarn, "the predecessor died while it handed over", slog.String("cause", cause.Error()))
		return nil
	}
	if err == nil {
		_ = c.Close()
	}
	return fmt.Errorf("take over: the running lockkeeper goes on: %w", cause)
}

// Ended is closed when the predecessor has ended.
func (p *Predecessor) Ended() <-chan struct{} { return p.ended }

// Close ends the link. A predecessor that has handed over ends its sessions;
// one that has not goes on.
func (p *Predecessor) Close() error {
	if p.conn == nil {
		return nil
	}
	err := p.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// errBusy says that the predecessor answers nothing.
var errBusy = errors.New("the process that was taken over from does not answer")

// call asks the predecessor. reply must not be looked at after an error.
func (p *Predecessor) call(ctx context.Context, method string, args, reply any) error {
	select {
	case p.calls <- struct{}{}:
	default:
		return errBusy
	}
	return p.ask(ctx, method, args, reply, func() { <-p.calls })
}

func (p *Predecessor) ask(ctx context.Context, method string, args, reply any, over func()) error {
	done := make(chan error, 1)
	go func() {
		defer over()
		done <- p.client.Call(linkName+"."+method, args, reply) // ends with the link, if it is not answered
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
}

// Follow tells the predecessor what is in force. One that does not answer in
// time, or cannot do as it is told, is killed: then nothing of it can act, but
// for what the servers still run, which is the barrier's to wait for.
func (p *Predecessor) Follow(d *control.Desired) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), AnswerTime)
	defer cancel()
	var f Followed
	err := p.ask(ctx, "Follow", d, &f, func() {})
	if err == nil {
		if f.Keeps != "" {
			p.log.LogAttrs(ctx, slog.LevelWarn, "sessions of the process that was taken over from keep the policy that they have",
				slog.String("cause", f.Keeps))
		}
		return nil
	}
	return p.kill(err)
}

// kill ends the predecessor and returns when it is gone.
func (p *Predecessor) kill(why error) error {
	select {
	case <-p.ended:
		return nil // by itself
	default:
	}
	p.log.LogAttrs(context.Background(), slog.LevelError, "the process that was taken over from cannot be contained, ending it",
		slog.Int("pid", p.process.PID), slog.String("cause", why.Error()))
	if p.process.PID <= 1 || p.process.PID == os.Getpid() { // of another PID namespace
		return fmt.Errorf("%w; its process id is not known here", why)
	}
	if err := syscall.Kill(p.process.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w; kill process %d: %w", why, p.process.PID, err)
	}
	gone := time.NewTimer(AnswerTime)
	defer gone.Stop()
	select {
	case <-p.ended: // the kernel has closed its connections
		return nil
	case <-gone.C:
		return fmt.Errorf("%w; process %d does not end", why, p.process.PID)
	}
}

// Finish asks the predecessor to end within some time, and returns when it has.
func (p *Predecessor) Finish(ctx context.Context, within time.Duration) {
	if err := p.call(ctx, "Finish", within, &struct{}{}); err != nil {
		return // Close ends it
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
}

// Cancel is proxy.Peer's: cancel requests of the predecessor's clients come
// here now.
func (p *Predecessor) Cancel(ctx context.Context, pid uint32, key []byte) (known bool, err error) {
	var answer bool
	if err := p.call(ctx, "CancelKey", KeyCall{pid, key}, &answer); err != nil {
		return false, err
	}
	return answer, nil
}
