package scram

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrMalformed says that a message breaks the rules of the exchange.
var ErrMalformed = errors.New("malformed SCRAM message")

func malformed(why string) error { return fmt.Errorf("%w: %s", ErrMalformed, why) }

// clientFirst is the client's first message: "n,,n=user,r=nonce". Source: RFC
// 5802, section 7.
type clientFirst struct {
	header string // "n,,": up to the second comma
	flag   byte   // n: does not bind; y: would, if the server offered it; p: binds
	kind   string // of binding, after p=
	bare   string // what follows the header
	nonce  string
}

// readClientFirst reads what PostgreSQL would, in the same order. The name in
// it is not used: the startup packet has one.
func readClientFirst(b []byte) (m clientFirst, err error) {
	if bytes.IndexByte(b, 0) >= 0 {
		return m, malformed("a zero byte in it")
	}
	flag, rest, ok := cutAttribute(b)
	if !ok {
		return m, malformed("it ends before its channel binding flag does")
	}
	switch {
	case string(flag) == "n", string(flag) == "y":
		m.flag = flag[0]
	case bytes.HasPrefix(flag, []byte("p=")):
		m.flag, m.kind = 'p', string(flag[2:])
	default:
		return m, malformed("unexpected channel binding flag")
	}
	authorize, bare, ok := cutAttribute(rest)
	if !ok {
		return m, malformed("it ends before its name does")
	}
	if len(authorize) > 0 {
		return m, malformed("it asks for an authorization identity, which is not supported")
	}
	m.header, m.bare = string(b[:len(b)-len(bare)]), string(bare)
	name, rest, ok := cutAttribute(bare)
	if bytes.HasPrefix(name, []byte("m=")) {
		return m, malformed("it requires an extension that is not supported")
	}
	if !ok || !bytes.HasPrefix(name, []byte("n=")) {
		return m, malformed("attribute n expected")
	}
	nonce, extensions, _ := cutAttribute(rest)
	if m.nonce, err = readNonce(nonce); err != nil {
		return m, err
	}
	return m, readExtensions(extensions)
}

// readNonce reads attribute r: printable characters but the comma, which has
// ended it.
func readNonce(attribute []byte) (string, error) {
	nonce, ok := bytes.CutPrefix(attribute, []byte("r="))
	if !ok || len(nonce) == 0 {
		return "", malformed("attribute r expected")
	}
	for _, c := range nonce {
		if c < 0x21 || c > 0x7e {
			return "", malformed("a nonce of characters that cannot be printed")
		}
	}
	return string(nonce), nil
}

// readExtensions passes over attributes that nobody has to understand.
func readExtensions(b []byte) error {
	for len(b) > 0 {
		attribute, rest, _ := cutAttribute(b)
		if !isAttribute(attribute) {
			return malformed("attribute expected")
		}
		b = rest
	}
	return nil
}

func isAttribute(b []byte) bool {
	return len(b) >= 2 && (b[0]|0x20 >= 'a' && b[0]|0x20 <= 'z') && b[1] == '='
}

// cutAttribute cuts what ends at the next comma. ok is false when there is
// none: then all of b is the attribute.
func cutAttribute(b []byte) (attribute, rest []byte, ok bool) { return bytes.Cut(b, []byte(",")) }

// clientFinal is the client's last message: "c=binding,r=nonce,p=proof".
type clientFinal struct {
	binding []byte // decoded
	nonce   string
	proof   Key
	without string // the message without its proof
}

func readClientFinal(b []byte) (m clientFinal, err error) {
	if bytes.IndexByte(b, 0) >= 0 {
		return m, malformed("a zero byte in it")
	}
	binding, rest, ok := cutAttribute(b)
	encoded, isBinding := bytes.CutPrefix(binding, []byte("c="))
	if !ok || !isBinding {
		return m, malformed("attribute c expected")
	}
	if m.binding, err = base64.StdEncoding.Strict().DecodeString(string(encoded)); err != nil {
		return m, malformed("attribute c is not base64")
	}
	nonce, rest, ok := cutAttribute(rest)
	if !ok {
		return m, malformed("attribute p expected")
	}
	if m.nonce, err = readNonce(nonce); err != nil {
		return m, err
	}
	start := len(b) - len(rest) - 1 // of what follows the nonce
	length := bytes.Index(b[start:], []byte(",p="))
	if length < 0 {
		return m, malformed("attribute p expected")
	}
	if length > 0 {
		if err := readExtensions(b[start+1 : start+length]); err != nil {
			return m, err
		}
	}
	if !decodeKey(&m.proof, string(b[start+length+len(",p="):])) {
		return m, malformed("attribute p is no proof")
	}
	m.without = string(b[:start+length])
	return m, nil
}
