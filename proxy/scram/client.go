package scram

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrDiffers says that a client key is for another salt or number of
// iterations than the server has.
var ErrDiffers = errors.New("the server's SCRAM secret has another salt or number of iterations")

// ErrServer says that the server does not know the password either: it is
// somebody else.
var ErrServer = errors.New("the server's signature does not fit the password")

// Prover is what a client logs in with: a Password, or a Proven.
type Prover interface {
	keys(salt []byte, iterations int) (client, stored, server Key, err error)
}

// Password logs in anywhere.
type Password string

func (p Password) keys(salt []byte, iterations int) (client, stored, server Key, err error) {
	v, client, err := Derive(string(p), salt, iterations)
	return client, v.StoredKey, v.ServerKey, err
}

// Proven logs in where the server has the same verifier, without the password:
// a client has proved to us that it knows it.
type Proven struct {
	Verifier  Verifier
	ClientKey Key
}

func (p *Proven) keys(salt []byte, iterations int) (client, stored, server Key, err error) {
	if iterations != p.Verifier.Iterations || !bytes.Equal(salt, p.Verifier.Salt) {
		return Key{}, Key{}, Key{}, ErrDiffers
	}
	return p.ClientKey, p.Verifier.StoredKey, p.Verifier.ServerKey, nil
}

// Client is the client's side of one exchange. The order of its methods is
// Choose, First, Final, Verify.
type Client struct {
	Prover  Prover
	Binding []byte // of the TLS connection (EndPoint); nil binds nothing
	Nonce   string // the client's; "" makes one

	plus     bool
	header   string
	bare     string
	expected Key // the server's signature
	proved   bool
	verified bool
}

// Choose returns the best mechanism of those that the server offers; ok is
// false when there is none.
func (c *Client) Choose(offered []string) (mechanism string, ok bool) {
	switch {
	case c.Binding != nil && slices.Contains(offered, NamePlus):
		c.plus, c.header = true, "p=tls-server-end-point,,"
		return NamePlus, true
	case !slices.Contains(offered, Name):
		return "", false
	case c.Binding != nil:
		c.header = "y,," // so that a server that did offer it notices
	default:
		c.header = "n,,"
	}
	return Name, true
}

// First returns the client's first message. It names no user, as libpq's does
// not: the startup packet has.
func (c *Client) First() []byte {
	if c.Nonce == "" {
		c.Nonce = newNonce()
	}
	c.bare = "n=,r=" + c.Nonce
	return []byte(c.header + c.bare)
}

// Final takes the server's first message and returns the client's proof.
func (c *Client) Final(message []byte) ([]byte, error) {
	nonce, salt, iterations, err := readServerFirst(string(message))
	if err != nil {
		return nil, err
	}
	if c.Nonce == "" || len(nonce) <= len(c.Nonce) || !strings.HasPrefix(nonce, c.Nonce) {
		return nil, malformed("the server's nonce does not begin with the client's")
	}
	client, stored, server, err := c.Prover.keys(salt, iterations)
	if err != nil {
		return nil, err
	}
	binding := []byte(c.header)
	if c.plus {
		binding = append(binding, c.Binding...)
	}
	without := "c=" + base64.StdEncoding.EncodeToString(binding) + ",r=" + nonce
	text := c.bare + "," + string(message) + "," + without
	c.expected, c.proved = mac(server[:], text), true
	proof := xor(client, mac(stored[:], text))
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof[:])), nil
}

// readServerFirst reads "r=nonce,s=salt,i=iterations".
func readServerFirst(text string) (nonce string, salt []byte, iterations int, err error) {
	nonce, rest, ok := strings.Cut(text, ",")
	nonce, isNonce := strings.CutPrefix(nonce, "r=")
	if !ok || !isNonce {
		return "", nil, 0, malformed("attribute r expected")
	}
	encoded, rest, ok := strings.Cut(rest, ",")
	encoded, isSalt := strings.CutPrefix(encoded, "s=")
	salt, err = base64.StdEncoding.DecodeString(encoded)
	if !ok || !isSalt || err != nil || len(salt) == 0 {
		return "", nil, 0, malformed("attribute s expected")
	}
	number, _, _ := strings.Cut(rest, ",") // extensions may follow
	number, isNumber := strings.CutPrefix(number, "i=")
	iterations, err = strconv.Atoi(number)
	if !isNumber || err != nil || iterations < 1 {
		return "", nil, 0, malformed("attribute i expected")
	}
	if iterations > MaxIterations {
		return "", nil, 0, malformed(fmt.Sprintf("more than %d iterations", MaxIterations))
	}
	return nonce, salt, iterations, nil
}

// Verify takes the server's last message: only who knows the password, or has
// its verifier, can have signed it.
func (c *Client) Verify(message []byte) error {
	signature, ok := bytes.CutPrefix(message, []byte("v="))
	var got Key
	if !c.proved || !ok || !decodeKey(&got, string(signature)) {
		return malformed("attribute v expected")
	}
	if subtle.ConstantTimeCompare(got[:], c.expected[:]) != 1 {
		return ErrServer
	}
	c.verified = true
	return nil
}

// Verified reports whether the exchange is over and the server is who it says.
func (c *Client) Verified() bool { return c.verified }
