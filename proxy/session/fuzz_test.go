package session

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// open is a host under whose policy nothing acts.
type open struct {
	Host
	snap    *policy.Snapshot
	batches map[string]*inspect.Batch
	slow    func() bool // whether a text is not at hand
}

func (h *open) batch(text []byte) *inspect.Batch {
	b := h.batches[string(text)]
	if b == nil {
		b = batchOf(string(text))
		h.batches[string(text)] = b
	}
	return b
}

func (h *open) Lookup(text []byte, _ inspect.Lexing) *inspect.Batch {
	if h.slow() {
		return nil
	}
	return h.batch(text)
}
func (h *open) Gauge(how inspect.Lexing) *inspect.Gauge { return gauges.Gauge(how) }
func (h *open) Snapshot() *policy.Snapshot              { return h.snap }
func (h *open) Elapsed() time.Duration                  { return 1 }
func (h *open) Now() time.Time                          { return time.Unix(1, 0) }

var openSnapshot = sync.OnceValues(func() (*policy.Snapshot, error) {
	p, err := policy.Parse([]byte("profile: postgres\n"), "test")
	return &policy.Snapshot{Epoch: 1, Policy: p}, err
})

// texts are what the fuzzed client sends.
var texts = []string{
	"s", "i", "e", "n", "b", "c", "r", "w", "y", "o", "p a", "x a", "d a", "D", "l", "u", "", ";", "s;i", "b;i", "i;e;s", "w;s", "w;w", "s;y;s",
	"b;w;c", "c;b", "o;s", "x a;x b", "p b;x b", "d b", "b;e", "s;D", "x b", "é", "s;é", "l;s\\", "\\",
}

var someNames = []string{"", "", "a", "b"}

// message appends one message of a fuzzed client; op and arg choose it.
func message(dst []byte, op, arg byte) []byte {
	text := texts[int(arg)%len(texts)]
	name, other := someNames[arg&3], someNames[arg>>2&3]
	switch op % 16 {
	case 0, 1:
		return wire.Append(dst, 'Q', text, "\x00")
	case 2, 3:
		return wire.Append(dst, 'P', someNames[op>>4&3], "\x00", text, "\x00\x00\x00")
	case 4, 5:
		return wire.Append(dst, 'B', name, "\x00", other, "\x00\x00\x00\x00\x00\x00\x00")
	case 6, 7:
		return wire.Append(dst, 'E', name, "\x00\x00\x00\x00", string([]byte{arg >> 6}))
	case 8:
		return wire.Append(dst, 'D', string("SP"[arg>>7]), name, "\x00")
	case 9:
		return wire.Append(dst, 'C', string("SP"[arg>>7]), name, "\x00")
	case 10, 11:
		return wire.Append(dst, 'S')
	case 12:
		return wire.Append(dst, 'H')
	case 13:
		return wire.Append(dst, 'd', []string{"good", "bad", "", string(make([]byte, 300))}[arg&3])
	case 14:
		if arg&1 == 0 {
			return wire.Append(dst, 'c')
		}
		return wire.Append(dst, 'f', "why\x00")
	}
	switch arg >> 4 {
	case 0:
		return wire.Append(dst, 'F', string([]byte{arg & 1, 0, 0}))
	case 1: // malformed bodies
		return wire.Append(dst, "QPBEDC"[arg%6], "x")
	case 2:
		return wire.Append(dst, "PBED"[arg&3], "a\x00b")
	case 3:
		return append(dst, 'z')
	case 4:
		return append(dst, 'Q', 0, 0, 0, 1)
	case 5:
		return wire.Append(dst, 'X')
	case 6:
		return binary.BigEndian.AppendUint32(append(dst, 'S'), 20_000)
	case 7:
		return wire.Append(dst, 'p', "secret\x00")
	default: // COPY as libpq sends it in the extended protocol
		dst = wire.Append(dst, 'P', "\x00", "w", "\x00\x00\x00")
		dst = wire.Append(dst, 'B', "\x00\x00\x00\x00\x00\x00\x00\x00")
		dst = wire.Append(dst, 'E', "\x00\x00\x00\x00\x00")
		return wire.Append(dst, 'S')
	}
}

// run is one session between a fuzzed client and a model of the server.
type run struct {
	t      *testing.T
	s      *Session
	h      *open
	random *rand.Rand
	server *model

	client     []byte // what the client sends
	offered    int    // bytes of it that have arrived
	taken      int    // bytes of it that the session took
	delivered  int    // bytes of the server's output that have arrived
	heard      int    // bytes of it that the session took
	toServer   []byte // everything the server was sent
	toClient   []byte
	inspecting []byte
}

// What passes a session under a policy in which nothing acts is what was sent,
// in both directions, however it is cut; and in the end the session knows about
// its server what is true.
func FuzzSessionIsTransparent(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 2}, uint64(1))                                                    // queries
	f.Add([]byte{2, 0, 4, 0, 6, 0, 10, 0}, uint64(2))                                             // extended
	f.Add([]byte{0, 7, 13, 0, 13, 1, 14, 0, 0, 0}, uint64(3))                                     // COPY with an error
	f.Add([]byte{15, 0x80, 13, 0, 14, 0, 10, 0}, uint64(4))                                       // COPY as libpq
	f.Add([]byte{15, 0x80, 13, 1, 14, 0, 10, 0, 0, 0}, uint64(5))                                 // and an error
	f.Add([]byte{0, 4, 2, 2, 4, 0, 6, 0, 0, 0, 10, 0, 0, 6}, uint64(6))                           // skipping in a transaction
	f.Add([]byte{0x22, 0, 0, 11, 4, 8, 10, 0, 0, 12, 0x22, 1, 9, 2, 0, 13, 10, 0}, uint64(7))     // names
	f.Add([]byte{0, 22, 13, 0, 14, 0, 10, 0, 13, 0, 14, 0, 0, 0}, uint64(8))                      // two COPYs in a text
	f.Add([]byte{0, 14, 0, 33, 2, 33, 10, 0, 0, 15, 0, 33}, uint64(9))                            // encodings
	f.Add([]byte{2, 8, 4, 0, 6, 0, 10, 0, 13, 0, 14, 0, 10, 0, 0, 0}, uint64(10))                 // COPY that fails early
	f.Add([]byte{15, 0x30, 0, 0}, uint64(11))                                                     // an unknown type
	f.Add([]byte{2, 0, 4, 0, 6, 0x40, 6, 0x40, 6, 0x40, 6, 0x40, 12, 0, 0, 1, 10, 0}, uint64(12)) // suspended
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		if len(script) > 400 {
			return
		}
		r := newRun(t, seed)
		for i := 0; i+1 < len(script); i += 2 {
			r.client = message(r.client, script[i], script[i+1])
		}
		r.play()
		r.check()
	})
}

func newRun(t *testing.T, seed uint64) *run {
	snap, err := openSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, random: rand.New(rand.NewPCG(seed, 1)), server: newModel()}
	r.h = &open{snap: snap, batches: map[string]*inspect.Batch{}, slow: func() bool { return r.random.IntN(4) == 0 }}
	r.s = New(Config{ID: 1, Subject: policy.Subject{User: "u", Database: "d"}, StatementBytes: 1 << 20}, r.h)
	return r
}

// play moves bytes in random pieces until nothing moves any more.
func (r *run) play() {
	idle := 0
	for rounds := 0; idle < 3 || r.inspecting != nil; rounds++ {
		if rounds > 20_000 {
			r.t.Fatal("it does not end")
		}
		before := [6]int{r.offered, r.taken, r.delivered, r.heard, len(r.server.in), len(r.server.out)}
		most := 1 + r.random.IntN(60)
		r.offered = min(len(r.client), r.offered+r.random.IntN(most+1))
		if idle > 0 {
			r.offered, most = len(r.client), 1<<20
		}
		r.fromClient()
		for range r.random.IntN(3) + idle {
			r.server.step()
		}
		r.delivered = min(len(r.server.out), r.delivered+r.random.IntN(most+1))
		r.fromServer()
		r.fromClient()
		if before == [6]int{r.offered, r.taken, r.delivered, r.heard, len(r.server.in), len(r.server.out)} {
			idle++
		} else {
			idle = 0
		}
	}
}

func (r *run) fromClient() {
	if r.inspecting != nil {
		if r.random.IntN(2) == 0 {
			return
		}
		r.s.Inspected(r.h.batch(r.inspecting))
		r.inspecting = nil
	}
	r.taken += r.s.FromClient(bytes.Clone(r.client[r.taken:r.offered]))
	leave(r.s)
	if text, _ := r.s.Ask(); text != nil {
		r.inspecting = bytes.Clone(text)
	}
	r.collect()
}

func (r *run) fromServer() {
	r.heard += r.s.FromServer(bytes.Clone(r.server.out[r.heard:r.delivered]))
	leave(r.s)
	r.collect()
}

func (r *run) collect() {
	sent := bytes.Join(r.s.ToServer.Take(nil), nil)
	r.toServer = append(r.toServer, sent...)
	r.server.in = append(r.server.in, sent...)
	r.toClient = append(r.toClient, bytes.Join(r.s.ToClient.Take(nil), nil)...)
}

func (r *run) check() {
	r.t.Helper()
	defer func() {
		if r.t.Failed() {
			r.t.Logf("client %q\nserver %q", r.client, r.server.out)
		}
	}()
	switch r.s.Closing() {
	case "":
	case "unexpected message during COPY from stdin":
		return // whether the server discards it cannot be known: see failInCopy
	default:
		r.t.Fatalf("closed: %s", r.s.Closing())
	}
	if want := r.server.out; !bytes.Equal(r.toClient, want) {
		r.t.Fatalf("the client received\n%q of\n%q", r.toClient, want)
	}
	sent, got := withoutFlush(r.client), withoutFlush(r.toServer)
	if r.server.dead {
		if !bytes.HasPrefix(sent, got) {
			r.t.Fatalf("the server received\n%q, which does not begin\n%q", got, sent)
		}
		return
	}
	if !bytes.Equal(sent, got) {
		r.t.Fatalf("the server received\n%q of\n%q", got, sent)
	}
	r.checkState()
}

// checkState compares what the session believes with what is true.
func (r *run) checkState() {
	s, m := r.s, r.server
	if s.copyIn != m.copying {
		r.t.Fatalf("copyIn %v, but %v", s.copyIn, m.copying)
	}
	if m.copying {
		return
	}
	if s.out.Len() != 0 {
		r.t.Fatalf("%d replies are owed, the first for %c", s.out.Len(), s.out.head().kind)
	}
	if s.out.skipping != m.skipping {
		r.t.Fatalf("skipping %v, but %v", s.out.skipping, m.skipping)
	}
	if byte(s.tx.status) != m.reported {
		r.t.Fatalf("transaction %c, but %c", s.tx.status, m.reported)
	}
	for name, text := range m.statements {
		known := s.prep.of(false).get([]byte(name)).batch
		if known == nil { // forgotten, as behind a malformed Parse: Unknown, and safe
			continue
		}
		if len(known.Statements) != len(split(text)) || len(split(text)) > 0 && known.Statements[0].Kind != kindOf(split(text)[0]) {
			r.t.Fatalf("statement %q is %q, known as %+v", name, text, known)
		}
	}
	for name, p := range m.portals {
		known := s.prep.of(true).get([]byte(name)).batch
		if known != nil && known.Class != inspect.Unknown && len(known.Statements) > 0 && known.Statements[0].Kind != kindOf(split(p.text)[0]) {
			r.t.Fatalf("portal %q is %q, known as %+v", name, p.text, known)
		}
	}
	if s.awaiting != 0 || s.out.boundaries != 0 {
		r.t.Fatalf("awaiting %d, boundaries %d", s.awaiting, s.out.boundaries)
	}
}

// withoutFlush leaves out Flush, which a session may put in.
func withoutFlush(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		size := wire.Size(b)
		if size <= 0 || size > len(b) {
			return append(out, b...)
		}
		if b[0] != 'H' {
			out = append(out, b[:size]...)
		}
		b = b[size:]
	}
	return out
}
