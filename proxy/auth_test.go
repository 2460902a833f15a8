package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

// scramGuard authenticates by SCRAM, with TLS to the server, and keeps its log.
func scramGuard(t *testing.T, pg *pgtest.Server, a proxy.Auth, change ...func(*setup)) (*guard, *syncBuffer) {
	t.Helper()
	a.Method = proxy.AuthSCRAM
	log := &syncBuffer{}
	return newGuard(t, append([]func(*setup){func(s *setup) {
		s.pg, s.policy = pg, transparent
		s.cfg.TLS = clientSide(pg, "prefer")
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: pg.Host(), Port: uint16(pg.Port()), SSLMode: "require", Auth: a}}
		s.deps.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}}, change...)...), log
}

// bound is a client's way that needs channel binding.
const bound = "sslmode=require channel_binding=require"

// as connects as a user, and returns the error.
func (g *guard) as(user, more string) error {
	host, port, _ := net.SplitHostPort(g.addr)
	c, err := pgx.Connect(g.t.Context(), fmt.Sprintf("host=%s port=%s user=%s password=secret dbname=%s %s", host, port, user, g.db, more))
	if err == nil {
		_ = c.Close(context.Background())
	}
	return err
}

func TestRefusedLoginsTellNothing(t *testing.T) {
	pg := matrixServer(t)
	verifier := secretOf(t, pg, "scram")
	g, log := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{
		"scram": verifier, "plain": "secret", "hashed": secretOf(t, pg, "md5"),
	})})
	for _, sslmode := range []string{"sslmode=disable", bound} {
		if err := g.as("scram", sslmode); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ user, password string }{
			{"scram", "wrong"}, {"scram", "''"}, {"plain", "wrong"}, {"nobody", "secret"}, {"hashed", "secret"}, {strings.Repeat("long", 20), "secret"},
		} {
			err := g.as(tt.user, sslmode+" password="+tt.password)
			pgErr, _ := errors.AsType[*pgconn.PgError](err)
			if pgErr == nil || pgErr.Code != "28P01" || pgErr.Severity != "FATAL" || pgErr.Message != fmt.Sprintf("password authentication failed for user %q", tt.user) || pgErr.Detail+pgErr.Hint != "" {
				t.Errorf("%s with password %s, %s: %v", tt.user, tt.password, sslmode, err)
			}
		}
	}
	for _, want := range []string{"wrong password", "neither auth_file nor auth_query knows the user", "is an MD5 hash"} {
		settle(t, "the log says: "+want, func() bool { return strings.Contains(log.String(), want) })
	}
	for _, secret := range []string{verifier, verifier[len(verifier)-44:], "\"secret\"", secretOf(t, pg, "md5")} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

func TestTheServerHasTheLastWord(t *testing.T) {
	pg := ownMatrixServer(t)
	verifier := secretOf(t, pg, "scram")
	other, err := scram.ParseVerifier(verifier)
	if err != nil {
		t.Fatal(err)
	}
	otherFactors, _, err := scram.Derive("secret", other.Salt, 5000)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{"scram": verifier, "password": text(&otherFactors), "asker": secretOf(t, pg, "asker"), "trusted": verifier, "gone": verifier, "md5": "not the password"}
	pg.MustExec(t, "postgres", "ALTER ROLE asker CONNECTION LIMIT 0")
	pg.MustExec(t, "postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS false")
	g, log := scramGuard(t, pg, proxy.Auth{File: userlist(t, list)})
	for _, tt := range []struct{ user, more, code, message string }{
		{"asker", bound, "53300", "too many connections for role"},
		{"scram", bound + " dbname=nowhere", "3D000", `database "nowhere" does not exist`},
		{"scram", bound + " dbname=closed", "55000", "is not currently accepting connections"},
		{"scram", bound + " options='-c no_such=1'", "42704", "unrecognized configuration parameter"},
		{"gone", bound, "28000", "no pg_hba.conf entry"},
	} {
		err := g.as(tt.user, tt.more)
		if sqlstate(err) != tt.code || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s with %q: %v, want %s", tt.user, tt.more, err, tt.code)
		}
	}
	if err := g.as("md5", bound+" password='not the password'"); sqlstate(err) != "28P01" {
		t.Errorf("a password that only lockkeeper believes: %v", err)
	}
	if strings.Contains(log.String(), "not the password") {
		t.Error("the log has a password")
	}
	// What SCRAM needs of both sides to be the same.
	pg.MustExec(t, "postgres", "ALTER ROLE scram PASSWORD '"+text(&otherFactors)+"'")
	err = g.as("scram", bound)
	if sqlstate(err) != "28000" || !strings.Contains(err.Error(), "another salt or number of iterations") {
		t.Errorf("another number of iterations: %v", err)
	}
	if e, _ := errors.AsType[*pgconn.PgError](err); e == nil || !strings.Contains(e.Hint, "rolpassword") {
		t.Errorf("the hint does not help: %+v", e)
	}
	changed, _, err := scram.Derive("changed", other.Salt, other.Iterations)
	if err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", "ALTER ROLE scram PASSWORD '"+text(&changed)+"'")
	if err := g.as("scram", bound); sqlstate(err) != "28P01" || !strings.Contains(err.Error(), `password authentication failed for user "scram"`) {
		t.Errorf("a password changed on the server: %v", err)
	}
}

// text writes a verifier as PostgreSQL does.
func text(v *scram.Verifier) string {
	encode := base64.StdEncoding.EncodeToString
	stored, server := v.StoredKey, v.ServerKey
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", v.Iterations, encode(v.Salt), encode(stored[:]), encode(server[:]))
}

// What comes after the login is the server's: its settings, its process, its
// transactions, and what the startup packet asked for.
func TestSessionsBehindATerminatedLoginAreTheServers(t *testing.T) {
	pg := ownMatrixServer(t)
	pg.MustExec(t, "postgres", "ALTER ROLE scram REPLICATION")
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})})
	host, port, _ := net.SplitHostPort(g.addr)
	conninfo := fmt.Sprintf("host=%s port=%s user=scram password=secret dbname=%s %s", host, port, g.db, bound)
	c, err := pgx.Connect(t.Context(), conninfo+" application_name=mine options='-c work_mem=7MB -c DateStyle=German'")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var pid uint32
	var memory, application, style string
	err = c.QueryRow(t.Context(), "select pg_backend_pid(), current_setting('work_mem'), current_setting('application_name'), current_setting('DateStyle')").Scan(&pid, &memory, &application, &style)
	if err != nil || pid != c.PgConn().PID() || memory != "7MB" || application != "mine" || !strings.HasPrefix(style, "German") {
		t.Errorf("pid %d of %d, work_mem %s, application_name %s, DateStyle %s, %v", pid, c.PgConn().PID(), memory, application, style, err)
	}
	if got := c.PgConn().ParameterStatus("application_name"); got != "mine" || c.PgConn().ParameterStatus("server_version") == "" {
		t.Errorf("ParameterStatus of application_name is %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asleep := make(chan error, 1)
	go func() { _, err := c.Exec(context.Background(), "select pg_sleep(60)"); asleep <- err }()
	settle(t, "it sleeps", func() bool {
		return pg.Value(t, "postgres", "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'") == "1"
	})
	if err := c.PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-asleep; sqlstate(err) != "57014" {
		t.Errorf("after a cancel: %v", err)
	}
	r, err := pgconn.Connect(t.Context(), conninfo+" replication=database")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	if rows, err := r.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil || len(rows) != 1 || string(rows[0].Rows[0][3]) != g.db {
		t.Errorf("IDENTIFY_SYSTEM: %v", err)
	}
}

// target_session_attrs needs no login of lockkeeper's own where lockkeeper logs
// in for the client.
func TestRolesAreSeenInATerminatedLogin(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})}, func(s *setup) {
		target := s.cfg.Servers["*"]
		target.TargetSessionAttrs = "read-write"
		s.cfg.Servers["*"] = target
	})
	if err := g.as("scram", bound); err != nil {
		t.Error(err)
	}
}

func TestAuthQuery(t *testing.T) {
	pg := ownMatrixServer(t)
	pg.MustExec(t, "postgres", `CREATE ROLE late LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01'; CREATE ROLE never PASSWORD 'secret'; CREATE ROLE empty LOGIN;
		CREATE ROLE changing LOGIN PASSWORD 'secret' IN ROLE scram`)
	g, _ := scramGuard(t, pg, proxy.Auth{User: "asker", PasswordFile: secretFile(t, "secret")})
	for user, code := range map[string]string{
		"scram": "", "late": "28P01", "never": "28P01", "empty": "28P01", "nobody": "28P01", "md5": "28P01", "trusted": "", "pg_monitor": "28P01",
	} {
		if err := g.as(user, bound); sqlstate(err) != code || (err == nil) != (code == "") {
			t.Errorf("%s: %v, want %q", user, err, code)
		}
	}
	found := g.counted(t, "lockkeeper_auth_queries_total", "found")
	for range 3 {
		if err := g.as("scram", bound); err != nil {
			t.Error(err)
		}
	}
	if n := g.counted(t, "lockkeeper_auth_queries_total", "found"); n != found {
		t.Errorf("%v queries more, want those in the cache to do", n-found)
	}
	pg.MustExec(t, "postgres", "ALTER ROLE scram PASSWORD 'other'")
	settle(t, "the new password works", func() bool { return g.as("scram", bound+" password=other") == nil })
	if err := g.as("scram", bound); sqlstate(err) != "28P01" {
		t.Errorf("the old password: %v", err)
	}
	if err := g.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	if n := g.metric(t, "lockkeeper_auth_cache_users"); n != 0 {
		t.Errorf("%v secrets are kept after a reload", n)
	}
	settle(t, "every connection of lockkeeper's ends", func() bool {
		return pg.Value(t, "postgres", "select count(*) from pg_stat_activity where usename = 'asker'") == "0"
	})
}

func TestAuthQueriesThatFail(t *testing.T) {
	pg := matrixServer(t)
	for name, tt := range map[string]struct {
		a    proxy.Auth
		want string // in the log
	}{
		"no privileges": {proxy.Auth{User: "password"}, "permission denied"},
		"no password":   {proxy.Auth{User: "asker"}, "does not have"},
		"one column":    {proxy.Auth{User: "asker", Query: "select $1::text"}, "two columns"},
		"no function":   {proxy.Auth{User: "asker", Query: "select * from lookup($1)"}, "does not exist"},
		"no database":   {proxy.Auth{User: "asker", Database: "nowhere"}, `database \"nowhere\" does not exist`},
		"bad secret":    {proxy.Auth{User: "asker", Query: "select $1::text, 'SCRAM-SHA-256$hidden'"}, "not of the form"},
		"long secret":   {proxy.Auth{User: "asker", Query: "select $1::text, repeat('hidden', 10000)"}, "longer than"},
		"huge answer":   {proxy.Auth{User: "asker", Query: "select $1::text, repeat('hidden', 100000)"}, "auth_query"},
	} {
		if name != "no password" {
			tt.a.PasswordFile = secretFile(t, "secret")
		}
		g, log := scramGuard(t, pg, tt.a)
		if err := g.as("scram", bound); sqlstate(err) != "08001" || !strings.Contains(err.Error(), "cannot look up the passwords") {
			t.Errorf("%s: %v", name, err)
		}
		settle(t, name+": the log says "+tt.want, func() bool { return strings.Contains(log.String(), tt.want) })
		if strings.Contains(log.String(), "hidden") {
			t.Errorf("%s: the log is %s", name, log.String())
		}
	}
}

// Queries that hang are bounded in number and time, and are not left behind.
func TestAuthQueriesThatHang(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{User: "asker", PasswordFile: secretFile(t, "secret"), Query: "select $1::text, pg_sleep(600)::text"}, func(s *setup) {
		s.cfg.Limits.ConnectTimeout = 3 * time.Second
	})
	const running = "select count(*) from pg_stat_activity where usename = 'asker' and state = 'active'"
	errs := make(chan error, 2*proxy.AuthQuerySlots)
	for i := range cap(errs) {
		go func() { errs <- g.as("user"+strconv.Itoa(i), bound) }()
	}
	settle(t, "every place is taken", func() bool { return pg.Value(t, "postgres", running) >= strconv.Itoa(proxy.AuthQuerySlots) })
	for tries := 0; pg.Value(t, "postgres", running) > strconv.Itoa(proxy.AuthQuerySlots); tries++ { // one that was cancelled may still end
		if tries == 10 {
			t.Fatalf("more than %d queries run at a time", proxy.AuthQuerySlots)
		}
	}
	for range cap(errs) {
		if err := <-errs; sqlstate(err) != "08001" {
			t.Errorf("got %v", err)
		}
	}
	settle(t, "the server works for nobody any more", func() bool { return pg.Value(t, "postgres", running) == "0" })
	settle(t, "all are counted", func() bool {
		return g.counted(t, "lockkeeper_auth_queries_total", "failed")+g.counted(t, "lockkeeper_auth_queries_total", "busy") == float64(cap(errs))
	})
}

// counted is what a counter says for one outcome.
func (g *guard) counted(t *testing.T, name, outcome string) float64 {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "outcome" && l.GetValue() == outcome {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// saslClient is a raw client that has sent its startup packet and was offered
// SCRAM.
func saslClient(t *testing.T, g *guard, user string) *rawClient {
	t.Helper()
	c := dialRaw(t, g.addr)
	c.startup("user", user, "database", g.db)
	c.flush()
	if m := c.read(); m == nil || m.Type() != 'R' || !bytes.Equal(m.Body(), []byte("\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00")) {
		t.Fatalf("got %s", show(m))
	}
	return c
}

// prove logs a raw client in; it returns what follows AuthenticationSASLFinal.
func (c *rawClient) prove(password string) wire.Message {
	c.t.Helper()
	x := &scram.Client{Prover: scram.Password(password)}
	mechanism, _ := x.Choose([]string{scram.Name})
	first := x.First()
	c.send('p', mechanism, "\x00", string(binary.BigEndian.AppendUint32(nil, uint32(len(first)))), string(first))
	c.flush()
	final, err := x.Final(c.read().Body()[4:])
	if err != nil {
		c.t.Fatal(err)
	}
	c.send('p', string(final))
	c.flush()
	m := c.read()
	if m != nil && m.Type() == 'R' {
		if err := x.Verify(m.Body()[4:]); err != nil {
			c.t.Error(err)
		}
		m = c.read()
	}
	return m
}

func TestMalformedAuthenticationIsRefused(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})})
	initial := func(mechanism, data string) []byte {
		return wire.Append(nil, 'p', mechanism, "\x00", string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))), data)
	}
	for name, b := range map[string][]byte{
		"a query":                   wire.Append(nil, 'Q', "select 1\x00"),
		"a huge message":            initial(scram.Name, "n,,n=,r="+strings.Repeat("a", 5000)),
		"a message of a gigabyte":   {'p', 0x3f, 0xff, 0xff, 0xff},
		"an impossible length":      {'p', 0, 0, 0, 3},
		"a password":                wire.Append(nil, 'p', "secret\x00"),
		"another mechanism":         initial("SCRAM-SHA-1", "n,,n=,r=abc"),
		"channel binding":           initial(scram.NamePlus, "p=tls-server-end-point,,n=,r=abc"),
		"no mechanism":              {'p', 0, 0, 0, 4},
		"a name to act as":          initial(scram.Name, "n,a=postgres,n=,r=abc"),
		"nothing, but then garbage": append(wire.Append(nil, 'p', scram.Name+"\x00\xff\xff\xff\xff"), wire.Append(nil, 'p', "garbage")...),
	} {
		c := saslClient(t, g, "scram")
		c.conn.Write(b)
		m := c.read()
		if m != nil && m.Type() == 'R' { // the empty answer to nothing
			m = c.read()
		}
		if m == nil || m.Type() != 'E' || string(wire.Field(m.Body(), 'C')) != "08P01" {
			t.Errorf("%s: got %s", name, show(m))
		}
		if m := c.read(); m != nil {
			t.Errorf("%s: then %s", name, show(m))
		}
	}
	c := dialRaw(t, g.addr)
	c.conn.Write([]byte{0, 0, 0, 13, 0, 2, 0, 0, 'x', 0, 'y', 0, 0})
	if m := c.read(); m == nil || string(wire.Field(m.Body(), 'C')) != "0A000" {
		t.Errorf("protocol 2: got %s", show(m))
	}
	c = dialRaw(t, g.addr)
	c.startup("database", g.db)
	c.flush()
	if m := c.read(); m == nil || string(wire.Field(m.Body(), 'C')) != "28000" {
		t.Errorf("no user: got %s", show(m))
	}
	if n := pg.Value(t, "postgres", "select count(*) from pg_stat_activity where usename = 'scram' and datname = '"+g.db+"'"); n != "0" {
		t.Errorf("%s server connections were opened", n)
	}
}

// A proof is for one exchange.
func TestProofsCannotBeReplayed(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})})
	x := &scram.Client{Prover: scram.Password("secret"), Nonce: "alwaysTheSame"}
	x.Choose([]string{scram.Name})
	first := x.First()
	begin := func() (*rawClient, []byte) {
		c := saslClient(t, g, "scram")
		c.send('p', scram.Name, "\x00", string(binary.BigEndian.AppendUint32(nil, uint32(len(first)))), string(first))
		c.flush()
		return c, c.read().Body()[4:]
	}
	_, challenge := begin()
	proof, err := x.Final(challenge)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := begin()
	c.send('p', string(proof))
	c.flush()
	if m := c.read(); m == nil || m.Type() != 'E' || string(wire.Field(m.Body(), 'C')) != "08P01" {
		t.Errorf("a proof of another exchange: got %s", show(m))
	}
}

// Unknown users hear the same challenge every time, as known ones do.
func TestChallengesDoNotTellWhoThereIs(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram"), "plain": "secret"})})
	factors := func(user string) string {
		c := saslClient(t, g, user)
		c.send('p', scram.Name, "\x00\x00\x00\x00\x0b", "n,,n=,r=abc")
		c.flush()
		_, rest, _ := strings.Cut(string(c.read().Body()[4:]), ",")
		return rest
	}
	seen := map[string]string{}
	for _, user := range []string{"scram", "plain", "nobody", "nobody2"} {
		f := factors(user)
		if f != factors(user) || len(f) != len("s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096") || !strings.HasSuffix(f, ",i=4096") {
			t.Errorf("%s is challenged by %q", user, f)
		}
		if other := seen[f]; other != "" {
			t.Errorf("%s and %s are challenged alike", user, other)
		}
		seen[f] = user
	}
}

func TestClientsThatStopInTheMiddle(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})}, func(s *setup) {
		s.cfg.Limits.LoginTimeout = 3 * time.Second
	})
	silent := saslClient(t, g, "scram")
	left := saslClient(t, g, "scram")
	left.send('p', scram.Name, "\x00\x00\x00\x00\x0b", "n,,n=,r=abc")
	left.flush()
	left.read()
	left.conn.Close()
	if m := silent.read(); m != nil {
		t.Errorf("got %s, want the end", show(m))
	}
	settle(t, "both have given their places back", func() bool { return g.metric(t, "lockkeeper_logins") == 0 })
	if n := pg.Value(t, "postgres", "select count(*) from pg_stat_activity where usename = 'scram' and datname = '"+g.db+"'"); n != "0" {
		t.Errorf("%s server connections were opened", n)
	}
	settle(t, "both are counted", func() bool { return g.counted(t, "lockkeeper_authentications_total", "failed") == 2 })
}

// What the server says of the protocol's version reaches the client before
// AuthenticationOk.
func TestVersionNegotiationBehindATerminatedLogin(t *testing.T) {
	pg := matrixServer(t)
	g, _ := scramGuard(t, pg, proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})})
	c := dialRaw(t, g.addr)
	body := binary.BigEndian.AppendUint32(nil, 3<<16|9999)
	body = append(body, "user\x00scram\x00database\x00"+g.db+"\x00_pq_.x\x001\x00\x00"...)
	c.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...))
	if m := c.read(); m == nil || m.Type() != 'R' {
		t.Fatalf("got %s", show(m))
	}
	m := c.prove("secret")
	if m == nil || m.Type() != 'v' || !bytes.Contains(m.Body(), []byte("_pq_.x")) {
		t.Fatalf("got %s, want NegotiateProtocolVersion", show(m))
	}
	if got := types(c.until('Z', 1)); !strings.HasPrefix(got, "RS") || !strings.HasSuffix(got, "KZ") {
		t.Errorf("then %s", got)
	}
}

// inTheMiddle is somebody in the middle: it ends TLS with a certificate of its own
// and begins it again, as if it were a part of the network.
func inTheMiddle(t *testing.T, certs pgtest.Certificates, behind string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.ServerCert, certs.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	relay := func(c net.Conn) {
		defer all.Done()
		defer c.Close()
		s, err := net.Dial("tcp", behind)
		if err != nil {
			return
		}
		defer s.Close()
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // SSLRequest
			return
		}
		c.Write([]byte{'S'})
		s.Write(sslRequest())
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return
		}
		client := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
		server := tls.Client(s, &tls.Config{InsecureSkipVerify: true})
		all.Go(func() { io.Copy(server, client); s.Close() })
		io.Copy(client, server)
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Add(1)
			go relay(c)
		}
	})
	return l.Addr().String()
}

func TestSomebodyInTheMiddleIsNoticed(t *testing.T) {
	pg := matrixServer(t)
	theirs, err := pgtest.WriteCertificates(t.TempDir(), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	list := proxy.Auth{File: userlist(t, map[string]string{"scram": secretOf(t, pg, "scram")})}
	g, _ := scramGuard(t, pg, list)
	g.addr = inTheMiddle(t, theirs, g.addr)
	if err := g.as("scram", bound); sqlstate(err) != "28000" || !strings.Contains(err.Error(), "channel binding check failed") {
		t.Errorf("between client and lockkeeper: %v", err)
	}
	host, port, err := net.SplitHostPort(inTheMiddle(t, theirs, pg.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	g, _ = scramGuard(t, pg, list, func(s *setup) {
		target := s.cfg.Servers["*"]
		target.Host, target.Port = host, uint16(number)
		s.cfg.Servers["*"] = target
	})
	if err := g.as("scram", bound); sqlstate(err) != "28000" || !strings.Contains(err.Error(), "channel binding check failed") {
		t.Errorf("between lockkeeper and server: %v", err)
	}
}

func TestUsersAreReloaded(t *testing.T) {
	pg := matrixServer(t)
	verifier := secretOf(t, pg, "scram")
	file := userlist(t, map[string]string{"scram": verifier})
	g, _ := scramGuard(t, pg, proxy.Auth{File: file})
	write := func(text string) error {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return g.srv.Reload()
	}
	if err := write(`"trusted" "secret"`); err != nil {
		t.Fatal(err)
	}
	if err := g.as("trusted", bound); err != nil {
		t.Errorf("the new user: %v", err)
	}
	if err := g.as("scram", bound); sqlstate(err) != "28P01" {
		t.Errorf("the old user: %v", err)
	}
	if err := write("\n\"trusted\" secret"); err == nil || !strings.Contains(err.Error(), "userlist.txt:2: user") {
		t.Errorf("a broken file: %v", err)
	}
	if err := g.as("trusted", bound); err != nil {
		t.Errorf("after a Reload that failed: %v", err)
	}
	if n := g.metric(t, "lockkeeper_auth_file_users"); n != 1 {
		t.Errorf("%v users, want 1", n)
	}
}

func TestCertificatesAuthenticate(t *testing.T) {
	pg := matrixServer(t)
	mine, err := pgtest.WriteCertificates(t.TempDir(), "trusted")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := pgtest.WriteCertificates(t.TempDir(), "trusted")
	if err != nil {
		t.Fatal(err)
	}
	with := func(cert, key string) string { return " sslcert=" + cert + " sslkey=" + key }
	for _, tt := range []struct {
		mode, user, certificate, code string
		names                         map[string][]string
	}{
		{"allow", "trusted", with(mine.ClientCert, mine.ClientKey), "", nil},
		{"verify-full", "trusted", with(mine.ClientCert, mine.ClientKey), "", nil},
		{"require", "password", with(mine.ClientCert, mine.ClientKey), "28000", nil},
		{"require", "trusted", with(theirs.ClientCert, theirs.ClientKey), "28000", nil},
		{"require", "trusted", with(mine.ServerCert, mine.ServerKey), "28000", map[string][]string{"localhost": {"trusted"}}}, // no client's certificate
		{"require", "trusted", "", "28000", nil},
		{"require", "trusted", with(mine.ClientCert, mine.ClientKey), "28000", map[string][]string{"somebody": {"trusted"}}},
		{"require", "password", with(mine.ClientCert, mine.ClientKey), "", map[string][]string{"trusted": {"scram", "password"}}},
		{"verify-full", "password", with(mine.ClientCert, mine.ClientKey), "", map[string][]string{"trusted": {"password"}}},
	} {
		g := newGuard(t, func(s *setup) {
			s.pg, s.policy = pg, transparent
			s.cfg.TLS = proxy.ClientTLS{Mode: tt.mode, Cert: mine.ServerCert, Key: mine.ServerKey, CA: mine.CA}
			s.cfg.Servers = map[string]proxy.Target{"*": {
				Host: pg.Host(), Port: uint16(pg.Port()), SSLMode: "require",
				Auth: proxy.Auth{Method: proxy.AuthCert, Map: tt.names, File: userlist(t, map[string]string{"password": "secret"})},
			}}
		})
		if err := g.as(tt.user, "sslmode=require"+tt.certificate); sqlstate(err) != tt.code || (err == nil) != (tt.code == "") {
			t.Errorf("%s, %s with %q: %v, want %q", tt.mode, tt.user, tt.certificate, err, tt.code)
		}
	}
}

// Clients' certificates under the modes that ask for none are not looked at,
// whoever has signed them: PgBouncer's meaning.
func TestClientSideModes(t *testing.T) {
	pg := matrixServer(t)
	theirs, err := pgtest.WriteCertificates(t.TempDir(), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	mine := pg.Certificates()
	foreign := " sslcert=" + theirs.ClientCert + " sslkey=" + theirs.ClientKey
	own := " sslcert=" + mine.ClientCert + " sslkey=" + mine.ClientKey
	type outcome struct{ plain, encrypted, foreign, own bool }
	for mode, want := range map[string]outcome{
		"disable":     {true, false, false, false},
		"allow":       {true, true, true, true},
		"prefer":      {true, true, true, true},
		"require":     {false, true, true, true},
		"verify-ca":   {false, false, false, true},
		"verify-full": {false, false, false, false}, // the certificate is the superuser's
	} {
		g := between(t, pg, clientSide(pg, mode), proxy.Target{SSLMode: "disable"})
		got := outcome{
			g.as("trusted", "sslmode=disable") == nil, g.as("trusted", "sslmode=require") == nil,
			g.as("trusted", "sslmode=require"+foreign) == nil, g.as("trusted", "sslmode=require"+own) == nil,
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", mode, got, want)
		}
	}
}

func TestPeersAuthenticate(t *testing.T) {
	pg := matrixServer(t)
	me := myName(t)
	for _, tt := range []struct {
		names map[string][]string
		code  string
	}{
		{nil, "28000"}, // no such role as the one that runs the test
		{map[string][]string{me: {"password"}}, ""},
		{map[string][]string{me: {"trusted"}, "somebody": {"password"}}, "28000"},
	} {
		t.Setenv("LOCKKEEPER_TEST_SECRET", "secret")
		g, socket := terminating(t, pg, pg.Certificates(), proxy.Auth{Method: proxy.AuthPeer, PasswordEnv: "LOCKKEEPER_TEST_SECRET", Map: tt.names}, "require")
		if err := g.as("password", "host="+socket+" port=6433 sslmode=disable"); sqlstate(err) != tt.code || (err == nil) != (tt.code == "") {
			t.Errorf("%v: %v, want %q", tt.names, err, tt.code)
		}
	}
}

func TestConfigOfAuthentication(t *testing.T) {
	for want, a := range map[string]proxy.Auth{
		`server.*: auth "sspi" is none of relay, scram, cert, peer`:          {Method: "sspi"},
		"are for auth: scram, cert or peer":                                  {File: "users"},
		"auth: scram needs auth_file, or auth_user":                          {Method: proxy.AuthSCRAM},
		"auth: cert needs tls.ca":                                            {Method: proxy.AuthCert},
		"auth_password_file and auth_password_env: choose one":               {Method: proxy.AuthSCRAM, File: "users", PasswordFile: "a", PasswordEnv: "b"},
		"auth_query and auth_dbname need auth_user":                          {Method: proxy.AuthSCRAM, File: "users", Query: "select 1, 2"},
		"auth_query and auth_user are for auth: scram":                       {Method: proxy.AuthPeer, User: "asker"},
		"auth_map is for auth: cert or peer":                                 {Method: proxy.AuthSCRAM, File: "users", Map: map[string][]string{"a": {"b"}}},
		"auth_password_file: open " + filepath.Join(os.TempDir(), "no-such"): {Method: proxy.AuthPeer, PasswordFile: filepath.Join(os.TempDir(), "no-such")},
	} {
		c := proxy.Default()
		c.Servers = map[string]proxy.Target{"*": {Host: "h", Auth: a}}
		err := c.Validate()
		if a.PasswordFile != "" && a.PasswordEnv == "" {
			_, err = a.ReadPassword()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", a, err, want)
		}
	}
	for name, text := range map[string]string{"empty": "", "two lines": "a\nb\n", "a zero byte": "a\x00b", "long": strings.Repeat("a", auth.MaxSecret+3)} {
		if _, err := (&proxy.Auth{PasswordFile: secretFile(t, text)}).ReadPassword(); err == nil {
			t.Errorf("a password file that is %s was read", name)
		}
	}
}
