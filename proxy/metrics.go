package proxy

import (
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/policy"
	"lockkeeper/proxy/engine"
	"lockkeeper/proxy/session"
)

// metrics are the proxy's. Labels come from closed sets: rules and critical
// tables are those of the policy.
type metrics struct {
	messages     [2]atomic.Int64    // by direction; these two are counted with every statement
	statements   [6][3]atomic.Int64 // by class and verdict
	rules        *prometheus.CounterVec
	rows         *prometheus.CounterVec
	holds        *prometheus.HistogramVec
	stages       *prometheus.HistogramVec
	serverDenied prometheus.Counter

	sessionLimit, loginFailures, connectFailures, acceptErrors, cancels, connectRetries, wrongRole, evicted, proxyHeaders, proxyErrors prometheus.Counter

	limits, timeouts, lost, peerCancels, auth, authQueries *prometheus.CounterVec

	watchLooks                prometheus.Counter
	watchWaits, watchFailures *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		rules:           vec("lockkeeper_rule_decisions_total", "Statements that a rule or containment settled; enforced=false for rules in observe mode.", "rule", "enforced"),
		rows:            vec("lockkeeper_rows_written_total", "Rows changed, from command tags, by critical table (others together) and kind of statement.", "table", "kind"),
		serverDenied:    counter("lockkeeper_server_read_only_errors_total", "Writes that only the server saw and refused because lockkeeper had made the transaction READ ONLY."),
		sessionLimit:    counter("lockkeeper_session_limit_refusals_total", "Connections refused because limits.sessions was reached."),
		loginFailures:   counter("lockkeeper_login_failures_total", "Connections that ended before a session began."),
		connectFailures: counter("lockkeeper_server_connect_failures_total", "Connections to a server that failed."),
		limits:          vec("lockkeeper_limit_refusals_total", "Connections, or statements, refused with 53300: user for limits.user_sessions, database for limits.database_sessions (or what is set for one name), logins for limits.logins, held (statements) for limits.held_sessions, descriptors for the limit of open files (or disconnected for it, without a word).", "limit"),
		lost:            vec("lockkeeper_connections_lost_total", "Sessions ended because a connection broke: it was reset, or nothing was heard of the other side for as long as tcp allows.", "side"),
		peerCancels:     vec("lockkeeper_peer_cancels_total", "Cancel requests of clients that other lockkeepers were asked to handle, one for each asked: known (it did), unknown (it has no such session), failed.", "outcome"),
		auth:            vec("lockkeeper_authentications_total", "Clients that lockkeeper itself authenticated (auth: scram, cert or peer), by outcome: ok, refused, or failed for who went away or could not be looked up.", "method", "outcome"),
		authQueries:     vec("lockkeeper_auth_queries_total", "Look-ups of users by auth_query, by outcome: cached, found, unknown, failed, or busy where too many waited for an answer.", "outcome"),
		timeouts:        vec("lockkeeper_session_timeouts_total", "Sessions ended by idle_timeout, idle_in_transaction_timeout or transaction_timeout; statements cancelled by statement_timeout (statement), and sessions ended because that did not help (statement_kill).", "cause"),
		watchLooks:      counter("lockkeeper_watchdog_looks_total", "Looks of the watchdog at a server's locks, made while a session worked on something for longer than the shortest lock_timeout of a rule."),
		watchWaits:      vec("lockkeeper_watchdog_waits_total", "Waits for a lock on a critical table that went on for longer than a rule's lock_timeout, because the DDL was hidden or has undone it: cancelled, observed (rules that are not enforced), over before it was cancelled, failed to be cancelled.", "outcome"),
		watchFailures:   vec("lockkeeper_watchdog_failures_total", "Looks of the watchdog that could not be made: no_control (no control login), connect, query, names (which table is waited for).", "cause"),
		proxyHeaders:    counter("lockkeeper_proxy_headers_total", "PROXY headers read."),
		proxyErrors:     counter("lockkeeper_proxy_header_errors_total", "Connections from listen.proxy_protocol_from that did not begin with a PROXY header."),
		evicted:         counter("lockkeeper_logins_evicted_total", "Clients disconnected because limits.logins others had come and they had not said who they are."),
		connectRetries:  counter("lockkeeper_connect_retries_total", "Rounds through a server's addresses that clients were held for, after one that reached none."),
		wrongRole:       counter("lockkeeper_server_wrong_role_total", "Servers that answered and were not what target_session_attrs asks for."),
		acceptErrors:    counter("lockkeeper_accept_errors_total", "Errors of accept, such as running out of file descriptors."),
		cancels:         counter("lockkeeper_cancel_requests_total", "Cancel requests received."),
		holds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockkeeper_hold_seconds", Help: "How long statements were held, by cause.",
			Buckets: []float64{.01, .1, .5, 1, 5, 15, 60, 300},
		}, []string{"cause"}),
	}
	m.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "lockkeeper_stage_seconds", Help: "How long the slow stages of statements and logins took: connect (to the server, with the login where lockkeeper does it), auth_query (for a user's secret), inspect (of a text that was not known), record (until the journal's queue took it).",
		Buckets: prometheus.ExponentialBuckets(10e-6, 4, 11),
	}, []string{"stage"})
	reg.MustRegister(m.holds, m.stages)
	counted := func(n *atomic.Int64, name, help string, labels prometheus.Labels) {
		opts := prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}
		reg.MustRegister(prometheus.NewCounterFunc(opts, func() float64 { return float64(n.Load()) }))
	}
	for i, side := range [...]string{"client", "server"} {
		counted(&m.messages[i], "lockkeeper_messages_total", "Protocol messages relayed, by the side that sent them.", prometheus.Labels{"direction": side})
	}
	for c := range m.statements {
		for v := range m.statements[c] {
			labels := prometheus.Labels{"class": inspect.Class(c).String(), "verdict": policy.Verdict(v).String()} //nolint:gosec // both arrays are as long as the enums
			counted(&m.statements[c][v], "lockkeeper_statements_total", "Statements decided, by class and verdict.", labels)
		}
	}
	gauges(reg, s)
	return m
}

// gauges registers what is read when it is asked for.
func gauges(reg prometheus.Registerer, s *Server) {
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("lockkeeper_connections", "Client connections, logged in or not.", func() float64 { return float64(s.accepted.Load()) })
	gauge("lockkeeper_sessions", "Sessions with a server connection.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.sessions))
	})
	gauge("lockkeeper_logins", "Clients that have said who they are and are not logged in.", func() float64 { _, n := s.places.counts(); return float64(n) })
	gauge("lockkeeper_greetings", "Clients that have not said who they are.", func() float64 { return float64(s.greetings.count()) })
	gauge("lockkeeper_watchdog_connections", "Connections that the watchdog keeps, one for each server's address at most.", func() float64 { return float64(s.watchdog.connections()) })
	gauge("lockkeeper_watchdog_unwatched", "Servers that the watchdog cannot look at: they have no control login, or the last look has failed.", func() float64 { return float64(len(s.Unwatched())) })
	gauge("lockkeeper_connect_held", "Clients that are held until a server can be reached.", func() float64 { return float64(s.held.Load()) })
	gauge("lockkeeper_auth_file_users", "Users in all auth_files.", func() float64 { return float64(s.userCount()) })
	gauge("lockkeeper_auth_cache_users", "Users whose secrets auth_query found and that are kept.", func() float64 { return float64(s.queries.known.Len()) })
	gauge("lockkeeper_sessions_limit", "limits.sessions.", func() float64 { return float64(s.cfg.Limits.Sessions) })
	gauge("lockkeeper_descriptors", "File descriptors of clients and of the server connections for them.", func() float64 { return float64(s.descriptorsUsed()) })
	gauge("lockkeeper_descriptors_limit", "File descriptors that they may have: what the process may open, less a reserve for operators and the journal.", func() float64 { return float64(s.descriptors.clients) })
	gauge("lockkeeper_sessions_held", "Sessions whose statement is held.", func() float64 { return float64(s.holding.Load()) })
	gauge("lockkeeper_stats_databases", "Databases that SHOW STATS counts each on its own; the rest are one.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.stats.ended))
	})
	gauge("lockkeeper_collected_bytes", "Bytes of long texts being collected, beyond the sessions' first buffers.", func() float64 { return float64(s.budget.Used()) })
	gauge("lockkeeper_streams", "Long answers of servers that poll loops read in batches.", func() float64 { return float64(s.poller.Streams()) })
	gauge("lockkeeper_lost_processes", "Server processes that may go on without a client.", func() float64 { return float64(s.processes.lostCount()) })
	gauge("lockkeeper_read_only", "1 while a read-only containment is in force for anybody.", func() float64 { return s.contained(policy.ReadOnlyMode) })
	gauge("lockkeeper_observe", "1 while no rule is enforced (break-glass).", func() float64 { return s.contained(policy.ObserveMode) })
	gauge("lockkeeper_ddl_frozen", "1 while a DDL freeze is in force for anybody.", func() float64 { return s.contained(policy.FreezeDDL) })
	gauge("lockkeeper_paused", "1 while a pause is in force for anybody.", func() float64 { return s.contained(policy.Pause) })
}

func (s *Server) contained(kind policy.ContainmentKind) float64 {
	snap := s.deps.Decider.Current()
	if snap == nil {
		return 0
	}
	now := s.deps.Now()
	for i := range snap.Containments {
		if c := &snap.Containments[i]; c.Kind == kind && c.Active(now) {
			return 1
		}
	}
	return 0
}

// count adds what a session has to tell. Zeroes cost nothing.
func (m *metrics) count(c *session.Counts) {
	add(&m.messages[0], c.ClientMessages)
	add(&m.messages[1], c.ServerMessages)
	if c.Decided > 0 {
		m.decided(policy.Allow, &c.Allowed)
	}
}

func (m *metrics) decided(v policy.Verdict, byClass *[6]int64) {
	for class, n := range byClass {
		add(&m.statements[class][v], n)
	}
}

// incidents is count for what is not everyday.
func (m *metrics) incidents(c *session.Incidents, snap *policy.Snapshot) {
	m.decided(policy.Refuse, &c.Refused)
	m.decided(policy.Disconnect, &c.Disconnected)
	m.serverDenied.Add(float64(c.ServerReadOnly))
	for _, r := range c.Rules {
		m.rules.WithLabelValues(r.Rule, strconv.FormatBool(!r.Observed)).Inc()
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		m.rows.WithLabelValues(tableLabel(snap, &r.Relation), string(r.Kind)).Add(float64(r.Rows))
	}
	for _, h := range c.Holds {
		m.holds.WithLabelValues(h.Cause).Observe(h.Time.Seconds())
	}
}

// ended counts what ended a session, where that was a fault.
func (m *metrics) ended(cause string) {
	switch {
	case strings.HasPrefix(cause, engine.ClientLost):
		m.lost.WithLabelValues("client").Inc()
	case strings.HasPrefix(cause, engine.ServerLost):
		m.lost.WithLabelValues("server").Inc()
	}
}

func add(c *atomic.Int64, n int64) {
	if n > 0 {
		c.Add(n)
	}
}

// tableLabel names a critical table; all others are one.
func tableLabel(snap *policy.Snapshot, r *inspect.Relation) string {
	if snap != nil && snap.Policy != nil && snap.Policy.Critical(r.Schema, r.Name) {
		return r.Name
	}
	return "other"
}
