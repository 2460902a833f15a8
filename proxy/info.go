package proxy

import "time"

// SessionInfo is what operators see of one session.
type SessionInfo struct {
	ID          uint64   `json:"id"`
	User        string   `json:"user"`
	Database    string   `json:"database"`
	Application string   `json:"application"`
	Address     string   `json:"address"`
	Tags        []string `json:"tags"`
	Target      string   `json:"server"` // the key of the server map that was used
	ServerPID   uint32   `json:"server_pid"`

	// ServerAddress is which of the target's addresses the session has:
	// host:port, or a socket's path.
	ServerAddress string `json:"server_address"`

	// Draining says that the session is that of the process which this
	// lockkeeper has taken over from.
	Draining bool `json:"draining,omitempty"`

	// Where the connections begin and end besides: host:port, or a socket's
	// path; ClientPort and ClientPID are 0 where the client's connection has none.
	ClientPort         int    `json:"client_port,omitempty"`
	ClientPID          int    `json:"client_pid,omitempty"` // over a unix socket
	LocalAddress       string `json:"local_address"`
	ServerLocalAddress string `json:"server_local_address"`

	// Replicating says that a walsender's own command runs, which may have no
	// end.
	Replicating bool `json:"replicating,omitempty"`

	Replication string `json:"replication,omitempty"` // physical or logical
	Cipher      string `json:"cipher,omitempty"`      // version, suite and key exchange of the client's TLS
	Prepared    int    `json:"prepared_statements"`   // with a name

	// ServerCipher is Cipher of the server's connection.
	ServerCipher string `json:"server_cipher,omitempty"`

	TLS       bool      `json:"tls"`
	Connected time.Time `json:"connected"`

	State       string    `json:"state"` // login, idle, active, held, idle in transaction, aborted transaction
	StateSince  time.Time `json:"state_since"`
	Requested   time.Time `json:"requested"`                  // when the last request went to the server
	HeldBy      string    `json:"held_by,omitempty"`          // containment or rule that holds it
	TxSince     time.Time `json:"transaction_since,omitzero"` // zero outside a transaction
	Statement   string    `json:"statement,omitempty"`        // kind of the last statement
	Fingerprint uint64    `json:"fingerprint,omitempty,string"`
	RowsWritten int64     `json:"rows_written"`             // in this session, from command tags
	TxRows      int64     `json:"transaction_rows_written"` // in the open transaction
	BytesIn     int64     `json:"bytes_in"`                 // from the client
	BytesOut    int64     `json:"bytes_out"`                // to the client
}

// BarrierReport is what `mode read-only` prints when the barrier holds.
type BarrierReport struct {
	Target     string    `json:"server"`
	LSN        string    `json:"lsn"`               // pg_current_wal_insert_lsn() after the last writer's reply; "" without a control login
	Time       time.Time `json:"time"`              // the server's clock; lockkeeper's without a control login
	Waited     int       `json:"waited"`            // sessions in flight that were waited for
	Cancelled  int       `json:"cancelled"`         // statements cancelled
	Terminated int       `json:"terminated"`        // server processes without a client that were terminated
	Lacking    []string  `json:"lacking,omitempty"` // what could not be checked, and what to do about it
}
