package pgtest

import (
	"fmt"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Fake logs somebody in as a server does that trusts everybody, and then leaves
// the connection to the caller: for what a real server does too seldom, and for
// more connections than one has. Its zero value is ready.
type Fake struct{ last atomic.Uint32 }

// parameters are what PostgreSQL 15 reports at login.
var parameters = [...][2]string{
	{"server_version", "15.0 (fake)"},
	{"server_encoding", "UTF8"},
	{"client_encoding", "UTF8"},
	{"application_name", ""},
	{"default_transaction_read_only", "off"},
	{"in_hot_standby", "off"},
	{"is_superuser", "on"},
	{"session_authorization", Superuser},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"integer_datetimes", "on"},
	{"standard_conforming_strings", "on"},
}

// Login reads the startup packet and answers up to ReadyForQuery.
func (f *Fake) Login(c net.Conn) error {
	b := pgproto3.NewBackend(c, c)
	m, err := b.ReceiveStartupMessage()
	if err != nil {
		return err
	}
	if _, ok := m.(*pgproto3.StartupMessage); !ok {
		return fmt.Errorf("%T in place of a startup packet", m)
	}
	b.Send(&pgproto3.AuthenticationOk{})
	for _, p := range parameters {
		b.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	pid := f.last.Add(1)
	b.Send(&pgproto3.BackendKeyData{ProcessID: pid, SecretKey: []byte{0, 0, byte(pid >> 8), byte(pid)}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return b.Flush()
}
