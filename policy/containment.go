package policy

import "time"

// ContainmentKind names what a containment restricts.
type ContainmentKind string

// The kinds of containment.
const (
	ReadOnlyMode ContainmentKind = "read-only" // writes are refused and transactions are READ ONLY in the server
	FreezeDDL    ContainmentKind = "freeze"    // Define statements are refused
	Pause        ContainmentKind = "pause"     // new transactions wait, or are refused
	ObserveMode  ContainmentKind = "observe"   // break-glass: no rule is enforced, all are counted
	Disable      ContainmentKind = "disable"   // new connections are refused
)

// Scope limits a containment to some subjects. Empty fields match everything;
// Database, User and Application are patterns in which * stands for any
// characters.
type Scope struct {
	Database    string `json:"database,omitempty"`
	User        string `json:"user,omitempty"`
	Application string `json:"application,omitempty"`
	Tag         string `json:"tag,omitempty"`
}

// InFlight says what becomes of transactions that were open when read-only
// began.
type InFlight string

// The treatments of transactions in flight.
const (
	Finish       InFlight = "finish"        // they may end as they like until the containment's DrainUntil
	Drain        InFlight = "drain"         // the same, with an end the operator chose
	RefuseCommit InFlight = "refuse-commit" // they may not commit a change any more
)

// Containment is a restriction with a scope, a reason, an author and an end.
// It is desired state: persisted, and in force before the next statement.
type Containment struct {
	ID     string          `json:"id"`
	Kind   ContainmentKind `json:"kind"`
	Scope  Scope           `json:"scope"`
	Reason string          `json:"reason"`
	Author string          `json:"author"`
	Since  time.Time       `json:"since"`
	Until  time.Time       `json:"until,omitzero"` // zero: until lifted

	// Epoch is the snapshot's epoch in which it came into force: transactions
	// begun in an earlier epoch are in flight.
	Epoch uint64 `json:"epoch"`

	InFlight   InFlight  `json:"in_flight,omitempty"`       // ReadOnlyMode only
	DrainUntil time.Time `json:"drain_until,omitzero"`      // ReadOnlyMode: until then transactions in flight may go on
	Except     []string  `json:"except,omitempty"`          // ReadOnlyMode only: users, or patterns of them, who may write all the same
	Writable   []string  `json:"writable_tables,omitempty"` // ReadOnlyMode only: tables that may be written all the same
	Refuse     bool      `json:"refuse,omitempty"`          // Pause: refuse at once instead of holding

	// MaxHold is for how long a pause holds a new transaction before it is
	// refused, and read-only what may write before it is treated as read-only
	// treats it; 0 is DefaultMaxHold for a pause, and no hold for read-only.
	MaxHold Duration `json:"max_hold,omitempty"`
}

// Holds reports whether the containment is read-only in mode hold.
func (c *Containment) Holds() bool { return c.Kind == ReadOnlyMode && c.MaxHold > 0 }

// excepts reports whether the subject is one who may write all the same.
func (c *Containment) excepts(sub *Subject) bool { return anyGlob(c.Except, sub.User) }

// Active reports whether the containment is in force at now.
func (c *Containment) Active(now time.Time) bool {
	return c.Until.IsZero() || now.Before(c.Until)
}

// Duration is a time.Duration that reads and writes itself as text ("1m30s")
// in YAML and JSON.
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
