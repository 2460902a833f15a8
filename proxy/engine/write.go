package engine

import (
	"net"
	"time"

	"lockkeeper/proxy/wire"
)

// flushServer writes everything collected for the server. When it returns,
// what was collected before the call has been written, by whomever.
func (p *routines) flushServer() {
	if p.flush(&p.toServer, p.server, &p.s.ToServer) != nil {
		// The server's own end says why; reading it goes on.
		return
	}
}

// flushClient writes everything collected for the client.
func (p *routines) flushClient() {
	if err := p.flush(&p.toClient, p.client, &p.s.ToClient); err != nil {
		p.clientLost(err)
	}
}

// clientLost is told that the client cannot be written to.
func (p *routines) clientLost(err error) {
	p.mu.Lock()
	p.because(ClientLost + reason(err))
	first := !p.gone
	p.mu.Unlock()
	if first {
		_ = p.client.Close() // the client's reader ends and passes it on
	}
}

// flush writes what is collected, in order, whoever collected it.
func (p *routines) flush(o *output, to net.Conn, from *wire.Out) error {
	if !p.pending(from) && !p.writing(o) {
		return nil
	}
	o.turn.Lock()
	defer o.turn.Unlock()
	for {
		p.mu.Lock()
		n := from.Len()
		if n == 0 || p.entering && o == &p.toClient && p.s.Closing() == "" {
			o.busy = false
			err := o.err
			p.mu.Unlock()
			return err
		}
		o.segments = from.Take(o.segments)
		o.busy = true
		err := o.err
		o.bytes += int64(n)
		p.mu.Unlock()
		if err == nil {
			err = write(to, o.segments)
		}
		clear(o.segments)
		if err != nil {
			p.mu.Lock()
			if o.err == nil {
				o.lost = o.bytes
			}
			o.err = err
			p.mu.Unlock()
		}
	}
}

func write(to net.Conn, segments [][]byte) error {
	if len(segments) == 1 {
		_, err := to.Write(segments[0])
		return err
	}
	buffers := net.Buffers(segments)
	_, err := buffers.WriteTo(to)
	return err
}

func (p *routines) pending(from *wire.Out) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return from.Len() > 0
}

func (p *routines) writing(o *output) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return o.busy
}

// flushServerAside writes to the server in a goroutine of its own: the server's
// reader must never wait for the server to read.
func (p *routines) flushServerAside() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.s.ToServer.Len() == 0 || p.ended {
		return
	}
	p.background.Add(1)
	go p.flushServerOnce()
}

func (p *routines) flushServerOnce() {
	defer p.background.Done()
	p.flushServer()
}

// flushClientAside writes to the client in a goroutine of its own: the client's
// reader must never wait for the client to read.
func (p *routines) flushClientAside() {
	p.mu.Lock()
	closing := p.s.Closing()
	pending := p.s.ToClient.Len() > 0
	if closing != "" {
		p.farewell(closing)
	}
	if !pending && closing == "" || p.ended {
		p.mu.Unlock()
		return
	}
	p.background.Add(1)
	p.mu.Unlock()
	go p.flushClientOnce(closing != "")
}

// farewellTime is how long a client may take to read the last words of a
// session that lockkeeper ends.
const farewellTime = 2 * time.Second

// farewell notes why lockkeeper ends the session; writes to a client that does
// not read end soon, those under way included. The pair's mutex is held.
func (p *routines) farewell(cause string) {
	p.because(cause)
	_ = p.client.SetWriteDeadline(p.cfg.Now().Add(farewellTime)) // it is closed
}

func (p *routines) flushClientOnce(last bool) {
	defer p.background.Done()
	p.flushClient()
	if last {
		p.close()
	}
}
