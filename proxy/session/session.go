// Package session is the state machine of one client connection and the server connection opened for it: events in, effects out, no I/O.
package session

import (
	"slices"
	"strconv"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// Host is what a session asks of its surroundings. None of its methods may
// block; Lookup and Decide are on the hot path.
type Host interface {
	// Lookup returns the facts about a text if they are at hand, else nil.
	Lookup(text []byte, lex inspect.Lexing) *inspect.Batch
	// Gauge returns a gauge for a text that is too long to be collected.
	Gauge(lex inspect.Lexing) *inspect.Gauge
	// Snapshot returns what is in force.
	Snapshot() *policy.Snapshot
	// Throttle reports how long a statement has to wait now.
	Throttle(limits []policy.Throttle, now time.Time) time.Duration
	// Begun counts a statement that is sent.
	Begun(limits []policy.Throttle, now time.Time)
	// Charge counts rows that a statement has changed.
	Charge(limits []policy.Throttle, rows int64, now time.Time)
	// Hold takes a place for a held session, if there is one; LetGo gives it back.
	Hold() bool
	LetGo()
	// Now is the time as people have it.
	Now() time.Time
	// Elapsed is the time since the process began, or a little before: what is
	// measured by it no change of the clock touches. It is never 0.
	Elapsed() time.Duration
}

// Config is what a session knows of its connection from the start.
type Config struct {
	ID             uint64
	Subject        policy.Subject // without tags; Application as the startup packet has it
	Replication    bool           // a replication connection: its commands have a grammar of their own
	StatementBytes int            // the longest text that is collected to be inspected
	Catalog        Catalog
}

// Catalog knows what names mean in the session's database; nil where nobody
// does. None of its methods may block; Resolve is on the hot path.
type Catalog interface {
	// Resolve returns a batch with what its relations lead to.
	Resolve(b *inspect.Batch) *inspect.Batch
	// Ran is told of a batch that is sent to the server.
	Ran(b *inspect.Batch)
	// Ended is told that a transaction has ended.
	Ended()
}

// Session is one client connection and its server connection. It does no I/O:
// its methods are events, and what is to be done is collected in ToServer and
// ToClient and told by its accessors. It is not safe for concurrent use.
type Session struct {
	*Shift   // nil between events
	*scratch // nil while it rests

	// What every event needs stands together: the processor's caches have to get
	// it again where many sessions work.
	host    Host
	catalog Catalog
	out     Outstanding

	seg        segment // what was sent since the last Sync
	auth       authentication
	copyIn     bool           // the server reads COPY data
	deaf       bool           // nothing from the client is read any more
	lexing     inspect.Lexing // as scs and enc say
	cancelling int32          // cancel requests of ours that are under way
	awaiting   int32          // replies of ours that the client's message waits for

	tx       transaction
	dir      [2]stream  // client, server
	settings *restoring // session settings of ours to put back
	closing  string     // why the session ends; "" while it lives
	work     working

	ToServer, ToClient wire.Out

	prep        Prepared
	leftover    []string           // statements of ours whose Close was skipped
	ran         uint64             // the reply of the client's youngest Query, Execute or FunctionCall
	statement   *inspect.Statement // the last one
	fingerprint *inspect.Fingerprint
	stateSince  moment
	long        *inspect.Gauge // of the text that is being passed on without having been inspected; nil where none is

	statementBytes int

	sub         *policy.Subject // replaced, never changed, when application or tags do
	overdue     *policy.Refusal // what the server runs is being cancelled, and this is why
	copyFail    *policy.Refusal // CopyFail was sent in place of CopyDone
	id          uint64
	names       uint64 // statements of ours, for their names
	written     int64
	scs, enc    string
	behaviour   []string
	key         []byte
	pid         uint32
	replication bool
	unseen      bool // something was run that may have prepared statements unseen
	utf8        bool // client_encoding is UTF8: positions count runes
	holding     bool // a place for held sessions is taken
}

// head is the client's message that is being worked on while it waits.
type head struct {
	wait    wait
	stage   stage
	flushed bool            // a Flush of ours is on its way
	paced   bool            // throttles were passed
	noRoom  bool            // the text is not collected any further
	batch   *inspect.Batch  // the facts about its text
	long    *inspect.Gauge  // of a text that cannot be inspected
	failure *policy.Refusal // something of ours that it waited for failed, with this
	ask     *question       // nil unless its text has to be inspected
	held    *hold           // nil unless it was held
}

// question is a text to be inspected.
type question struct {
	text   []byte
	lexing inspect.Lexing // how it is read
}

// hold is why and since when a message is held, or was.
type hold struct {
	began   time.Time // of the first wait
	since   time.Time // of the one that goes on, if one does
	waits   bool
	until   time.Time
	cause   string          // for metrics
	refusal *policy.Refusal // a cancel
}

// fresh reports whether nothing is known of a message: none is at hand, or
// nothing but its length was looked at.
func (h *head) fresh() bool { return *h == head{paced: h.paced} }

// unasked reports whether the message has waited for no answer of the server's
// to us and for nobody's leave.
func (h *head) unasked() bool { return h.stage == stageNew && h.failure == nil && h.held == nil }

// wait is what the client's message waits for.
type wait uint8

const (
	waitNothing wait = iota
	waitInspection
	waitReplies // replies that are owed
	waitHold    // a pause, mode hold or a throttle
)

// stage is how far a message of several steps has come.
type stage uint8

const (
	stageNew stage = iota
	stageAsked
	stageSet
)

// segment is what was sent since the last Sync in the extended protocol.
type segment struct {
	open     bool // anything was
	executed bool // anything but Parse, Describe and Close of statements was
	writes   bool // something that may write was executed
	armed    bool // SET TRANSACTION READ ONLY was, and nothing that undoes it since
	ended    bool // something that ends a transaction, or goes back in it, was
	lexing   bool // something was executed that may change how text is read
	control  bool // transaction control was executed, and its answer was not awaited since
}

// transaction is what is known of the server's transaction.
type transaction struct {
	status    policy.TxStatus // at the last ReadyForQuery
	block     bool            // a block is open, as far as replies tell
	armed     bool            // we made it READ ONLY
	armedTop  bool            // directly behind its BEGIN: no ROLLBACK TO or RELEASE undoes it
	lexing    bool            // scs or enc have changed in it
	journaled bool            // has statement entries
	failed    bool            // an error, or a ROLLBACK
	opaque    bool            // a rule has let a DO or CALL run in it under read-only: its COMMIT is gated
	fence     fence

	// PostgreSQL 18 does not end an implicit transaction at a Query that comes
	// between an Execute and its Sync: the Sync after it commits both.
	mixed    bool // such a Query was sent
	implicit bool // and left the transaction open, which no BEGIN has begun

	epoch  uint64 // policy epoch in which it began
	since  moment
	number uint64
	rows   int64
}

// authentication is the relayed exchange before the first ReadyForQuery.
type authentication struct {
	done        bool
	asked       bool // the server waits for a message of the client
	sasl        bool // the next message of the client names a SASL mechanism
	offeredPlus bool // the server offers channel binding, which we struck out
}

// stream is how one direction is being read.
type stream struct {
	pass int  // bytes of a message still to come
	drop bool // they are not forwarded
	need int  // bytes wanted at once to go on; 0 when anything helps
}

const (
	fromClient = 0
	fromServer = 1
)

// Counts is what happened since the engine last took them.
type Counts struct {
	ClientMessages, ServerMessages int64
	Decided                        int64    // statements that were allowed
	Allowed                        [6]int64 // the same, by class
	*Incidents                              // nil where there was nothing of the kind
}

// Incidents are counts of what is not everyday.
type Incidents struct {
	Refused, Disconnected [6]int64 // statements, by class
	Rules                 []RuleCount
	Rows                  []RowCount
	Holds                 []HoldCount
	ServerReadOnly        int64 // errors 25006 under our read-only
}

// incidents returns the counts of what is not everyday, to be added to.
func (s *Session) incidents() *Incidents {
	if s.Counts.Incidents == nil {
		s.Counts.Incidents = &Incidents{}
	}
	return s.Counts.Incidents
}

// count counts a decision.
func (s *Session) count(class inspect.Class, v policy.Verdict) {
	if int(class) >= len(s.Counts.Allowed) {
		return
	}
	switch v {
	case policy.Allow:
		s.Counts.Allowed[class]++
		s.Counts.Decided++
	case policy.Refuse:
		s.incidents().Refused[class]++
	case policy.Disconnect:
		s.incidents().Disconnected[class]++
	}
}

// RuleCount is one decision that a rule settled.
type RuleCount struct {
	Rule     string
	Observed bool
}

// RowCount is rows that a statement of one kind changed in a relation.
type RowCount struct {
	Relation inspect.Relation
	Kind     inspect.Kind
	Rows     int64
}

// HoldCount is one wait that ended.
type HoldCount struct {
	Cause string // pause, hold, throttle
	Time  time.Duration
}

// New returns the session for a connection whose StartupMessage is on its way
// to the server.
func New(cfg Config, host Host) *Session {
	s := &Session{
		id: cfg.ID, host: host, catalog: cfg.Catalog, statementBytes: cfg.StatementBytes, replication: cfg.Replication,
		sub: &cfg.Subject, stateSince: moment(host.Elapsed()),
	}
	s.wake()
	s.work.asked = s.stateSince
	s.tx.status = policy.TxIdle
	s.retag(cfg.Subject.Application)
	s.out.push('A', 0)
	return s
}

// retag makes a new subject for a new application name or behaviour.
func (s *Session) retag(application string) {
	sub := *s.sub
	sub.Application, sub.Tags = application, nil
	if snap := s.host.Snapshot(); snap != nil && snap.Policy != nil {
		sub.Tags = snap.Policy.Tags(&sub)
	}
	if s.replication {
		sub.Tags = addTag(sub.Tags, "replication")
	}
	for _, b := range s.behaviour {
		sub.Tags = addTag(sub.Tags, b)
	}
	moved := s.sub.Application != sub.Application || !slices.Equal(s.sub.Tags, sub.Tags)
	if moved && !s.tx.armed && !s.seg.armed {
		s.tx.epoch = 0 // what is open began as somebody else's
	}
	s.sub = share(&sub)
}

// addTag inserts tag into sorted tags unless it is there.
func addTag(tags []string, tag string) []string {
	i := 0
	for i < len(tags) && tags[i] < tag {
		i++
	}
	if i < len(tags) && tags[i] == tag {
		return tags
	}
	return slices.Insert(slices.Clone(tags), i, tag)
}

// Retag looks at the subject's tags again: the policy was replaced.
func (s *Session) Retag() { s.retag(s.sub.Application) }

// Subject returns who the session is; it is never changed in place.
func (s *Session) Subject() *policy.Subject { return s.sub }

// BackendKey returns the server's process id and cancel key; 0 before the
// server has sent them.
func (s *Session) BackendKey() (pid uint32, key []byte) { return s.pid, s.key }

// LoggedIn reports whether the server has accepted the login.
func (s *Session) LoggedIn() bool { return s.auth.done }

// Closing returns why the session ends once everything collected is written;
// "" while it goes on.
func (s *Session) Closing() string { return s.closing }

// Ask returns a text that has to be inspected before the client can be heard
// again; nil when there is none. It aliases the client's buffer.
func (s *Session) Ask() ([]byte, inspect.Lexing) {
	if s.Resting() || s.head.ask == nil {
		return nil, inspect.Lexing{}
	}
	return s.head.ask.text, s.head.ask.lexing
}

// Inspected is the answer to Ask. The engine offers the client's bytes again.
func (s *Session) Inspected(b *inspect.Batch) {
	if s.waits() == waitInspection {
		s.head.batch, s.head.ask, s.head.wait = b, nil, waitNothing
	}
}

// ClientNeed returns how many bytes FromClient wants at once, from the first
// one it did not take; 0 when it waits for something else or anything helps.
func (s *Session) ClientNeed() int { return s.dir[fromClient].need }

// ServerNeed is ClientNeed of the other direction.
func (s *Session) ServerNeed() int { return s.dir[fromServer].need }

// NoRoom tells that the bytes ClientNeed asks for cannot be kept: the message
// is decided by what is at hand.
func (s *Session) NoRoom() {
	s.wake()
	s.head.noRoom = true
}

// Held reports whether the client's message is held, by what and until when.
func (s *Session) Held() (by string, until time.Time, held bool) {
	if s.waits() != waitHold {
		return "", time.Time{}, false
	}
	return s.heldBy, s.head.held.until, true
}

// waits returns what the client's message waits for.
func (s *Session) waits() wait {
	if s.Resting() {
		return waitNothing
	}
	return s.head.wait
}

// WaitsForReplies reports whether the client's message goes on when the server
// has answered.
func (s *Session) WaitsForReplies() bool { return s.waits() == waitReplies }

// Resume lets a held message look again: its time is up or the containments
// have changed.
func (s *Session) Resume() {
	if s.waits() == waitHold {
		s.head.wait = waitNothing
	}
}

// Cancel ends a hold: the held statement fails as one that was cancelled. It
// reports whether there was one; otherwise the cancel is the server's.
func (s *Session) Cancel(r *policy.Refusal) bool {
	if s.waits() != waitHold {
		return false
	}
	s.head.held.refusal, s.head.wait = r, waitNothing
	return true
}

// Owes reports whether the server owes the client a reply: it runs something, or
// is about to.
func (s *Session) Owes() bool { return s.out.Len() > 0 }

// Quiet reports whether the session is outside a transaction and nothing is
// owed: it may be closed without anybody losing anything.
func (s *Session) Quiet() bool {
	return !s.auth.done || s.tx.status == policy.TxIdle && s.out.Len() == 0 && !s.seg.open
}

// InFlight reports, for a read-only containment, whether a transaction begun
// before it may still change something (open), and whether it could commit
// without another message of the client (unaided).
func (s *Session) InFlight(c *policy.Containment) (open, unaided bool) {
	inBlock := s.tx.block && !s.tx.implicit
	if !s.auth.done || s.tx.epoch >= c.Epoch && (s.tx.armed || s.tx.fence.up || !inBlock) {
		return false, false
	}
	open = inBlock || s.tx.implicit || s.seg.open && s.seg.writes
	for seq := s.out.first; seq < s.out.next; seq++ {
		r := s.out.at(seq)
		if r.kind == 'S' && (s.tx.implicit || s.tx.mixed) {
			return true, true
		}
		if r.flags&hideBody != 0 {
			continue
		}
		if r.flags&(readOnly|ends) == readOnly && !commits(r.batch) { // nothing in it can change anything
			inBlock = leavesBlock(inBlock, r.batch)
			continue
		}
		mayWrite := r.batch != nil && !harmless(r.batch)
		switch {
		case r.flags&ends != 0 && !inBlock:
			open, unaided = true, true
		case r.kind == 'F', r.kind == 'Q' && !inBlock && mayWrite, r.kind == 'Q' && commits(r.batch):
			open, unaided = true, true
		case r.kind == 'E' && (mayWrite && !inBlock || commits(r.batch)):
			open = true
			unaided = unaided || s.out.boundary > seq+1 || commits(r.batch)
		case r.kind == 'Q' && mayWrite:
			open = true
		case r.flags&plans != 0 && !inBlock:
			open = true
			unaided = unaided || s.out.boundary > seq+1
		}
		inBlock = leavesBlock(inBlock, r.batch)
	}
	if s.inCopy() && !inBlock { // CopyDone comes through us
		return true, false
	}
	return open, unaided
}

// leavesBlock reports whether a transaction block is open after a batch that
// ends well, where before is what was before it.
func leavesBlock(before bool, b *inspect.Batch) bool {
	if b == nil {
		return before
	}
	for i := range b.Statements {
		st := &b.Statements[i]
		switch st.Kind {
		case inspect.KindBegin, inspect.KindStart:
			before = true
		case inspect.KindCommit, inspect.KindRollback, inspect.KindPrepareTransaction:
			before = before && st.Chain
		}
	}
	return before
}

// blockAtEnd reports whether a transaction block is open when everything that
// was sent has ended well.
func (s *Session) blockAtEnd() bool {
	open := s.tx.block
	for seq := s.out.first; seq < s.out.next; seq++ {
		if r := s.out.at(seq); r.flags&hideBody == 0 {
			open = leavesBlock(open, r.batch)
		}
	}
	return open
}

// Harmless reports whether nothing that is owed or open can change anything.
func (s *Session) Harmless() bool {
	if s.tx.journaled || s.seg.writes {
		return false
	}
	for seq := s.out.first; seq < s.out.next; seq++ {
		if r := s.out.at(seq); r.kind == 'F' || r.batch != nil && !harmless(r.batch) {
			return false
		}
	}
	return true
}

// onlyReads reports whether a batch is one query which nothing follows from: it
// changes nothing, not even how what is sent behind it is read. It is what most
// batches are, and spares them the questions below, whose answers it implies.
func onlyReads(b *inspect.Batch) bool {
	if len(b.Statements) != 1 || b.Class != inspect.Read || b.Why != "" {
		return false
	}
	st := &b.Statements[0]
	return st.Kind == inspect.KindSelect && st.Hidden == 0 && len(st.Calls) == 0 && st.Set == nil && st.Prepared == nil
}

// harmless reports whether a batch can change nothing: reads without functions
// that are not known, and settings.
func harmless(b *inspect.Batch) bool {
	if b.Why != "" {
		return false
	}
	for i := range b.Statements {
		st := &b.Statements[i]
		if st.Writes() || st.Hidden&(inspect.HiddenFunction|inspect.HiddenRowLock) != 0 {
			return false
		}
	}
	return true
}

// commits reports whether a batch ends a transaction by committing it.
func commits(b *inspect.Batch) bool {
	if b == nil {
		return false
	}
	for i := range b.Statements {
		switch b.Statements[i].Kind {
		case inspect.KindCommit, inspect.KindPrepareTransaction, inspect.KindCommitPrepared:
			return true
		}
	}
	return false
}

// State describes the session for operators.
type State struct {
	State       string
	Since       time.Time
	HeldBy      string
	TxSince     time.Time
	Statement   string
	Fingerprint *inspect.Fingerprint
	RowsWritten int64
	TxRows      int64
	PID         uint32
	Asked       time.Time     // when the last request went to the server; at first when the session began
	Running     time.Duration // Host.Elapsed since when the server works on it, which tells one exchange from the next; zero while it does not
	Replicating bool          // the last command was a walsender's own: it may have no end
	Prepared    int           // named statements
}

// State returns what operators see.
func (s *Session) State() State {
	st := State{
		State: s.stateName(), Since: s.timeOf(s.stateSince), Fingerprint: s.fingerprint,
		RowsWritten: s.written, TxRows: s.tx.rows, PID: s.pid,
		Asked: s.timeOf(s.work.asked), Prepared: len(s.prep.statements),
	}
	if st.State == "active" && s.work.query != never {
		st.Since = s.timeOf(s.work.query)
		if s.out.Len() > 0 {
			st.Running = time.Duration(s.work.busy)
		}
	}
	if s.statement != nil {
		st.Statement = string(s.statement.Kind)
		st.Replicating = s.statement.Kind == kindReplication || s.statement.Kind == kindBaseBackup
	}
	if s.waits() == waitHold {
		st.HeldBy = s.heldBy
	}
	if s.tx.status != policy.TxIdle {
		st.TxSince = s.timeOf(s.tx.since)
	}
	return st
}

func (s *Session) stateName() string {
	switch {
	case !s.auth.done:
		return "login"
	case s.waits() == waitHold:
		return "held"
	case s.out.Len() > 0 || s.seg.open:
		return "active"
	case s.tx.status == policy.TxActive:
		return "idle in transaction"
	case s.tx.status == policy.TxAborted:
		return "idle in transaction (aborted)"
	default:
		return "idle"
	}
}

// transactionID names the current transaction in the journal.
func (s *Session) transactionID() string {
	return strconv.FormatUint(s.id, 10) + "." + strconv.FormatUint(s.tx.number, 10)
}

// Fail ends the session with an error that the client can read, unless a
// message to it is being relayed in parts.
func (s *Session) Fail(r *policy.Refusal) {
	if s.dir[fromServer].pass > 0 || s.closing != "" {
		if s.closing == "" {
			s.closing = r.Message
		}
		return
	}
	s.fail(r.SQLSTATE, r.Message, r.Hint)
}

// fail ends the session with an error that the client can read, unless it is in
// the middle of a message of the server's.
func (s *Session) fail(sqlstate, message, hint string) {
	s.closing = message
	s.deaf = true
	if server := &s.dir[fromServer]; server.pass > 0 && !server.drop {
		return
	}
	s.ToClient.Forward(wire.AppendError(nil, wire.ErrorFields{Severity: "FATAL", SQLSTATE: sqlstate, Message: message, Hint: hint}))
}
