package session

import (
	"testing"

	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// What the server says behind lockkeeper's last word, in the same read or a
// later one, is not for a client that has been told FATAL.
func TestNothingFollowsTheLastWord(t *testing.T) {
	s := loggedIn(t, newKnowing(t))
	s.FromClient(msg('Q', "select 1\x00"))
	s.Fail(&policy.Refusal{SQLSTATE: "57P01", Message: "enough"})
	answer := join(msg('T', "\x00\x00"), msg('E', "SERROR\x00C22012\x00\x00"), msg('Z', "I"))
	if n := s.FromServer(answer); n != len(answer) {
		t.Errorf("%d bytes of %d were taken", n, len(answer))
	}
	kinds := ""
	for said := join(s.ToClient.Take(nil)...); len(said) > 0; {
		size := wire.Size(said)
		if size <= 0 {
			t.Fatalf("the client is told %q", said)
		}
		kinds, said = kinds+string(said[:1]), said[size:]
	}
	if kinds != "E" {
		t.Errorf("the client is told %q", kinds)
	}
}
