package auth

import (
	"encoding/binary"

	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

// MaxSASL is the longest SASL message that a client may send. Source:
// PG_MAX_SASL_MESSAGE_LENGTH in src/include/libpq/sasl.h.
const MaxSASL = 1024

// SASLRequest is the message by which a server offers mechanisms.
func SASLRequest(mechanisms []string) []byte {
	list := ""
	for _, m := range mechanisms {
		list += m + "\x00"
	}
	return authentication(authSASL, list+"\x00")
}

// SASLContinue carries a server's message in the middle of an exchange.
func SASLContinue(data []byte) []byte { return authentication(authSASLContinue, string(data)) }

// SASLFinal carries its last one.
func SASLFinal(data []byte) []byte { return authentication(authSASLFinal, string(data)) }

func authentication(kind uint32, data string) []byte {
	return wire.Append(nil, 'R', string(binary.BigEndian.AppendUint32(nil, kind)), data)
}

// SASLInitial reads the body of SASLInitialResponse. data is nil where the
// client sends none yet: the server answers by an empty message. Source: manual,
// 55.7; CheckSASLAuth in src/backend/libpq/auth-sasl.c.
func SASLInitial(body []byte) (mechanism string, data []byte, err error) {
	name, rest, ok := wire.CString(body)
	if !ok || len(rest) < 4 {
		return "", nil, scram.ErrMalformed
	}
	n, rest := int32(binary.BigEndian.Uint32(rest)), rest[4:] //nolint:gosec // the protocol's Int32
	switch {
	case n == -1 && len(rest) == 0:
		return string(name), nil, nil
	case n < 0 || int(n) != len(rest):
		return "", nil, scram.ErrMalformed
	}
	return string(name), rest, nil
}
