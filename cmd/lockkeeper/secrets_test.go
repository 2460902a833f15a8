package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
)

// What must not be written down: each is a word that occurs nowhere else.
const (
	secretPassword = "kanarienvogel-passwort"
	secretWrong    = "kanarienvogel-falsch"
	secretLiteral  = "kanarienvogel-literal"
	secretCopied   = "kanarienvogel-copy"
	secretToken    = "kanarienvogel-token-of-an-admin"
	secretGuess    = "kanarienvogel-token-that-is-wrong"
	secretWord     = "kanarienvogel"
)

// TestNothingSecretIsWrittenDownInAWholeRun lets a real lockkeeper at log level
// debug see passwords in every method that relays, SCRAM's messages, statements
// with data in them, COPY, and tokens, and then looks at everything that it
// wrote or said: the log, metrics, each answer of the admin interface and the
// console, the journal, the state.
func TestNothingSecretIsWrittenDownInAWholeRun(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("local all all trust", "host all r_password 127.0.0.1/32 password", "host all r_md5 127.0.0.1/32 md5",
		"host all r_scram,control 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"))
	pg.MustExec(t, "postgres", `SET password_encryption = 'md5'; CREATE ROLE r_md5 LOGIN PASSWORD '`+secretPassword+`';
		SET password_encryption = 'scram-sha-256'; CREATE ROLE r_scram LOGIN PASSWORD '`+secretPassword+`';
		CREATE ROLE r_password LOGIN PASSWORD '`+secretPassword+`'; CREATE ROLE control LOGIN PASSWORD '`+secretPassword+`';
		GRANT pg_monitor, pg_signal_backend TO control; CREATE TABLE sale_order (id int, note text)`)
	r := startSecretRun(t, pg)
	r.logins()
	r.statements()
	said := r.operators()
	r.stop()
	r.search(said)
}

// secretRun is a lockkeeper whose secrets are known.
type secretRun struct {
	t     *testing.T
	dir   string
	port  int
	admin int
	cmd   *exec.Cmd
	done  chan error
	log   *os.File
	wire  recorded // everything between clients and lockkeeper
}

func startSecretRun(t *testing.T, pg *pgtest.Server) *secretRun {
	r := &secretRun{t: t, dir: t.TempDir(), port: freePort(t), admin: freePort(t), done: make(chan error, 1)}
	config := fmt.Sprintf(`listen: {tcp: ["127.0.0.1:%d"]}
server:
  "*": {host: 127.0.0.1, port: %d, sslmode: disable, control: "host=127.0.0.1 port=%d user=control password=%s dbname=postgres sslmode=disable"}
admin: {listen: "127.0.0.1:%d", state: state, tokens: [{name: root, role: admin, token: %s}]}
policy: {profile: odoo, critical_tables: [sale_order]}
`, r.port, pg.Port(), pg.Port(), secretPassword, r.admin, secretToken)
	if err := os.WriteFile(filepath.Join(r.dir, "lockkeeper.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(r.dir, "lockkeeper") // the test binary is lockkeeper under this name, see TestMain
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	if r.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(program, "serve", "-c", "lockkeeper.yaml", "--log-level", "debug")
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = r.dir, r.log, r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	s := &served{cmd: r.cmd, done: r.done}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	if err := s.ready(fmt.Sprintf("http://127.0.0.1:%d/readyz", r.admin)); err != nil {
		t.Fatalf("%v\n%s", err, r.logged())
	}
	return r
}

func (r *secretRun) logged() string {
	b, err := os.ReadFile(r.log.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// connect logs in through lockkeeper; what passes is kept.
func (r *secretRun) connect(user, password, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable", r.port, user, password, database))
	if err != nil {
		r.t.Fatal(err)
	}
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &tapped{Conn: c, to: &r.wire}, err
	}
	return pgx.ConnectConfig(r.t.Context(), config)
}

// logins tries each method, with the right password and with a wrong one.
func (r *secretRun) logins() {
	for _, user := range []string{"r_password", "r_md5", "r_scram"} {
		conn, err := r.connect(user, secretPassword, "postgres")
		if err != nil {
			r.t.Fatalf("%s: %v", user, err)
		}
		if err := conn.Close(r.t.Context()); err != nil {
			r.t.Error(err)
		}
		if _, err := r.connect(user, secretWrong, "postgres"); err == nil {
			r.t.Errorf("%s: a wrong password is taken", user)
		}
	}
}

// statements sends data in every way; many of them fail, and some are refused.
func (r *secretRun) statements() {
	conn, err := r.connect("postgres", "", "postgres")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx := r.t.Context()
	for _, sql := range []string{
		"ALTER ROLE r_md5 PASSWORD '%s'", "CREATE ROLE another LOGIN PASSWORD '%s'", "SELECT '%s'", "INSERT INTO sale_order VALUES (1, '%s')",
		"UPDATE sale_order SET note = '%s'", "SELEC '%s'", "SELECT '%s'::int", "SELECT * FROM \"%s\"", "DO $$ BEGIN RAISE NOTICE '%s'; END $$",
		"PREPARE p AS SELECT '%s'", "NOTIFY bus, '%s'", "SET application_name = '%s'", "SET search_path = '%s'", "COPY (SELECT '%s') TO STDOUT", "/* %s */ TRUNCATE sale_order",
		"SELECT dblink_connect('password=%s')", "CREATE SUBSCRIPTION s CONNECTION 'password=%s' PUBLICATION p", "SAVEPOINT \"%s\"", "DECLARE c CURSOR FOR SELECT '%s'",
	} {
		text := fmt.Sprintf(sql, secretLiteral)
		_, _ = conn.PgConn().Exec(ctx, text).ReadAll() // what comes of it does not matter
		_ = conn.PgConn().ExecParams(ctx, text, nil, nil, nil, nil).Read()
		_, _ = conn.PgConn().Exec(ctx, "RESET ALL").ReadAll()
	}
	_, _ = conn.Exec(ctx, "INSERT INTO sale_order VALUES ($1, $2)", 2, secretLiteral)
	for _, data := range []string{"3\t" + secretCopied + "\n", secretCopied + "\n"} {
		_, _ = conn.PgConn().CopyFrom(ctx, strings.NewReader(data), "COPY sale_order FROM STDIN")
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &out, "COPY sale_order TO STDOUT"); err != nil || !strings.Contains(out.String(), secretCopied) {
		r.t.Fatalf("COPY says %q, %v", out.String(), err)
	}
	if err := conn.Close(ctx); err != nil {
		r.t.Error(err)
	}
}

// operators asks the admin interface and the console everything, with the token
// and with a wrong one, and returns what they said.
func (r *secretRun) operators() string {
	var said strings.Builder
	for _, path := range []string{
		"metrics", "v1/openapi.json", "v1/status", "v1/sessions", "v1/mode", "v1/containments", "v1/freeze", "v1/pause", "v1/locks", "v1/policy", "v1/journal?limit=1000",
	} {
		if code := r.ask(&said, secretToken, path); code != http.StatusOK {
			r.t.Errorf("%s: %d", path, code)
		}
		if code := r.ask(&said, secretGuess, path); code != http.StatusUnauthorized {
			r.t.Errorf("%s with a wrong token: %d", path, code)
		}
	}
	if _, err := r.connect("root", secretGuess, "lockkeeper"); err == nil {
		r.t.Error("the console takes a wrong token")
	} else {
		said.WriteString(err.Error())
	}
	console, err := r.connect("root", secretToken, "lockkeeper")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, show := range []string{"CONFIG", "CLIENTS", "SERVERS", "DATABASES", "USERS", "SESSIONS", "STATS", "LISTS", "NONSENSE '" + "x" + "'"} {
		results, err := console.PgConn().Exec(r.t.Context(), "SHOW "+show).ReadAll()
		fmt.Fprint(&said, err)
		for _, result := range results {
			for _, row := range result.Rows {
				said.Write(bytes.Join(row, []byte(" ")))
			}
		}
	}
	if err := console.Close(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	return said.String()
}

func (r *secretRun) ask(said *strings.Builder, token, path string) int {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", r.admin, path), http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	said.Write(body)
	return resp.StatusCode
}

func (r *secretRun) stop() {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := <-r.done; err != nil {
		r.t.Errorf("lockkeeper ended: %v\n%s", err, r.logged())
	}
}

// exchanged are the parts of an authentication that say something about the
// password: SCRAM's nonces, salts, proofs and signatures, and MD5's hashes.
var exchanged = regexp.MustCompile(`(?:^|[,\x00-\x1f])[rspv]=([A-Za-z0-9+/!-~]{20,}?)(?:[,\x00]|$|[A-Z]\x00\x00)|(md5[0-9a-f]{32})`)

// search looks for each secret in everything that lockkeeper wrote and said.
func (r *secretRun) search(said string) {
	secrets := []string{secretWord}
	for _, m := range exchanged.FindAllStringSubmatch(r.wire.String(), -1) {
		secrets = append(secrets, m[1]+m[2])
	}
	if len(secrets) < 8 {
		r.t.Fatalf("too little of the logins was seen: %q", secrets)
	}
	written := map[string]string{"log": r.logged(), "an operator's answer": said}
	for name, text := range r.files() {
		written[name] = text
	}
	if !strings.Contains(written["log"], "session ended") || len(written["state/journal.db"]) < 1000 || len(said) < 10000 {
		r.t.Fatalf("too little was written: %d bytes of log, %d of journal, %d said", len(written["log"]), len(written["state/journal.db"]), len(said))
	}
	for where, text := range written {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				r.t.Errorf("%s holds %q: …%q…", where, secret, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
}

// files are those that lockkeeper made: all but its configuration.
func (r *secretRun) files() map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(r.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || entry.Name() == "lockkeeper.yaml" {
			return err
		}
		name, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[name] = string(b)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// recorded keeps what passed, for several connections.
type recorded struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *recorded) add(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.b.Write(b)
}

func (r *recorded) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// tapped is a client's connection.
type tapped struct {
	net.Conn

	to *recorded
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.to.add(b[:n])
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	c.to.add(b)
	return c.Conn.Write(b)
}
