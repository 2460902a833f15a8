package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"lockkeeper/internal/sqlstate"
	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

// login logs in to the server with a credential. After it c.first is what the
// client is to hear: AuthenticationOk, with a NegotiateProtocolVersion and
// notices before it, or the server's error.
func (c *connected) login(ctx context.Context, credential *auth.Credential) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	l := auth.NewLogin(*credential, c.channel())
	var kept []byte
	for m := wire.Message(c.first); ; {
		switch size := wire.Size(m); {
		case m[0] == 'E':
			c.first = m
			return nil
		case size != len(m) || len(kept)+size > maxFirst:
			return impersonation(auth.ErrUnexpected)
		case m[0] == 'v', m[0] == 'N':
			kept = append(kept, m...)
		default:
			answer, done, err := l.Answer(m)
			if err != nil {
				return impersonation(err)
			}
			if done {
				kept = append(kept, m...)
				c.first, c.loggedIn = kept, true
				return nil
			}
			if len(answer) > 0 {
				if _, err := c.Write(answer); err != nil {
					return fmt.Errorf("log in to server: %w", err)
				}
			}
		}
		next, err := readMessage(c)
		if err != nil {
			return fmt.Errorf("log in to server: %w", err)
		}
		m = next
	}
}

// channel says what an answer to the server may hold.
func (c *connected) channel() auth.Channel {
	ch := auth.Channel{Private: c.tls || c.RemoteAddr().Network() == "unix"}
	if t, ok := c.Conn.(*tls.Conn); ok {
		if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
			ch.Binding = scram.EndPoint(certs[0])
		}
	}
	return ch
}

// impersonation is the error of a login in the client's place that lockkeeper
// itself gives up: no other address would do better, so nothing is tried again.
func impersonation(err error) error {
	hint := "See docs/authentication.md: what lockkeeper has does not fit what the server asks for."
	switch {
	case errors.Is(err, scram.ErrDiffers):
		hint = "lockkeeper and the server must have the same SCRAM secret: copy the user's rolpassword from the server's pg_authid into auth_file, or use auth_query."
	case errors.Is(err, auth.ErrNoPassword):
		hint = "Put the user's password into auth_file (or auth_password_file), or let the server's pg_hba.conf ask lockkeeper for scram-sha-256 or a certificate."
	case errors.Is(err, auth.ErrCleartext):
		hint = "Use TLS to the server (sslmode), or let its pg_hba.conf ask for scram-sha-256."
	case errors.Is(err, scram.ErrServer):
		hint = "The server does not know the user's password: it may not be the one that is meant."
	}
	return &fatal{sqlstate: sqlstate.InvalidAuthorization, message: "lockkeeper cannot log in to the server: " + err.Error(), hint: hint}
}
