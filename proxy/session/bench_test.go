package session

import (
	"bytes"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// gauges is where texts that are too long are measured.
var gauges = inspect.NewInspector(inspect.Limits{}, nil, nil)

// knowing is a host that knows one text and allows everything.
type knowing struct {
	batch *inspect.Batch
	snap  *policy.Snapshot
}

func (k *knowing) Lookup([]byte, inspect.Lexing) *inspect.Batch        { return k.batch }
func (k *knowing) Gauge(how inspect.Lexing) *inspect.Gauge             { return gauges.Gauge(how) }
func (k *knowing) Snapshot() *policy.Snapshot                          { return k.snap }
func (k *knowing) Throttle([]policy.Throttle, time.Time) time.Duration { return 0 }
func (k *knowing) Begun([]policy.Throttle, time.Time)                  {}
func (k *knowing) Charge([]policy.Throttle, int64, time.Time)          {}
func (k *knowing) Hold() bool                                          { return true }
func (k *knowing) LetGo()                                              {}
func (k *knowing) Elapsed() time.Duration                              { return 1 }
func (k *knowing) Now() time.Time                                      { return time.Unix(1, 0) }

func newKnowing(tb testing.TB) *knowing {
	tb.Helper()
	p, err := policy.Default(policy.ProfileOdoo)
	if err != nil {
		tb.Fatal(err)
	}
	return &knowing{
		batch: &inspect.Batch{Class: inspect.Read, Statements: []inspect.Statement{{Class: inspect.Read, Kind: inspect.KindSelect}}},
		snap:  &policy.Snapshot{Epoch: 1, Policy: p},
	}
}

// loggedIn returns a session that is ready for queries.
func loggedIn(tb testing.TB, h Host) *Session {
	tb.Helper()
	s := New(Config{ID: 1, Subject: policy.Subject{User: "u", Database: "d"}, StatementBytes: 1 << 20}, h)
	s.FromServer([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
	if !s.LoggedIn() {
		tb.Fatal("not logged in")
	}
	s.ToClient.Take(nil)
	return s
}

func msg(t byte, parts ...string) []byte { return wire.Append(nil, t, parts...) }

func join(ms ...[]byte) []byte {
	var out []byte
	for _, m := range ms {
		out = append(out, m...)
	}
	return out
}

// exchange is what both sides say, once around.
type exchange struct{ client, server []byte }

func exchanges() map[string]exchange {
	row := msg('D', "\x00\x01\x00\x00\x00\x011")
	ready := msg('Z', "I")
	return map[string]exchange{
		"simple": {
			msg('Q', "select abalance from pgbench_accounts where aid = 1\x00"),
			join(msg('T', "\x00\x00"), row, msg('C', "SELECT 1\x00"), ready),
		},
		"extended": {
			join(msg('P', "\x00select 1\x00\x00\x00"), msg('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), msg('D', "P\x00"), msg('E', "\x00\x00\x00\x00\x00"), msg('S')),
			join(msg('1'), msg('2'), msg('T', "\x00\x00"), row, msg('C', "SELECT 1\x00"), ready),
		},
		"1000 rows": {
			msg('Q', "select abalance from pgbench_accounts\x00"),
			join(msg('T', "\x00\x00"), bytes.Repeat(row, 1000), msg('C', "SELECT 1000\x00"), ready),
		},
	}
}

func around(s *Session, x exchange, segments [][]byte) [][]byte {
	s.Wake(shift)
	s.FromClient(x.client)
	segments = s.ToServer.Take(segments)
	leave(s)
	s.Wake(shift)
	s.FromServer(x.server)
	segments = s.ToClient.Take(segments)
	leave(s)
	return segments
}

// leave ends an event, as an engine does.
func leave(s *Session) {
	s.Rest()
	s.Leave()
}

// shift is what an engine has.
var shift = &Shift{}

func TestRelayAllocatesNothing(t *testing.T) {
	for name, x := range exchanges() {
		s := loggedIn(t, newKnowing(t))
		var segments [][]byte
		segments = around(s, x, segments)
		if n := testing.AllocsPerRun(100, func() { segments = around(s, x, segments) }); n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations for an exchange", name, n)
		}
		if !s.Resting() {
			t.Errorf("%s: the session does not rest behind the exchange", name)
		}
		if len(segments) != 1 {
			t.Errorf("%s: %d writes for one run of messages", name, len(segments))
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	for name, x := range exchanges() {
		b.Run(name, func(b *testing.B) {
			s := loggedIn(b, newKnowing(b))
			var segments [][]byte
			b.ReportAllocs()
			for b.Loop() {
				segments = around(s, x, segments)
			}
		})
	}
}
