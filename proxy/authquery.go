package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/singleflight"

	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/wire"
)

// defaultAuthQuery is what PgBouncer asks, with names that nobody can shadow: a
// password that is not valid any more is none.
const defaultAuthQuery = `SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END
FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin`

// Bounds of auth_query.
const (
	AuthQuerySlots   = 4               // queries at a time
	AuthQueryTimeout = 5 * time.Second // for a place among them, the connection and the answer; limits.connect_timeout if that is less
	AuthCacheUsers   = 10_000          // secrets kept
	AuthCacheAge     = time.Minute     // for so long
	suspectAge       = time.Second     // a secret this old is forgotten when a proof fails: it may have changed
	authReplyBytes   = 64 << 10        // the longest message of an answer
	cancelPatience   = 2 * time.Second // for a query that took too long
	authDatabase     = "postgres"      // auth_dbname
	authApplication  = "lockkeeper"    // as pg_stat_activity shows it
)

// authQueries asks servers for users' secrets.
type authQueries struct {
	slots  chan struct{} // one token for each query that runs
	flight singleflight.Group
	known  *lru.Cache[string, knownSecret]
}

type knownSecret struct {
	secret *auth.Secret
	since  time.Time
}

func newAuthQueries() (*authQueries, error) {
	known, err := lru.New[string, knownSecret](AuthCacheUsers)
	if err != nil {
		return nil, fmt.Errorf("make the cache of secrets: %w", err)
	}
	return &authQueries{slots: make(chan struct{}, AuthQuerySlots), known: known}, nil
}

func secretKey(key, user string) string { return key + "\x00" + user }

// suspect is told of a proof that failed: the password may be a new one.
func (q *authQueries) suspect(key, user string, now time.Time) {
	if k, ok := q.known.Peek(secretKey(key, user)); ok && now.Sub(k.since) >= suspectAge {
		q.known.Remove(secretKey(key, user))
	}
}

func (q *authQueries) forgetAll() { q.known.Purge() }

// errAuthServer says that a server could not be asked.
var errAuthServer = errors.New("the server cannot be reached")

// askSecretHeld is askSecret, but where a failover can be waited for it is, for
// limits.connect_hold.
func (s *Server) askSecretHeld(key string, t *Target, user string) (*auth.Secret, error) {
	begun := s.deps.Now()
	for pause := minRetryPause; ; pause = min(2*pause, maxRetryPause) {
		secret, err := s.askSecret(key, t, user)
		left := s.cfg.Limits.ConnectHold - s.deps.Now().Sub(begun)
		if !errors.Is(err, errAuthServer) || !t.failsOver() || left <= 0 || s.isClosing() {
			return secret, err
		}
		s.metrics.connectRetries.Inc()
		select {
		case <-s.ctx.Done():
			return nil, err
		case <-time.After(min(pause, left)):
		}
	}
}

// askSecret returns a user's secret from the cache, or asks the server; nil for
// a user that there is not or that has no password.
func (s *Server) askSecret(key string, t *Target, user string) (*auth.Secret, error) {
	if k, ok := s.queries.known.Get(secretKey(key, user)); ok && s.deps.Now().Sub(k.since) < AuthCacheAge {
		s.metrics.authQueries.WithLabelValues("cached").Inc()
		return k.secret, nil
	}
	answer, err, _ := s.queries.flight.Do(secretKey(key, user), func() (any, error) {
		return s.runAuthQuery(key, t, user)
	})
	if err != nil {
		return nil, err
	}
	secret, _ := answer.(*auth.Secret) // nothing else is returned
	return secret, nil
}

// runAuthQuery asks, when there is a place.
func (s *Server) runAuthQuery(key string, t *Target, user string) (secret *auth.Secret, err error) {
	timeout := min(AuthQueryTimeout, s.cfg.Limits.ConnectTimeout)
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	begun, outcome := s.deps.Now(), "failed"
	defer func() {
		s.metrics.authQueries.WithLabelValues(outcome).Inc()
		s.metrics.stages.WithLabelValues("auth_query").Observe(s.deps.Now().Sub(begun).Seconds())
	}()
	select {
	case s.queries.slots <- struct{}{}:
		defer func() { <-s.queries.slots }()
	case <-ctx.Done():
		outcome = "busy"
		return nil, errors.New("auth_query: too many are waiting for an answer")
	}
	text, err := s.queryServer(ctx, key, t, user)
	switch {
	case err != nil:
		return nil, err
	case text == nil:
		outcome = "unknown"
		return nil, nil //nolint:nilnil // nobody is one of the answers
	}
	if secret, err = auth.ParseSecret(*text); err == nil {
		err = s.mock.Prepare(user, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("auth_query: the secret of user %q: %w", user, err)
	}
	outcome = "found"
	s.queries.known.Add(secretKey(key, user), knownSecret{secret, s.deps.Now()})
	return secret, nil
}

// queryServer runs the query on the first address that answers.
func (s *Server) queryServer(ctx context.Context, key string, t *Target, user string) (*string, error) {
	all, err := s.endpoints(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("auth_query: %w: %w", errAuthServer, err)
	}
	var errs []error
	for i := range all {
		c, err := s.openAuthQuery(ctx, key, t, &all[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return c.query(ctx, t, user)
	}
	return nil, fmt.Errorf("auth_query: %w", oneLine(errs))
}

// authQuery is a connection of lockkeeper's own, logged in.
type authQuery struct {
	*connected
	messages *pgproto3.Frontend
	pid      uint32
	key      []byte
}

func (s *Server) openAuthQuery(ctx context.Context, key string, t *Target, e *endpoint) (*authQuery, error) {
	database := t.Auth.Database
	if database == "" {
		database = authDatabase
	}
	hello := pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": t.Auth.User, "database": database, "application_name": authApplication},
	}
	packet, err := hello.Encode(nil)
	if err != nil {
		return nil, fmt.Errorf("log in as auth_user: %w", err)
	}
	c, err := t.connect(ctx, e, packet)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAuthServer, err)
	}
	c.reached = *e
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	q := &authQuery{connected: c, messages: pgproto3.NewFrontend(c, c)}
	q.messages.SetMaxBodyLen(authReplyBytes)
	credential := &auth.Credential{User: t.Auth.User, Secret: s.credentials.Load().ours(key, &t.Auth, t.Auth.User)}
	if err = c.login(ctx, credential); err == nil {
		err = q.settle()
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("log in as auth_user: %w", err)
	}
	return q, nil
}

// settle reads up to the first ReadyForQuery.
func (q *authQuery) settle() error {
	if q.first[0] == 'E' {
		return serverSays(string(wire.Field(q.first[wire.HeaderLen:], 'M')))
	}
	for {
		m, err := q.messages.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.BackendKeyData:
			q.pid, q.key = m.ProcessID, bytes.Clone(m.SecretKey)
		case *pgproto3.ErrorResponse:
			return serverSays(m.Message)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

func serverSays(message string) error { return fmt.Errorf("the server says: %s", message) }

// query asks for a user's secret and ends the connection; nil is none.
func (q *authQuery) query(ctx context.Context, t *Target, user string) (*string, error) {
	defer func() { _ = q.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = q.Close() })
	defer stop()
	text := t.Auth.Query
	if text == "" {
		text = defaultAuthQuery
	}
	q.messages.Send(&pgproto3.Parse{Query: text})
	q.messages.Send(&pgproto3.Bind{Parameters: [][]byte{[]byte(user)}})
	q.messages.Send(&pgproto3.Execute{})
	q.messages.Send(&pgproto3.Sync{})
	if err := q.messages.Flush(); err != nil {
		return nil, fmt.Errorf("auth_query: %w", err)
	}
	secret, err := q.answer()
	if err != nil && ctx.Err() != nil {
		q.cancel(ctx, t)
		return nil, fmt.Errorf("auth_query: no answer in time: %w", ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("auth_query: %w", err)
	}
	_, _ = q.Write(wire.Append(nil, 'X')) // a server that is told logs nothing
	return secret, nil
}

// answer reads the first row's second column.
func (q *authQuery) answer() (secret *string, err error) {
	for rows := 0; ; {
		m, errRead := q.messages.Receive()
		if errRead != nil {
			return nil, errRead
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			err = serverSays(m.Message)
		case *pgproto3.DataRow:
			rows++
			switch {
			case len(m.Values) < 2:
				err = errors.New("it has to return two columns: the user's name and secret")
			case rows == 1 && m.Values[1] != nil:
				text := string(m.Values[1])
				secret = &text
			}
		case *pgproto3.ReadyForQuery:
			return secret, err
		}
	}
}

// cancel keeps the server from working on for nobody.
func (q *authQuery) cancel(ctx context.Context, t *Target) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer stop()
	_ = sendCancel(ctx, t, &q.reached, q.pid, q.key) // the client is told of the query's end anyway
}
