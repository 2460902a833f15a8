package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Codes that stand where StartupMessage has its version. Source: manual, 55.7
// and src/include/libpq/pqcomm.h.
const (
	CancelCode = 1234<<16 | 5678
	SSLCode    = 1234<<16 | 5679
	GSSENCCode = 1234<<16 | 5680

	// PeerCancelCode is lockkeeper's own, for a CancelRequest that comes from
	// another lockkeeper: no server has protocol version 19531.
	PeerCancelCode = ('L'<<8|'K')<<16 | 5678

	Version3    = 3 << 16
	MaxStartup  = 10000 + 4 // MAX_STARTUP_PACKET_LENGTH and the length word
	minStartup  = 8
	cancelExact = 16 // the packet of a 4-byte key
	cancelMax   = 12 + MaxKey
	MaxKey      = 256 // bytes of a cancel key; PostgreSQL has 4, and 32 in protocol 3.2
)

// ErrStartup says that the first bytes of a connection are no startup packet.
var ErrStartup = errors.New("invalid length of startup packet")

// StartupSize returns the length of the startup packet that starts at b. ok
// is false when b does not hold the length yet.
func StartupSize(b []byte) (size int, ok bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < minStartup || n > MaxStartup {
		return 0, true, ErrStartup
	}
	return int(n), true, nil
}

// Startup is a decoded startup packet.
type Startup struct {
	Code       uint32 // protocol version or one of the codes
	Parameters []Parameter
	PID        uint32 // CancelRequest, a peer's too
	Key        []byte // CancelRequest, a peer's too
}

// Parameter is one name and value of a StartupMessage.
type Parameter struct{ Name, Value string }

// Get returns the last value of a parameter, as the server uses it.
func (s *Startup) Get(name string) string {
	for i := len(s.Parameters) - 1; i >= 0; i-- {
		if s.Parameters[i].Name == name {
			return s.Parameters[i].Value
		}
	}
	return ""
}

// DecodeStartup reads a whole startup packet. Source: ProcessStartupPacket in
// src/backend/postmaster/postmaster.c; since PostgreSQL 17 in
// src/backend/tcop/backend_startup.c.
func DecodeStartup(b []byte) (*Startup, error) {
	n, ok, err := StartupSize(b)
	if err != nil || !ok || n != len(b) {
		return nil, ErrStartup
	}
	s := &Startup{Code: binary.BigEndian.Uint32(b[4:])}
	body := b[8:]
	switch s.Code {
	case SSLCode, GSSENCCode:
		return s, nil
	case CancelCode, PeerCancelCode:
		if len(b) < cancelExact || len(b) > cancelMax {
			return nil, fmt.Errorf("cancel request: %w", ErrStartup)
		}
		s.PID = binary.BigEndian.Uint32(body)
		s.Key = body[4:]
		return s, nil
	}
	if s.Code>>16 != Version3>>16 {
		return s, nil // the server answers unsupported versions itself
	}
	for len(body) > 0 && body[0] != 0 {
		name, rest, ok := CString(body)
		if !ok {
			return nil, errors.New("invalid startup packet layout: expected terminator as last byte")
		}
		value, rest, ok := CString(rest)
		if !ok {
			return nil, errors.New("invalid startup packet layout: expected terminator as last byte")
		}
		s.Parameters = append(s.Parameters, Parameter{string(name), string(value)})
		body = rest
	}
	if len(body) != 1 {
		return nil, errors.New("invalid startup packet layout: expected terminator as last byte")
	}
	return s, nil
}

// AppendCancel appends a CancelRequest for pid and key.
func AppendCancel(dst []byte, pid uint32, key []byte) []byte {
	return appendCancel(dst, CancelCode, pid, key)
}

// AppendPeerCancel appends the same for another lockkeeper, which answers
// whether it knows the key and passes the request on to no one else.
func AppendPeerCancel(dst []byte, pid uint32, key []byte) []byte {
	return appendCancel(dst, PeerCancelCode, pid, key)
}

// What a lockkeeper answers to another.
const (
	PeerKnows    = 'Y' // and has done it
	PeerKnowsNot = 'N'
)

func appendCancel(dst []byte, code, pid uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(key))) // keys are at most 256 bytes
	dst = binary.BigEndian.AppendUint32(dst, code)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, key...)
}

// ReplaceParameter returns a copy of the StartupMessage b with the value of one
// parameter replaced; all other bytes stay as they are. It is used for a
// database that has another name on its server.
func ReplaceParameter(b []byte, name, value string) []byte {
	out := make([]byte, 8, len(b)+len(value)+len(name)+2)
	copy(out, b[:8])
	body := b[8:]
	found := false
	for len(body) > 1 {
		n, rest, ok := CString(body)
		v, rest2, ok2 := CString(rest)
		if !ok || !ok2 {
			return b
		}
		out = append(append(out, n...), 0)
		if string(n) == name {
			v, found = []byte(value), true
		}
		out = append(append(out, v...), 0)
		body = rest2
	}
	if !found {
		out = append(append(out, name...), 0)
		out = append(append(out, value...), 0)
	}
	out = append(out, 0)
	binary.BigEndian.PutUint32(out, uint32(len(out))) // at most MaxStartup and a name
	return out
}
