package proxy

import (
	"context"
	"sync/atomic"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/proxy/session"
)

// names is what a session knows of the names in its database: nothing before
// it has logged in, or who only knows a database's name could make lockkeeper
// connect to it.
type names struct {
	ctx              context.Context //nolint:containedctx // the server's
	from             *catalog.Catalogs
	server, database string
	control          string
	s                atomic.Pointer[catalog.Session]
}

// namesOf returns what a session will know; nil where that is never anything.
func (s *Server) namesOf(c *conn, t *Target) *names {
	if s.deps.Catalogs == nil || t.Control == "" || c.ends.Value().replication == "physical" {
		return nil
	}
	n := &names{ctx: s.ctx, from: s.deps.Catalogs, server: t.identity(), database: c.database, control: t.Control}
	if t.Database != "" {
		n.database = t.Database
	}
	return n
}

// known returns the names as the session sees them.
func (n *names) known() session.Catalog {
	if n == nil {
		return nil
	}
	return n
}

// open is called when the session has logged in.
func (n *names) open() {
	if n != nil {
		n.s.Store(n.from.Open(n.ctx, n.server, n.database, n.control))
	}
}

func (n *names) close() {
	if n != nil {
		n.s.Load().Close()
	}
}

// Resolve returns a batch with what its relations lead to.
func (n *names) Resolve(b *inspect.Batch) *inspect.Batch { return n.s.Load().Resolve(b) }

// Ran is told of a batch that is sent to the server.
func (n *names) Ran(b *inspect.Batch) { n.s.Load().Ran(b) }

// Ended is told that a transaction has ended.
func (n *names) Ended() { n.s.Load().Ended() }
