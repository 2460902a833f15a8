package faults

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Way is a direction of a connection through a Proxy.
type Way int

// The two directions: what who has connected sends, and what it receives.
const (
	Up Way = iota
	Down
)

// Fault is what happens to the bytes of one direction. Its zero value passes
// them on.
type Fault struct {
	Latency time.Duration // every byte is late by this
	Jitter  time.Duration // and by up to this more
	Rate    int           // bytes per second; 0 is no limit
	Cut     bool          // both sides are reset after After bytes, counted from Set
	After   int
}

const (
	chunkBytes = 32 << 10
	chunks     = 32 // under way in one direction at a time
)

// Proxy passes TCP connections on to an address.
type Proxy struct {
	listener *net.TCPListener
	upstream string
	serving  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	faults [2]Fault
	change int // grows with every Set
	links  map[*link]bool
}

// link is one connection.
type link struct {
	p     *Proxy
	sides [2]*net.TCPConn // who has connected, and who was
}

// New listens on a free port of 127.0.0.1. Callers must Close it.
func New(upstream string) (*Proxy, error) {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // it takes no filters
	l, err := plain.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l.(*net.TCPListener), upstream: upstream, links: map[*link]bool{}}
	p.serving.Add(1)
	go p.serve()
	return p, nil
}

// Addr returns where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set puts a fault in place of the direction's last one, on the connections
// that there are and on those that come.
func (p *Proxy) Set(way Way, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[way] = f
	p.change++
}

// Links returns how many connections there are.
func (p *Proxy) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Reset resets every connection, on both sides.
func (p *Proxy) Reset() {
	for _, l := range p.all() {
		l.reset()
	}
}

// Vanish lets every packet that reaches the proxy vanish, as on a machine that
// lost power: of the connections that there are, and of those who try.
func (p *Proxy) Vanish() error {
	err := dropPackets(p.listener)
	for _, l := range p.all() {
		err = errors.Join(err, dropPackets(l.sides[0]), dropPackets(l.sides[1]))
	}
	return err
}

// Appear ends what Vanish began; what was sent meanwhile is sent again by
// whoever still tries.
func (p *Proxy) Appear() error {
	err := takePackets(p.listener)
	for _, l := range p.all() {
		err = errors.Join(err, takePackets(l.sides[0]), takePackets(l.sides[1]))
	}
	return err
}

// Close ends every connection.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Reset()
	p.serving.Wait()
	return err
}

func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*link, 0, len(p.links))
	for l := range p.links {
		all = append(all, l)
	}
	return all
}

func (p *Proxy) serve() {
	defer p.serving.Done()
	for {
		c, err := p.listener.AcceptTCP()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.upstream)
		if err != nil {
			_ = c.SetLinger(0)
			_ = c.Close()
			continue
		}
		l := &link{p: p, sides: [2]*net.TCPConn{c, up.(*net.TCPConn)}}
		if !p.add(l) {
			l.reset()
			continue
		}
		p.serving.Add(1)
		go l.serve()
	}
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = true
	}
	return !p.closed
}

func (l *link) serve() {
	defer l.p.serving.Done()
	var both sync.WaitGroup
	both.Go(func() { l.pass(Up) })
	both.Go(func() { l.pass(Down) })
	both.Wait()
	_ = l.sides[0].Close() // both have ended
	_ = l.sides[1].Close()
	l.p.mu.Lock()
	delete(l.p.links, l)
	l.p.mu.Unlock()
}

// reset ends both sides as a machine does that does not know the connection.
func (l *link) reset() {
	for _, c := range l.sides {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// chunk is what was read at once, and when it may be written.
type chunk struct {
	data []byte
	due  time.Time
}

// pass moves the bytes of one direction.
func (l *link) pass(way Way) {
	from, to := l.sides[way], l.sides[1-way]
	under := make(chan chunk, chunks)
	lost := make(chan error, 1)
	go l.read(from, way, under, lost)
	w := &writer{l: l, way: way, to: to}
	for c := range under {
		if err := w.write(c); err != nil {
			l.reset()
		}
	}
	if err := <-lost; err != nil {
		l.reset()
		return
	}
	_ = to.CloseWrite()
}

func (l *link) read(from *net.TCPConn, way Way, under chan<- chunk, lost chan<- error) {
	defer close(under)
	for {
		b := make([]byte, chunkBytes)
		n, err := from.Read(b)
		if n > 0 {
			f, _ := l.p.fault(way)
			under <- chunk{b[:n], time.Now().Add(f.delay())}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			continue
		}
		lost <- err
		return
	}
}

func (f *Fault) delay() time.Duration {
	if f.Jitter <= 0 {
		return f.Latency
	}
	return f.Latency + rand.N(f.Jitter)
}

func (p *Proxy) fault(way Way) (Fault, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[way], p.change
}

// writer is the end of one direction.
type writer struct {
	l      *link
	way    Way
	to     *net.TCPConn
	change int // of the fault for which bytes were counted
	passed int
}

var errCut = errors.New("cut")

func (w *writer) write(c chunk) error {
	time.Sleep(time.Until(c.due))
	for b := c.data; len(b) > 0; {
		f, change := w.l.p.fault(w.way)
		if change != w.change {
			w.change, w.passed = change, 0
		}
		n := len(b)
		if f.Rate > 0 {
			n = min(n, max(1, f.Rate/10))
			time.Sleep(time.Duration(n) * time.Second / time.Duration(f.Rate))
		}
		if f.Cut {
			n = min(n, f.After-w.passed)
		}
		if _, err := w.to.Write(b[:n]); err != nil {
			return err
		}
		w.passed += n
		b = b[n:]
		if f.Cut && w.passed >= f.After {
			return errCut
		}
	}
	return nil
}
