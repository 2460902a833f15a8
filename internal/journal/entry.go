package journal

import (
	"time"

	"lockkeeper/inspect"
)

// Kind says what an entry records.
type Kind string

// The kinds of entry.
const (
	StatementEntry   Kind = "statement"   // a write, DDL or unclassified statement and its outcome
	RefusalEntry     Kind = "refusal"     // a statement that lockkeeper refused; never dropped
	ObservedEntry    Kind = "observed"    // a rule in observe mode would have acted
	TransactionEntry Kind = "transaction" // the end of a transaction that has statement entries; sets their outcome
	ActionEntry      Kind = "action"      // something an operator or the control plane did; never dropped
	GapEntry         Kind = "gap"         // this many entries are missing here
)

// Entry is one record of the journal. It never holds SQL text, parameters or
// row contents: a fingerprint stands for the text.
type Entry struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`

	Session     uint64 `json:"session,omitempty"`    // lockkeeper's session id
	ServerPID   uint32 `json:"server_pid,omitempty"` // the server process of that session
	User        string `json:"user,omitempty"`       // database user; for actions the token's name
	Database    string `json:"database,omitempty"`
	Application string `json:"application,omitempty"`
	Address     string `json:"address,omitempty"`

	Transaction string        `json:"transaction,omitempty"` // names one transaction of one session
	Fingerprint uint64        `json:"fingerprint,omitempty,string"`
	Class       string        `json:"class,omitempty"`
	Statement   string        `json:"statement,omitempty"` // its kind: UPDATE, ALTER TABLE
	Tables      []string      `json:"tables,omitempty"`    // schema-qualified where the text was; written ones, the text's first and then what they lead to; the last may say how many more there are
	Rows        int64         `json:"rows,omitempty"`      // from the command tag
	Duration    time.Duration `json:"duration_ns,omitempty"`

	Verdict  string `json:"verdict,omitempty"` // allow, refuse, disconnect
	Rule     string `json:"rule,omitempty"`
	SQLSTATE string `json:"sqlstate,omitempty"` // the error the client received; "" for success
	Outcome  string `json:"outcome,omitempty"`  // statement: ok, error, refused, lost; transaction: committed, rolled back, lost

	Action string `json:"action,omitempty"` // ActionEntry: "mode read-only", "policy reload"
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"` // what else a person wants to know, without secrets
	Count  int64  `json:"count,omitempty"`  // GapEntry: entries missing

	// Text is what Fingerprint is made of when the entry is written; nil where
	// that is known or there is none. It keeps a bounded text until then.
	Text *inspect.Fingerprint `json:"-"`
}

// settle makes the fingerprint, which may take as long as a parse.
func (e *Entry) settle() {
	if e.Text != nil {
		e.Fingerprint, e.Text = e.Text.Value(), nil
	}
}
