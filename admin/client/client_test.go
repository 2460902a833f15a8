package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// server answers every request with one status and body, and remembers the
// last request.
func server(t *testing.T, status int, body string) (*Client, *http.Request) {
	t.Helper()
	last := &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = *r
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	c, err := New(Config{URL: s.URL + "/", Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c, last
}

func TestRequestCarriesTheTokenAndTheQuery(t *testing.T) {
	c, last := server(t, http.StatusOK, `{"entries": [{"kind": "gap", "count": 3}]}`)
	got, err := c.Journal(t.Context(), url.Values{"since": {"30m"}, "table": {"a b"}})
	if err != nil || len(got.Entries) != 1 || got.Entries[0].Count != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	if last.Header.Get("Authorization") != "Bearer secret" || last.URL.Path != "/v1/journal" || last.URL.Query().Get("table") != "a b" {
		t.Errorf("asked %s with %q", last.URL, last.Header.Get("Authorization"))
	}
}

func TestRefusalKeepsItsHint(t *testing.T) {
	c, _ := server(t, http.StatusForbidden, `{"error": "no", "hint": "ask somebody"}`)
	_, err := c.Status(t.Context())
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != http.StatusForbidden || e.What != "no" || e.Hint != "ask somebody" {
		t.Errorf("got %#v", err)
	}
}

func TestStrangersAreRecognised(t *testing.T) {
	for _, answer := range []struct {
		status int
		body   string
	}{{http.StatusBadGateway, "<html>"}, {http.StatusOK, "<html>"}, {http.StatusNotFound, "{}"}} {
		c, _ := server(t, answer.status, answer.body)
		if _, err := c.Status(t.Context()); err == nil {
			t.Errorf("%d %s was taken for lockkeeper's", answer.status, answer.body)
		}
	}
}

func TestAddressIsChecked(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:6434", "ftp://x", "http://"} {
		if _, err := New(Config{URL: address}); err == nil {
			t.Errorf("%q is accepted", address)
		}
	}
	if _, err := New(Config{URL: "https://x", CA: "client_test.go"}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("got %v", err)
	}
}
