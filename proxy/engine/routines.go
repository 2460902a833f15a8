package engine

import (
	"errors"
	"io"
	"net"
	"sync"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// Initial sizes of a pair's buffers, in bytes. The client's grows for a text
// that has to be inspected whole, the server's for an error or notice.
const (
	clientBuffer = 16 << 10 // more than the largest message that is always read whole
	serverBuffer = 32 << 10
)

// routines is a pair that two goroutines on net.Conn drive, whatever the
// transport.
type routines struct {
	core
	client, server net.Conn

	room     *sync.Cond // the client's buffer has room again, or the pair ends
	in       []byte     // from the client; [start:end] was not taken yet
	start    int
	end      int
	early    []byte // the server's first bytes
	entering bool   // the login was accepted, and the owner is being told: until then the client is neither heard nor told
	toServer output
	toClient output
}

// output is the writing side of one connection.
type output struct {
	turn     sync.Mutex // held while writing; never taken with the pair's mutex held
	segments [][]byte   // guarded by turn
	busy     bool       // guarded by the pair's mutex: segments are being written
	bytes    int64      // guarded by the pair's mutex
	err      error      // guarded by the pair's mutex: the first one; then everything is thrown away
	lost     int64      // guarded by the pair's mutex: bytes when it came
}

func newRoutines(cfg *Config, client, server net.Conn, s *session.Session, pending []byte) *routines {
	p := &routines{core: core{cfg: cfg, s: s}, client: client, server: server, in: make([]byte, clientBuffer), early: pending}
	p.pair = p
	p.room = sync.NewCond(&p.mu)
	return p
}

func (p *routines) Begin(o Owner) {
	p.mu.Lock()
	p.owner = o
	p.mu.Unlock()
	go p.run()
}

func (p *routines) run() {
	done := make(chan struct{})
	go p.serverLoop(done)
	p.clientLoop()
	<-done
	p.close()
	p.conclude()
}

func (p *routines) Close(cause string) {
	p.mu.Lock()
	p.because(cause)
	p.mu.Unlock()
	p.close()
}

func (p *routines) Fail(r *policy.Refusal) {
	p.mu.Lock()
	p.s.Fail(r)
	p.mu.Unlock()
	p.flushClientAside()
}

func (p *routines) close() {
	p.mu.Lock()
	p.finish()
	p.room.Broadcast()
	p.mu.Unlock()
	_ = p.client.Close() // nothing is left to be told
	_ = p.server.Close()
}

func (p *routines) Traffic() (toServer, toClient int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.toServer.bytes, p.toClient.bytes
}

// resume lets a goroutine of its own work on what the client has sent, for
// the caller must not block on the server. The mutex is held.
func (p *routines) resume() {
	if p.ended {
		return
	}
	p.background.Add(1)
	go p.driveOnce()
}

func (p *routines) driveOnce() {
	defer p.background.Done()
	p.drive()
	p.caughtUp()
	p.tellServer()
}

// clientLoop reads the client until it ends.
func (p *routines) clientLoop() {
	p.drive()
	for {
		buf, ok := p.clientRoom()
		if !ok {
			return
		}
		n, err := p.client.Read(buf)
		p.mu.Lock()
		p.end += n
		waited := p.caught != nil // whoever waits from now on wakes the next Read
		p.mu.Unlock()
		if n > 0 {
			p.drive()
		}
		if waited {
			p.caughtUp()
		}
		if err != nil && !p.readOn(err) {
			p.clientEnded(err)
			return
		}
	}
}

// clientEnded passes the client's end on. A server that may be changing
// something is heard to its end, so that the session is known until then; any
// other is told at once.
func (p *routines) clientEnded(err error) {
	p.mu.Lock()
	p.gone = true
	cause := "client closed the connection"
	if !errors.Is(err, io.EOF) {
		cause = ClientLost + reason(err)
	}
	p.because(cause)
	p.mu.Unlock()
	p.tellServer()
}

// tellServer passes the client's end on when everything that the client sent
// before it was: a statement that is held is not run for nobody, one that waits
// for replies is still sent.
func (p *routines) tellServer() {
	p.mu.Lock()
	waits := p.start < p.end && (p.asking || p.entering || p.s.WaitsForReplies())
	if !p.gone || p.told || waits || p.ended {
		p.mu.Unlock()
		return
	}
	p.told = true
	p.start = p.end
	p.mu.Unlock()
	p.flushServer()
	if half, ok := p.server.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() == nil {
			return
		}
	}
	_ = p.server.Close() // cannot be told half
}

// clientRoom returns where the next bytes of the client go. It waits while the
// buffer is full of bytes that are held, and moves or grows it when nothing
// aliases it. ok is false when the pair ends.
func (p *routines) clientRoom() (buf []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.ended {
			return nil, false
		}
		if p.aliased() {
			p.mu.Unlock()
			p.flushServer()
			p.mu.Lock()
			if p.toServer.err == nil && p.aliased() {
				continue
			}
		}
		if !p.asking {
			p.compact()
		}
		if p.end < len(p.in) {
			return p.in[p.end:], true
		}
		p.room.Wait()
	}
}

// aliased reports whether bytes of the client's buffer are still to be written.
func (p *routines) aliased() bool { return p.toServer.busy || p.s.ToServer.Len() > 0 }

// compact moves what was not taken to the front and makes room for what the
// session wants at once.
func (p *routines) compact() {
	rest := p.in[p.start:p.end]
	want := p.s.ClientNeed()
	if len(rest) == 0 && p.granted > 0 {
		p.release()
		p.in = make([]byte, clientBuffer)
	}
	if want > len(p.in) && len(rest) == len(p.in) {
		p.grow(rest, want)
		return
	}
	if held := p.cfg.HeldBytes; len(rest) == len(p.in) && len(p.in) < held && want == 0 {
		p.grow(rest, held)
		return
	}
	p.end = copy(p.in, rest)
	p.start = 0
}

// grow replaces the buffer by one twice as large, at most want. Without room
// in the budget the session decides on what is at hand.
func (p *routines) grow(rest []byte, want int) {
	size := min(want, 2*len(p.in))
	if !p.cfg.Budget.take(size - len(p.in)) {
		p.s.NoRoom()
		p.background.Add(1)
		go p.driveOnce()
		p.end, p.start = copy(p.in, rest), 0
		return
	}
	p.granted += size - len(p.in)
	bigger := make([]byte, size)
	p.end, p.start = copy(bigger, rest), 0
	p.in = bigger
}

// drive works on what the client has sent until nothing more can be done now,
// and writes what came of it.
func (p *routines) drive() {
	for {
		p.mu.Lock()
		text, lex := p.pump()
		p.mu.Unlock()
		p.tell()
		p.flushServer()
		p.flushClientAside()
		if text == nil {
			return
		}
		begun := p.cfg.Now()
		b := p.cfg.Inspect(text, lex)
		p.cfg.Sink.Stage("inspect", p.cfg.Now().Sub(begun))
		p.mu.Lock()
		p.asking = false
		p.s.Inspected(b)
		p.mu.Unlock()
	}
}

// pump offers the client's bytes to the session. It returns a text that has to
// be inspected by the caller. The pair's mutex is held.
func (p *routines) pump() ([]byte, inspect.Lexing) {
	if p.asking || p.entering || p.ended {
		return nil, inspect.Lexing{}
	}
	if p.start < p.end {
		n := p.s.FromClient(p.in[p.start:p.end])
		p.start += n
		if n > 0 || p.s.ClientNeed() > 0 {
			p.room.Broadcast()
		}
	}
	p.arm()
	text, lex := p.s.Ask()
	if text != nil {
		p.asking = true
		return text, lex
	}
	return nil, lex
}

// tell hands counts and entries to the sink.
func (p *routines) tell() {
	p.mu.Lock()
	entries := p.news()
	p.mu.Unlock()
	p.record(entries)
}

// serverLoop reads the server until it ends, and lets the client know.
func (p *routines) serverLoop(done chan<- struct{}) {
	defer close(done)
	buf := make([]byte, max(serverBuffer, len(p.early)))
	have := copy(buf, p.early)
	if have > 0 {
		taken, goOn := p.heardServer(buf[:have])
		have = copy(buf, buf[taken:have])
		if !goOn {
			p.close()
			return
		}
	}
	for {
		n, err := p.server.Read(buf[have:])
		have += n
		if n > 0 {
			taken, goOn := p.heardServer(buf[:have])
			have = copy(buf, buf[taken:have])
			if !goOn {
				break
			}
			if need := p.serverNeed(); need > len(buf) {
				buf = append(make([]byte, 0, need), buf[:have]...)[:need]
			} else if have == 0 && len(buf) > serverBuffer {
				buf = make([]byte, serverBuffer)
			}
		}
		if err != nil {
			p.serverEnded(err)
			break
		}
	}
	p.close()
}

// enter tells the owner of the login. Statements that came behind the login wait
// for that: they are judged by what it finds out.
func (p *routines) enter(pid uint32) {
	p.owner.LoggedIn(pid)
	p.mu.Lock()
	p.entering = false
	p.mu.Unlock()
}

func (p *routines) serverNeed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s.ServerNeed()
}

// heardServer offers the server's bytes to the session and writes to the
// client what came of it. goOn is false when the session is over.
func (p *routines) heardServer(b []byte) (taken int, goOn bool) {
	p.mu.Lock()
	taken = p.s.FromServer(b)
	closing := p.s.Closing()
	if closing != "" {
		p.farewell(closing)
	}
	waiting := p.start < p.end && !p.asking && p.s.WaitsForReplies()
	login := !p.loggedIn && p.s.LoggedIn()
	p.loggedIn, p.entering = p.loggedIn || login, login
	pid, _ := p.s.BackendKey()
	useless := p.gone && p.toClient.err != nil && (p.s.Harmless() || p.toClient.bytes-p.toClient.lost > maxUnread)
	p.mu.Unlock()
	if login {
		p.enter(pid)
	}
	p.tell()
	p.flushClient()
	if waiting || login {
		p.mu.Lock()
		p.resume()
		p.mu.Unlock()
	} else {
		p.flushServerAside()
	}
	return taken, closing == "" && !useless
}

// serverEnded takes note of the server's end.
func (p *routines) serverEnded(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(err, io.EOF) {
		p.because("server closed the connection")
		return
	}
	p.because(ServerLost + reason(err))
}
