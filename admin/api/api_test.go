package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/admin/control"
	"lockkeeper/admin/locks"
	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// fakeProxy has one session and a barrier that holds at once.
type fakeProxy struct{}

var moment = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (fakeProxy) Sessions() []proxy.SessionInfo {
	return []proxy.SessionInfo{{
		ID: 7, User: "odoo", Database: "prod", Application: "odoo-1", Address: "10.0.0.1", Tags: []string{"worker"}, Target: "*", ServerPID: 11,
		Connected: moment, State: "active", StateSince: moment, HeldBy: "x", TxSince: moment, Statement: "UPDATE", Fingerprint: 1 << 63, RowsWritten: 5,
	}}
}
func (fakeProxy) CancelSession(context.Context, uint64) error    { return nil }
func (fakeProxy) TerminateSession(context.Context, uint64) error { return nil }
func (fakeProxy) Wake()                                          {}
func (fakeProxy) Barrier(_ context.Context, c policy.Containment) ([]proxy.BarrierReport, error) {
	if c.Scope.Tag == "stuck" {
		return nil, context.DeadlineExceeded
	}
	return []proxy.BarrierReport{{Target: "*", LSN: "0/1", Time: moment, Lacking: []string{"something"}}}, nil
}

type fakeInspector struct{}

func (fakeInspector) Inspect(context.Context, []byte, inspect.Lexing) *inspect.Batch {
	return &inspect.Batch{Class: inspect.Write, Statements: []inspect.Statement{{
		Class: inspect.Write, Kind: inspect.KindDelete, Bound: inspect.BoundNone,
		Relations: []inspect.Relation{{Name: "account_move", Access: inspect.AccessDelete, Bound: inspect.BoundNone}},
	}}}
}

// fixture is the interface with everything behind it, the proxy excepted.
type fixture struct {
	t       *testing.T
	handler *Handler
	journal *journal.Journal
	policy  string
}

func tokens() []Token {
	sum := sha256.Sum256([]byte("operator-token-xyz"))
	return []Token{
		{Name: "v", Role: "viewer", Token: "viewer-token-12345"},
		{Name: "o", Role: "operator", SHA256: hex.EncodeToString(sum[:])},
		{Name: "a", Role: "admin", Token: "admin-token-123456"},
	}
}

var tokenOf = map[Role]string{Viewer: "viewer-token-12345", Operator: "operator-token-xyz", Admin: "admin-token-123456"}

func newFixture(t *testing.T, servers ...*locks.Server) *fixture {
	t.Helper()
	f := &fixture{t: t, policy: "profile: odoo\n"}
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	var err error
	if f.journal, err = journal.Open(t.Context(), journal.Config{Path: filepath.Join(dir, "j.db")}, logger, reg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.journal.Close() })
	c, err := control.Open(control.Options{
		StatePath: filepath.Join(dir, "state.json"), Decider: &policy.Decider{}, Inspector: fakeInspector{}, Journal: f.journal,
		Logger: logger, Registerer: reg, Now: time.Now,
		LoadPolicy: func() (*policy.Policy, control.Source, error) {
			p, err := policy.Parse([]byte(f.policy), "p.yaml")
			return p, control.Source{File: "p.yaml", Text: f.policy}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Attach(fakeProxy{})
	f.handler, err = New(Deps{
		Control: c, Locks: servers, Journal: f.journal, Tokens: tokens(), Version: "test", Gatherer: reg, Registerer: reg,
		Logger: logger, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ask sends a request with a token and returns status and body.
func (f *fixture) ask(token, method, path, body string) (int, string) {
	f.t.Helper()
	r := httptest.NewRequestWithContext(f.t.Context(), method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestResponsesConformToTheDocument asks every operation and checks the real
// answer's fields against the schema.
func TestResponsesConformToTheDocument(t *testing.T) {
	pg := pgtest.Shared(t)
	f := newFixture(t, &locks.Server{Name: "main", Targets: []string{"*"}, Control: pg.ConnString("postgres")}, &locks.Server{Name: "none"})
	holder, err := pg.Connect(t.Context(), pg.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(context.Background()) }()
	if _, err := holder.Exec(t.Context(), "CREATE TABLE x (); BEGIN; LOCK TABLE x"); err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{
		"cancel": `{"reason": "r"}`, "terminate": `{"reason": "r"}`, "lift": `{"reason": "r"}`, "reloadPolicy": `{"reason": "r"}`,
		"setMode": `{"mode": "read-only", "reason": "r", "in_flight": "drain", "drain": "10s", "for": "1h", "scope": {"user": "a"}}`,
		"freeze":  `{"reason": "r", "for": "30m"}`, "unfreeze": `{"reason": "r"}`, "pause": `{"reason": "r", "scope": {"tag": "cron"}, "max_hold": "5s"}`,
		"resume": `{"reason": "r"}`, "checkPolicy": `{"policy": "profile: odoo"}`, "explain": `{"sql": "delete from account_move", "user": "odoo"}`,
	}
	var doc object
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	setup := func() { // something to be seen and lifted
		f.ask(tokenOf[Operator], "POST", "/v1/freeze", `{"reason": "r"}`)
		f.ask(tokenOf[Operator], "POST", "/v1/mode", `{"mode": "read-only", "reason": "r"}`)
	}
	for i := range operations {
		op := &operations[i]
		if op.response == nil {
			continue
		}
		setup()
		path := strings.NewReplacer("/sessions/{id}", "/sessions/7", "/containments/{id}", "/containments/"+f.someContainment()).Replace(op.path)
		code, body := f.ask(tokenOf[Admin], op.method, path, bodies[op.id])
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", op.id, code, body)
			continue
		}
		var value any
		if err := json.Unmarshal([]byte(body), &value); err != nil {
			t.Errorf("%s: %v", op.id, err)
			continue
		}
		described := doc["paths"].(object)[op.path].(object)[strings.ToLower(op.method)].(object)
		schema := described["responses"].(object)["200"].(object)["content"].(object)["application/json"].(object)["schema"].(object)
		if err := conform(doc, schema, value, op.id); err != nil {
			t.Errorf("%v in\n%s", err, body)
		}
	}
}

func (f *fixture) someContainment() string {
	_, body := f.ask(tokenOf[Viewer], "GET", "/v1/containments", "")
	var list ContainmentList
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Containments) == 0 {
		f.t.Fatalf("no containment: %s %v", body, err)
	}
	return list.Containments[0].ID
}

func TestEveryOperationNeedsItsRole(t *testing.T) {
	f := newFixture(t)
	for i := range operations {
		op := &operations[i]
		path := strings.ReplaceAll(op.path, "{id}", "4711")
		if op.role == NoRole {
			if code, body := f.ask("", op.method, path, ""); code != http.StatusOK {
				t.Errorf("%s without a token: %d %s", op.id, code, body)
			}
			continue
		}
		for _, token := range []string{"", "wrong-token-12345", tokenOf[Viewer][1:]} {
			if code, _ := f.ask(token, op.method, path, "{}"); code != http.StatusUnauthorized {
				t.Errorf("%s with token %q: %d", op.id, token, code)
			}
		}
		for role := Viewer; role <= Admin; role++ {
			code, body := f.ask(tokenOf[role], op.method, path, "{}")
			if denied := code == http.StatusForbidden; denied != (role < op.role) {
				t.Errorf("%s as %s: %d %s", op.id, role, code, body)
			}
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		name, method, path, body string
		code                     int
		error, hint              string
	}{
		{"no reason", "POST", "/v1/freeze", `{}`, 400, "needs a reason", "--reason"},
		{"unknown field", "POST", "/v1/freeze", `{"raeson": "x"}`, 400, "raeson", "openapi"},
		{"not JSON", "POST", "/v1/freeze", `reason`, 400, "read the request", "openapi"},
		{"two values", "POST", "/v1/freeze", `{"reason": "x"} {}`, 400, "more than one", ""},
		{"bad duration", "POST", "/v1/freeze", `{"reason": "x", "for": "soon"}`, 400, "soon", ""},
		{"unknown mode", "POST", "/v1/mode", `{"mode": "sideways", "reason": "x"}`, 400, "sideways", "read-only"},
		{"no such session", "POST", "/v1/sessions/8/cancel", `{"reason": "x"}`, 404, "no session 8", "sessions"},
		{"no number", "POST", "/v1/sessions/x/cancel", `{"reason": "x"}`, 400, "number", "sessions"},
		{"barrier stuck", "POST", "/v1/mode", `{"mode": "read-only", "reason": "x", "scope": {"tag": "stuck"}}`, 504, "in force", "refuse-commit"},
		{"bad policy", "POST", "/v1/policy/check", `{"policy": "profile: odoo\nrulez: 1"}`, 400, "policy:2:", ""},
		{"bad time", "GET", "/v1/journal?since=yesterday", "", 400, "since", "30m"},
		{"bad limit", "GET", "/v1/journal?limit=-1", "", 400, "limit", ""},
		{"nothing there", "GET", "/v1/nothing", "", 404, "no GET here", "openapi"},
		{"wrong method", "DELETE", "/v1/mode", "", 404, "no DELETE here", "openapi"},
	} {
		code, body := f.ask(tokenOf[Admin], test.method, test.path, test.body)
		var e Error
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Errorf("%s: %v in %s", test.name, err, body)
		}
		if code != test.code || !strings.Contains(e.Error, test.error) || !strings.Contains(e.Hint, test.hint) {
			t.Errorf("%s: %d %+v", test.name, code, e)
		}
	}
}

func TestActionsAreAttributedToTheToken(t *testing.T) {
	f := newFixture(t)
	if code, body := f.ask(tokenOf[Operator], "POST", "/v1/freeze", `{"reason": "why"}`); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	entries, err := f.journal.Query(t.Context(), journal.Filter{Kind: journal.ActionEntry})
	if err != nil || len(entries) != 1 || entries[0].User != "o" || entries[0].Reason != "why" || entries[0].Action != "freeze ddl" {
		t.Errorf("journal: %+v, %v", entries, err)
	}
}

func TestBodyIsBounded(t *testing.T) {
	f := newFixture(t)
	code, body := f.ask(tokenOf[Admin], "POST", "/v1/policy/check", `{"policy": "`+strings.Repeat("x", maxBodyBytes)+`"}`)
	if code != http.StatusBadRequest || !strings.Contains(body, "too large") {
		t.Errorf("%d %.200s", code, body)
	}
}

func TestRequestsAtATimeAreBounded(t *testing.T) {
	f := newFixture(t)
	for range maxOpenRequests {
		f.handler.open <- struct{}{}
	}
	if code, _ := f.ask("", "GET", "/healthz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("got %d", code)
	}
	<-f.handler.open
	if code, _ := f.ask("", "GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

func TestMetricsCountRequests(t *testing.T) {
	f := newFixture(t)
	f.ask(tokenOf[Viewer], "GET", "/v1/status", "")
	_, body := f.ask(tokenOf[Viewer], "GET", "/metrics", "")
	if !strings.Contains(body, `lockkeeper_admin_requests_total{code="200",operation="status"} 1`) {
		t.Error("the request is not counted")
	}
}

func TestTokensAreChecked(t *testing.T) {
	good := Token{Name: "n", Role: "viewer", Token: "0123456789abcdef"}
	for name, list := range map[string][]Token{
		"no name":      {{Role: "viewer", Token: good.Token}},
		"unknown role": {{Name: "n", Role: "king", Token: good.Token}},
		"no secret":    {{Name: "n", Role: "viewer"}},
		"two secrets":  {{Name: "n", Role: "viewer", Token: good.Token, SHA256: strings.Repeat("0", 64)}},
		"short":        {{Name: "n", Role: "viewer", Token: "123"}},
		"bad hash":     {{Name: "n", Role: "viewer", SHA256: "12"}},
		"same name":    {good, good},
	} {
		if err := ValidateTokens(list); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), good.Token) {
			t.Errorf("%s: the secret is in the error: %v", name, err)
		}
	}
	if _, err := New(Deps{}); err == nil {
		t.Error("an interface without tokens was made")
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	sum := strings.Repeat("ab", 32)
	if err := os.WriteFile(path, []byte("# people\n\nann viewer "+sum+"\nbob  admin\t"+sum[:62]+"cd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadTokens(path)
	if err != nil || len(got) != 2 || got[0] != (Token{Name: "ann", Role: "viewer", SHA256: sum}) || got[1].Name != "bob" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("ann viewer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTokens(path); err == nil || !strings.Contains(err.Error(), "tokens:1:") {
		t.Errorf("got %v", err)
	}
}

func TestLocalTokenIsPrivateAndStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	one, err := LocalToken(path)
	if err != nil {
		t.Fatal(err)
	}
	two, err := LocalToken(path)
	if err != nil || one != two || len(one.Token) < 40 || one.Role != "admin" {
		t.Errorf("got %+v, then %+v, %v", one, two, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestListeningBeyondLoopbackNeedsTLS(t *testing.T) {
	for listen, fine := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, "0.0.0.0:0": false, ":0": false, "10.1.2.3:0": false, "nonsense": false,
	} {
		if err := (&Config{Listen: listen}).Validate(); (err == nil) != fine {
			t.Errorf("%s without TLS: %v", listen, err)
		}
	}
	if err := (&Config{Listen: "0.0.0.0:0", Cert: "c", Key: "k"}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (&Config{Listen: "127.0.0.1:0", Cert: "c"}).Validate(); err == nil {
		t.Error("a certificate without a key is accepted")
	}
}

func TestServerServesTLSAndReloadsItsCertificate(t *testing.T) {
	certs, err := pgtest.WriteCertificates(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	s, err := Listen(t.Context(), Config{Listen: "127.0.0.1:0", Cert: certs.ServerCert, Key: certs.ServerKey}, f.handler, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- s.Serve() }()
	old := s.cert.Load()
	if err := s.Reload(); err != nil || s.cert.Load() == old {
		t.Errorf("the certificate was not loaded again: %v", err)
	}
	if err := os.WriteFile(certs.ServerCert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	old = s.cert.Load()
	if err := s.Reload(); err == nil || s.cert.Load() != old {
		t.Errorf("a bad certificate replaced the good one: %v", err)
	}
	client := trusting(t, certs.CA)
	resp, err := client.Get(fmt.Sprintf("https://%s/healthz", s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
	_ = resp.Body.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != http.ErrServerClosed { //nolint:errorlint // documented to be this one
		t.Errorf("Serve returned %v", err)
	}
}

// trusting returns an HTTP client that trusts the authority.
func trusting(t *testing.T, ca string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
