package session

import (
	"bytes"
	"strings"

	"lockkeeper/inspect"
)

// facts returns what is known about a text; nil when it has to be waited for,
// with the action that says how. text aliases the client's buffer; whole is
// false when only its beginning is at hand, because it is too long to collect.
func (s *Session) facts(text []byte, whole bool) (*inspect.Batch, action) {
	if s.head.batch != nil {
		return s.head.batch, forward
	}
	if s.replication {
		if b := replicationCommand(text); b != nil {
			return b, forward
		}
	}
	how := s.lexing
	if s.lexingUncertain() && (!whole || ambiguous(text)) {
		if !s.seg.lexing {
			return nil, s.waitReplies()
		}
		how.Uncertain = true // they may have changed in this pipeline
	}
	if !whole {
		s.head.batch, s.head.long = inspect.NewUnknown("longer than limits.statement_bytes", nil), s.host.Gauge(how)
		return s.head.batch, forward
	}
	if b := s.host.Lookup(text, how); b != nil {
		s.head.batch = b
		return b, forward
	}
	s.head.ask, s.head.wait = &question{text, how}, waitInspection
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
		if r := s.out.at(seq); r.batch != nil && s.mayChangeLexing(r.batch) {
			return true
		}
	}
	return false
}

// mayChangeLexing reports whether a batch may change how later text is read: by
// a setting, in a function that nobody knows, or by the end of a transaction in
// which that was done.
func (s *Session) mayChangeLexing(b *inspect.Batch) bool {
	for i := range b.Statements {
		st := &b.Statements[i]
		if st.Hidden&(inspect.HiddenFunction|inspect.HiddenSettings) != 0 || s.tx.lexing && st.Class == inspect.Control {
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

// resolve returns what a batch does where it is sent now: each EXECUTE in it is
// replaced by what it runs, and its names by what they lead to in the database.
func (s *Session) resolve(b *inspect.Batch) (*inspect.Batch, action) {
	if b.Class == inspect.Unknown && executes(b) {
		if s.preparing() {
			return nil, s.waitReplies()
		}
		b = s.executed(b)
	}
	if s.catalog != nil {
		b = s.catalog.Resolve(b)
	}
	return b, forward
}

// executed replaces each EXECUTE in a batch by the facts of the statement that
// was prepared under its name, in SQL or in the protocol.
func (s *Session) executed(b *inspect.Batch) *inspect.Batch {
	out := &inspect.Batch{Class: inspect.Read, Fingerprint: b.Fingerprint, NoPositions: b.NoPositions, Fleeting: true}
	for _, st := range b.Statements {
		if runsPrepared(&st) {
			known := s.behind(s.prep.of(false).get([]byte(st.Name)))
			if len(known.Statements) != 1 || runsPrepared(&known.Statements[0]) { // an EXECUTE of an EXECUTE: nobody needs it
				known = unseenFacts
			}
			st = executed(st, &known.Statements[0])
			if st.Class == inspect.Unknown {
				out.Why, out.Words = known.Why, known.Words
			}
		}
		out.Class = inspect.Worse(out.Class, st.Class)
		out.Statements = append(out.Statements, st)
	}
	return out
}

// executed returns the facts of an EXECUTE, alone or in another statement, of
// what is known.
func executed(st inspect.Statement, known *inspect.Statement) inspect.Statement {
	x := *known
	x.Start, x.Len = st.Start, st.Len
	x.Plain = false // its parameters may be anything
	switch st.Kind {
	case inspect.KindExecute:
		return x
	case "EXPLAIN":
		x.Kind = st.Kind
	default: // CREATE TABLE AS
		x.Kind, x.NoBlock = st.Kind, false
		x.Class = inspect.Worse(inspect.Define, known.Class)
		x.Relations = append(append([]inspect.Relation(nil), st.Relations...), known.Relations...)
	}
	x.Hidden |= st.Hidden
	return x
}

// runsPrepared reports whether a statement runs a prepared one: EXECUTE, also in
// EXPLAIN ANALYZE and CREATE TABLE AS. SQL has no name for the unnamed statement:
// what has none stands for one that nobody has seen.
func runsPrepared(st *inspect.Statement) bool {
	return st.Prepared == nil && st.Class == inspect.Unknown && st.Name != "" &&
		(st.Kind == inspect.KindExecute || st.Hidden&inspect.HiddenPrepared != 0)
}

func executes(b *inspect.Batch) bool {
	for i := range b.Statements {
		if runsPrepared(&b.Statements[i]) {
			return true
		}
	}
	return false
}

// preparing reports whether a name may be given or taken by something that is
// owed a reply: SQL's PREPARE or DEALLOCATE, or a Parse.
func (s *Session) preparing() bool {
	if s.renaming() {
		return true
	}
	for seq := s.out.first; seq < s.out.next; seq++ {
		if r := s.out.at(seq); r.kind == 'P' && r.flags&hideBody == 0 {
			return true
		}
	}
	return false
}

// renames reports whether a batch prepares or deallocates.
func renames(b *inspect.Batch) bool {
	for i := range b.Statements {
		switch b.Statements[i].Kind {
		case inspect.KindPrepare, inspect.KindDeallocate, inspect.KindDiscard:
			return true
		}
	}
	return false
}

// behind returns the facts of what a name stands for.
func (s *Session) behind(v slot) *inspect.Batch {
	switch {
	case v.batch != nil:
		return v.batch
	case s.unseen || s.prep.overflown:
		return unseenFacts
	default:
		return missingFacts
	}
}

// preparesUnseen reports whether a batch may prepare statements that nobody has
// seen: a DO block, a procedure, text that was not classified.
func preparesUnseen(b *inspect.Batch) bool {
	if b == nil || b.Class != inspect.Unknown {
		return false
	}
	for i := range b.Statements {
		if st := &b.Statements[i]; st.Class == inspect.Unknown && st.Why != missingFacts.Why && st.Why != systemCallFacts.Why {
			return true
		}
	}
	return len(b.Statements) == 0
}

// neverRan reports whether a text that nobody could parse has failed with code
// because the server could not either.
func neverRan(b *inspect.Batch, code string) bool {
	return code == "42601" && strings.HasPrefix(b.Why, inspect.ParserReason)
}

// noteEpoch marks what makes a new transaction READ ONLY with the policy's
// epoch: that is when the transaction has begun.
func (s *Session) noteEpoch(r *reply) {
	if r.flags&begins != 0 {
		if snap := s.host.Snapshot(); snap != nil {
			r.rare().epoch = snap.Epoch
		}
	}
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
