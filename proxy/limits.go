package proxy

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"lockkeeper/internal/sqlstate"
	"lockkeeper/policy"
)

// Override is a value that may be configured for one name, in place of the
// value for all: zero is a value, too.
type Override[T any] struct {
	Set   bool `yaml:"-"`
	Value T    `yaml:"-"`
}

// UnmarshalYAML reads the value.
func (o *Override[T]) UnmarshalYAML(unmarshal func(any) error) error {
	o.Set = true
	return unmarshal(&o.Value)
}

// or returns the value, or the one for all.
func (o Override[T]) or(all T) T {
	if o.Set {
		return o.Value
	}
	return all
}

// NamedLimits are the limits of one user or one database, in place of those of
// all. Where both have one of the timeouts the user's holds, as PostgreSQL puts
// ALTER ROLE before ALTER DATABASE.
type NamedLimits struct {
	Sessions                 Override[int]           `yaml:"sessions"`
	IdleTimeout              Override[time.Duration] `yaml:"idle_timeout"`
	IdleInTransactionTimeout Override[time.Duration] `yaml:"idle_in_transaction_timeout"`
	TransactionTimeout       Override[time.Duration] `yaml:"transaction_timeout"`
	StatementTimeout         Override[time.Duration] `yaml:"statement_timeout"`
}

func (n *NamedLimits) validate() error {
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"sessions", int64(n.Sessions.Value)},
		{"idle_timeout", int64(n.IdleTimeout.Value)},
		{"idle_in_transaction_timeout", int64(n.IdleInTransactionTimeout.Value)},
		{"transaction_timeout", int64(n.TransactionTimeout.Value)},
		{"statement_timeout", int64(n.StatementTimeout.Value)},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s: must not be negative", v.name)
		}
	}
	return nil
}

// in returns the timeouts where all has those that are not named.
func (n *NamedLimits) in(all timeouts) timeouts {
	return timeouts{
		idle:              n.IdleTimeout.or(all.idle),
		idleInTransaction: n.IdleInTransactionTimeout.or(all.idleInTransaction),
		transaction:       n.TransactionTimeout.or(all.transaction),
		statement:         n.StatementTimeout.or(all.statement),
	}
}

func (l *Limits) validateNames() error {
	var all []error
	for key, named := range map[string]map[string]NamedLimits{"users": l.Users, "databases": l.Databases} {
		for _, name := range sortedKeys(named) {
			n := named[name]
			if err := n.validate(); err != nil {
				all = append(all, fmt.Errorf("limits.%s.%s: %w", key, name, err))
			}
		}
	}
	return errors.Join(all...)
}

// greetings are the clients that have not said who they are. Where there are
// too many the oldest goes: who means to log in says so at once, and who does
// not must not keep others out.
type greetings struct {
	mu      sync.Mutex
	waiting list.List // of net.Conn, the oldest in front
}

// begin adds a client. The caller must call end when it has said who it is.
func (g *greetings) begin(c net.Conn, limit int) (end func(), evicted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting.Len() >= limit {
		evicted = g.evictOldest()
	}
	e := g.waiting.PushBack(c)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting.Remove(e) // does nothing if it was removed
	}, evicted
}

// evict disconnects the oldest and reports whether there was one.
func (g *greetings) evict() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.evictOldest()
}

// evictOldest is evict with the mutex held.
func (g *greetings) evictOldest() bool {
	oldest := g.waiting.Front()
	if oldest == nil {
		return false
	}
	if victim, ok := oldest.Value.(net.Conn); ok {
		_ = victim.Close() // its reader finds out
	}
	g.waiting.Remove(oldest)
	return true
}

func (g *greetings) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting.Len()
}

// places counts sessions. Like PostgreSQL's own, limits per user and database
// hold for those who have logged in: somebody who only knows a name must not be
// able to use up its places.
type places struct {
	mu        sync.Mutex
	sessions  int // logged in
	logins    int // connected to a server and not logged in
	users     map[string]int
	databases map[string]int
}

// place is what one connection has of them. The places' mutex guards it.
type place struct {
	in   bool // logged in
	left bool
}

func (p *places) counts() (sessions, logins int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions, p.logins
}

// full reports whether nobody else may log in.
func (p *places) full(limit int) bool {
	sessions, _ := p.counts()
	return sessions >= limit
}

// take gives a connection a place among those that log in.
func (c *conn) take() error {
	s, p := c.s, &c.s.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := s.crowded(c.user, c.database); err != nil {
		return err
	}
	if err := s.spare(p.sessions + p.logins); err != nil {
		return err
	}
	if p.logins >= s.cfg.Limits.Logins {
		s.metrics.limits.WithLabelValues("logins").Inc()
		return &fatal{
			sqlstate: sqlstate.TooManyConnections, message: "lockkeeper has as many connections in login as limits.logins allows",
			hint: "Try again in a moment, or raise limits.logins.",
		}
	}
	p.logins++
	return nil
}

// MostOfUser returns how many sessions a user may have; 0 is as many as there
// may be.
func (l *Limits) MostOfUser(user string) int { return l.Users[user].Sessions.or(l.UserSessions) }

// MostOfDatabase returns how many sessions a database may have; 0 is as many as
// there may be.
func (l *Limits) MostOfDatabase(database string) int {
	return l.Databases[database].Sessions.or(l.DatabaseSessions)
}

// crowded reports whether a user or a database has as many sessions as it may.
// The places' mutex is held.
func (s *Server) crowded(user, database string) error {
	p, l := &s.places, &s.cfg.Limits
	if most := l.MostOfUser(user); most > 0 && p.users[user] >= most {
		s.metrics.limits.WithLabelValues("user").Inc()
		return &fatal{
			sqlstate: sqlstate.TooManyConnections, message: fmt.Sprintf("too many connections for role %q", user),
			hint: "Close idle connections, or raise limits.user_sessions in lockkeeper.yaml.",
		}
	}
	if most := l.MostOfDatabase(database); most > 0 && p.databases[database] >= most {
		s.metrics.limits.WithLabelValues("database").Inc()
		return &fatal{
			sqlstate: sqlstate.TooManyConnections, message: fmt.Sprintf("too many connections for database %q", database),
			hint: "Close idle connections, or raise limits.database_sessions in lockkeeper.yaml.",
		}
	}
	return nil
}

// loggedIn makes a session of a login. Others may have been faster: then there
// is no place left.
func (c *conn) loggedIn() error {
	s, p := c.s, &c.s.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.place.in || c.place.left {
		return nil
	}
	if p.sessions >= s.cfg.Limits.Sessions {
		s.metrics.sessionLimit.Inc()
		return sessionsFull()
	}
	if err := s.crowded(c.user, c.database); err != nil {
		return err
	}
	if p.users == nil {
		p.users, p.databases = map[string]int{}, map[string]int{}
	}
	c.place.in = true
	p.logins--
	p.sessions++
	p.users[c.user]++
	p.databases[c.database]++
	return nil
}

// leave gives the place back.
func (c *conn) leave() {
	p := &c.s.places
	p.mu.Lock()
	defer p.mu.Unlock()
	c.place.left = true
	if !c.place.in {
		p.logins--
		return
	}
	p.sessions--
	less(p.users, c.user)
	less(p.databases, c.database)
}

// less counts one less of a name, and forgets it with the last.
func less(counts map[string]int, name string) {
	if counts[name]--; counts[name] == 0 {
		delete(counts, name)
	}
}

func sessionsFull() *fatal {
	return &fatal{
		sqlstate: sqlstate.TooManyConnections, message: "lockkeeper has as many sessions as limits.sessions allows",
		hint: "Close idle connections, or raise limits.sessions.",
	}
}

// begins counts the session when the server has accepted the login. One too
// many ends.
func (c *conn) begins() {
	if err := c.loggedIn(); err != nil {
		if f, ok := errors.AsType[*fatal](err); ok {
			c.pair.Fail(&policy.Refusal{SQLSTATE: f.sqlstate, Message: f.message, Hint: f.hint})
		}
	}
}
