package takeover

import (
	"context"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"time"

	"lockkeeper/admin/control"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// Sessions are those of one process.
type Sessions interface {
	control.Proxy
	// Follow puts in force what the successor has decided; see control.Follow.
	Follow(d *control.Desired) (keeps, err error)
	// CancelHere and EndQuietSession are proxy.Server's.
	CancelHere(ctx context.Context, pid uint32, key []byte) bool
	EndQuietSession(id uint64) (busy bool)
}

// linkName is before the name of every method.
const linkName = "Link"

// link is what the successor may ask.
type link struct {
	holder Holder
	ctx    context.Context //nolint:containedctx // of every call: it ends with the connection
}

// serveLink answers the successor until the connection ends.
func serveLink(c *net.UnixConn, h Holder) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := rpc.NewServer()
	if err := s.RegisterName(linkName, &link{h, ctx}); err != nil {
		return // never: the methods are below
	}
	// The codec's end waits for calls that are under way, which end with ctx.
	s.ServeCodec(jsonrpc.NewServerCodec(&watched{Conn: c, ended: func() { h.Orphan(); cancel() }}))
}

// watched is a connection whose end is told at once.
type watched struct {
	net.Conn
	ended func() // may be called more than once
}

// Read reads.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.ended()
	}
	return n, err
}

// BarrierCall is what Barrier is asked with.
type BarrierCall struct {
	Containment policy.Containment `json:"containment"`
	Until       time.Time          `json:"until"` // when nobody waits any more
}

// KeyCall is a cancel request's key.
type KeyCall struct {
	PID uint32 `json:"pid"`
	Key []byte `json:"key"`
}

// Followed is the answer of Follow.
type Followed struct {
	Keeps string `json:"keeps,omitempty"` // why the old policy stays in force
}

// List lists the sessions.
func (l *link) List(_ struct{}, out *[]proxy.SessionInfo) error {
	*out = l.holder.Sessions()
	return nil
}

// Cancel is control.Proxy's CancelSession.
func (l *link) Cancel(id uint64, _ *struct{}) error { return l.holder.CancelSession(l.ctx, id) }

// Terminate is control.Proxy's TerminateSession.
func (l *link) Terminate(id uint64, _ *struct{}) error { return l.holder.TerminateSession(l.ctx, id) }

// EndQuiet is proxy.Server's EndQuietSession.
func (l *link) EndQuiet(id uint64, busy *bool) error {
	*busy = l.holder.EndQuietSession(id)
	return nil
}

// CancelKey is proxy.Server's CancelHere.
func (l *link) CancelKey(k KeyCall, known *bool) error {
	*known = l.holder.CancelHere(l.ctx, k.PID, k.Key)
	return nil
}

// Barrier is control.Proxy's.
func (l *link) Barrier(b BarrierCall, out *[]proxy.BarrierReport) error {
	ctx, cancel := context.WithDeadline(l.ctx, b.Until)
	defer cancel()
	var err error
	*out, err = l.holder.Barrier(ctx, b.Containment)
	return err
}

// Follow puts in force what the successor has decided.
func (l *link) Follow(d control.Desired, out *Followed) error {
	keeps, err := l.holder.Follow(&d)
	if keeps != nil {
		out.Keeps = keeps.Error()
	}
	return err
}

// Finish lets transactions finish, and ends the process then.
func (l *link) Finish(within time.Duration, _ *struct{}) error {
	l.holder.Finish(within)
	return nil
}
