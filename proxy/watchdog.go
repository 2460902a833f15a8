package proxy

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

// How the watchdog works. A wait for a strong lock is ended at the latest the
// rule's lock_timeout, WatchMargin and WatchEvery after it began.
const (
	WatchEvery  = 500 * time.Millisecond // between two looks
	WatchMargin = 500 * time.Millisecond // so that a lock_timeout in the server, where there is one, comes first
	watchTime   = 5 * time.Second        // for one look at one server
	watchPause  = 2 * time.Second        // after what has failed, before it is tried again
	watchKeeps  = time.Minute            // how long a connection is kept that nothing was looked for on

	// WatchedWaits is how many waits one look sees at most.
	WatchedWaits = 500
	// WatchedNames is how many relations one look finds the names of.
	WatchedNames = 16
)

// watchdog ends waits for strong locks on critical tables that no lock_timeout
// of ours ends: of DDL inside functions, procedures and DO blocks, which no
// text shows, and of what undoes a setting while it runs. It looks on
// lockkeeper's own connections, and only while a session has been working on
// something for longer than the shortest limit.
type watchdog struct {
	s     *Server
	looks sync.WaitGroup // those under way, one for each post at most
	seen  []*conn        // room for the sessions that one look goes through
	mu    sync.Mutex     // guards what follows
	posts map[postKey]*post
}

// postKey names a server process's whereabouts: the server, and which of its
// addresses where there may be several.
type postKey struct{ server, address string }

// suspect is a session that has been working on something for long.
type suspect struct {
	conn *conn
	sub  *policy.Subject
	session.Running
}

// watchLoop looks until stop is closed.
func (s *Server) watchLoop(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(WatchEvery)
	defer tick.Stop()
	defer s.watchdog.close()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			s.watchdog.look()
		}
	}
}

// look begins a look at every server that a suspect is on. One that does not
// answer delays no other.
func (w *watchdog) look() {
	now := w.s.deps.Now()
	for key, list := range w.suspects() {
		p := w.post(key, list[0].conn)
		p.used = now
		if p.busy.Swap(true) {
			continue
		}
		w.looks.Go(func() {
			defer p.busy.Store(false)
			p.look(list)
		})
	}
	w.leaveIdle(now)
}

// suspects returns the sessions that may have waited for a lock for too long,
// by where their server processes are. It allocates nothing for the others: it
// looks at all of them twice a second.
func (w *watchdog) suspects() map[postKey][]suspect {
	shortest := w.s.deps.Decider.Current().ShortestLockLimit()
	if shortest == 0 {
		return nil
	}
	w.seen = w.s.appendAll(w.seen[:0])
	defer clear(w.seen)
	now := w.s.elapsed()
	var out map[postKey][]suspect
	var one suspect
	ask := func(x *session.Session) { one.Running, one.sub = x.Running(), x.Subject() }
	for _, c := range w.seen {
		one.conn = c
		c.pair.Do(ask)
		if one.PID == 0 || one.Since == 0 || now-one.Since < shortest {
			continue
		}
		if out == nil {
			out = map[postKey][]suspect{}
		}
		key := w.s.postKey(c)
		out[key] = append(out[key], one)
	}
	return out
}

// postKey says from where a session's server process can be seen.
func (s *Server) postKey(c *conn) postKey {
	t := s.cfg.Servers[c.target]
	key := postKey{server: t.identity()}
	if t.failsOver() {
		key.address = c.reached.Value().address
	}
	return key
}

// post returns where the server of a session is watched from.
func (w *watchdog) post(key postKey, c *conn) *post {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.posts[key]
	if p == nil {
		p = &post{s: w.s, target: w.s.controlledTarget(c.target), at: c.reached.Value(), observed: map[wait]bool{}, barred: map[string]time.Time{}}
		w.posts[key] = p
	}
	return p
}

// controlledTarget returns a target of the same server that has a control
// login; the target itself where none has.
func (s *Server) controlledTarget(name string) *Target {
	t := s.cfg.Servers[name]
	if t.Control != "" {
		return &t
	}
	for _, key := range sortedKeys(s.cfg.Servers) {
		if other := s.cfg.Servers[key]; other.Control != "" && other.identity() == t.identity() {
			return &other
		}
	}
	return &t
}

// leaveIdle closes connections on which nothing was looked for lately.
func (w *watchdog) leaveIdle(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, p := range w.posts {
		if now.Sub(p.used) > watchKeeps && !p.busy.Load() {
			p.leave()
			delete(w.posts, key)
		}
	}
}

func (w *watchdog) close() {
	w.looks.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.posts {
		p.leave()
	}
	clear(w.posts)
}

// connections returns how many connections the watchdog keeps.
func (w *watchdog) connections() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range w.posts {
		if p.connected.Load() {
			n++
		}
	}
	return n
}

// Unwatched names the servers on which DDL that no text shows can wait for a
// lock for ever, and says why.
func (s *Server) Unwatched() []string {
	var out []string
	for _, key := range sortedKeys(s.cfg.Servers) {
		if s.controlledTarget(key).Control == "" {
			out = append(out, "server."+key+": no control login")
		}
	}
	s.watchdog.mu.Lock()
	defer s.watchdog.mu.Unlock()
	for key, p := range s.watchdog.posts {
		if p.failing.Load() && p.target.Control != "" {
			out = append(out, key.server+": the last look has failed, see lockkeeper's log")
		}
	}
	slices.Sort(out)
	return out
}

// errNoControl says that nothing can be asked.
var errNoControl = errors.New("no control login: DDL inside functions can wait for a lock for ever; set server.….control")

// failed notes that a look could not be made.
func (p *post) failed(ctx context.Context, cause string, err error) {
	p.missed(ctx, cause, err)
	p.leave()
	p.pauseUntil = p.s.deps.Now().Add(watchPause)
}

// missed notes what could not be found out; the log says so once.
func (p *post) missed(ctx context.Context, cause string, err error) {
	p.s.metrics.watchFailures.WithLabelValues(cause).Inc()
	if !p.failing.Swap(true) {
		p.s.deps.Logger.LogAttrs(ctx, slog.LevelWarn, "the watchdog cannot look for locks that DDL waits for",
			slog.String("server", p.target.identity()), slog.String("cause", err.Error()))
	}
}
