package proxy

import (
	"fmt"
	"net"
	"net/netip"

	"lockkeeper/proxy/wire"
)

// prefixes reads networks; an address alone is one of its own.
func prefixes(texts []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, errAddr := netip.ParseAddr(text)
			if errAddr != nil {
				return nil, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// balanced reports whether a connection comes from where a PROXY header is
// sent. Then there has to be one: who could do without would choose an address.
func (s *Server) balanced(c net.Conn) bool {
	if len(s.balancers) == 0 {
		return false
	}
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range s.balancers {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// origin reads the PROXY header of a balancer.
func (h *hello) origin() error {
	if !h.s.balanced(h.conn) {
		return nil
	}
	from, err := wire.ReadProxyHeader(h.conn)
	if err != nil {
		h.s.metrics.proxyErrors.Inc()
		return err
	}
	h.s.metrics.proxyHeaders.Inc()
	h.from = from
	return nil
}

// address returns the client's host, or "local".
func (h *hello) address() string {
	if h.from.IsValid() {
		return h.from.Addr().String()
	}
	return addressOf(h.conn)
}

// hostPort returns the client's host and port, or "local".
func (h *hello) hostPort() string {
	switch {
	case h.from.IsValid():
		return h.from.String()
	case addressOf(h.conn) == "local":
		return "local"
	}
	return h.conn.RemoteAddr().String()
}

// withHost adds the client's host and port to the application's name in a
// startup packet, as PgBouncer does.
func (h *hello) withHost(packet []byte) []byte {
	name := h.startup.Get("application_name")
	if name == "" {
		name = "app"
	}
	out := wire.ReplaceParameter(packet, "application_name", name+" - "+h.hostPort())
	if len(out) > wire.MaxStartup {
		return packet // the server would refuse it
	}
	return out
}
