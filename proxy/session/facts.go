package session

import (
	"bytes"

	"lockkeeper/inspect"
)

// facts returns what is known about a text; nil when it has to be waited for,
// with the action that says how. text aliases the client's buffer; whole is
// false when only its beginning is at hand, because it is too long to collect.
func (s *Session) facts(text []byte, whole bool) (*inspect.Batch, action) {
	if s.head.batch != nil {
		return s.head.batch, forward
	}
	if s.cfg.Replication && isReplicationCommand(text) {
		return replicationFacts, forward
	}
	if !whole {
		s.head.batch = inspect.NewUnknown("longer than limits.statement_bytes", nil)
		return s.head.batch, forward
	}
	if s.lexingUncertain() && ambiguous(text) {
		if s.seg.lexing {
			s.head.batch = inspect.NewUnknown("settings that change how text is read may have changed in this pipeline", nil)
			return s.head.batch, forward
		}
		return nil, s.waitReplies()
	}
	if b := s.host.Lookup(text, s.lexing); b != nil {
		s.head.batch = b
		return b, forward
	}
	s.head.asked, s.head.wait = text, waitInspection
	return nil, block
}

// lexingUncertain reports whether something that may change
// standard_conforming_strings or client_encoding is under way. The server
// reports a change before the next ReadyForQuery only.
func (s *Session) lexingUncertain() bool {
	if s.seg.lexing {
		return true
	}
	if s.out.boundaries == 0 {
		return false
	}
	for seq := s.out.first; seq < s.out.next; seq++ {
		if r := s.out.at(seq); r.batch != nil && mayChangeLexing(r.batch) {
			return true
		}
	}
	return false
}

// mayChangeLexing reports whether a batch may change how later text is read: by
// a setting, or in a function that nobody knows.
func mayChangeLexing(b *inspect.Batch) bool {
	for i := range b.Statements {
		if b.Statements[i].Hidden&(inspect.HiddenFunction|inspect.HiddenSettings) != 0 {
			return true
		}
	}
	return b.ChangesLexing()
}

// ambiguous reports whether a text reads differently under different settings.
func ambiguous(text []byte) bool {
	if bytes.IndexByte(text, '\\') >= 0 {
		return true
	}
	for _, c := range text {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// resolve replaces each EXECUTE in a batch by the facts of the statement that
// was prepared under its name, in SQL or in the protocol.
func (s *Session) resolve(b *inspect.Batch) (*inspect.Batch, action) {
	if !executes(b) {
		return b, forward
	}
	if s.preparing() {
		if s.seg.open {
			return nil, s.awaitSegment()
		}
		return nil, s.waitReplies()
	}
	out := &inspect.Batch{Class: inspect.Read, Fingerprint: b.Fingerprint}
	for _, st := range b.Statements {
		if st.Kind == inspect.KindExecute && st.Prepared == nil {
			known := s.prep.of(false).get([]byte(st.Name)).batch
			if known == nil || len(known.Statements) != 1 {
				known = unseenFacts
			}
			start, length := st.Start, st.Len
			st = known.Statements[0]
			st.Start, st.Len = start, length
			if st.Class == inspect.Unknown {
				out.Why, out.Words = known.Why, known.Words
			}
		}
		out.Class = inspect.Worse(out.Class, st.Class)
		out.Statements = append(out.Statements, st)
	}
	return out, forward
}

func executes(b *inspect.Batch) bool {
	for i := range b.Statements {
		if b.Statements[i].Kind == inspect.KindExecute && b.Statements[i].Prepared == nil {
			return true
		}
	}
	return false
}

// preparing reports whether a name may be given or taken by something that is
// owed a reply: SQL's PREPARE or DEALLOCATE, or a Parse.
func (s *Session) preparing() bool {
	for seq := s.out.first; seq < s.out.next; seq++ {
		r := s.out.at(seq)
		if r.kind == 'P' && r.flags&hideBody == 0 {
			return true
		}
		if r.batch != nil && renames(r.batch) {
			return true
		}
	}
	return false
}

// renames reports whether a batch prepares or deallocates.
func renames(b *inspect.Batch) bool {
	for i := range b.Statements {
		switch b.Statements[i].Kind { //nolint:exhaustive // kinds are an open set
		case inspect.KindPrepare, inspect.KindDeallocate, inspect.KindDiscard:
			return true
		}
	}
	return false
}

// pendingAcross reports whether what a name stands for depends on a reply that
// is owed behind a Sync: if that fails the name means what it meant before.
func (s *Session) pendingAcross(v slot) bool {
	return v.seq >= s.out.first && v.seq != 0 && v.seq < s.out.boundary && s.out.boundaries > 0
}

// stringOf cuts a zero-terminated text from a body; all of it when the zero is
// missing, which the server will complain about.
func stringOf(body []byte) []byte {
	if i := bytes.IndexByte(body, 0); i >= 0 {
		return body[:i]
	}
	return body
}
