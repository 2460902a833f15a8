// Package engine moves bytes for sessions: in a poll loop where both connections are plain sockets of Linux, else with two goroutines for each session.
package engine

import (
	"context"
	"errors"
	"net"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// Pair is a client connection and its server connection with the session
// between them. Its methods may be called from any goroutine.
type Pair interface {
	// Begin has bytes moved until one side has ended and everything it said has
	// been passed on, and returns at once. It is called once, also for a pair
	// that was closed before.
	Begin(o Owner)
	// Close ends the pair for a reason; both sides see a closed connection.
	Close(cause string)
	// Fail ends the pair with a FATAL error that the client can read, as a
	// server would that is shut down.
	Fail(r *policy.Refusal)
	// Do runs f with the session; f must not block.
	Do(f func(*session.Session))
	// Traffic returns the bytes relayed to the server and to the client.
	Traffic() (toServer, toClient int64)
	// Wake lets a held session look again.
	Wake()
	// Cancel cancels a held statement and reports whether there was one.
	Cancel(r *policy.Refusal) bool
	// CancelSent is told that the cancel request of an overdue statement has
	// been sent: what waited for that goes on.
	CancelSent()
	// Spared is told that an overdue statement is not cancelled after all: what
	// waited for that goes on.
	Spared()
	// CatchUp waits, for a bounded time, until the server was given what the client
	// had sent before the call. A cancel request comes on a connection of its own,
	// and overtakes a statement that was not read yet, is being inspected or is
	// being written: the server would find nothing to cancel, and then run the
	// statement. What is sent after the call is not waited for.
	CatchUp(ctx context.Context)
}

// New returns a pair that has not begun. pending are bytes of the server that
// were read already.
func New(cfg *Config, client, server net.Conn, s *session.Session, pending []byte) Pair {
	if p := cfg.Poller.pair(cfg, client, server, s, pending); p != nil {
		return p
	}
	return newRoutines(cfg, client, server, s, pending)
}

// Owner is told once of each what becomes of its pair, by a goroutine of the
// pair's that may block.
type Owner interface {
	// LoggedIn tells that the server has accepted the login, and its process id.
	// The client hears of it afterwards, and should not have to wait long.
	LoggedIn(pid uint32)
	// Ended tells why the session has ended. Both connections are closed, and
	// nothing is done for the pair any more.
	Ended(cause string)
}

// Sink takes what sessions have to tell. Its methods may be called from many
// goroutines.
type Sink interface {
	// Count adds what happened; it must not keep c.
	Count(c *session.Counts)
	// Stage tells how long a slow stage of a statement took.
	Stage(stage string, took time.Duration)
	// Record journals entries. It may block for a bounded time.
	Record(entries []journal.Entry)
	// Roomy reports whether Record would not block now, as far as can be told.
	Roomy() bool
}

// Config is what all pairs have in common.
type Config struct {
	Inspect   func(text []byte, lex inspect.Lexing) *inspect.Batch // may be slow
	Sink      Sink
	Budget    *Budget
	Now       func() time.Time
	HeldBytes int     // what a client may send while its statement is held or collected in vain
	Poller    *Poller // nil: all sessions run on goroutines of their own
}

// MaxStreams is of how many servers a poll loop reads long answers in batches;
// those of others are read as they come.
const MaxStreams = 64

// maxUnread is how much more a server may say, in bytes, that is changing
// something for a client which is gone: then it loses its connection, too.
const maxUnread = 16 << 20

// What the cause of a session's end begins with when a connection has broken:
// it was reset, or nothing was heard of the other side for too long.
const (
	ClientLost = "client connection lost: "
	ServerLost = "server connection lost: "
)

// reason is an error without addresses.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
