package session

import (
	"bytes"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// bearable looks at a piece of a message before it is passed on: where it goes
// on with a text that is too long to be inspected and would keep the server
// busy, the session ends. What was passed on does no harm, for the server reads
// no text before it has all of its message. Source: SocketBackend in
// src/backend/tcop/postgres.c.
func (s *Session) bearable(piece []byte) bool {
	if s.long == nil {
		return true
	}
	text, _, ended := bytes.Cut(piece, []byte{0})
	why := s.long.Add(text)
	if why == "" {
		if ended {
			s.long = nil
		}
		return true
	}
	s.long = nil
	if s.out.Len() > 0 {
		s.out.at(s.out.next - 1).batch = nil // the message's own: it is refused, and not lost
	}
	b := &inspect.Batch{Class: inspect.Unknown, Why: why, Costly: true}
	d := s.host.Snapshot().Decide(&policy.Request{Subject: s.sub, Batch: b, Now: s.now()})
	d.Verdict = policy.Disconnect
	s.decided(b, &d)
	s.disconnect(&d)
	return false
}

// textOf returns what is at hand of the text of a Query or Parse.
func textOf(m []byte) []byte {
	body := m[wire.HeaderLen:]
	if m[0] == 'P' {
		_, body, _ = wire.CString(body) // its name
	}
	return body
}
