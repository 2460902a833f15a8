package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/engine"
	"lockkeeper/proxy/session"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("proxy: server closed")

// Recorder takes journal entries; it may block a session for a bounded time.
type Recorder interface {
	Submit(e journal.Entry)
	// Roomy reports whether Submit would not wait now.
	Roomy() bool
}

// Deps is what a Server works with. All fields but LookupHost, Processes,
// Console, Catalogs, LastSession and Mock are required.
type Deps struct {
	Inspector  *inspect.Inspector
	Decider    *policy.Decider
	Journal    Recorder
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	LookupHost LookupHost // resolves servers' names; nil is the system's
	Now        func() time.Time
	Processes  string // file in which server processes are noted; "" keeps them in memory
	Console    Console
	Catalogs   *catalog.Catalogs // of the databases in use; nil: names are taken as the texts have them

	// LastSession is the largest session id that was given before, by a
	// process whose sessions go on beside this one's.
	LastSession uint64
	Mock        *auth.Mock // makes up the secrets of unknown users; nil is a new one
}

// Server accepts clients and keeps their sessions.
type Server struct {
	cfg  Config
	deps Deps

	began time.Time // a little before it was made

	metrics   *metrics
	pacer     *pacer
	budget    *engine.Budget
	poller    *engine.Poller // nil: goroutines for every session
	engine    engine.Config
	tls       clientTLS
	mock      *auth.Mock
	queries   *authQueries
	processes *processes
	watchdog  *watchdog
	lookup    LookupHost
	down      unreachable
	roles     roles
	balancers []netip.Prefix // send a PROXY header
	greetings greetings
	places    places

	descriptors descriptors
	held        atomic.Int64  // clients that wait for a server
	holding     atomic.Int64  // sessions whose statement is held
	cancels     chan struct{} // one token for each cancel request being passed on
	forwarded   chan struct{} // the same, of those that come from peers: they must not wait for each other
	peers       peers
	credentials atomic.Pointer[credentials]

	mu         sync.Mutex // guards what follows
	listeners  []Listener
	sessions   map[uint64]*conn
	stats      stats
	closing    bool
	drained    chan struct{} // while Drain waits: closed when every client has left
	closed     bool          // nobody is accepted any more, not even for the console
	handedOver bool          // another process accepts

	stopping  chan struct{}  // closed when closing becomes true
	acceptors sync.WaitGroup // loops that accept

	lastID   atomic.Uint64
	accepted atomic.Int64    // connections, logged in or not
	clients  sync.WaitGroup  // what a shutdown waits for
	others   sync.WaitGroup  // consoles, and who comes while a shutdown waits
	ctx      context.Context //nolint:containedctx // ends every session at the end of Shutdown
	endAll   context.CancelFunc
}

// conn is one client connection with its session. What many have alike they
// share: there may be thousands, and most do nothing most of the time.
type conn struct {
	s         *Server
	group     *sync.WaitGroup // counts it
	id        uint64
	user      string
	database  string
	target    string
	reached   unique.Handle[endpoint] // the server's address that it really has
	ends      ends
	connected time.Time
	waited    time.Duration // for the server
	timeouts  unique.Handle[timeouts]
	watched   *watched // nil until the sweeper has done something about it
	pair      engine.Pair
	names     *names
	login     *time.Timer // that ends it; nil when it has logged in
	place     place
}

// New returns a server that listens on nothing yet.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, deps: deps, pacer: newPacer(), budget: engine.NewBudget(cfg.Limits.CollectedBytes),
		cancels: make(chan struct{}, maxCancels), forwarded: make(chan struct{}, maxCancels), sessions: map[uint64]*conn{}, descriptors: ownDescriptors(),
		stopping: make(chan struct{}),
	}
	s.lastID.Store(deps.LastSession)
	s.peers.configure(cfg.Peers)
	if s.lookup = deps.LookupHost; s.lookup == nil {
		s.lookup = net.DefaultResolver.LookupHost
	}
	now := deps.Now()
	s.began = now.Add(-time.Second)
	s.stats = stats{ended: tallies{}, olderAt: now, newAt: now}
	s.ctx, s.endAll = context.WithCancel(context.Background())
	if err := s.tls.load(&cfg.TLS); err != nil {
		return nil, err
	}
	if s.mock = deps.Mock; s.mock == nil {
		s.mock = auth.NewMock()
	}
	var err error
	if s.queries, err = newAuthQueries(); err != nil {
		return nil, err
	}
	if err := s.loadCredentials(); err != nil {
		return nil, err
	}
	if s.balancers, err = prefixes(cfg.Listen.ProxyProtocolFrom); err != nil {
		return nil, fmt.Errorf("listen.proxy_protocol_from: %w", err)
	}
	if s.processes, err = openProcesses(deps.Processes, deps.Now); err != nil {
		return nil, err
	}
	s.watchdog = &watchdog{s: s, posts: map[postKey]*post{}}
	if err := s.startPoller(); err != nil {
		return nil, errors.Join(err, s.processes.close())
	}
	s.engine = s.engineConfig()
	s.metrics = newMetrics(deps.Registerer, s)
	return s, nil
}

// Listen opens every configured listener. A stale socket file is replaced.
func (s *Server) Listen(ctx context.Context) error { return s.Inherit(ctx, nil) }

func (s *Server) listenTCP(ctx context.Context, address string) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as PostgreSQL: TCP's options are not all Multipath TCP's
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.add(Listener{l, address})
	return nil
}

func (s *Server) listenUnix(ctx context.Context, path string) error {
	if err := removeStale(ctx, path); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, os.FileMode(s.cfg.Listen.UnixMode)); err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	s.add(Listener{l, path})
	return nil
}

// Adopt adds listeners that somebody else has opened, in place of Listen. The
// server closes them.
func (s *Server) Adopt(listeners []net.Listener) {
	for _, l := range listeners {
		s.add(Listener{Listener: l})
	}
}

func (s *Server) add(l Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
}

// removeStale removes a socket file that nobody listens on any more.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen on %s: a file that is no socket is in the way; remove it or choose another path", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("listen on %s: another process listens there", path)
	}
	return os.Remove(path)
}

// Addresses returns where the server listens.
func (s *Server) Addresses() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]net.Addr, 0, len(s.listeners))
	for _, l := range s.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// Serve accepts clients on every listener until Shutdown, and then returns
// ErrServerClosed; any other error ends all listeners.
func (s *Server) Serve() error {
	s.warnOfDescriptors()
	s.mu.Lock()
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	stop := make(chan struct{})
	pruned, swept, counted, watched, given := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	go s.pruneLoop(stop, pruned)
	go s.sweepLoop(stop, swept)
	go s.statsLoop(stop, counted)
	go s.watchLoop(stop, watched)
	go s.giveBackLoop(stop, given)
	defer func() {
		close(stop)
		<-pruned
		<-swept
		<-counted
		<-watched
		<-given
	}()
	ends := make(chan error, len(listeners))
	s.acceptors.Add(len(listeners))
	for _, l := range listeners {
		go s.acceptLoop(l, ends)
	}
	var first error
	for range listeners {
		err := <-ends
		if first == nil {
			first = err
		}
		if !s.isClosing() { // Drain and Shutdown close them in their own time
			s.closeListeners(func(net.Addr) bool { return true })
		}
	}
	if drained := s.draining(); drained != nil {
		<-drained
	}
	return first
}

// acceptLoop accepts on one listener until it is closed, and tells why when the
// server is to end.
func (s *Server) acceptLoop(l net.Listener, ends chan<- error) {
	err := s.accept(l)
	s.acceptors.Done()
	if errors.Is(err, ErrServerClosed) {
		<-s.stopping // another process accepts until then, perhaps
	}
	ends <- err
}

// accept accepts on one listener until it is closed. Running out of file
// descriptors is waited out.
func (s *Server) accept(l net.Listener) error {
	pause := minAcceptPause
	for {
		c, err := l.Accept()
		if err == nil {
			pause = minAcceptPause
			s.start(c)
			continue
		}
		if s.isClosing() || s.isHandedOver() {
			return ErrServerClosed
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		s.metrics.acceptErrors.Inc()
		s.deps.Logger.LogAttrs(s.ctx, slog.LevelError, "accept failed", slog.String("listener", l.Addr().String()), slog.String("cause", err.Error()))
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxAcceptPause)
		case <-s.ctx.Done():
		}
	}
}

const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

func (s *Server) start(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.closing && !s.staysOpen(c.LocalAddr()) || !s.listens():
		_ = c.Close()
		return
	case s.closing:
		s.others.Add(1)
		go s.serveClient(c, &s.others)
	default:
		s.clients.Add(1)
		go s.serveClient(c, &s.clients)
	}
	s.accepted.Add(1)
}

func (s *Server) serveClient(c net.Conn, group *sync.WaitGroup) {
	h := &hello{s: s, conn: c, group: group}
	if s.handle(h) {
		return
	}
	_ = c.Close() // already closed in most cases
	s.left(h.group)
}

// left is told that a client has left.
func (s *Server) left(group *sync.WaitGroup) {
	s.accepted.Add(-1)
	group.Done()
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) closeListeners(which func(net.Addr) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if which(l.Addr()) {
			_ = l.Close() // nothing more is accepted
		}
	}
}

// Drain stops accepting, as Shutdown does, and leaves the sessions alone: when
// their clients have left, or Shutdown has ended them, Serve returns.
func (s *Server) Drain() {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing, s.drained = true, make(chan struct{})
	close(s.stopping)
	s.mu.Unlock()
	s.closeListeners(func(a net.Addr) bool { return !s.staysOpen(a) })
	go s.awaitClients()
}

// awaitClients ends when every client of before Drain has left.
func (s *Server) awaitClients() {
	s.clients.Wait()
	s.closeListeners(s.staysOpen)
	close(s.drained)
}

// draining returns what is closed when Drain has come to its end; nil where it
// was not asked for.
func (s *Server) draining() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained
}

// Shutdown stops accepting, closes sessions as soon as they are outside a
// transaction, and all that are left when ctx ends. Unix sockets stay open
// until then for the console, where there is one.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.stopping)
	}
	s.mu.Unlock()
	s.closeListeners(func(a net.Addr) bool { return !s.staysOpen(a) })
	done := make(chan struct{})
	go s.waitClients(done)
	tick := time.NewTicker(shutdownPoll)
	defer tick.Stop()
	var err error
	for waiting := true; waiting; {
		s.closeQuiet()
		select {
		case <-done:
			waiting = false
		case <-ctx.Done():
			err, waiting = ctx.Err(), false
		case <-tick.C:
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closeListeners(s.staysOpen)
	s.endAll()
	s.closeSessions()
	<-done
	s.others.Wait()
	s.poller.Close()
	return errors.Join(err, s.processes.close())
}

// startPoller starts the poll loops where the configuration wants them: one for
// each two processors, the other being left to parses and the server.
func (s *Server) startPoller() (err error) {
	if s.cfg.Engine == EnginePoll {
		s.poller, err = engine.NewPoller(max(1, runtime.GOMAXPROCS(0)/2))
	}
	if err != nil {
		return fmt.Errorf("engine: poll: %w", err)
	}
	return nil
}

const shutdownPoll = 20 * time.Millisecond

func (s *Server) waitClients(done chan<- struct{}) {
	s.clients.Wait()
	close(done)
}

// closeQuiet closes sessions that lose nothing by it.
func (s *Server) closeQuiet() {
	for _, c := range s.all() {
		quiet := false
		c.pair.Do(func(x *session.Session) { quiet = x.Quiet() })
		if quiet {
			c.pair.Fail(&policy.Refusal{SQLSTATE: "57P01", Message: "lockkeeper is shutting down", Hint: "Connect again."})
		}
	}
}

// closeSessions closes what is left at the end of a shutdown, all at once:
// closing a connection with TLS may take seconds.
func (s *Server) closeSessions() {
	var closing sync.WaitGroup
	for _, c := range s.all() {
		closing.Go(func() { c.pair.Close(shutsDown) })
	}
	closing.Wait()
}

// all returns the sessions there are, oldest first.
func (s *Server) all() []*conn {
	out := s.appendAll(nil)
	slices.SortFunc(out, func(a, b *conn) int { return int(a.id) - int(b.id) }) // ids grow by one
	return out
}

// appendAll appends the sessions there are, in no order.
func (s *Server) appendAll(to []*conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	to = slices.Grow(to, len(s.sessions))
	for _, c := range s.sessions {
		to = append(to, c)
	}
	return to
}

// Reload reads certificate, key and authority of the client side again, and
// users and passwords; of each the old ones stay in use when that fails. Those
// towards servers are read for every connection.
func (s *Server) Reload() error {
	return errors.Join(s.tls.load(&s.cfg.TLS), s.loadCredentials())
}

// Wake lets every session look at the containments and the policy again.
func (s *Server) Wake() {
	for _, c := range s.all() {
		c.pair.Wake()
	}
}

// Sessions lists the sessions, oldest first.
func (s *Server) Sessions() []SessionInfo {
	conns := s.all()
	out := make([]SessionInfo, 0, len(conns))
	for _, c := range conns {
		out = append(out, c.info())
	}
	return out
}

func (c *conn) info() SessionInfo {
	at := c.ends.Value()
	i := SessionInfo{
		ID: c.id, User: c.user, Database: c.database, Address: at.client, ClientPort: int(c.ends.clientPort), ClientPID: int(c.ends.clientPID),
		LocalAddress: at.local, Target: c.target, ServerAddress: c.reached.Value().address, ServerLocalAddress: c.ends.serverLocal(),
		TLS: at.cipher != "", Cipher: at.cipher, ServerCipher: at.serverCipher, Replication: at.replication, Connected: c.connected,
	}
	var fingerprint *inspect.Fingerprint
	c.pair.Do(func(x *session.Session) {
		sub, st := x.Subject(), x.State()
		i.Requested, i.Prepared, i.Replicating = st.Asked, st.Prepared, st.Replicating && st.State == "active"
		i.Application, i.Tags = sub.Application, sub.Tags
		i.State, i.StateSince, i.HeldBy, i.TxSince = st.State, st.Since, st.HeldBy, st.TxSince
		i.Statement, fingerprint = st.Statement, st.Fingerprint
		i.RowsWritten, i.TxRows, i.ServerPID = st.RowsWritten, st.TxRows, st.PID
	})
	i.Fingerprint = fingerprint.Value() // which may take a parse
	i.BytesIn, i.BytesOut = c.pair.Traffic()
	return i
}

// ErrNoSession says that there is no session of that id.
var ErrNoSession = errors.New("no such session")

func (s *Server) session(id uint64) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.sessions[id]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("session %d: %w", id, ErrNoSession)
}

// CancelSession cancels what a session runs or waits for.
func (s *Server) CancelSession(ctx context.Context, id uint64) error {
	c, err := s.session(id)
	if err != nil {
		return err
	}
	if c.pair.Cancel(cancelled("due to operator request")) {
		return nil
	}
	return s.cancelOn(ctx, c)
}

// TerminateSession closes both sides of a session.
func (s *Server) TerminateSession(ctx context.Context, id uint64) error {
	c, err := s.session(id)
	if err != nil {
		return err
	}
	err = s.cancelOn(ctx, c) // the server process must not go on for nobody
	c.pair.Fail(&policy.Refusal{SQLSTATE: "57P01", Message: "terminating connection due to administrator command", Hint: "An operator of lockkeeper has ended this session."})
	return err
}

// host is what sessions ask of the server.
type host struct{ s *Server }

func (h host) Lookup(text []byte, lex inspect.Lexing) *inspect.Batch {
	return h.s.deps.Inspector.Lookup(text, lex)
}
func (h host) Gauge(lex inspect.Lexing) *inspect.Gauge { return h.s.deps.Inspector.Gauge(lex) }
func (h host) Snapshot() *policy.Snapshot              { return h.s.deps.Decider.Current() }
func (h host) Now() time.Time                          { return h.s.deps.Now() }

func (h host) Elapsed() time.Duration { return h.s.elapsed() }

// elapsed is what sessions measure by: see session.Host.
func (s *Server) elapsed() time.Duration { return time.Since(s.began) }

func (h host) Throttle(limits []policy.Throttle, now time.Time) time.Duration {
	return h.s.pacer.wait(limits, now)
}

func (h host) Charge(limits []policy.Throttle, rows int64, now time.Time) {
	h.s.pacer.chargeRows(limits, rows, now)
}

func (h host) Hold() bool {
	if h.s.holding.Add(1) <= int64(h.s.cfg.Limits.HeldSessions) {
		return true
	}
	h.s.holding.Add(-1)
	h.s.metrics.limits.WithLabelValues("held").Inc()
	return false
}

func (h host) LetGo() { h.s.holding.Add(-1) }

func (h host) Begun(limits []policy.Throttle, now time.Time) { h.s.pacer.chargeStatement(limits, now) }

// sink is where sessions tell what happened.
type sink struct{ s *Server }

func (k sink) Count(c *session.Counts) {
	k.s.metrics.count(c)
	if c.Incidents != nil {
		k.s.metrics.incidents(c.Incidents, k.s.deps.Decider.Current())
	}
}

func (k sink) Stage(stage string, took time.Duration) {
	k.s.metrics.stages.WithLabelValues(stage).Observe(took.Seconds())
}

func (k sink) Roomy() bool { return k.s.deps.Journal.Roomy() }

func (k sink) Record(entries []journal.Entry) {
	for i := range entries {
		k.s.deps.Journal.Submit(entries[i])
	}
}

// inspect parses a text; it may wait for a place, until the server ends.
func (s *Server) inspect(text []byte, lex inspect.Lexing) *inspect.Batch {
	return s.deps.Inspector.Inspect(s.ctx, text, lex)
}

func (s *Server) engineConfig() engine.Config {
	return engine.Config{
		Inspect: s.inspect, Sink: sink{s}, Budget: s.budget, Now: s.deps.Now, HeldBytes: s.cfg.Limits.HeldBytes, Poller: s.poller,
	}
}
