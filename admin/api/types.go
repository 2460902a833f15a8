package api

import (
	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// Error is the body of every response that is not 2xx.
type Error struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// Status is the answer to GET /v1/status.
type Status struct {
	Version        string `json:"version"`
	JournalFailing bool   `json:"journal_failing"` // the last attempt to write it has failed; statements go on
	control.Status

	// Unwatched names the servers on which DDL that no text shows may wait for a
	// lock for ever, and says why.
	Unwatched []string `json:"unwatched,omitempty"`
}

// SessionList is the answer to GET /v1/sessions.
type SessionList struct {
	Sessions []proxy.SessionInfo `json:"sessions"`
}

// ContainmentList is the answer to requests that show what is in force.
type ContainmentList struct {
	Containments []control.InForce `json:"containments"`
}

// Mode is the answer to GET /v1/mode.
type Mode struct {
	Mode         string            `json:"mode"`
	Scoped       bool              `json:"scoped"` // for some only
	Containments []control.InForce `json:"containments"`
}

// ModeRequest is the body of POST /v1/mode.
type ModeRequest struct {
	Mode     string          `json:"mode"` // read-only, hold, normal or observe
	Scope    policy.Scope    `json:"scope,omitzero"`
	InFlight policy.InFlight `json:"in_flight,omitempty"` // read-only and hold: finish, drain or refuse-commit
	Drain    policy.Duration `json:"drain,omitempty"`
	MaxWait  policy.Duration `json:"max_wait,omitempty"`
	MaxHold  policy.Duration `json:"max_hold,omitempty"` // hold
	Except   []string        `json:"except,omitempty"`   // read-only and hold: users who may write all the same
	For      policy.Duration `json:"for,omitempty"`
	Reason   string          `json:"reason"`

	// Read-only and hold: tables that may be written all the same. Where none
	// are named they are the policy's, or with NoWritable none.
	Writable   []string `json:"writable_tables,omitempty"`
	NoWritable bool     `json:"no_writable_tables,omitempty"`
}

// Change is the answer to requests that put in force or lift.
type Change struct {
	Began  *control.InForce     `json:"began,omitempty"`
	Lifted []policy.Containment `json:"lifted,omitempty"`
}

// FreezeRequest is the body of POST /v1/freeze.
type FreezeRequest struct {
	Scope  policy.Scope    `json:"scope,omitzero"`
	For    policy.Duration `json:"for,omitempty"`
	Reason string          `json:"reason"`
}

// LiftRequest is the body of POST /v1/unfreeze and /v1/resume: an empty scope
// means all.
type LiftRequest struct {
	Scope  policy.Scope `json:"scope,omitzero"`
	Reason string       `json:"reason"`
}

// PauseRequest is the body of POST /v1/pause.
type PauseRequest struct {
	Scope   policy.Scope    `json:"scope,omitzero"`
	Refuse  bool            `json:"refuse,omitempty"`
	MaxHold policy.Duration `json:"max_hold,omitempty"`
	For     policy.Duration `json:"for,omitempty"`
	Reason  string          `json:"reason"`
}

// ReasonRequest is the body of requests that need nothing but a reason.
type ReasonRequest struct {
	Reason string `json:"reason"`
}

// Done is the answer to requests that return nothing else.
type Done struct {
	Done bool `json:"done"`
}

// LockList is the answer to GET /v1/locks.
type LockList struct {
	Servers []ServerLocks `json:"servers"`
}

// ServerLocks is one server's snapshot, or why there is none.
type ServerLocks struct {
	Server   string          `json:"server"`
	Snapshot *locks.Snapshot `json:"snapshot,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// PolicyText is the body of POST /v1/policy/check.
type PolicyText struct {
	Policy string `json:"policy"`
}

// ExplainRequest is the body of POST /v1/policy/explain.
type ExplainRequest struct {
	SQL           string   `json:"sql"`
	User          string   `json:"user,omitempty"`
	Database      string   `json:"database,omitempty"`
	Application   string   `json:"application,omitempty"`
	Address       string   `json:"address,omitempty"`
	Tags          []string `json:"tags,omitempty"`
	InTransaction bool     `json:"in_transaction,omitempty"`
}

// Explanation is the answer to POST /v1/policy/explain.
type Explanation struct {
	policy.Explanation
	Text string `json:"text"` // the same for people
}

// JournalList is the answer to GET /v1/journal.
type JournalList struct {
	Entries []journal.Entry `json:"entries"`
}
