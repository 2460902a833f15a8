// Package api is the operator's HTTP interface: JSON under /v1, with bearer tokens.
package api

import (
	"context"
	_ "embed" // the OpenAPI document
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// The limits of a request.
const (
	maxBodyBytes    = 2 << 20          // a policy or a statement to explain; everything else is small
	requestTime     = 30 * time.Second // but for mode read-only, which waits for its barrier
	maxOpenRequests = 64               // at a time; then 503
)

//go:embed openapi.json
var openAPI []byte

// Querier reads the journal.
type Querier interface {
	Query(ctx context.Context, f journal.Filter) ([]journal.Entry, error)
	Failing() bool // it cannot be written
}

// Deps are what the interface works with.
type Deps struct {
	Control    *control.Control
	Locks      []*locks.Server
	Journal    Querier
	Tokens     []Token
	Version    string
	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger
	Now        func() time.Time
	Unwatched  func() []string // servers that the watchdog cannot look at; may be nil
}

// Handler answers requests.
type Handler struct {
	deps       Deps
	identities []identity
	mux        *http.ServeMux
	open       chan struct{}
	requests   *prometheus.CounterVec
}

// operation is one route. Those with a role need a token of that role.
type operation struct {
	method, path string
	role         Role
	id           string // operationId, and the label in metrics
	summary      string
	query        []string // names of query parameters
	request      any      // a value of the body's type; nil where there is none
	response     any      // a value of the answer's type; nil where it is not JSON
	long         bool     // may take longer than requestTime
	serve        func(h *Handler, r *http.Request) (any, error)
}

// operations is the whole interface.
var operations = []operation{
	{"GET", "/healthz", NoRole, "healthz", "The process lives.", nil, nil, Done{}, false, (*Handler).healthz},
	{"GET", "/readyz", NoRole, "readyz", "Clients may be sent here.", nil, nil, Done{}, false, (*Handler).readyz},
	{"GET", "/metrics", Viewer, "metrics", "Metrics in Prometheus' format.", nil, nil, nil, false, nil},
	{"GET", "/v1/openapi.json", Viewer, "openapi", "This document.", nil, nil, nil, false, nil},
	{"GET", "/v1/status", Viewer, "status", "Mode, containments, policy and sessions at a glance.", nil, nil, Status{}, false, (*Handler).status},
	{"GET", "/v1/sessions", Viewer, "sessions", "Live sessions.", nil, nil, SessionList{}, false, (*Handler).sessions},
	{
		"POST", "/v1/sessions/{id}/cancel", Operator, "cancel", "Cancel what a session runs, or what is held of it.",
		nil,
		ReasonRequest{},
		Done{},
		false, (*Handler).cancel,
	},
	{
		"POST", "/v1/sessions/{id}/terminate", Operator, "terminate", "Close both sides of a session.",
		nil,
		ReasonRequest{},
		Done{},
		false, (*Handler).terminate,
	},
	{"GET", "/v1/mode", Viewer, "getMode", "The mode in force, with the state of read-only's barrier.", nil, nil, Mode{}, false, (*Handler).getMode},
	{
		"POST", "/v1/mode", Operator, "setMode",
		"Switch the mode. read-only answers when nothing that came through lockkeeper can commit a change any more.",
		nil,
		ModeRequest{},
		Change{},
		true, (*Handler).setMode,
	},
	{
		"GET", "/v1/containments", Viewer, "containments", "All restrictions in force.",
		nil, nil,
		ContainmentList{},
		false, (*Handler).containments,
	},
	{
		"POST", "/v1/containments/{id}/lift", Operator, "lift", "End one restriction, whatever its kind.",
		nil,
		ReasonRequest{},
		Change{},
		false, (*Handler).lift,
	},
	{"GET", "/v1/freeze", Viewer, "getFreeze", "DDL freezes in force.", nil, nil, ContainmentList{}, false, (*Handler).getFreeze},
	{"POST", "/v1/freeze", Operator, "freeze", "Refuse DDL.", nil, FreezeRequest{}, Change{}, false, (*Handler).freeze},
	{"POST", "/v1/unfreeze", Operator, "unfreeze", "Let DDL pass again.", nil, LiftRequest{}, Change{}, false, (*Handler).unfreeze},
	{"GET", "/v1/pause", Viewer, "getPauses", "Pauses in force.", nil, nil, ContainmentList{}, false, (*Handler).getPauses},
	{"POST", "/v1/pause", Operator, "pause", "Hold or refuse new transactions.", nil, PauseRequest{}, Change{}, false, (*Handler).pause},
	{"POST", "/v1/resume", Operator, "resume", "Lift pauses.", nil, LiftRequest{}, Change{}, false, (*Handler).resume},
	{"GET", "/v1/locks", Viewer, "locks", "Who waits for whom, on every server.", nil, nil, LockList{}, false, (*Handler).locks},
	{"GET", "/v1/policy", Viewer, "policy", "The policy in force.", nil, nil, control.PolicyInfo{}, false, (*Handler).policy},
	{
		"POST", "/v1/policy/check", Viewer, "checkPolicy", "Read a policy without putting it in force.",
		nil,
		PolicyText{},
		control.PolicyInfo{},
		false, (*Handler).checkPolicy,
	},
	{
		"POST", "/v1/policy/reload", Admin, "reloadPolicy", "Read the configured policy again. A bad one changes nothing.",
		nil,
		ReasonRequest{},
		control.PolicyInfo{},
		false, (*Handler).reloadPolicy,
	},
	{
		"POST", "/v1/policy/explain", Viewer, "explain", "What would become of a statement now, and why.",
		nil,
		ExplainRequest{},
		Explanation{},
		false, (*Handler).explain,
	},
	{
		"GET", "/v1/journal", Viewer, "journal", "Entries of the journal; since and until are times or durations ago.",
		[]string{"since", "until", "table", "user", "database", "kind", "rule", "session", "limit"},
		nil,
		JournalList{},
		false, (*Handler).journal,
	},
}

// New returns the handler of the whole interface. It fails without tokens:
// nothing would ever be allowed.
func New(deps Deps) (*Handler, error) {
	ids, err := identities(deps.Tokens)
	if err == nil && len(ids) == 0 {
		err = errors.New("no tokens are configured")
	}
	if err != nil {
		return nil, fmt.Errorf("admin interface: %w", err)
	}
	h := &Handler{deps: deps, identities: ids, mux: http.NewServeMux(), open: make(chan struct{}, maxOpenRequests)}
	h.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lockkeeper_admin_requests_total", Help: "Requests to the admin interface, by operation and status code.",
	}, []string{"operation", "code"})
	if deps.Registerer != nil {
		deps.Registerer.MustRegister(h.requests)
	}
	for i := range operations {
		h.mux.Handle(operations[i].method+" "+operations[i].path, h.route(&operations[i]))
	}
	h.mux.HandleFunc("/", h.unknown)
	return h, nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.open <- struct{}{}:
		defer func() { <-h.open }()
	default:
		h.fail(w, http.StatusServiceUnavailable, &Error{Error: "too many requests at a time", Hint: "Try again in a moment."})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	h.mux.ServeHTTP(w, r)
}

type identityKey struct{}

// author returns the name of the token that the request came with.
func author(r *http.Request) string {
	id, _ := r.Context().Value(identityKey{}).(identity)
	return id.name
}

// route wraps an operation: token, deadlines, encoding.
func (h *Handler) route(op *operation) http.Handler {
	raw := h.raw(op)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		defer func() { h.requests.WithLabelValues(op.id, strconv.Itoa(sw.code)).Inc() }()
		id, ok := h.authorise(sw, r, op)
		if !ok {
			return
		}
		ctx := context.WithValue(r.Context(), identityKey{}, id)
		if op.long {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // none; a recorder in tests has none to change
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, requestTime)
			defer cancel()
		}
		raw.ServeHTTP(sw, r.WithContext(ctx))
	})
}

// raw is the operation itself.
func (h *Handler) raw(op *operation) http.Handler {
	switch op.id {
	case "metrics":
		return promhttp.HandlerFor(h.deps.Gatherer, promhttp.HandlerOpts{})
	case "openapi":
		return http.HandlerFunc(serveOpenAPI)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := op.serve(h, r)
		if err != nil {
			h.failWith(w, r, err)
			return
		}
		h.write(w, http.StatusOK, answer)
	})
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // a client that is gone learns nothing
}

// authorise answers for requests whose token is not enough.
func (h *Handler) authorise(w http.ResponseWriter, r *http.Request, op *operation) (identity, bool) {
	if op.role == NoRole {
		return identity{}, true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		h.fail(w, http.StatusUnauthorized, &Error{Error: "a bearer token is needed", Hint: "Give --token-file, or run where the local token can be read."})
		return identity{}, false
	}
	id, ok := who(h.identities, token)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		h.fail(w, http.StatusUnauthorized, &Error{Error: "the token is not known"})
		return identity{}, false
	}
	if id.role < op.role {
		h.fail(w, http.StatusForbidden, &Error{
			Error: fmt.Sprintf("token %q is a %s's; this needs the role %s", id.name, id.role, op.role),
		})
		return identity{}, false
	}
	return id, true
}

func (h *Handler) unknown(w http.ResponseWriter, r *http.Request) {
	h.requests.WithLabelValues("unknown", "404").Inc()
	h.fail(w, http.StatusNotFound, &Error{
		Error: "there is no " + r.Method + " here", Hint: "GET /v1/openapi.json describes what there is.",
	})
}

// statusOf maps a kind of error to HTTP.
func statusOf(k control.ErrorKind) int {
	switch k {
	case control.Invalid:
		return http.StatusBadRequest
	case control.NotFound:
		return http.StatusNotFound
	case control.Unavailable:
		return http.StatusServiceUnavailable
	case control.Incomplete:
		return http.StatusGatewayTimeout
	case control.Unsaved:
		return http.StatusInsufficientStorage
	case control.Failed:
	}
	return http.StatusInternalServerError
}

func (h *Handler) failWith(w http.ResponseWriter, r *http.Request, err error) {
	body := &Error{Error: err.Error()}
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*control.Error](err); ok {
		status, body.Hint = statusOf(e.Kind), e.Hint
	}
	if status == http.StatusInternalServerError {
		h.deps.Logger.LogAttrs(r.Context(), slog.LevelWarn, "admin request failed",
			slog.String("path", r.URL.Path), slog.String("author", author(r)), slog.String("cause", err.Error()))
	}
	h.fail(w, status, body)
}

func (h *Handler) fail(w http.ResponseWriter, status int, body *Error) { h.write(w, status, body) }

func (h *Handler) write(w http.ResponseWriter, status int, body any) {
	data, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that is gone learns nothing
}

// statusWriter remembers the status for the metric.
type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader remembers the status.
func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap gives http.ResponseController the original.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// read decodes a request's body, strictly.
func read[T any](r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, &control.Error{Kind: control.Invalid, What: "read the request", Hint: "GET /v1/openapi.json describes it.", Err: err}
	}
	if d.More() {
		return v, &control.Error{Kind: control.Invalid, What: "read the request: there is more than one value in it"}
	}
	return v, nil
}

func by(r *http.Request, reason string) control.By {
	return control.By{Author: author(r), Reason: reason}
}

func asInForce(c policy.Containment) *control.InForce { return &control.InForce{Containment: c} }
