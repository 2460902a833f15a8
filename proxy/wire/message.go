// Package wire frames PostgreSQL's protocol 3: it peeks headers, cuts messages and collects runs of them, and never interprets SQL.
package wire

import "encoding/binary"

// HeaderLen is a type byte and an int32 that counts itself and the body.
// Source: manual, 55.2 "Message Flow" and 55.7 "Message Formats".
const HeaderLen = 5

// MaxMessage is the largest message a server accepts, PQ_LARGE_MESSAGE_LIMIT
// in src/include/libpq/libpq.h, and a little more.
const MaxMessage = 0x3fffffff + 4

// MaxSmallMessage is the limit for messages that cannot be large,
// PQ_SMALL_MESSAGE_LIMIT in the same file.
const MaxSmallMessage = 10000

// Message is one whole message: type, length and body, as on the wire. It
// aliases the buffer that it was cut from.
type Message []byte

// Type returns the message's first byte.
func (m Message) Type() byte { return m[0] }

// Body returns what follows the header.
func (m Message) Body() []byte { return m[HeaderLen:] }

// Size returns the length on the wire of the message that starts at b, header
// included: 0 while b does not hold the header, -1 where its length word is
// impossible.
func Size(b []byte) int {
	if len(b) < HeaderLen {
		return 0
	}
	n := int(binary.BigEndian.Uint32(b[1:]))
	if n < 4 || n > MaxMessage {
		return -1
	}
	return n + 1
}

// Run returns the length of the whole messages of type t that b begins with, and
// how many they are.
func Run(b []byte, t byte) (n, messages int) {
	for len(b)-n >= HeaderLen && b[n] == t {
		size := int(binary.BigEndian.Uint32(b[n+1:])) + 1
		if size < HeaderLen || size > len(b)-n {
			break
		}
		n += size
		messages++
	}
	return n, messages
}

// CString cuts a string that a zero byte ends from b. ok is false when there
// is no zero byte.
func CString(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return nil, b, false
}

// Append appends a message of type t with the given body parts to dst.
func Append(dst []byte, t byte, parts ...string) []byte {
	n := 4
	for _, p := range parts {
		n += len(p)
	}
	dst = append(dst, t)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n)) // parts are ours or were cut from a message within MaxMessage
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}
