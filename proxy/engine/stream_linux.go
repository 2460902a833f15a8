package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// A server wakes the loop for every 8 kB that it sends, and the loop is so fast
// that there is seldom more: most of what a long answer costs is waking up. Of
// one it waits until streamBatch bytes are there or streamPause has gone by, as
// network interfaces do with packets. Source: socket(7), SO_RCVLOWAT, which
// tcp_data_ready in net/ipv4/tcp_input.c heeds; PQ_SEND_BUFFER_SIZE in
// src/backend/libpq/pqcomm.c.
const (
	streamAfter = 1 << 20  // bytes since the client was heard, in pieces of
	streamPiece = 4 << 10  // bytes or more, before an answer is a stream
	streamBatch = 64 << 10 // bytes: half of what a socket of Linux has room for at first
	streamPause = 100 * time.Microsecond
	maxStreams  = 64 // of a loop; others are read as they come
)

// stream is what a pair knows of its server's answer. It is the loop's: only its
// goroutine reads and writes it.
type stream struct {
	due   time.Duration // since the loop's begin: what there is has to be read then
	bytes int32         // in pieces since the client was heard
	flows bool          // the loop has it among its streams
}

// came is told how many bytes a read of the server has brought.
func (p *polled) came(n int) {
	s := &p.stream
	switch {
	case s.flows:
		if n >= streamPiece {
			s.due = p.loop.clock() + streamPause
		}
	case n < streamPiece:
		s.bytes = 0
	default:
		if s.bytes += int32(n); s.bytes >= streamAfter { //nolint:gosec // no more than the loop's buffer
			s.bytes = 0
			p.loop.begin(p)
		}
	}
}

// asked is told that the client is heard: what is answered then may be short.
func (p *polled) asked() {
	p.stream.bytes = 0
	if p.stream.flows {
		p.ebb()
	}
}

// begin has a server's answer wait until there is much of it.
func (l *loop) begin(p *polled) {
	if !l.patient || len(l.streams) == maxStreams || p.server.reads != readable {
		return
	}
	if err := setLowWater(p.server.fd, streamBatch); err == nil {
		p.stream.flows, p.stream.due = true, l.clock()+streamPause
		l.streams = append(l.streams, p)
	}
}

// hurry reads of the streams what is due, and reports whether there was any.
// One of which nothing comes, or which the client does not take, is none any more.
func (l *loop) hurry(buf []byte) (busy bool) {
	now := l.clock()
	goOn := l.streams[:0]
	for _, p := range l.streams {
		s := &p.stream
		switch {
		case !s.flows:
			continue
		case s.due > now:
			goOn = append(goOn, p)
			continue
		}
		read := p.hear(serverSide, unix.EPOLLIN, buf)
		if !p.onShift { // it has ended
			continue
		}
		if s.due > now {
			goOn, busy = append(goOn, p), true
		} else {
			p.ebb()
		}
		p.answer(read)
	}
	clear(l.streams[len(goOn):])
	l.streams = goOn
	return busy
}

// ebb ends a stream: the loop is told of what is there, and of whatever comes.
func (p *polled) ebb() {
	p.stream.flows = false
	_ = setLowWater(p.server.fd, 1) // it fails for what is no connection any more, of which the loop is told
}

// setLowWater sets how many bytes there are before the loop is told.
func setLowWater(fd int32, bytes int) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
}

// patience is how long the loop may wait: until the first of its streams is due.
func (l *loop) patience() time.Duration {
	if len(l.streams) == 0 {
		return forever
	}
	first := l.streams[0].stream.due
	for _, p := range l.streams[1:] {
		first = min(first, p.stream.due)
	}
	return max(0, first-l.clock())
}

func (l *loop) clock() time.Duration { return time.Since(l.began) }
