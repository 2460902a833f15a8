package session

import (
	"encoding/binary"
	"strings"
	"unique"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// maxLook bounds the messages of the server that are read whole: errors and
// notices. A longer one is relayed and not looked into.
const maxLook = 1 << 20

// FromServer takes bytes that the server sent, from the first one not taken
// before, and returns how many it took. Taken bytes may be aliased by ToClient.
// It stops early only where it needs more bytes (ServerNeed).
func (s *Session) FromServer(b []byte) (n int) {
	s.hearing()
	n = s.hearServer(b)
	s.hears = false
	return n
}

// hearServer is FromServer, at one time.
func (s *Session) hearServer(b []byte) (n int) {
	st := &s.dir[fromServer]
	st.need = 0
	rest := b
	if st.pass > 0 {
		k := min(st.pass, len(b))
		if !st.drop {
			s.ToClient.Forward(b[:k])
		}
		st.pass -= k
		rest = b[k:]
	}
	for len(rest) > 0 {
		if s.closing != "" { // the client has had the last word
			return len(b)
		}
		size := wire.Size(rest)
		if size <= 0 || size > len(rest) {
			rest = s.hearPart(rest, size)
			break
		}
		m := rest[:size]
		act := s.fromServer(m, true)
		s.Counts.ServerMessages++
		if act == forward {
			if isData(m[0]) {
				m = withRun(rest, size, &s.Counts.ServerMessages)
			}
			s.ToClient.Forward(m)
		}
		rest = rest[len(m):]
	}
	return len(b) - len(rest)
}

// hearPart is told of the beginning of a message of size bytes, and returns what
// it did not take of it.
func (s *Session) hearPart(m []byte, size int) (rest []byte) {
	st := &s.dir[fromServer]
	switch {
	case size < 0: // not the protocol: the client will find out
		s.ToClient.Forward(m)
		return nil
	case size == 0:
		st.need = wire.HeaderLen
		return m
	case size <= maxLook && (readWhole(m[0]) || s.wantsRow()):
		st.need = size
		return m
	}
	act := s.fromServer(m, false)
	s.Counts.ServerMessages++
	if act == forward {
		s.ToClient.Forward(m)
	}
	st.pass, st.drop = size-len(m), act == discard
	return nil
}

// isData reports whether messages of type t are rows or COPY data. The ones that
// follow directly go the way of the first.
func isData(t byte) bool { return t == 'D' || t == 'd' }

// withRun returns the first message of b, of which size bytes are at hand, with
// those of its type that follow it whole, and counts these.
func withRun(b []byte, size int, count *int64) []byte {
	more, messages := wire.Run(b[size:], b[0])
	*count += int64(messages)
	return b[:size+more]
}

// readWhole reports whether messages of type t are looked into; rows and COPY
// data are not.
func readWhole(t byte) bool {
	switch t {
	case 'D', 'd', 'T', 't', 'V':
		return false
	default:
		return true
	}
}

// wantsRow reports whether the rows that come are answers to a question of ours.
func (s *Session) wantsRow() bool {
	h := s.out.head()
	return h != nil && h.flags&wantRow != 0
}

// answers reports whether a message of type t belongs to the oldest reply owed;
// the others end an exchange or may come at any time.
func answers(t byte) bool {
	switch t {
	case 'Z', 'N', 'S', 'A', 'K', 'R':
		return false
	default:
		return true
	}
}

// fromServer decides about one message of the server.
func (s *Session) fromServer(m wire.Message, whole bool) action {
	h := s.out.head()
	if s.out.slack > 0 && h != nil && answers(m.Type()) {
		s.out.answering(h)
	}
	switch m.Type() {
	case 'D':
		return s.row(h, m, whole)
	case 'C', 'I', 's':
		return s.commandEnd(h, m)
	case 'Z':
		return s.readyForQuery(m)
	case '1', '2', '3', 'n':
		return s.popHidden(h)
	case 'T':
		if h != nil && h.kind == 'D' {
			return s.popHidden(h)
		}
		return hidden(h)
	case 'E':
		return s.errorResponse(h, m, whole)
	case 'N':
		return s.notice(h, m, whole)
	case 'S':
		s.parameterStatus(m.Body())
		return forward
	case 'G':
		return s.copyInResponse(h)
	case 'V':
		if h != nil && h.kind == 'F' && h.batch != nil { // nil: a substitute, which no server lets succeed
			h.done = true
			s.unseen = s.unseen || preparesUnseen(h.batch)
			s.wrote(h, &h.batch.Statements[0], 0)
		}
		return forward
	case 'K':
		s.backendKey(m.Body())
		return forward
	case 'R':
		return s.authenticationRequest(m)
	case 'A', 'v', 'H', 'W', 'd', 'c':
		return forward
	default: // t and what newer servers may send
		return hidden(h)
	}
}

// copyInResponse begins COPY FROM STDIN. What was sent behind a Sync and is no
// end of the data was sent too early: whether it is run cannot be known.
func (s *Session) copyInResponse(h *reply) action {
	if h == nil {
		return forward
	}
	h.copied = true
	ended, early := s.out.copyIn()
	s.copyIn = !ended
	if early && s.out.slack > 0 {
		s.failInCopy()
		return discard
	}
	return forward
}

func hidden(h *reply) action {
	if h != nil && h.flags&hideBody != 0 {
		return discard
	}
	return forward
}

// popHidden ends an answer of one message.
func (s *Session) popHidden(h *reply) action {
	act := hidden(h)
	if h != nil && h.kind == 'C' && h.flags&hideBody == 0 {
		s.prep.of(h.portal).closed(h.its().name, h.seq)
	}
	if h != nil && !isBoundary(h.kind) {
		s.out.pop()
	}
	return act
}

// row passes a row on, or keeps an answer to a question of ours.
func (s *Session) row(h *reply, m wire.Message, whole bool) action {
	if h == nil || h.flags&hideBody == 0 {
		return forward
	}
	if h.flags&wantRow != 0 && whole && len(s.answers) < 8 {
		s.answers = append(s.answers, string(wire.FirstColumn(m.Body())))
	}
	return discard
}

// commandEnd handles CommandComplete, EmptyQueryResponse and PortalSuspended.
func (s *Session) commandEnd(h *reply, m wire.Message) action {
	if h == nil {
		return forward
	}
	act := hidden(h)
	part := h.part
	h.part++
	switch {
	case h.its().edit.hides(part):
		act = discard
		if h.flags&readOnly != 0 && !s.tx.fence.up {
			s.tx.armed = true
		}
	case h.flags&reads != 0: // as most: nothing follows from it
	case m.Type() == 'C':
		s.unseen = s.unseen || preparesUnseen(h.batch)
		tag, rows := wire.CommandTag(m.Body())
		s.completed(h, h.its().edit.theirs(part), string(tag), rows)
	case m.Type() == 's':
		s.suspended(h)
	}
	h.done = true
	if s.copyIn && m.Type() == 'C' { // a COPY that ended without CopyDone
		s.copyIn = false
	}
	if h.copied && m.Type() == 'C' {
		h.copied, s.out.slack = false, 0 // Syncs inside the COPY data were passed over
	}
	if h.kind == 'E' {
		s.settle(h)
		s.out.pop()
	}
	return act
}

// settle ends what waits for an answer of ours.
func (s *Session) settle(h *reply) {
	if h.flags&awaited != 0 {
		s.awaiting--
	}
}

// completed takes note of a statement that has ended well: n is its number in
// the batch.
func (s *Session) completed(h *reply, n int, tag string, rows int64) {
	if h.flags&arms != 0 {
		s.tx.armed = true
		if h.flags&begins != 0 {
			s.tx.armedTop, s.tx.epoch = true, h.its().epoch
		}
		return
	}
	if h.flags&hideBody != 0 || h.batch == nil {
		return
	}
	if n >= len(h.batch.Statements) {
		if h.batch.Why != "" {
			s.wrote(h, &inspect.Statement{Class: inspect.Unknown, Kind: kindOfTag(strings.Clone(tag))}, rows)
		}
		return
	}
	st := &h.batch.Statements[n]
	s.follow(st, tag, h.seq)
	if h.flags&begins != 0 {
		s.tx.fence, s.tx.epoch = fence{begun: true, up: true}, h.its().epoch
	}
	if st.MayWrite() {
		s.wrote(h, st, rows)
	}
}

// kindOfTag cuts the counts from a command tag.
func kindOfTag(tag string) inspect.Kind {
	return inspect.Kind(strings.TrimRight(tag, " 0123456789"))
}

// suspended takes note of a statement whose rows are fetched in parts: a write
// with RETURNING is done before the first of them. Source: PORTAL_ONE_RETURNING
// in src/backend/tcop/pquery.c.
func (s *Session) suspended(h *reply) {
	if h.flags&hideBody == 0 && h.batch != nil && len(h.batch.Statements) == 1 && h.batch.Statements[0].MayWrite() {
		s.wrote(h, &h.batch.Statements[0], 0)
	}
}

// follow takes note of what a statement, answered by reply seq, does to the
// transaction and to names. What was sent behind it has the names already.
func (s *Session) follow(st *inspect.Statement, tag string, seq uint64) {
	switch st.Kind {
	case inspect.KindBegin, inspect.KindStart:
		s.tx.block = true
	case inspect.KindCommit, inspect.KindRollback, inspect.KindPrepareTransaction:
		s.tx.block = s.tx.block && st.Chain
		s.endTransaction(strings.HasPrefix(tag, "ROLLBACK") || st.Kind == inspect.KindRollback)
	case inspect.KindRollbackTo:
		s.tx.armed = s.tx.armedTop
		s.tx.failed = false
	case inspect.KindRelease: // the server puts back what was before the savepoint
		s.tx.armed = s.tx.armedTop
	case inspect.KindPrepare:
		if st.Prepared != nil {
			s.rename(st.Name, slot{batch: &inspect.Batch{Class: st.Prepared.Class, Statements: []inspect.Statement{*st.Prepared}}}, seq)
		}
	case inspect.KindDeallocate:
		if st.Name != "" {
			s.rename(st.Name, slot{}, seq)
		} else {
			s.forgetStatements(seq)
		}
	case inspect.KindDiscard:
		if tag == "DISCARD ALL" {
			s.forgetStatements(seq)
			s.unseen = false
		}
	}
}

// rename is told that SQL, answered by reply seq, has made a name stand for v.
// A later Parse or Close that has the name by now is told what was before it.
func (s *Session) rename(name string, v slot, seq uint64) {
	n := s.prep.of(false)
	if n.get([]byte(name)).seq <= seq {
		n.set(name, v)
		return
	}
	for later := seq + 1; later < s.out.next; later++ {
		if r := s.out.at(later); r.names(false) && r.its().name == name {
			r.old = v
			return
		}
	}
}

// forgetStatements is told that SQL, answered by reply seq, has dropped every
// prepared statement.
func (s *Session) forgetStatements(seq uint64) {
	s.prep.forgetStatements(seq)
	for later := seq + 1; later < s.out.next; later++ {
		if r := s.out.at(later); r.names(false) && r.its().name != "" && r.old.seq <= seq {
			r.old = slot{}
		}
	}
}

// wrote counts and journals a statement that may have changed something.
func (s *Session) wrote(h *reply, st *inspect.Statement, rows int64) {
	e := s.entry(journal.StatementEntry, nil)
	e.Text, e.Class, e.Statement, e.Tables = h.batch.Fingerprint, st.Class.String(), string(st.Kind), tables(st)
	e.Verdict, e.Outcome, e.Duration, e.Detail = policy.Allow.String(), "ok", s.moment().since(h.began), callsWords(st)
	if changesRows(st) {
		e.Rows = rows
		s.written += rows
		s.tx.rows += rows
		if rel := written(st); rel != nil && rows > 0 {
			n := s.incidents()
			n.Rows = append(n.Rows, RowCount{*rel, st.Kind, rows})
		}
		if limits := h.its().throt; len(limits) > 0 && rows > 0 {
			s.host.Charge(limits, rows, s.now())
		}
	}
	s.entries = append(s.entries, e)
	s.tx.journaled = true
}

// callsWords names the functions that a statement calls and that may write.
func callsWords(st *inspect.Statement) string {
	words := ""
	for i := range st.Calls {
		if c := &st.Calls[i]; c.Effect == inspect.CallVolatile || c.Effect == inspect.CallMissing {
			words += ", " + c.Name
		}
	}
	if words == "" {
		return ""
	}
	return "calls " + words[2:]
}

// changesRows reports whether the number in a statement's command tag counts
// rows that it has changed.
func changesRows(st *inspect.Statement) bool {
	switch st.Kind {
	case inspect.KindInsert, inspect.KindUpdate, inspect.KindDelete, inspect.KindMerge, inspect.KindCopyFrom:
		return true
	}
	return false
}

// written returns the relation that a statement's command tag counts.
func written(st *inspect.Statement) *inspect.Relation {
	for i := range st.Relations {
		if st.Relations[i].Access&inspect.AccessWrite != 0 {
			return &st.Relations[i]
		}
	}
	return nil
}

// endTransaction notes how the open transaction ends.
func (s *Session) endTransaction(rolledBack bool) {
	s.tx.failed = rolledBack
	s.tx.armed, s.tx.armedTop, s.tx.opaque, s.tx.fence = false, false, false, fence{}
	s.tx.epoch = 0 // what is pipelined behind it began nobody knows when
	s.closeTransaction(outcomeOf(rolledBack))
}

func outcomeOf(rolledBack bool) string {
	if rolledBack {
		return "rolled back"
	}
	return "committed"
}

// closeTransaction journals the end of a transaction that has entries.
func (s *Session) closeTransaction(outcome string) {
	if s.tx.journaled {
		e := s.entry(journal.TransactionEntry, nil)
		e.Outcome, e.Rows = outcome, s.tx.rows
		s.entries = append(s.entries, e)
	}
	s.tx.journaled, s.tx.failed, s.tx.rows = false, false, 0
	s.tx.number++
}

// Lost is told that the connection ends. What the server was asked to do and has
// not answered has an unknown end; a transaction that waited for its client is
// rolled back.
func (s *Session) Lost() {
	s.wake()
	s.letGo()
	for seq := s.out.first; seq < s.out.next; seq++ {
		if r := s.out.at(seq); r.mayWrite() {
			e := s.entry(journal.StatementEntry, r.batch)
			e.Verdict, e.Outcome, e.Duration = policy.Allow.String(), "lost", s.moment().since(r.began)
			s.entries = append(s.entries, e)
			s.tx.journaled = true
		}
	}
	switch {
	case !s.tx.journaled:
	case s.out.Len() > 0:
		s.closeTransaction("lost")
	default:
		s.closeTransaction(outcomeOf(true))
	}
}

// readyForQuery handles the message that ends an exchange.
func (s *Session) readyForQuery(m wire.Message) action {
	h := s.out.ready()
	status := policy.TxIdle
	if body := m.Body(); len(body) > 0 {
		status = policy.TxStatus(body[0])
	}
	now := s.moment()
	was := s.tx.status
	s.tx.implicit = status == policy.TxActive && (s.tx.implicit || s.tx.mixed && !s.tx.block)
	s.tx.mixed = s.tx.mixed && s.out.Len() > 1
	s.tx.status, s.tx.block = status, status != policy.TxIdle
	s.copyIn, s.copyFail = false, nil
	s.out.skipping = false // it may have been a Sync inside COPY data that ended it
	if status == policy.TxIdle {
		s.tx.armed, s.tx.armedTop, s.tx.opaque, s.tx.lexing, s.tx.fence = false, false, false, false, fence{}
		if s.tx.journaled || was != policy.TxIdle {
			s.closeTransaction(outcomeOf(s.tx.failed))
		}
		s.tx.failed = false
	} else if was == policy.TxIdle {
		s.tx.since = now
	}
	if h == nil {
		s.exchangeEnds(now, status)
		return forward
	}
	if h.kind == 'A' {
		s.auth.done = true
	}
	if status == policy.TxIdle {
		s.prep.forgetPortals(h.seq)
	}
	act := s.endExchange(h)
	s.out.pop()
	if s.out.Len() == 0 {
		s.stateSince = now
		if status == policy.TxIdle && s.catalog != nil {
			s.catalog.Ended()
		}
	}
	if act == forward {
		s.exchangeEnds(now, status)
	}
	return act
}

// endExchange says whether the client sees the ReadyForQuery that ends h.
func (s *Session) endExchange(h *reply) action {
	if h.flags&restore != 0 {
		return s.restored(h.fail)
	}
	if h.flags&leads != 0 && h.fail && h.flags&showError != 0 {
		return forward // the client's message was answered by our failure
	}
	if h.flags&hideReady != 0 {
		return discard
	}
	return forward
}

// restored ends the restoring of session settings, or repeats it: nothing of
// ours may stay behind.
func (s *Session) restored(failed bool) action {
	if !failed {
		s.settings = nil
		return forward
	}
	if s.settings == nil || s.settings.attempts >= maxRestores {
		s.fail("57P01", "lockkeeper could not put this session's settings back and closes it", "Connect again.")
		return discard
	}
	s.sendRestore()
	return discard
}

// errorResponse handles ErrorResponse: it ends a statement, and in the
// extended protocol everything up to the next Sync.
func (s *Session) errorResponse(h *reply, m wire.Message, whole bool) action {
	if h == nil || !whole {
		return s.failed(h, "", forward)
	}
	body := m.Body()
	code := string(wire.Field(body, 'C'))
	if severity := wire.Field(body, 'V'); string(severity) == "FATAL" || string(severity) == "PANIC" {
		return forward // the session is over, whatever was owed
	}
	if s.out.uncertain() {
		s.ToClient.Forward(m)
		s.failInCopy()
		return discard
	}
	act := s.showError(h, m, code)
	if s.overdue != nil && code == "57014" {
		code = s.overdue.SQLSTATE // the journal has what the client was told
	}
	return s.failed(h, code, act)
}

// showError says what the client sees of an error; what takes its place is
// collected here.
func (s *Session) showError(h *reply, m wire.Message, code string) action {
	switch {
	case s.copyFail != nil && code == "57014":
		s.replaceError(s.copyFail)
		return discard
	case h.flags&refuse != 0 && code == "22P02":
		s.replaceError(h.its().refusal)
		return discard
	case h.flags&refuse != 0:
		return forward // an aborted transaction, a shutdown: the server's own words
	case code == "25P02" && h.kind == 'Q' && h.flags&(arms|leads) == arms:
		return discard // the client's own statement has failed, and it knows
	case code == "25006" && h.flags&readOnly != 0:
		s.incidents().ServerReadOnly++
		s.replaceError(s.serverReadOnly(m))
		return discard
	case h.flags&leads != 0:
		s.head.failure = failureOf(m)
		if h.flags&showError != 0 {
			return forward
		}
		return discard
	case h.flags&hideBody != 0 && h.flags&showError == 0:
		return discard
	case s.overdue != nil && code == "57014":
		s.replaceError(s.overdue)
		return discard
	case h.its().edit != nil:
		s.ToClient.Forward(wire.ShiftPosition(append(wire.Message(nil), m...), h.its().edit.position))
		return discard
	default:
		return forward
	}
}

// serverReadOnly gives the server's refusal under our read-only the profile's
// code and words.
func (s *Session) serverReadOnly(m wire.Message) *policy.Refusal {
	r := *s.readOnlyRefusal()
	if text := string(wire.Field(m.Body(), 'M')); text != "" {
		r.Detail = strings.TrimSpace(r.Detail + " The server said: " + text + ".")
	}
	return &r
}

// failureOf is the server's error as a refusal.
func failureOf(m wire.Message) *policy.Refusal {
	body := m.Body()
	return &policy.Refusal{
		SQLSTATE: string(wire.Field(body, 'C')), Message: string(wire.Field(body, 'M')),
		Detail: string(wire.Field(body, 'D')), Hint: string(wire.Field(body, 'H')),
	}
}

func (s *Session) replaceError(r *policy.Refusal) {
	s.ToClient.Forward(wire.AppendError(nil, wire.ErrorFields{
		Severity: "ERROR", SQLSTATE: r.SQLSTATE, Message: r.Message, Detail: r.Detail, Hint: r.Hint,
	}))
}

// failed takes note of an error: of the statement that it ended, and of what
// the server discards because of it.
func (s *Session) failed(h *reply, code string, act action) action {
	s.copyIn = false
	if h == nil {
		return act
	}
	s.tx.failed = s.tx.failed || h.flags&hideBody == 0
	s.unseen = s.unseen || preparesUnseen(h.batch) && !neverRan(h.batch, code)
	s.journalFailure(h, code)
	h.done, h.fail = true, true
	if isBoundary(h.kind) {
		return act
	}
	failing := h.seq
	owned := h.flags & (leads | restore)
	s.out.skip(func(r *reply) { s.undo(r, r.seq == failing) })
	if end := s.out.head(); end != nil && owned != 0 && end.flags&owned != 0 {
		end.fail = true
	}
	return act
}

// journalFailure records that a writing statement ended in an error.
func (s *Session) journalFailure(h *reply, code string) {
	if !h.mayWrite() || neverRan(h.batch, code) {
		return
	}
	e := s.entry(journal.StatementEntry, h.batch)
	if n := h.its().edit.theirs(h.part); n < len(h.batch.Statements) {
		st := &h.batch.Statements[n]
		if !st.MayWrite() {
			return
		}
		e.Class, e.Statement, e.Tables = st.Class.String(), string(st.Kind), tables(st)
	}
	e.Verdict, e.Outcome, e.SQLSTATE, e.Duration = policy.Allow.String(), "error", code, s.moment().since(h.began)
	s.entries = append(s.entries, e)
}

// undo takes back what a message would have done to names, for the server has
// discarded it; failing is the one whose error it was.
func (s *Session) undo(r *reply, failing bool) {
	s.settle(r)
	switch {
	case r.flags&hideBody != 0:
		if r.kind == 'C' {
			s.leftover = append(s.leftover, r.its().name)
		}
	case r.kind == 'P':
		if failing && r.its().name == "" {
			r.old = slot{} // a failing Parse destroys the unnamed statement
		}
		s.putBack(r, false)
	case r.kind == 'B':
		if failing && r.its().name == "" {
			r.old = slot{}
		}
		s.putBack(r, true)
	case r.kind == 'C':
		s.putBack(r, r.portal)
	}
}

// putBack gives a name back what it stood for before r. Where a later message
// has given it something else by now, that message is told what was before it.
func (s *Session) putBack(r *reply, portals bool) {
	n := s.prep.of(portals)
	name := r.its().name
	if n.get([]byte(name)).seq == r.seq {
		n.set(name, r.old)
		return
	}
	for seq := r.seq + 1; seq < s.out.next; seq++ {
		if later := s.out.at(seq); later.names(portals) && later.its().name == name && later.old.seq == r.seq {
			later.old = r.old // of more than one where some are undone, too
		}
	}
}

// notice relays NoticeResponse; warnings about statements of ours are ours.
func (s *Session) notice(h *reply, m wire.Message, whole bool) action {
	switch {
	case h == nil || !whole:
		return forward
	case h.flags&hideBody != 0, h.its().edit.hides(h.part):
		return discard
	case h.its().edit != nil:
		s.ToClient.Forward(wire.ShiftPosition(append(wire.Message(nil), m...), h.its().edit.position))
		return discard
	default:
		return forward
	}
}

// parameterStatus follows the settings that the server reports. Source:
// manual, 55.2.7 "Asynchronous Operations".
func (s *Session) parameterStatus(body []byte) {
	name, rest, _ := wire.CString(body)
	value, _, _ := wire.CString(rest)
	switch string(name) {
	case "application_name":
		if s.sub.Application != string(value) {
			s.retag(string(value))
		}
	case "standard_conforming_strings":
		s.tx.lexing = true
		s.scs = unique.Make(string(value)).Value() // most sessions have the same
		s.lexing = inspect.LexingFor(s.scs, s.enc)
	case "client_encoding":
		s.tx.lexing = true
		s.enc = unique.Make(string(value)).Value()
		s.utf8 = s.enc == "UTF8"
		s.lexing = inspect.LexingFor(s.scs, s.enc)
	}
}

// backendKey keeps the server's process id and cancel key.
func (s *Session) backendKey(body []byte) {
	if len(body) >= 4 && len(body) <= 4+wire.MaxKey { // the client, too, refuses a longer one
		s.pid = binary.BigEndian.Uint32(body)
		s.key = append([]byte(nil), body[4:]...)
	}
}

// authenticationRequest relays the server's side of the login. Channel binding
// cannot be relayed, for each side has a TLS connection of its own or none:
// the mechanism is struck from the list. Source: RFC 5802, section 6; manual,
// 55.3.1 "SCRAM-SHA-256 Authentication".
func (s *Session) authenticationRequest(m wire.Message) action {
	body := m.Body()
	if len(body) < 4 {
		return forward
	}
	kind := binary.BigEndian.Uint32(body)
	s.auth.asked = kind != 0 && kind != 12 // AuthenticationOk, SASLFinal
	if kind != 10 {
		return forward
	}
	s.auth.sasl = true
	var list []string
	for rest := body[4:]; len(rest) > 0 && rest[0] != 0; {
		mechanism, next, ok := wire.CString(rest)
		if !ok {
			break
		}
		if strings.HasSuffix(string(mechanism), "-PLUS") {
			s.auth.offeredPlus = true
		} else {
			list = append(list, string(mechanism)+"\x00")
		}
		rest = next
	}
	if !s.auth.offeredPlus {
		return forward
	}
	if len(list) == 0 {
		s.fail("28000", "the server accepts authentication with channel binding only, which cannot be relayed",
			"Set auth: scram for this server in lockkeeper.yaml.")
		return discard
	}
	s.ToClient.Forward(wire.Append(nil, 'R', "\x00\x00\x00\x0a"+strings.Join(list, "")+"\x00"))
	return discard
}
