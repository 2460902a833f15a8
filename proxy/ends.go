package proxy

import (
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"unique"
)

// ends says where the two connections of a session begin and end.
type ends struct {
	unique.Handle[whereabouts]

	clientPort int32 // 0 for a unix socket
	clientPID  int32 // for a unix socket, where the system tells
	serverPort int32 // from which the server was connected to; 0 for a unix socket
}

// whereabouts is what many sessions have alike.
type whereabouts struct {
	client     string // host, or "local"
	local      string // what the client has connected to: host:port, or a path
	serverHost string // from which the server was connected to, or a path

	cipher, serverCipher string // "" without TLS
	replication          string // "", physical or logical
}

func (h *hello) ends(server *connected) ends {
	at := whereabouts{
		client: h.address(), local: h.conn.LocalAddr().String(), serverHost: server.LocalAddr().String(),
		cipher: cipher(h.conn), serverCipher: cipher(server.Conn), replication: replication(h.startup.Get("replication")),
	}
	var e ends
	if from, ok := server.LocalAddr().(*net.TCPAddr); ok {
		at.serverHost, _, _ = net.SplitHostPort(at.serverHost) // TCP's have both
		e.serverPort = int32(from.Port)                        //nolint:gosec // a port
	}
	switch from := h.conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		e.clientPort = int32(from.Port) //nolint:gosec // a port
	case *net.UnixAddr:
		e.clientPID = int32(peerPID(h.conn)) //nolint:gosec // pid_t
	}
	if h.from.IsValid() {
		e.clientPort, e.clientPID = int32(h.from.Port()), 0
	}
	e.Handle = unique.Make(at)
	return e
}

// serverLocal is from where the server was connected to: host:port, or a path.
func (e *ends) serverLocal() string {
	host := e.Value().serverHost
	if e.serverPort == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(e.serverPort)))
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
