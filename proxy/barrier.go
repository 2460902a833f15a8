package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/policy"
	"lockkeeper/proxy/session"
)

const (
	barrierPoll   = 10 * time.Millisecond
	barrierCancel = 250 * time.Millisecond // between two cancels of the same statement
	lostPoll      = 200 * time.Millisecond
)

// Barrier returns when nothing that came through lockkeeper, in the scope of a
// read-only containment that is in force, can commit a change any more: server
// processes included whose client or whose lockkeeper is gone. Until the
// containment's DrainUntil transactions in flight may end by themselves; then
// statements whose commit needs no further message of the client are
// cancelled. Source: DESIGN of the barrier in docs/read-only.md.
func (s *Server) Barrier(ctx context.Context, c policy.Containment) ([]BarrierReport, error) {
	b := &barrier{s: s, c: &c, cancelled: map[uint64]time.Time{}, waited: map[uint64]bool{}}
	if err := b.sessions(ctx); err != nil {
		return nil, err
	}
	var reports []BarrierReport
	for _, key := range b.servers() {
		r, err := b.server(ctx, key)
		if err != nil {
			return nil, err
		}
		if err := s.processes.failure(); err != nil {
			r.Lacking = append(r.Lacking, "server processes cannot be noted, and would not be known if lockkeeper were killed: "+err.Error())
		}
		reports = append(reports, *r)
	}
	return reports, nil
}

// barrier is one wait for a containment.
type barrier struct {
	s         *Server
	c         *policy.Containment
	cancelled map[uint64]time.Time
	waited    map[uint64]bool
	cancels   int
}

// hard reports whether transactions in flight have had their time.
func (b *barrier) hard(now time.Time) bool {
	return b.c.InFlight == policy.RefuseCommit || !now.Before(b.c.DrainUntil)
}

// sessions waits until no session can commit.
func (b *barrier) sessions(ctx context.Context) error {
	tick := time.NewTicker(barrierPoll)
	defer tick.Stop()
	for {
		waiting := b.look(ctx)
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("read-only is in force, but the barrier does not hold yet: waiting for sessions %s: %w", strings.Join(waiting, ", "), ctx.Err())
		case <-tick.C:
		}
	}
}

// look returns the sessions that still have to be waited for.
func (b *barrier) look(ctx context.Context) []string {
	var waiting []string
	for _, c := range b.s.all() {
		open, unaided := false, false
		now := b.s.deps.Now()
		c.pair.Do(func(x *session.Session) {
			if b.covers(x.Subject(), now) {
				open, unaided = x.InFlight(b.c)
			}
		})
		if !unaided && (!open || b.hard(now)) {
			continue
		}
		waiting = append(waiting, strconv.FormatUint(c.id, 10))
		b.waited[c.id] = true
		if last, done := b.cancelled[c.id]; b.hard(now) && (!done || now.Sub(last) > barrierCancel) {
			b.cancelled[c.id] = now
			b.cancels++
			b.s.warnCancel(b.s.cancelOn(ctx, c))
		}
	}
	return waiting
}

// covers reports whether the containment is the subject's.
func (b *barrier) covers(sub *policy.Subject, now time.Time) bool {
	return b.s.deps.Decider.Current().Covers(sub, b.c.Epoch, now)
}

// servers returns one key of the server map for each server in scope.
func (b *barrier) servers() []string {
	var out []string
	seen := map[string]bool{}
	for _, key := range sortedKeys(b.s.cfg.Servers) {
		t := b.s.cfg.Servers[key]
		if !b.meansServer(key) {
			continue
		}
		if seen[t.identity()] {
			continue
		}
		seen[t.identity()] = true
		out = append(out, key)
	}
	return out
}

// meansServer reports whether sessions in scope may be on the server of a key:
// all databases that have no key of their own are on that of "*".
func (b *barrier) meansServer(key string) bool {
	d := b.c.Scope.Database
	if key != "*" {
		return b.c.Scope.MayMatch(key)
	}
	return strings.Contains(d, "*") || d == "" || !b.s.cfg.hasServer(d)
}

func (c *Config) hasServer(database string) bool {
	_, ok := c.Servers[database]
	return ok
}

// server waits for lost processes of one server and reads its WAL position.
func (b *barrier) server(ctx context.Context, key string) (*BarrierReport, error) {
	r := &BarrierReport{Target: key, Time: b.s.deps.Now(), Waited: len(b.waited), Cancelled: b.cancels}
	t := b.s.cfg.Servers[key]
	if t.Control == "" {
		r.Lacking = append(r.Lacking, "no WAL position: set server."+key+".control to a login with pg_monitor and pg_signal_backend")
		if lost := b.s.processes.lostOf(b.s.of(&t, &endpoint{})); len(lost) > 0 {
			r.Lacking = append(r.Lacking, fmt.Sprintf("%d server processes whose client is gone could not be looked up; they may still commit", len(lost)))
		}
		return r, nil
	}
	for _, e := range b.s.controlled(ctx, &t, r) {
		if err := b.endpoint(ctx, &t, &e, r); err != nil {
			return nil, err
		}
	}
	if r.LSN == "" && len(r.Lacking) == 0 {
		r.Lacking = append(r.Lacking, "no WAL position: no address of server."+key+" is a primary that can be reached")
	}
	return r, nil
}

// controlled returns where lockkeeper's own connections to a target have to
// go: each address that it has now, or had when a process there was lost. Where
// there is only one they go wherever the connection string says.
func (s *Server) controlled(ctx context.Context, t *Target, r *BarrierReport) []endpoint {
	if !t.failsOver() {
		return []endpoint{{}}
	}
	all, err := s.endpoints(ctx, t)
	if err != nil {
		r.Lacking = append(r.Lacking, err.Error())
	}
	for _, x := range s.processes.lostOf(s.of(t, &endpoint{})) {
		known := x.Address == "" || slices.ContainsFunc(all, func(e endpoint) bool { return e.address == x.Address })
		if host, port, err := net.SplitHostPort(x.Address); !known && err == nil {
			all = append(all, endpoint{host: host, port: port, network: "tcp", address: x.Address})
		}
	}
	return all
}

// endpoint waits for lost processes at one address, and reads the WAL position
// of a primary.
func (b *barrier) endpoint(ctx context.Context, t *Target, e *endpoint, r *BarrierReport) error {
	control, err := connectControl(ctx, t, e)
	if err != nil {
		if e.address == "" || len(b.s.processes.lostOf(b.s.of(t, e))) > 0 { // another address may have the position
			r.Lacking = append(r.Lacking, "no WAL position, and processes without a client were not looked up: "+err.Error())
		}
		return nil
	}
	defer closeControl(ctx, control)
	if err := b.lost(ctx, control, b.s.of(t, e), r); err != nil {
		return err
	}
	return b.position(ctx, control, r)
}

// of matches the processes of a target at an address; at any with the zero
// endpoint.
func (s *Server) of(t *Target, e *endpoint) func(*process) bool {
	return func(x *process) bool {
		if e.address != "" && x.Address != "" && x.Address != e.address {
			return false
		}
		other, ok := s.cfg.Servers[x.Server]
		return !ok || other.identity() == t.identity() // of an earlier configuration: look everywhere
	}
}

// lost waits for processes whose client is gone, and terminates them when
// their time is over.
func (b *barrier) lost(ctx context.Context, control *pgconn.PgConn, which func(*process) bool, r *BarrierReport) error {
	tick := time.NewTicker(lostPoll)
	defer tick.Stop()
	for {
		lost := b.s.processes.lostOf(which)
		if len(lost) == 0 {
			return nil
		}
		alive, err := aliveProcesses(ctx, control, lost)
		if err != nil {
			return fmt.Errorf("look up server processes without a client: %w", err)
		}
		b.s.processes.found(without(lost, alive))
		if len(alive) == 0 {
			return nil
		}
		if b.hard(b.s.deps.Now()) {
			if err := terminate(ctx, control, alive); err != nil {
				return fmt.Errorf("terminate server processes without a client (does the control role have pg_signal_backend?): %w", err)
			}
			r.Terminated = max(r.Terminated, len(alive))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("read-only is in force, but the barrier does not hold yet: %d server processes without a client go on: %w", len(alive), ctx.Err())
		case <-tick.C:
		}
	}
}

// pruneEvery is how often lost processes are looked up while there are any.
const pruneEvery = time.Minute

// pruneLoop forgets lost processes that are gone, until stop is closed.
func (s *Server) pruneLoop(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if s.processes.lostCount() == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, pruneEvery)
		if err := s.pruneLost(ctx); err != nil {
			s.deps.Logger.LogAttrs(ctx, slog.LevelWarn, "server processes without a client were not looked up", slog.String("cause", err.Error()))
		}
		cancel()
	}
}

// pruneLost forgets lost processes that are gone.
func (s *Server) pruneLost(ctx context.Context) error {
	var all []error
	for _, t := range s.distinctTargets() {
		var unresolved BarrierReport
		if t.Control == "" || len(s.processes.lostOf(s.of(t, &endpoint{}))) == 0 {
			continue
		}
		for _, e := range s.controlled(ctx, t, &unresolved) {
			all = append(all, s.pruneAt(ctx, t, &e))
		}
	}
	return errors.Join(all...)
}

// pruneAt forgets lost processes of one address that are gone.
func (s *Server) pruneAt(ctx context.Context, t *Target, e *endpoint) error {
	lost := s.processes.lostOf(s.of(t, e))
	if len(lost) == 0 {
		return nil
	}
	control, err := connectControl(ctx, t, e)
	if err != nil {
		return err
	}
	defer closeControl(ctx, control)
	alive, err := aliveProcesses(ctx, control, lost)
	if err == nil {
		s.processes.found(without(lost, alive))
	}
	return err
}

func (b *barrier) position(ctx context.Context, control *pgconn.PgConn, r *BarrierReport) error {
	standby, err := oneRow(ctx, control, "SELECT pg_catalog.pg_is_in_recovery()")
	if err != nil {
		return fmt.Errorf("ask server for its role: %w", err)
	}
	if string(standby[0]) == "t" {
		return nil // nothing is written there
	}
	row, err := oneRow(ctx, control, "SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())")
	if err != nil {
		return fmt.Errorf("read the WAL position: %w", err)
	}
	r.LSN = string(row[0])
	seconds, err := strconv.ParseFloat(string(row[1]), 64)
	if err != nil {
		return fmt.Errorf("read the server's clock: %w", err)
	}
	r.Time = time.UnixMicro(int64(seconds * 1e6)).UTC()
	return loginTriggers(ctx, control, r)
}

// loginTriggers names the databases in which a trigger runs at every login:
// what it writes is committed before the session's first statement, and not
// stopped by anything that lockkeeper sends. Source: manual, 40.1 "Overview of
// Event Trigger Behavior" and 53.15 "pg_database" of PostgreSQL 17.
func loginTriggers(ctx context.Context, control *pgconn.PgConn, r *BarrierReport) error {
	results, err := control.Exec(ctx, "SELECT d.datname FROM pg_catalog.pg_database d WHERE pg_catalog.jsonb_extract_path_text("+
		"pg_catalog.to_jsonb(d), 'dathasloginevt') OPERATOR(pg_catalog.=) 'true'").ReadAll() // older servers have no such column
	if err != nil {
		return fmt.Errorf("look for login event triggers: %w", err)
	}
	for _, row := range results[0].Rows {
		r.Lacking = append(r.Lacking, fmt.Sprintf("database %s has a login event trigger: what that writes is committed at every login; "+
			"see whether it writes, and if so ALTER EVENT TRIGGER … DISABLE", row[0]))
	}
	return nil
}

// connectControl opens lockkeeper's own connection to a server; to one of its
// addresses where there may be several.
func connectControl(ctx context.Context, t *Target, e *endpoint, change ...func(*pgconn.Config)) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	fixed := t.failsOver() && e.address != ""
	conninfo := t.Control
	if fixed {
		conninfo = withHost(conninfo, e)
	}
	cfg, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, errors.New("control connection: its connection string cannot be read") // the error would quote it
	}
	if fixed {
		cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
		cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, e.network, e.address)
		}
	}
	cfg.RuntimeParams["application_name"] = "lockkeeper"
	for _, f := range change {
		f(cfg)
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("control connection: %w", err)
	}
	return c, nil
}

// withHost puts one host and port in the place of those that a connection
// string has.
func withHost(conninfo string, e *endpoint) string {
	if !strings.HasPrefix(conninfo, "postgres://") && !strings.HasPrefix(conninfo, "postgresql://") {
		quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
		return conninfo + " host='" + quote(e.host) + "' port=" + e.port
	}
	u, err := url.Parse(conninfo)
	if err != nil {
		return conninfo // the caller complains of it
	}
	q := u.Query()
	q.Set("host", e.host)
	q.Set("port", e.port)
	u.Host, u.RawQuery = "", q.Encode()
	return u.String()
}

const controlTimeout = 5 * time.Second

func closeControl(ctx context.Context, c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.Close(ctx) // nothing depends on it
}

func oneRow(ctx context.Context, c *pgconn.PgConn, sql string) ([][]byte, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, errors.New("unexpected answer")
	}
	return results[0].Rows[0], nil
}

// aliveProcesses returns those that pg_stat_activity still shows, for the same
// user and database and begun not long after the session. A process id that
// was given to somebody else is not one of them.
func aliveProcesses(ctx context.Context, c *pgconn.PgConn, lost []process) ([]process, error) {
	pids := make([]string, 0, len(lost))
	for i := range lost {
		pids = append(pids, strconv.FormatUint(uint64(lost[i].PID), 10))
	}
	results, err := c.Exec(ctx, "SELECT pid, usename, pg_catalog.date_part('epoch', backend_start) FROM pg_catalog.pg_stat_activity"+
		" WHERE pid OPERATOR(pg_catalog.=) ANY ('{"+strings.Join(pids, ",")+"}')").ReadAll()
	if err != nil {
		return nil, err
	}
	var alive []process
	for _, row := range results[0].Rows {
		for i := range lost {
			if x := &lost[i]; string(row[0]) == strconv.FormatUint(uint64(x.PID), 10) && x.is(string(row[1]), string(row[2])) {
				alive = append(alive, *x)
			}
		}
	}
	return alive, nil
}

// maxStartDelay is more than passes between the beginning of a session and that
// of its server process, by two clocks.
const maxStartDelay = 10 * time.Minute

// is reports whether a server process of that user, which began at start (in
// seconds since 1970), is the session's. A role without pg_monitor does not see
// when processes began: then the process id and the user have to do.
func (x *process) is(user, start string) bool {
	if user != "" && user != x.User {
		return false
	}
	seconds, err := strconv.ParseFloat(start, 64)
	return err != nil || time.UnixMicro(int64(seconds*1e6)).Before(x.Since.Add(maxStartDelay))
}

func without(all, some []process) []process {
	return slices.DeleteFunc(slices.Clone(all), func(x process) bool {
		return slices.ContainsFunc(some, func(y process) bool { return y.PID == x.PID })
	})
}

func terminate(ctx context.Context, c *pgconn.PgConn, alive []process) error {
	for i := range alive {
		if _, err := c.Exec(ctx, "SELECT pg_catalog.pg_terminate_backend("+strconv.FormatUint(uint64(alive[i].PID), 10)+")").ReadAll(); err != nil {
			return err
		}
	}
	return nil
}
