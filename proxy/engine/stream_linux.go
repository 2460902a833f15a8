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
)

// stream is a server's long answer.
type stream struct {
	p   *polled
	due time.Duration // since the loop's begin: what there is has to be read then
}

// came is told how many bytes a read of the server has brought. It, and what
// follows here, is for the loop's goroutine only.
func (p *polled) came(n int) {
	switch {
	case p.flows:
		if n >= streamPiece {
			p.loop.postpone(p)
		}
	case n < streamPiece:
		p.pieces = 0
	default:
		if p.pieces += int32(n); p.pieces >= streamAfter { //nolint:gosec // no more than the loop's buffer
			p.pieces = 0
			p.loop.begin(p)
		}
	}
}

// asked is told that the client is heard: what is answered then may be short.
func (p *polled) asked() {
	p.pieces = 0
	if p.flows {
		p.ebb()
	}
}

// begin has a server's answer wait until there is much of it.
func (l *loop) begin(p *polled) {
	if !l.patient || len(l.streams) == MaxStreams || p.server.reads != readable {
		return
	}
	if err := setLowWater(p.server.fd, streamBatch); err == nil {
		p.flows = true
		l.streams = append(l.streams, stream{p, l.clock() + streamPause})
		l.of.streams.Add(1)
	}
}

// postpone gives a stream another pause.
func (l *loop) postpone(p *polled) {
	for i := range l.streams {
		if l.streams[i].p == p {
			l.streams[i].due = l.clock() + streamPause
			return
		}
	}
}

// hurry reads of the streams what is due, and reports whether there was any.
// One of which nothing comes, or which the client does not take, is none any more.
func (l *loop) hurry(buf []byte) (busy bool) {
	now := l.clock()
	goOn := l.streams[:0]
	for i := range l.streams { // which goOn overwrites up to i
		s := &l.streams[i]
		p := s.p
		switch {
		case !p.flows:
			continue
		case s.due > now:
			goOn = append(goOn, *s)
			continue
		}
		read := p.hear(serverSide, unix.EPOLLIN, buf)
		if !p.onShift { // it has ended
			continue
		}
		if s.due > now {
			goOn, busy = append(goOn, *s), true
		} else {
			p.ebb()
		}
		p.answer(read)
	}
	l.of.streams.Add(int64(len(goOn) - len(l.streams)))
	clear(l.streams[len(goOn):])
	l.streams = goOn
	return busy
}

// ebb ends a stream: the loop is told of what is there, and of whatever comes.
func (p *polled) ebb() {
	p.flows = false
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
	first := l.streams[0].due
	for _, s := range l.streams[1:] {
		first = min(first, s.due)
	}
	return max(0, first-l.clock())
}

func (l *loop) clock() time.Duration { return time.Since(l.began) }
