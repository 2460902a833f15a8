package policy

import (
	"time"

	"lockkeeper/inspect"
)

// Subject is who asks. Application is application_name as the server reports
// it (PgBouncer changes it while a session lives); Address is the client's
// host without port, or "local" for a unix socket.
type Subject struct {
	User        string   `json:"user"`
	Database    string   `json:"database"`
	Application string   `json:"application"`
	Address     string   `json:"address"`
	Tags        []string `json:"tags"` // sorted; from patterns and from what the session did
}

// TxStatus is the transaction status of ReadyForQuery.
type TxStatus byte

// The statuses of the protocol's ReadyForQuery message (manual, 55.7).
const (
	TxIdle    TxStatus = 'I' // not in a transaction block
	TxActive  TxStatus = 'T' // in a transaction block
	TxAborted TxStatus = 'E' // in a failed transaction block
)

// Request is all that a decision may depend on.
type Request struct {
	Subject *Subject
	Batch   *inspect.Batch
	Tx      TxStatus  // when the statement begins, as far as known
	TxEpoch uint64    // Snapshot.Epoch when the open transaction began; 0 when Tx is TxIdle
	Now     time.Time // the decision's time
	Fenced  bool      // the open transaction began behind a fence: see Obligations.Fence

	Waited    time.Duration // how long it has been held already
	InBlock   bool          // a BEGIN has begun the open transaction, and nothing is owed: that is certain
	TxOpaque  bool          // the open transaction has run, in read-only, what nobody can see into
	Pipelined bool          // outside a transaction block, and something was sent since the last Sync: it cannot be held
}

// Verdict is what becomes of a statement.
type Verdict uint8

// The verdicts.
const (
	Refuse     Verdict = iota // fails in the server, with our words
	Allow                     // forwarded, with its obligations
	Disconnect                // the session ends
)

var verdictNames = [...]string{"refuse", "allow", "disconnect"}

// String returns the name used in metrics, the journal and docs.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return verdictNames[Refuse]
}

// Refusal is the ErrorResponse that a client receives.
type Refusal struct {
	SQLSTATE string `json:"sqlstate"`
	Message  string `json:"message"`
	Detail   string `json:"detail,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// Decision is what the policy says about one batch.
type Decision struct {
	Verdict     Verdict
	Rule        string   // the rule or containment that settled it; "" when nothing matched
	Refusal     *Refusal // for Refuse and Disconnect
	Obligations Obligations
	Observed    []Observation // what rules in observe mode would have done; nil in the common case
}

// Observation is a decision that was not acted on.
type Observation struct {
	Rule    string
	Refusal *Refusal // what would have been said; nil when only an obligation would have been added
}

// Obligations are what the proxy must do for an allowed statement.
type Obligations struct {
	LockTimeout      time.Duration // bracket around Define statements; 0 is none
	StatementTimeout time.Duration // likewise
	Timeouts         string        // the rule that asks for them

	Throttles []Throttle // limits this statement is subject to; nil in the common case
	Hold      *Hold      // a pause, or read-only in mode hold; nil in the common case

	ReadOnly   bool // the transaction must be READ ONLY in the server
	GateCommit bool // this commits a transaction that began before read-only: refuse if it has written

	// Fence is set where some tables may be written during read-only. A
	// transaction block is READ WRITE then, and ReadOnly is for the statement:
	// everything in the block but a Write stands in a READ ONLY subtransaction.
	Fence bool
	Write *PlainWrite // a change that may be made READ WRITE, if the server agrees; nil in the common case
}

// Hold is a wait in the proxy before the statement is forwarded. It applies
// only where the session is not inside a transaction.
type Hold struct {
	Containment string        // id of the containment that asks for it
	Max         time.Duration // then Refusal
	Refusal     *Refusal      // nil: then the decision is made again
}

// Throttle is one limit, shared by all sessions with the same Key.
type Throttle struct {
	Rule                string
	Key                 string  // rule and what it counts by
	RowsPerSecond       float64 // 0 is no limit
	StatementsPerSecond float64 // 0 is no limit
	MaxWait             time.Duration
	Refusal             *Refusal // when MaxWait is not enough

	// Begin is set for BEGIN, of which nobody knows yet what the transaction
	// will write: wait while the key is in debt, and count nothing.
	Begin bool
}
