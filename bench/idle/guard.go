package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lockkeeper/internal/pgtest"
)

// guard is the lockkeeper process that is measured.
type guard struct {
	cmd              *exec.Cmd
	dir, addr, admin string
}

const configuration = `listen: {tcp: [%q]}
server:
  "*": {host: 127.0.0.1, port: %s, sslmode: disable}
limits: {sessions: 100000, logins: 100000}
admin: {listen: %q, state: %q}
policy: {profile: odoo}
engine: %s
`

func startGuard(ctx context.Context, program, dir, server string, m measurement) (*guard, error) {
	addr, err1 := free(ctx)
	admin, err2 := free(ctx)
	_, port, err3 := net.SplitHostPort(server)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	g := &guard{dir: dir, addr: addr, admin: admin}
	config := fmt.Sprintf(configuration, addr, port, admin, filepath.Join(dir, "state"), m.engine)
	if m.habit == overTLS {
		certs, err := pgtest.WriteCertificates(dir, "idle")
		if err != nil {
			return nil, err
		}
		config += fmt.Sprintf("tls: {sslmode: require, cert: %q, key: %q}\n", certs.ServerCert, certs.ServerKey)
	}
	file := filepath.Join(dir, "lockkeeper.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	g.cmd = exec.CommandContext(ctx, program, "serve", "-c", file)
	g.cmd.Stderr = log
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	if err := g.ready(ctx); err != nil {
		g.end()
		return nil, fmt.Errorf("%w\n%s", err, g.log())
	}
	return g, nil
}

func free(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// ready waits until lockkeeper has written its token and answers.
func (g *guard) ready(ctx context.Context) error {
	for range 1000 {
		if _, err := g.metric(ctx, "lockkeeper_sessions"); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("lockkeeper does not answer")
}

func (g *guard) log() string {
	b, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

func (g *guard) end() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait() // killed
}

// metric reads one of lockkeeper's metrics.
func (g *guard) metric(ctx context.Context, name string) (int, error) {
	token, err := os.ReadFile(filepath.Join(g.dir, "state", "admin.token"))
	if err != nil {
		return 0, err
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	ask.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r, err := http.DefaultClient.Do(ask)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(body) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			v, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			return int(v), err
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// usage is what the process uses.
type usage struct{ rss, pss, goroutines int } // bytes, bytes

// restTime is how long the process is left alone before it is measured: the
// garbage of the logins is collected and given back meanwhile.
const restTime = 20 * time.Second

// settled waits until there are n sessions and nothing else happens, and
// measures.
func (g *guard) settled(ctx context.Context, n int) (usage, error) {
	sessions, err := g.metric(ctx, "lockkeeper_sessions")
	if err != nil {
		return usage{}, err
	}
	if sessions != n {
		return usage{}, fmt.Errorf("%d sessions, want %d", sessions, n)
	}
	time.Sleep(rest(n))
	u := usage{}
	if u.goroutines, err = g.metric(ctx, "go_goroutines"); err != nil {
		return u, err
	}
	if u.rss, err = g.kilobytes("status", "VmRSS"); err != nil {
		return u, err
	}
	u.pss, err = g.kilobytes("smaps_rollup", "Pss")
	return u, err
}

// rest is short where nothing much can have happened.
func rest(n int) time.Duration {
	return min(restTime, time.Second+time.Duration(n)*20*time.Millisecond)
}

// kilobytes reads a size of the process and returns it in bytes.
func (g *guard) kilobytes(file, name string) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}
