package engine

import (
	"context"
	"errors"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
	"lockkeeper/proxy/wire"
)

// side says which connection of a pair is meant.
type side int32

const (
	clientSide side = iota
	serverSide
)

var errNotNow = errors.New("the socket is not ready")

// polled is a pair whose bytes a poll loop moves. Whoever holds the mutex may
// work on the session: nothing that is done with it held waits, and what has to
// wait (a parse, a full journal) is done aside, by a goroutine that comes back.
type polled struct {
	core
	loop *loop

	client  half
	server  half
	number  int32 // in the loop
	pieces  int32 // bytes of the server's, in large ones, since the client was heard
	starved bool  // the budget had no more for the client's buffer; nothing is read until the session has taken something
	aside   bool  // something slow comes before whatever is to be written
	shut    bool  // the server knows that the client has ended
	onShift bool  // the loop is working on it
	flows   bool  // it is among the loop's streams
	parted  bool  // what it is to read may come in parts
	leaving bool  // the pair ends when the client has everything
}

// half is one connection of a pair. An idle one has no buffers.
type half struct {
	fd      int32    // as epoll has it
	watched uint32   // what the loop watches it for; stale: and has to be told again
	reads   uint32   // what it is watched for when it is read
	in      []byte   // read; from start on not taken yet
	start   int      // moved to the front only when nothing that is to be written aliases in
	out     [][]byte // to be written; may alias the other half's in
	bytes   int64    // taken for writing, in all
	lost    int64    // bytes when err came
	err     error    // of writing; then everything is thrown away
}

// The loop is told of a TCP connection when something comes, not for as long as
// something is there: readable is what it watches one for that is read. A read
// that fills less than its buffer has emptied the socket, but for what parts
// says: an end, or a byte that is urgent, may come behind what was read. stale
// is no event of the kernel's: something may be left that the loop was told of
// already. Source: epoll(7), "Level-triggered and edge-triggered" and its
// question 9; tcp_recvmsg_locked in net/ipv4/tcp.c, which stops at an urgent byte.
const (
	parts    uint32 = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLPRI
	readable uint32 = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET
	stale    uint32 = 1 << 27
)

// readableLocally is the same of a unix socket, which is watched for as long as
// something is there: a read ends behind what came with descriptors. Source:
// unix_stream_read_generic in net/unix/af_unix.c.
const readableLocally uint32 = unix.EPOLLIN

// readableOf returns what a socket is watched for when it is read.
func readableOf(fd int) uint32 {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_UNIX {
		return readableLocally
	}
	return readable
}

// leftovers notes that something may be left to be read.
func (h *half) leftovers() {
	if h.watched&unix.EPOLLIN != 0 {
		h.watched |= stale
	}
}

// receive reads what there is into buf, as far as it has room. An urgent byte
// may be announced long before what comes before it, so that a read which finds
// nothing is the last one; but before the byte itself a signal ends one, too.
func (p *polled) receive(h *half, buf []byte) (int, error) {
	n, err := receive(h.fd, buf)
	if p.parted && errors.Is(err, errNotNow) {
		n, err = receive(h.fd, buf)
	}
	if n == len(buf) || n > 0 && p.parted {
		h.leftovers()
	}
	p.parted = false
	return n, err
}

// rest is what was read and not taken.
func (h *half) rest() []byte { return h.in[h.start:] }

func newPolled(cfg *Config, l *loop, client, server int, s *session.Session, pending []byte) *polled {
	p := &polled{core: core{cfg: cfg, s: s}, loop: l}
	p.pair = p
	p.client.fd, p.server.fd = int32(client), int32(server) //nolint:gosec // descriptors
	p.client.reads, p.server.reads = readableOf(client), readableOf(server)
	p.server.in = pending
	p.number = l.enter(p) // here, for others may act on it before Begin
	return p
}

func (p *polled) Begin(o Owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owner = o
	if p.ended {
		go p.conclude()
		return
	}
	if p.s.Closing() == "" {
		p.heardServer(nil)
	}
	p.resume()
}

func (p *polled) Close(cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.because(cause)
	p.close()
}

func (p *polled) Fail(r *policy.Refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Fail(r)
	p.resume()
}

func (p *polled) Traffic() (toServer, toClient int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server.bytes, p.client.bytes
}

// resume works on after an event that came from neither side. What comes before
// Begin waits for it.
func (p *polled) resume() {
	if p.ended || p.owner == nil {
		return
	}
	p.pump(nil)
	p.settle()
}

// close ends the pair at once.
func (p *polled) close() {
	if p.ended {
		return
	}
	p.finish()
	for s, h := range map[side]*half{clientSide: &p.client, serverSide: &p.server} {
		p.watch(h, s, 0)
		_ = unix.Close(int(h.fd)) // nothing is left to be told
		h.in, h.out, h.start = nil, nil, 0
	}
	p.loop.leave(p.number)
	p.letGo()
	if p.owner != nil {
		go p.conclude()
	}
}

// hear is called by the loop when a connection can be read or written, or is
// broken. It returns what was read into buf, which is the loop's and has to stay
// as it is until answer, and goes on shift until then; it does not where the pair
// has ended.
func (p *polled) hear(s side, events uint32, buf []byte) (read []byte) {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return nil
	}
	p.onShift = true
	h := &p.client
	if s == serverSide {
		h = &p.server
	}
	if events&^unix.EPOLLIN != 0 {
		p.drain(h)
	}
	p.parted = events&parts != 0
	switch {
	case events&^unix.EPOLLOUT == 0:
		return nil
	case s == clientSide:
		p.asked()
		return p.readClient(buf[:p.clientMost()])
	default:
		return p.readServer(buf)
	}
}

// answer writes what came of hear, and ends the shift.
func (p *polled) answer(read []byte) {
	p.flush(read)
	if !p.isCalm() {
		p.settle()
	}
	p.onShift = false
	p.mu.Unlock()
}

// isCalm reports whether there is nothing to settle, as after most events:
// everything was taken and written, and both sides are watched.
func (p *polled) isCalm() bool {
	return p.client.isCalm() && p.server.isCalm() && p.caught == nil && !p.gone && !p.leaving && !p.aside && !p.starved && !p.ended
}

func (h *half) isCalm() bool { return h.watched == h.reads && h.in == nil && h.out == nil }

// shift returns what the loop has for the session that it works on; nil outside
// of its goroutine.
func (p *polled) shift() *session.Shift {
	if !p.onShift {
		return nil
	}
	return &p.loop.shift
}

// settle does what may have become due after an event, and has the loop watch
// what the pair waits for now.
func (p *polled) settle() {
	if p.ended {
		return
	}
	p.tellServer()
	if p.leaving && len(p.client.out) == 0 && !p.aside {
		p.close()
		return
	}
	p.caughtUp()
	p.tidy()
	p.watch(&p.client, clientSide, p.wants(p.hearsClient(), &p.client))
	p.watch(&p.server, serverSide, p.wants(p.hearsServer(), &p.server))
}

// wants returns the events that are acted on now. What is there when the loop
// begins to watch for it, it is told of.
func (p *polled) wants(reading bool, h *half) uint32 {
	var events uint32
	if reading {
		events = h.reads
	}
	if len(h.out) > 0 && !p.aside {
		events |= unix.EPOLLOUT
	}
	return events
}

// watch ends the pair where the kernel has no room for another watch.
func (p *polled) watch(h *half, s side, events uint32) {
	if events == h.watched || p.ended && events != 0 {
		return
	}
	if err := p.loop.watch(h.fd, p.number, s, h.watched&^stale, events); err != nil {
		p.because("no poll loop can watch the connection: " + err.Error())
		p.close()
		return
	}
	h.watched = events
}

// tidy moves what was not taken to the front and gives empty buffers back,
// where nothing that is still to be written aliases them.
func (p *polled) tidy() {
	if c := &p.client; c.in != nil && len(p.server.out) == 0 && !p.asking {
		c.compact()
		if c.in == nil {
			p.release()
		}
	}
	if h := &p.server; h.in != nil && len(p.client.out) == 0 {
		h.compact()
	}
}

func (h *half) compact() {
	if h.start == len(h.in) {
		h.in, h.start = nil, 0
		return
	}
	if h.start > 0 {
		h.in, h.start = h.in[:copy(h.in, h.rest())], 0
	}
}

// hearsClient reports whether more of the client is to be read now.
func (p *polled) hearsClient() bool {
	if p.gone || p.aside || p.leaving || len(p.server.out) > 0 {
		return false
	}
	c := &p.client
	return len(c.in) < cap(c.in) || !p.starved && len(c.in)-c.start < p.clientLimit()
}

// clientLimit is how much may be kept of the client that was not taken.
func (p *polled) clientLimit() int {
	if want := p.s.ClientNeed(); want > 0 {
		return want
	}
	return max(p.cfg.HeldBytes, clientBuffer)
}

// hearsServer reports whether more of the server is to be read now.
func (p *polled) hearsServer() bool {
	return !p.aside && !p.leaving && len(p.client.out) == 0
}

// readClient reads once, and returns what it has read into buf.
func (p *polled) readClient(buf []byte) []byte {
	c := &p.client
	if p.ended || !p.hearsClient() {
		c.leftovers()
		return nil
	}
	fresh := buf
	if len(c.in) > 0 {
		if !p.clientRoom() {
			c.leftovers()
			return nil
		}
		fresh = c.in[len(c.in):cap(c.in)]
	}
	n, err := p.receive(c, fresh)
	switch {
	case err == nil && n > 0 && len(c.in) == 0:
		p.pump(fresh[:n])
		return fresh[:n]
	case err == nil && n > 0:
		c.in = c.in[:len(c.in)+n]
		p.pump(nil)
	case err == nil:
		p.clientEnded(io.EOF)
	case !errors.Is(err, errNotNow):
		p.clientEnded(err)
	}
	return nil
}

// clientMost is how much is read of a client at once. What cannot be passed on
// may have to be kept, and what is beyond its first buffer counts. Where several
// ask for the last bytes at once the budget is exceeded, by 48 kB for each loop
// at most.
func (p *polled) clientMost() int {
	if p.cfg.Budget.has(p.loop.peak) {
		return clientRead
	}
	return clientBuffer
}

// clientRoom makes room behind what is kept of the client. Without room in the
// budget the session decides on what is at hand.
func (p *polled) clientRoom() bool {
	c := &p.client
	if !p.asking {
		c.compact()
	}
	if len(c.in) < cap(c.in) {
		return true
	}
	size := min(p.clientLimit()+c.start, 2*cap(c.in))
	if size <= cap(c.in) {
		return false
	}
	if !p.cfg.Budget.take(size - cap(c.in)) {
		p.starved = true
		p.s.NoRoom()
		p.pump(nil)
		return false
	}
	p.granted += size - cap(c.in)
	bigger := make([]byte, len(c.in), size)
	copy(bigger, c.in)
	c.in = bigger
	return true
}

// clientEnded takes note of the client's end.
func (p *polled) clientEnded(err error) {
	p.gone = true
	if errors.Is(err, io.EOF) {
		p.because("client closed the connection")
		return
	}
	p.because(ClientLost + reason(err))
}

// tellServer passes the client's end on when everything that the client sent
// before it was: a statement that is held is not run for nobody, one that waits
// for replies is still sent. A server that may be changing something is heard
// to its end, so that the session is known until then.
func (p *polled) tellServer() {
	if !p.gone || p.shut || p.leaving {
		return
	}
	if !p.told {
		if len(p.client.rest()) > 0 && (p.asking || p.aside || p.s.WaitsForReplies()) {
			return
		}
		p.told = true
		p.client.start = len(p.client.in)
	}
	if p.aside || len(p.server.out) > 0 {
		return
	}
	p.shut = true
	if unix.Shutdown(int(p.server.fd), unix.SHUT_WR) != nil {
		p.leaving = true // it is gone itself
	}
}

// pump offers the client's bytes to the session, and writes what came of it.
// fresh are bytes in a buffer that is not ours, read when nothing was kept; nil
// where what is kept is offered.
func (p *polled) pump(fresh []byte) {
	c := &p.client
	data := fresh
	if fresh == nil {
		data = c.rest()
	}
	n := 0
	if len(data) > 0 && !p.asking && !p.aside && !p.told {
		p.s.Wake(p.shift())
		n = p.s.FromClient(data)
		p.starved = p.starved && n == 0
	}
	if !p.leaving { // then the timer is the farewell's
		p.arm()
	}
	var text []byte
	var lex inspect.Lexing
	if !p.asking {
		text, lex = p.s.Ask()
	}
	p.work(fresh)
	rest := data[n:]
	if fresh == nil {
		c.start += n
	} else if len(rest) > 0 {
		p.keepClient(rest)
	}
	if text == nil {
		return
	}
	// The text is part of what was not taken, which may have moved just now.
	at := int(address(text) - address(rest))
	p.ask(c.rest()[at:at+len(text)], lex)
}

// keepClient keeps what was not taken of a read.
func (p *polled) keepClient(rest []byte) {
	c := &p.client
	c.in = append(make([]byte, 0, max(clientBuffer, len(rest))), rest...)
	c.start = 0
	if more := cap(c.in) - clientBuffer; more > 0 {
		p.cfg.Budget.force(more) // clientMost has seen it; somebody else may have taken it since
		p.granted += more
	}
}

// ask has a text inspected aside. It is part of the client's buffer, which
// nobody changes until the answer is there.
func (p *polled) ask(text []byte, lex inspect.Lexing) {
	p.asking = true
	p.background.Add(1)
	p.loop.started.Store(true)
	go func() {
		defer p.background.Done()
		begun := p.cfg.Now()
		b := p.cfg.Inspect(text, lex)
		p.cfg.Sink.Stage("inspect", p.cfg.Now().Sub(begun))
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asking = false
		p.s.Inspected(b)
		p.resume()
	}()
}

// readServer reads once, and returns what it has read into buf.
func (p *polled) readServer(buf []byte) []byte {
	h := &p.server
	if p.ended || !p.hearsServer() {
		h.leftovers()
		return nil
	}
	fresh := buf
	if len(h.in) > 0 {
		h.compact()
		if need := max(p.s.ServerNeed(), serverBuffer); cap(h.in) < need {
			h.in = append(make([]byte, 0, need), h.in...)
		}
		fresh = h.in[len(h.in):cap(h.in)]
	}
	n, err := p.receive(h, fresh)
	p.came(n)
	switch {
	case err == nil && n > 0 && len(h.in) == 0:
		p.heardServer(fresh[:n])
		return fresh[:n]
	case err == nil && n > 0:
		h.in = h.in[:len(h.in)+n]
		p.heardServer(nil)
	case err == nil:
		p.serverEnded("server closed the connection")
	case !errors.Is(err, errNotNow):
		p.serverEnded(ServerLost + reason(err))
	}
	return nil
}

func (p *polled) serverEnded(cause string) {
	p.because(cause)
	p.leaving = true
}

// heardServer offers the server's bytes to the session, as pump does the
// client's.
func (p *polled) heardServer(fresh []byte) {
	h := &p.server
	data := fresh
	if fresh == nil {
		data = h.rest()
	}
	p.s.Wake(p.shift())
	n := p.s.FromServer(data)
	waiting := len(p.client.rest()) > 0 && !p.asking && p.s.WaitsForReplies()
	useless := p.gone && p.client.err != nil && (p.s.Harmless() || p.client.bytes-p.client.lost > maxUnread)
	p.work(fresh)
	if rest := data[n:]; fresh == nil {
		h.start += n
	} else if len(rest) > 0 {
		h.in, h.start = append(make([]byte, 0, max(serverBuffer, p.s.ServerNeed(), len(rest))), rest...), 0
	}
	switch {
	case useless:
		p.leaving = true
	case waiting:
		p.pump(nil)
	}
}

// work tells what has happened, and writes what is collected: not before the
// journal has it, and on shift not before its end.
func (p *polled) work(fresh []byte) {
	p.tell()
	if closing := p.s.Closing(); closing != "" && !p.leaving {
		p.because(closing)
		p.leaving = true
		p.after(farewellTime, p.hangUp)
	}
	if !p.onShift {
		p.flush(fresh)
	}
}

// flush writes what is collected. fresh is a buffer that is not ours, and that
// it may alias.
func (p *polled) flush(fresh []byte) {
	if p.s.ToServer.Len() > 0 {
		p.write(&p.server, &p.s.ToServer, fresh)
	}
	if p.s.ToClient.Len() > 0 {
		p.write(&p.client, &p.s.ToClient, fresh)
	}
}

// hangUp ends a pair whose client does not read its last words.
func (p *polled) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close()
}

// tell hands counts and entries to the sink, aside where that might wait.
func (p *polled) tell() {
	if p.aside {
		p.count()
		return
	}
	login := !p.loggedIn && p.s.LoggedIn()
	p.loggedIn = p.loggedIn || login
	entries := p.news()
	switch {
	case len(entries) == 0 && !login:
		return
	case !login && p.cfg.Sink.Roomy():
		p.record(entries)
		return
	}
	pid, _ := p.s.BackendKey()
	p.aside = true
	p.background.Add(1)
	p.loop.started.Store(true)
	go func() {
		defer p.background.Done()
		if login {
			p.owner.LoggedIn(pid)
		}
		p.record(entries)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.back()
	}()
}

// back goes on after something slow.
func (p *polled) back() {
	p.aside = false
	if p.ended {
		return
	}
	p.tell()
	p.drain(&p.server)
	p.drain(&p.client)
	p.resume()
}

// write writes what is collected for a connection, and keeps what cannot be
// written now.
func (p *polled) write(h *half, from *wire.Out, fresh []byte) {
	h.bytes += int64(from.Len())
	segments := from.Segments()
	if h.err == nil && len(h.out) == 0 && !p.aside {
		var err error
		if segments, err = send(h.fd, segments); err != nil {
			p.failed(h, err)
		}
	}
	if h.err == nil {
		for _, b := range segments {
			if within(b, fresh) {
				b = append([]byte(nil), b...)
			}
			h.out = append(h.out, b)
		}
	}
	from.Reset()
}

// within reports whether b is part of buf.
func within(b, buf []byte) bool {
	if len(b) == 0 || len(buf) == 0 {
		return false
	}
	return address(b) >= address(buf) && address(b) < address(buf)+uintptr(len(buf))
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// drain writes what was kept.
func (p *polled) drain(h *half) {
	if len(h.out) == 0 || p.aside {
		return
	}
	rest, err := send(h.fd, h.out)
	if h.out = rest; len(rest) == 0 {
		h.out = nil
	}
	p.failed(h, err)
}

// failed takes note of an error of writing. A client that cannot be written to
// is gone; a server's own end says why.
func (p *polled) failed(h *half, err error) {
	if err == nil || errors.Is(err, errNotNow) {
		return
	}
	h.err, h.lost, h.out = err, h.bytes, nil
	if h == &p.client && !p.gone {
		p.clientEnded(err)
	}
}

// CatchUp: see Pair.
func (p *polled) CatchUp(ctx context.Context) {
	caught, patience := p.awaitCaughtUp()
	if caught != nil {
		wait(ctx, caught, patience)
	}
}

// awaitCaughtUp reads what the client has sent, and returns what is closed when
// the server was given it, nil when it has something to cancel.
func (p *polled) awaitCaughtUp() (caught <-chan struct{}, patience time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.gone || p.s.Owes() && len(p.server.out) == 0 {
		return nil, 0
	}
	p.readClient(make([]byte, clientBuffer))
	p.settle()
	if p.ended || p.caught == nil && p.isCaughtUp() {
		return nil, 0
	}
	return p.catching()
}

// isCaughtUp reports whether the server has what a cancel request is for, or
// nothing is on its way to it.
func (p *polled) isCaughtUp() bool {
	if len(p.server.out) > 0 {
		return false
	}
	if p.s.Owes() {
		return true
	}
	waiting, err := unix.IoctlGetInt(int(p.client.fd), unix.TIOCINQ)
	return !p.asking && !p.aside && (err != nil || waiting == 0)
}

// caughtUp lets cancel requests go on.
func (p *polled) caughtUp() {
	if p.caught != nil && p.isCaughtUp() {
		p.letGo()
	}
}
