package console

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/admin/api"
	"lockkeeper/proxy/wire"
)

const secretToken = "0123456789abcdef"

// login introduces ann with a password and returns the console's answers up to
// the first ReadyForQuery or error.
func login(t *testing.T, tls bool, password string) (asked bool, sqlstate string) {
	t.Helper()
	keys, err := api.NewKeyring([]api.Token{{Name: "ann", Role: "viewer", Token: secretToken}, {Name: "bob", Role: "admin", Token: "another-" + secretToken}})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Deps{Database: "lockkeeper", Keys: keys, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	near, far := net.Pipe()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	startup := &wire.Startup{Code: wire.Version3 + 2, Parameters: []wire.Parameter{{Name: "user", Value: "ann"}, {Name: "_pq_.grease", Value: "1"}}}
	go func() { ended <- c.ServeConsole(ctx, far, startup, tls); _ = far.Close() }()
	t.Cleanup(func() { cancel(); _ = near.Close(); <-ended })
	f := pgproto3.NewFrontend(near, near)
	negotiated := false
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.NegotiateProtocolVersion:
			negotiated = len(m.UnrecognizedOptions) == 1
		case *pgproto3.AuthenticationCleartextPassword:
			asked = true
			f.Send(&pgproto3.PasswordMessage{Password: password})
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
		case *pgproto3.ErrorResponse:
			return asked, m.Code
		case *pgproto3.ReadyForQuery:
			if !negotiated {
				t.Error("the newer protocol was not negotiated")
			}
			return asked, ""
		}
	}
}

func TestPasswordsAreTakenWhereNobodyListens(t *testing.T) {
	for _, tt := range []struct {
		name, password string
		tls, asked     bool
		sqlstate       string
	}{
		{"in the clear from elsewhere", secretToken, false, false, "28000"},
		{"TLS", secretToken, true, true, ""},
		{"wrong", "0123456789abcdeX", true, true, "28P01"},
		{"somebody else's token", "another-" + secretToken, true, true, "28P01"},
		{"empty", "", true, true, "28P01"},
	} {
		if asked, sqlstate := login(t, tt.tls, tt.password); asked != tt.asked || sqlstate != tt.sqlstate {
			t.Errorf("%s: asked %v, SQLSTATE %q", tt.name, asked, sqlstate)
		}
	}
}

func TestRolesAreNeeded(t *testing.T) {
	for verb, want := range map[string]api.Role{"SHOW": api.Viewer, "SET": api.Viewer, "PAUSE": api.Operator, "KILL": api.Operator, "RELOAD": api.Admin, "SHUTDOWN": api.Admin} {
		if got := needs(verb); got != want {
			t.Errorf("%s needs %v, want %v", verb, got, want)
		}
	}
}
