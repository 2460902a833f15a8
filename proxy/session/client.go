package session

import (
	"bytes"

	"lockkeeper/inspect"
	"lockkeeper/proxy/wire"
)

// action is what becomes of the client's or server's message at hand.
type action uint8

const (
	forward action = iota // as it is
	discard               // consumed; what takes its place was collected already
	block                 // not yet: head says what it waits for
	more                  // not yet: the stream's need says how many bytes are missing
)

// FromClient takes bytes that the client sent, from the first one not taken
// before, and returns how many it took. Taken bytes may be aliased by ToServer.
// It stops early where it needs more bytes (ClientNeed), has a question (Ask),
// holds the message (Held) or waits for replies of the server.
func (s *Session) FromClient(b []byte) (n int) {
	s.hearing()
	n = s.hearClient(b)
	s.hears = false
	return n
}

// hearClient is FromClient, at one time.
func (s *Session) hearClient(b []byte) (n int) {
	st := &s.dir[fromClient]
	st.need = 0
	rest := b
	if st.pass > 0 && !s.deaf {
		k := min(st.pass, len(b))
		if !st.drop {
			if !s.bearable(b[:k]) {
				return len(b)
			}
			s.ToServer.Forward(b[:k])
		}
		st.pass -= k
		rest = b[k:]
	}
	owed := s.out.Len() > 0
	for len(rest) > 0 {
		if s.deaf {
			return len(b)
		}
		if w := s.head.wait; w == waitInspection || w == waitHold {
			break
		}
		size := wire.Size(rest)
		if size < 0 || !known(rest[0], size) { // 0 while the length is not at hand
			s.malformed(rest)
			return len(b)
		}
		if size == 0 {
			st.need = wire.HeaderLen
			break
		}
		m := rest
		if size < len(m) {
			m = m[:size]
		}
		s.head.wait = waitNothing
		switch s.fromClient(m, size) {
		case forward:
			if s.long != nil || s.head.long != nil {
				if s.long = s.head.long; s.long != nil && !s.bearable(textOf(m)) {
					return len(b)
				}
			}
			if s.copyIn && m[0] == 'd' && s.inCopy() {
				m = withRun(rest, len(m), &s.Counts.ClientMessages)
			}
			s.ToServer.Forward(m)
			if len(m) < size {
				st.pass, st.drop = size-len(m), false
			}
		case discard:
			st.pass, st.drop = size-len(m), true
		case block, more:
			return len(b) - len(rest)
		}
		s.Counts.ClientMessages++
		s.head = head{}
		rest = rest[len(m):]
		if !owed && s.out.Len() > 0 {
			owed = true
			s.work.begin(s.moment())
		}
	}
	return len(b) - len(rest)
}

// known reports whether the server would read a message of this type and size
// to its end. Source: SocketBackend in src/backend/tcop/postgres.c.
func known(t byte, size int) bool {
	switch t {
	case 'Q', 'P', 'B', 'F', 'd', 'p':
		return true
	case 'C', 'D', 'E', 'H', 'S', 'X', 'c', 'f':
		return size-1 <= wire.MaxSmallMessage
	default:
		return false
	}
}

// malformed passes on what the server will not read any further, for it has
// the right words, and hears nothing of what comes behind it.
func (s *Session) malformed(b []byte) {
	s.ToServer.Forward(b[:min(len(b), wire.HeaderLen)])
	s.deaf = true
}

// endImplicit ends a session whose implicit transaction read-only found open
// behind a Query: any Sync would commit it.
func (s *Session) endImplicit() action {
	if s.out.Len() > 0 {
		return s.waitReplies()
	}
	s.fail("25006", "lockkeeper is read-only and closes this session, whose implicit transaction would commit at the next Sync", "Connect again.")
	return discard
}

// fromClient decides about one message, of which m is at hand and size bytes
// are to come in all.
func (s *Session) fromClient(m []byte, size int) action {
	if !s.auth.done {
		return s.login(m, size)
	}
	if s.inCopy() && belongsToCopy(m[0]) {
		return s.copying(m)
	}
	if s.copyIn && s.out.slack > 0 && m[0] != 'X' {
		return s.skipped(m[0])
	}
	if s.out.skipping && m[0] != 'S' && m[0] != 'X' {
		return s.skipped(m[0])
	}
	if s.out.Full() || s.restoring() || s.cancelling > 0 {
		return s.waitReplies()
	}
	if (s.tx.implicit || s.tx.mixed) && s.late() != nil {
		return s.endImplicit()
	}
	switch m[0] {
	case 'Q':
		return s.query(m, size)
	case 'P':
		return s.parse(m, size)
	case 'B':
		return s.bind(m, size)
	case 'E', 'D', 'C':
		if len(m) < size {
			return s.needMore(size)
		}
		return s.small(m)
	case 'F':
		return s.functionCall(m, size)
	case 'S':
		return s.sync()
	case 'c', 'f':
		// Either the end of COPY data whose CopyInResponse is still on its way,
		// or a stray that the server ignores.
		if s.out.Len() > 0 {
			s.out.push('c', 0)
		}
		return forward
	case 'X':
		s.deaf = true
		return forward
	default: // H, d, p
		return forward
	}
}

// skipped passes on what the server discards up to the next Sync. Where a Sync
// inside COPY data may have ended that already, only what is harmless either
// way may come.
func (s *Session) skipped(t byte) action {
	if s.out.slack > 0 && t != 'd' && t != 'c' && t != 'f' && t != 'H' {
		s.failInCopy()
		return discard
	}
	return forward
}

// failInCopy ends a session whose client goes on behind a Sync as if there were
// no COPY.
func (s *Session) failInCopy() {
	s.fail("08P01", "unexpected message during COPY from stdin", "Send CopyDone or CopyFail first, and Sync after an error.")
}

// small handles the messages that are at hand whole.
func (s *Session) small(m wire.Message) action {
	switch m.Type() {
	case 'E':
		return s.execute(m)
	case 'C':
		return s.closeName(m)
	default:
		return s.describe()
	}
}

func (s *Session) needMore(n int) action {
	s.dir[fromClient].need = n
	return more
}

// waitReplies waits for replies that are owed. Those of a pipeline without a
// Sync come at a Flush, which is put in once.
func (s *Session) waitReplies() action {
	if s.inCopy() { // the server waits, too: for data
		s.failInCopy()
		return discard
	}
	if s.seg.open && !s.head.flushed {
		s.ToServer.Forward(flushMessage)
		s.head.flushed = true
	}
	s.head.wait = waitReplies
	return block
}

// settled reports whether nothing is owed: the transaction status is known.
func (s *Session) settled() bool { return s.out.Len() == 0 && !s.seg.open }

var flushMessage = []byte{'H', 0, 0, 0, 4} // never written to

// login relays what the client says before the first ReadyForQuery: one answer
// for each request of the server. Anything that comes early waits, for it may
// be a statement. Passwords pass and are not looked at; of a SASL exchange the
// first bytes are, to tell a client that cannot succeed why.
func (s *Session) login(m []byte, size int) action {
	if !s.auth.asked {
		return s.waitReplies()
	}
	if m[0] != 'p' { // the server reads its type and gives up
		s.malformed(m)
		return discard
	}
	if !s.auth.sasl || size > wire.MaxSmallMessage {
		s.auth.asked = false
		return forward
	}
	if len(m) < size {
		return s.needMore(size)
	}
	s.auth.asked = false
	s.auth.sasl = false
	_, rest, ok := wire.CString(wire.Message(m).Body())
	if ok && len(rest) > 4 && rest[4] == 'y' && s.auth.offeredPlus {
		s.fail("28000", "lockkeeper cannot relay SCRAM authentication over TLS on both sides to a client that supports channel binding",
			"Set auth: scram for this server in lockkeeper.yaml, or channel_binding=disable in the client's connection string.")
		return discard
	}
	return forward
}

// copying relays COPY data. Only its end is looked at: under read-only it must
// not commit any more. Source: manual, 55.2.6 "COPY Operations".
func (s *Session) copying(m []byte) action {
	switch m[0] {
	case 'c':
		s.copyIn = false
		if r := s.copyRefusal(); r != nil {
			s.copyFail = r
			s.ToServer.Forward(wire.Append(nil, 'f', substituteText(readOnlyRule)+"\x00"))
			return discard
		}
		return forward
	case 'f':
		s.copyIn = false
		return forward
	case 'S':
		s.out.passOver() // ignored while the COPY goes on; answered if it has failed
		return forward
	default: // d, H
		return forward
	}
}

// inCopy reports whether what the client sends next is for the COPY that the
// server reads. Once something else was sent it is not: either the server has
// ended the session there, or the COPY has failed before it and what follows is
// read as if there had been none.
func (s *Session) inCopy() bool { return s.copyIn && !s.out.passedBy() }

// belongsToCopy reports whether a message may come while the server reads COPY
// data. At any other it gives up, unless the COPY has failed meanwhile: such a
// message is treated as one that is run.
func belongsToCopy(t byte) bool {
	return t == 'd' || t == 'c' || t == 'f' || t == 'H' || t == 'S'
}

// replicationCommand returns the facts of a text on a replication connection
// that is one of the walsender's own commands, which are no SQL, SHOW among
// them; nil for any other. Source: manual, 55.4 "Streaming Replication
// Protocol", src/backend/replication/repl_scanner.l.
func replicationCommand(text []byte) *inspect.Batch {
	text = bytes.TrimLeft(text, " \t\r\n\f\v")
	end := 0
	for end < len(text) && (text[end] == '_' || text[end]|0x20 >= 'a' && text[end]|0x20 <= 'z') {
		end++
	}
	switch string(text[:end]) {
	case "BASE_BACKUP", "UPLOAD_MANIFEST":
		return backupFacts
	case "IDENTIFY_SYSTEM", "READ_REPLICATION_SLOT", "START_REPLICATION", "TIMELINE_HISTORY",
		"CREATE_REPLICATION_SLOT", "DROP_REPLICATION_SLOT", "ALTER_REPLICATION_SLOT", "SHOW":
		return replicationFacts
	}
	return nil
}

// The kinds of a walsender's own commands.
const (
	kindReplication inspect.Kind = "REPLICATION"
	kindBaseBackup  inspect.Kind = "BASE_BACKUP"
)

// Facts about messages that have no text of their own.
var (
	replicationFacts = &inspect.Batch{Class: inspect.Session, Statements: []inspect.Statement{{Class: inspect.Session, Kind: kindReplication}}}
	backupFacts      = &inspect.Batch{Class: inspect.Session, Statements: []inspect.Statement{{Class: inspect.Session, Kind: kindBaseBackup}}}
	systemCallFacts  = opaque("FUNCTION CALL", "a built-in function called by its number", []string{})
	userCallFacts    = opaque("FUNCTION CALL", "a function called by its number", nil)
	missingFacts     = opaque("EXECUTE", "a statement or portal that nothing was prepared for", []string{})
	unseenFacts      = opaque("EXECUTE", "a statement or portal that was not prepared through this session", nil)
)

// opaque returns the facts of something that may do anything. words are
// Batch.Words: nil where any table may be meant.
func opaque(kind inspect.Kind, why string, words []string) *inspect.Batch {
	return &inspect.Batch{
		Class: inspect.Unknown, Why: why, Words: words,
		Statements: []inspect.Statement{{Class: inspect.Unknown, Kind: kind, Hidden: inspect.HiddenFunction, Why: why}},
	}
}
