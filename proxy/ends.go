package proxy

import (
	"crypto/tls"
	"net"
	"strings"
)

// ends says where the two connections of a session begin and end.
type ends struct {
	client      string // host, or "local"
	clientPort  int    // 0 for a unix socket
	clientPID   int    // for a unix socket, where the system tells
	local       string // what the client has connected to: host:port, or a path
	serverLocal string // from where the server was connected to

	cipher, serverCipher string // "" without TLS
	replication          string // "", physical or logical
}

func (h *hello) ends(server *connected) ends {
	e := ends{
		client: h.address(), local: h.conn.LocalAddr().String(), serverLocal: server.LocalAddr().String(),
		cipher: cipher(h.conn), serverCipher: cipher(server.Conn), replication: replication(h.startup.Get("replication")),
	}
	switch from := h.conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		e.clientPort = from.Port
	case *net.UnixAddr:
		e.clientPID = peerPID(h.conn)
	}
	if h.from.IsValid() {
		e.clientPort, e.clientPID = int(h.from.Port()), 0
	}
	return e
}

// cipher names a connection's TLS as PgBouncer does, version/suite/key
// exchange, with the names that Go has for them.
func cipher(c net.Conn) string {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ""
	}
	state := t.ConnectionState()
	version := strings.TrimSuffix(strings.TrimPrefix(tls.VersionName(state.Version), "TLS "), ".0")
	name := "TLSv" + version + "/" + tls.CipherSuiteName(state.CipherSuite)
	if state.CurveID != 0 {
		name += "/" + state.CurveID.String()
	}
	return name
}
