package engine

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lockkeeper/proxy/wire"
)

var longAnswer = bytes.Repeat(wire.Append(nil, 'N', strings.Repeat("x", 1000)), 3*streamAfter/1006)

// lowWater is how many bytes a socket has before the loop is told; 0 where nobody
// has said.
func lowWater(fd int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
	if err != nil {
		return 0 // it has been closed
	}
	return n
}

// relaying is a pair of TCP connections; far is its own one to the server.
func relaying(t *testing.T, l *loop) (p *polled, far, client, server int, ended owner) {
	t.Helper()
	near, client := tcpSockets(t)
	far, server = tcpSockets(t)
	p = pausedPair(l, near, far)
	ended = make(owner, 1)
	p.Begin(ended)
	hear(t, client, len(greeting))
	return p, far, client, server, ended
}

// answering is a pair whose server is in the middle of a long answer.
func answering(t *testing.T, l *loop) (p *polled, far, client, server int, ended owner) {
	t.Helper()
	p, far, client, server, ended = relaying(t, l)
	await(t, "a stream", func() (flows bool) {
		var heard sync.WaitGroup
		heard.Go(func() {
			if got := hear(t, client, len(longAnswer)); !bytes.Equal(got, longAnswer) {
				t.Error("what is heard of the answer is not what was said")
			}
		})
		for rest := longAnswer; len(rest) > 0; rest = rest[min(len(rest), 8<<10):] {
			say(t, server, rest[:min(len(rest), 8<<10)])
			flows = flows || lowWater(far) == streamBatch
		}
		heard.Wait()
		return flows
	})
	return p, far, client, server, ended
}

// patientLoop is one that can wait for parts of a millisecond.
func patientLoop(t *testing.T) *loop {
	t.Helper()
	l := runningLoop(t)
	if !l.patient {
		t.Fatal("epoll_pwait2 fails: these tests need Linux 5.11 or newer, and no sandbox that forbids it")
	}
	return l
}

// Where the kernel cannot wait for parts of a millisecond, nothing waits.
func TestALongAnswerWithoutPatience(t *testing.T) {
	l := stoppedLoop(t)
	l.patient = false
	run(t, l)
	p, far, client, server, ended := relaying(t, l)
	go say(t, server, longAnswer)
	if got := hear(t, client, len(longAnswer)); !bytes.Equal(got, longAnswer) {
		t.Error("what is heard is not what was said")
	}
	if lowWater(far) == streamBatch {
		t.Error("the loop waits for more")
	}
	p.Close("enough")
	<-ended
}

func TestWhatALongAnswerEndsWithIsHeard(t *testing.T) {
	p, far, client, server, ended := answering(t, patientLoop(t))
	for _, last := range []string{"a", strings.Repeat("b", 2*streamPiece)} {
		m := wire.Append(nil, 'N', last)
		say(t, server, m)
		if got := hear(t, client, len(m)); !bytes.Equal(got, m) {
			t.Errorf("%q is heard", got)
		}
	}
	await(t, "the answer's end", func() bool { return lowWater(far) == 1 })
	say(t, server, longAnswer)
	if got := hear(t, client, len(longAnswer)); !bytes.Equal(got, longAnswer) {
		t.Error("what is heard of the next answer is not what was said")
	}
	p.Close("enough")
	<-ended
}

// Many answers that are not long are no long one: none of them waits.
func TestManyShortAnswersAreNoStream(t *testing.T) {
	p, far, client, server, ended := relaying(t, patientLoop(t))
	flush, answer := wire.Append(nil, 'H'), wire.Append(nil, 'N', strings.Repeat("x", 2*streamPiece))
	for sent := 0; sent < 3*streamAfter; sent += len(answer) {
		say(t, client, flush)
		hear(t, server, len(flush))
		say(t, server, answer)
		if got := hear(t, client, len(answer)); !bytes.Equal(got, answer) {
			t.Fatalf("%q is heard", got)
		}
		if lowWater(far) == streamBatch {
			t.Fatalf("the loop waits for more behind %d bytes", sent)
		}
	}
	p.Close("enough")
	<-ended
}

// A cancel request reads of the client, in a goroutine of its own.
func TestACancelRequestInALongAnswer(t *testing.T) {
	p, _, client, server, ended := answering(t, patientLoop(t))
	over := make(chan struct{})
	var cancels sync.WaitGroup
	cancels.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
				p.awaitCaughtUp()
			}
		}
	})
	for range 10 {
		go say(t, server, longAnswer)
		if got := hear(t, client, len(longAnswer)); !bytes.Equal(got, longAnswer) {
			t.Error("what is heard is not what was said")
		}
	}
	close(over)
	cancels.Wait()
	p.Close("enough")
	<-ended
}

func TestAServerThatEndsInALongAnswer(t *testing.T) {
	_, _, client, server, ended := answering(t, patientLoop(t))
	m := wire.Append(nil, 'N', "last")
	say(t, server, m)
	_ = unix.Shutdown(server, unix.SHUT_WR)
	if got := hear(t, client, len(m)); !bytes.Equal(got, m) {
		t.Errorf("%q is heard", got)
	}
	if cause := <-ended; !strings.Contains(cause, "server closed") {
		t.Errorf("it has ended by %q", cause)
	}
}

func TestAClientThatDoesNotReadALongAnswer(t *testing.T) {
	l := patientLoop(t)
	p, far, client, server, ended := answering(t, l)
	much := bytes.Repeat(longAnswer, 8) // more than all buffers between them
	go say(t, server, much)
	await(t, "the end of the stream", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.client.out) > 0 && lowWater(far) == 1
	})
	if got := hear(t, client, len(much)); !bytes.Equal(got, much) {
		t.Error("what is heard late is not what was said")
	}
	p.Close("enough")
	<-ended
}

// Those that are too many are read as they come; one that ends leaves its place.
func TestManyLongAnswers(t *testing.T) {
	l := patientLoop(t)
	var all sync.WaitGroup
	for range MaxStreams + 8 {
		all.Go(func() {
			p, _, client, server, ended := relaying(t, l)
			go say(t, server, longAnswer)
			if got := hear(t, client, len(longAnswer)); !bytes.Equal(got, longAnswer) {
				t.Error("what is heard is not what was said")
			}
			p.Close("enough")
			<-ended
		})
	}
	all.Wait()
	p, _, _, _, ended := answering(t, l)
	p.Close("enough")
	<-ended
	await(t, "the end of all streams", func() bool { return l.of.Streams() == 0 })
}
