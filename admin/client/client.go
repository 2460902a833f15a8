// Package client speaks to the admin interface of a running lockkeeper.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
)

// The limits of one request.
const (
	dialTimeout  = 5 * time.Second
	maxBodyBytes = 256 << 20 // a journal's answer
)

// Config says where the interface is and who asks.
type Config struct {
	URL   string // http://127.0.0.1:6434
	Token string
	CA    string // file: who signed the interface's certificate; the system's where it is empty
}

// Client asks one lockkeeper. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  http.Client
}

// Error is what the interface refused, with what to do about it.
type Error struct {
	Status int
	What   string
	Hint   string
}

// Error returns what went wrong, without the hint.
func (e *Error) Error() string { return e.What }

// New returns a client.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an address like http://127.0.0.1:6434", cfg.URL)
	}
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout}
	if cfg.CA != "" {
		pool, err := loadCA(cfg.CA)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &Client{base: strings.TrimRight(cfg.URL, "/"), token: cfg.Token, http: http.Client{Transport: t}}, nil
}

func loadCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA: %s holds no certificate", path)
	}
	return pool, nil
}

// ask sends a request and decodes the answer. Only ctx limits how long it
// takes: read-only waits for its barrier.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	var in io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return answer, fmt.Errorf("encode the request: %w", err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return answer, fmt.Errorf("ask lockkeeper: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, fmt.Errorf("ask lockkeeper at %s: %w", c.base, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
	if err != nil {
		return answer, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return answer, refused(resp, data)
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("read the answer of %s, which may not be lockkeeper: %w", c.base, err)
	}
	return answer, nil
}

func refused(resp *http.Response, data []byte) error {
	var body api.Error
	if err := json.Unmarshal(data, &body); err != nil || body.Error == "" {
		return errors.New("lockkeeper answered " + resp.Status)
	}
	return &Error{Status: resp.StatusCode, What: body.Error, Hint: body.Hint}
}

// Status returns what operators look at first.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return ask[api.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Sessions returns the live sessions.
func (c *Client) Sessions(ctx context.Context) (api.SessionList, error) {
	return ask[api.SessionList](ctx, c, http.MethodGet, "/v1/sessions", nil)
}

// Cancel cancels what a session runs, or what is held of it.
func (c *Client) Cancel(ctx context.Context, id uint64, reason string) error {
	return c.onSession(ctx, id, "cancel", reason)
}

// Terminate closes both sides of a session.
func (c *Client) Terminate(ctx context.Context, id uint64, reason string) error {
	return c.onSession(ctx, id, "terminate", reason)
}

func (c *Client) onSession(ctx context.Context, id uint64, what, reason string) error {
	path := "/v1/sessions/" + strconv.FormatUint(id, 10) + "/" + what
	_, err := ask[api.Done](ctx, c, http.MethodPost, path, api.ReasonRequest{Reason: reason})
	return err
}

// Mode returns the mode in force.
func (c *Client) Mode(ctx context.Context) (api.Mode, error) {
	return ask[api.Mode](ctx, c, http.MethodGet, "/v1/mode", nil)
}

// SetMode switches the mode; read-only returns when its barrier holds.
func (c *Client) SetMode(ctx context.Context, r api.ModeRequest) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/mode", r)
}

// Containments returns all restrictions in force.
func (c *Client) Containments(ctx context.Context) (api.ContainmentList, error) {
	return ask[api.ContainmentList](ctx, c, http.MethodGet, "/v1/containments", nil)
}

// Lift ends one restriction.
func (c *Client) Lift(ctx context.Context, id, reason string) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/containments/"+url.PathEscape(id)+"/lift", api.ReasonRequest{Reason: reason})
}

// Freeze refuses DDL.
func (c *Client) Freeze(ctx context.Context, r api.FreezeRequest) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/freeze", r)
}

// Unfreeze lets DDL pass again.
func (c *Client) Unfreeze(ctx context.Context, r api.LiftRequest) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/unfreeze", r)
}

// Pause holds or refuses new transactions.
func (c *Client) Pause(ctx context.Context, r api.PauseRequest) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/pause", r)
}

// Resume lifts pauses.
func (c *Client) Resume(ctx context.Context, r api.LiftRequest) (api.Change, error) {
	return ask[api.Change](ctx, c, http.MethodPost, "/v1/resume", r)
}

// Locks returns who waits for whom.
func (c *Client) Locks(ctx context.Context) (api.LockList, error) {
	return ask[api.LockList](ctx, c, http.MethodGet, "/v1/locks", nil)
}

// Policy returns the policy in force.
func (c *Client) Policy(ctx context.Context) (control.PolicyInfo, error) {
	return ask[control.PolicyInfo](ctx, c, http.MethodGet, "/v1/policy", nil)
}

// CheckPolicy reads a policy without putting it in force.
func (c *Client) CheckPolicy(ctx context.Context, text string) (control.PolicyInfo, error) {
	return ask[control.PolicyInfo](ctx, c, http.MethodPost, "/v1/policy/check", api.PolicyText{Policy: text})
}

// ReloadPolicy lets lockkeeper read its policy again.
func (c *Client) ReloadPolicy(ctx context.Context, reason string) (control.PolicyInfo, error) {
	return ask[control.PolicyInfo](ctx, c, http.MethodPost, "/v1/policy/reload", api.ReasonRequest{Reason: reason})
}

// Explain says what would become of a statement now.
func (c *Client) Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	return ask[api.Explanation](ctx, c, http.MethodPost, "/v1/policy/explain", r)
}

// Journal returns entries; query has the parameters of GET /v1/journal.
func (c *Client) Journal(ctx context.Context, query url.Values) (api.JournalList, error) {
	path := "/v1/journal"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return ask[api.JournalList](ctx, c, http.MethodGet, path, nil)
}
