package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ports are the ports of a target's hosts: one for all, or one for each.
type Ports []uint16

// UnmarshalYAML reads a number, or several parted by commas.
func (p *Ports) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	*p = nil
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16)
		if err != nil {
			return fmt.Errorf("port: %q is no number from 0 to 65535, nor several with commas between them", text)
		}
		*p = append(*p, uint16(n))
	}
	return nil
}

// UnmarshalYAML reads a target; Port becomes the first of its ports.
func (t *Target) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Target
	if err := unmarshal((*plain)(t)); err != nil {
		return err
	}
	if len(t.Ports) > 0 {
		t.Port = t.Ports[0]
	}
	return nil
}

// Hosts returns the hosts in the order in which they are tried.
func (t *Target) Hosts() []string {
	hosts := strings.Split(t.Host, ",")
	for i := range hosts {
		hosts[i] = strings.TrimSpace(hosts[i])
	}
	return hosts
}

// port returns the port of a host.
func (t *Target) port(i int) string {
	p := t.Port
	if i < len(t.Ports) {
		p = t.Ports[i] // when there is one port for all it is Port, too
	}
	return strconv.Itoa(int(p))
}

// identity is equal for targets that are the same servers.
func (t *Target) identity() string {
	var all []string
	for i, host := range t.Hosts() {
		all = append(all, host+":"+t.port(i))
	}
	return strings.Join(all, ",")
}

// failsOver reports whether another address may take over: then a server that
// cannot be reached is waited for, and lockkeeper's own connections say to
// which address they go.
func (t *Target) failsOver() bool {
	return len(t.Hosts()) > 1 || t.wants() != sessionAny
}

func (t *Target) validateHosts() error {
	var all []error
	hosts := t.Hosts()
	switch {
	case t.Host == "":
		all = append(all, errors.New("host is missing"))
	case slices.Contains(hosts, ""):
		all = append(all, fmt.Errorf("host %q names nothing between two commas", t.Host))
	case len(t.Ports) > 1 && len(t.Ports) != len(hosts):
		all = append(all, fmt.Errorf("%d ports do not fit %d hosts: give one for all, or one for each", len(t.Ports), len(hosts)))
	}
	if !slices.Contains(strings.Split(sessionAttrs, ", "), string(t.wants())) {
		all = append(all, fmt.Errorf("target_session_attrs %q is none of %s", t.TargetSessionAttrs, sessionAttrs))
	}
	return errors.Join(all...)
}

// endpoint is one address of a target. Its zero value is a target's only one,
// as far as lockkeeper's own connections go: wherever they lead.
type endpoint struct {
	host    string // as configured: what a certificate is checked against
	port    string
	network string
	address string
}

func (e *endpoint) unix() bool { return e.network == "unix" }

// LookupHost resolves the name of a server's host.
type LookupHost func(ctx context.Context, host string) ([]string, error)

// endpoints resolves a target's hosts anew, for a failover may have changed
// what they mean. Addresses that could not be connected to a moment ago come
// last.
func (s *Server) endpoints(ctx context.Context, t *Target) ([]endpoint, error) {
	var out []endpoint
	var errs []error
	for i, host := range t.Hosts() {
		e := endpoint{host: host, port: t.port(i)}
		if strings.HasPrefix(host, "/") {
			e.network, e.address = "unix", filepath.Join(host, ".s.PGSQL."+e.port)
			out = append(out, e)
			continue
		}
		addresses, err := s.lookup(ctx, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("resolve server's host: %w", err))
		}
		for _, a := range addresses {
			e.network, e.address = "tcp", net.JoinHostPort(a, e.port)
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, oneLine(errs)
	}
	s.down.last(out, s.deps.Now())
	return out, nil
}

// oneLine joins errors for the log.
func oneLine(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	return fmt.Errorf("%w; %w", errs[0], oneLine(errs[1:]))
}

// unreachable remembers which addresses could not be connected to.
type unreachable struct {
	mu    sync.Mutex
	since map[string]time.Time // by address
}

const (
	downFor = 30 * time.Second // an address comes last for this long
	maxDown = 1000             // addresses remembered
)

func (u *unreachable) note(address string, now time.Time, failed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !failed {
		delete(u.since, address)
		return
	}
	if u.since == nil || len(u.since) >= maxDown {
		u.since = map[string]time.Time{}
	}
	u.since[address] = now
}

// last puts addresses that were unreachable a moment ago behind the others.
func (u *unreachable) last(all []endpoint, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.since) == 0 {
		return
	}
	down := func(e *endpoint) int {
		if t, ok := u.since[e.address]; ok && now.Sub(t) < downFor {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b endpoint) int { return down(&a) - down(&b) })
}
