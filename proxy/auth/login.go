package auth

import (
	"crypto/md5" //nolint:gosec // PostgreSQL's authentication method md5 is made of it
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

// Credential is with what lockkeeper logs in to a server as a user. The zero
// value, but for the user, is nothing: good where the server asks for nothing,
// or for a certificate.
type Credential struct {
	User   string
	Secret *Secret
	Proven *scram.Proven // the client's own key, from its proof
}

// Channel is the connection to the server.
type Channel struct {
	Private bool   // nobody reads along: TLS, or a unix socket
	Binding []byte // of TLS; nil without
}

// Why a server's request is not answered.
var (
	ErrNoPassword = errors.New("the server asks for a password that lockkeeper does not have")
	ErrCleartext  = errors.New("the server asks for the password in the clear, over a connection without TLS")
	ErrMethod     = errors.New("the server asks for an authentication method that lockkeeper does not have")
	ErrUnexpected = errors.New("the server's login takes an unexpected turn")
)

// Login answers what one server asks of a client that logs in. Source: manual,
// 55.2.1 "Start-up" and 55.3 "SASL Authentication".
type Login struct {
	credential Credential
	channel    Channel
	exchange   *scram.Client // while there is one
}

// NewLogin returns the client's side of a login.
func NewLogin(c Credential, over Channel) *Login { return &Login{credential: c, channel: over} }

// The kinds of Authentication messages. Source: manual, 55.7.
const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// Answer takes an Authentication message and returns what to send, if
// anything. done is true when the server has accepted the login.
func (l *Login) Answer(m wire.Message) (answer []byte, done bool, err error) {
	if len(m.Body()) < 4 || m.Type() != 'R' {
		return nil, false, ErrUnexpected
	}
	kind, data := binary.BigEndian.Uint32(m.Body()), m.Body()[4:]
	if l.exchange != nil && kind != authSASLContinue && kind != authSASLFinal && (kind != authOK || !l.exchange.Verified()) {
		return nil, false, ErrUnexpected // a server that has not proved itself
	}
	switch kind {
	case authOK:
		return nil, true, nil
	case authCleartext:
		answer, err = l.cleartext()
	case authMD5:
		answer, err = l.md5(data)
	case authSASL:
		answer, err = l.begin(data)
	case authSASLContinue:
		answer, err = l.prove(data)
	case authSASLFinal:
		err = l.verify(data)
	default:
		err = fmt.Errorf("%w (%d)", ErrMethod, kind)
	}
	return answer, false, err
}

func (l *Login) cleartext() ([]byte, error) {
	s := l.credential.Secret
	if s == nil || s.password == nil {
		return nil, ErrNoPassword
	}
	if !l.channel.Private {
		return nil, ErrCleartext
	}
	return wire.Append(nil, 'p', *s.password, "\x00"), nil
}

func (l *Login) md5(salt []byte) ([]byte, error) {
	s := l.credential.Secret
	if s == nil {
		return nil, ErrNoPassword
	}
	digits, ok := s.md5Hash(l.credential.User)
	if !ok {
		return nil, ErrNoPassword
	}
	if len(salt) != 4 {
		return nil, ErrUnexpected
	}
	sum := md5.Sum(append([]byte(digits), salt...)) //nolint:gosec // as above
	return wire.Append(nil, 'p', "md5"+hex.EncodeToString(sum[:]), "\x00"), nil
}

// begin chooses a mechanism.
func (l *Login) begin(list []byte) ([]byte, error) {
	c := &scram.Client{Binding: l.channel.Binding}
	switch s := l.credential.Secret; {
	case s != nil && s.password != nil:
		c.Prover = scram.Password(*s.password)
	case l.credential.Proven != nil:
		c.Prover = l.credential.Proven
	default:
		return nil, ErrNoPassword
	}
	var offered []string
	for len(list) > 0 && list[0] != 0 {
		name, rest, ok := wire.CString(list)
		if !ok {
			return nil, ErrUnexpected
		}
		offered, list = append(offered, string(name)), rest
	}
	mechanism, ok := c.Choose(offered)
	if !ok {
		return nil, ErrMethod
	}
	l.exchange = c
	first := c.First()
	return wire.Append(nil, 'p', mechanism, "\x00", string(binary.BigEndian.AppendUint32(nil, uint32(len(first)))), string(first)), nil //nolint:gosec // short
}

func (l *Login) prove(data []byte) ([]byte, error) {
	if l.exchange == nil {
		return nil, ErrUnexpected
	}
	final, err := l.exchange.Final(data)
	if err != nil {
		return nil, err
	}
	return wire.Append(nil, 'p', string(final)), nil
}

func (l *Login) verify(data []byte) error {
	if l.exchange == nil {
		return ErrUnexpected
	}
	return l.exchange.Verify(data)
}
