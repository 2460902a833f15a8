package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ErrNoBouncer means that PgBouncer is not installed.
var ErrNoBouncer = errors.New("there is no PgBouncer: not in PATH and not in /usr/sbin (Debian: apt-get install pgbouncer)")

// debianBouncer is where Debian's package has it, which is not in everybody's
// PATH.
const debianBouncer = "/usr/sbin/pgbouncer"

// BouncerConfig says how a PgBouncer is set up. One that says nothing but Server
// trusts everybody on 127.0.0.1, and is as PgBouncer's defaults have it.
type BouncerConfig struct {
	Server   string            // host:port of what it pools connections to
	Settings map[string]string // of section [pgbouncer], such as pool_mode
	Users    map[string]string // of auth_file: name to password; Superuser, without one, is there already
	HBA      []string          // lines of auth_hba_file, in place of trust for all
}

// Bouncer is a running PgBouncer with a folder of its own.
type Bouncer struct {
	config  BouncerConfig
	account account
	dir     string
	port    int
	process *process
	janitor *janitor
}

// StartBouncer starts a PgBouncer for one test, which ends it. A test for which
// there is none is skipped, as one that lacks a program of PostgreSQL's.
func StartBouncer(tb testing.TB, config BouncerConfig) *Bouncer {
	tb.Helper()
	b, err := RunBouncer(context.Background(), config)
	if errors.Is(err, ErrNoBouncer) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return b
}

// BouncerVersion returns the version of the PgBouncer that is installed, such as
// 1.18.0; "" where there is none.
func BouncerVersion(ctx context.Context) string {
	binary, err := bouncerBinary()
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return ""
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(string(out), "PgBouncer "), "\n")
	return version
}

func bouncerBinary() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	if !isProgram(debianBouncer) {
		return "", ErrNoBouncer
	}
	return debianBouncer, nil
}

// RunBouncer starts a PgBouncer and returns when it accepts connections. ctx
// bounds the start: callers must Close it.
func RunBouncer(ctx context.Context, config BouncerConfig) (*Bouncer, error) {
	binary, err := bouncerBinary()
	if err != nil {
		return nil, err
	}
	b := &Bouncer{config: config}
	if err := b.setUp(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	for attempt := 1; ; attempt++ { // somebody may take the free port before it can
		if b.port, err = freePort(ctx); err != nil {
			return nil, errors.Join(err, b.Close())
		}
		if err = b.start(ctx, binary); err == nil {
			return b, nil
		}
		if attempt == portAttempts {
			return nil, errors.Join(fmt.Errorf("start PgBouncer: %w\n%s", err, b.Log()), b.Close())
		}
	}
}

func (b *Bouncer) setUp(ctx context.Context) (err error) {
	if b.account, err = unprivileged(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "lockkeeper-pgbouncer-"); err != nil {
		return err
	}
	if err := b.account.reaches(b.dir); err != nil {
		return err
	}
	b.janitor, err = startJanitor(ctx, b.dir)
	return err
}

func (b *Bouncer) start(ctx context.Context, binary string) error {
	if err := b.configure(); err != nil {
		return err
	}
	log, err := os.Create(b.path("log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary, b.path("ini"))
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes(b.account)
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go p.own(cmd, started)
	if err := <-started; err != nil {
		return err
	}
	b.process = p
	b.janitor.watch(p.pid)
	if err := b.waitReady(ctx); err != nil {
		b.stop()
		return err
	}
	return nil
}

func (b *Bouncer) configure() error {
	host, port, err := net.SplitHostPort(b.config.Server)
	if err != nil {
		return err
	}
	settings := map[string]string{
		"listen_addr": "127.0.0.1", "listen_port": strconv.Itoa(b.port), "unix_socket_dir": "",
		"auth_type": "trust", "auth_file": b.path("users"),
	}
	if len(b.config.HBA) > 0 {
		settings["auth_type"], settings["auth_hba_file"] = "hba", b.path("hba")
	}
	maps.Copy(settings, b.config.Settings)
	ini := fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\n", host, port)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		ini += name + " = " + settings[name] + "\n"
	}
	users := fmt.Sprintf("%q \"\"\n", Superuser)
	for _, name := range slices.Sorted(maps.Keys(b.config.Users)) {
		users += fmt.Sprintf("%q %q\n", name, b.config.Users[name])
	}
	for name, content := range map[string]string{"ini": ini, "users": users, "hba": strings.Join(b.config.HBA, "\n") + "\n"} {
		if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return b.account.ownAll(b.dir)
}

// waitReady waits until it accepts connections.
func (b *Bouncer) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", b.Addr())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-b.process.done:
			return errors.New("it has ended")
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (b *Bouncer) path(name string) string { return filepath.Join(b.dir, name) }

// Addr returns the address to connect to.
func (b *Bouncer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// Port returns the port to connect to, on 127.0.0.1.
func (b *Bouncer) Port() int { return b.port }

// PID returns its process id.
func (b *Bouncer) PID() int { return b.process.pid }

// Log returns what it has logged.
func (b *Bouncer) Log() string {
	text, err := os.ReadFile(b.path("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// stop ends the process at once: it has nothing to lose.
func (b *Bouncer) stop() {
	if b.process == nil {
		return
	}
	b.janitor.watch(0)
	if p, err := os.FindProcess(b.process.pid); err == nil {
		_ = p.Kill() // it may have ended by itself
	}
	<-b.process.done
	b.process = nil
}

// Close ends it and removes its folder.
func (b *Bouncer) Close() error {
	b.stop()
	var err error
	if b.janitor != nil {
		err = b.janitor.dismiss()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
