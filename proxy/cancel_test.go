package proxy_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
)

// A cancel request comes on a connection of its own: while the statement that
// it is for is still being inspected it waits, or the server would have nothing
// to cancel and run the statement then.
func TestACancelDoesNotOvertakeItsStatement(t *testing.T) {
	const slow = "select pg_sleep(600)"
	for name, messages := range map[string][]pgproto3.FrontendMessage{
		"simple":   {&pgproto3.Query{String: slow}},
		"extended": {&pgproto3.Parse{Query: slow}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
	} {
		t.Run(name, func(t *testing.T) {
			parsing, release := make(chan struct{}), make(chan struct{})
			let := sync.OnceFunc(func() { close(release) })
			g := newGuard(t, func(s *setup) {
				s.parse = func(text string) *inspect.Batch {
					if strings.Contains(text, slow) {
						close(parsing)
						<-release
					}
					return pgquery.Parse(text)
				}
			})
			t.Cleanup(let)
			p, idle := g.peer(), g.peer()
			p.send(messages...)
			<-parsing
			passed := make(chan struct{})
			go g.cancelInto(p, passed)
			eventually(t, "the cancel request arrives", func() bool { return g.metric(t, "lockkeeper_cancel_requests_total") == 1 })
			for range 3 { // one that has nothing to wait for goes all the way meanwhile
				g.cancel(idle)
			}
			select {
			case <-passed:
				t.Error("the cancel request was passed on before its statement")
			default:
			}
			let()
			<-passed
			// PostgreSQL itself drops a request that comes before its process has begun.
			g.cancelUntilAnswered(p)
			if got := strings.Join(p.until('Z'), ", "); !strings.HasSuffix(got, "E 57014, Z I") {
				t.Error(got)
			}
			if got := idle.run("Q select 1"); got != "T, D 1, C SELECT 1, Z I" {
				t.Error(got)
			}
		})
	}
}

// cancelInto closes done when the guard has dealt with a cancel request.
func (g *guard) cancelInto(p *peer, done chan<- struct{}) {
	defer close(done)
	g.cancel(p)
}

// cancelUntilAnswered repeats the request while the statement sleeps on.
func (g *guard) cancelUntilAnswered(p *peer) {
	eventually(g.t, "the statement is cancelled", func() bool {
		ran := "select count(*) from pg_stat_activity where pid = %d and state = 'idle' and query like '%%pg_sleep%%'"
		if g.pg.Value(g.t, g.db, fmt.Sprintf(ran, p.pid)) == "1" {
			return true
		}
		g.cancel(p)
		return false
	})
}
