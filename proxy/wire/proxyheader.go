package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Sizes of PROXY headers. Source: "The PROXY protocol", versions 1 & 2,
// haproxy.org, sections 2.1 and 2.2.
const (
	maxProxyLine = 107  // a version 1 header with its line end
	proxyPrefix  = 16   // of a version 2 header, before addresses
	maxProxyMore = 4096 // addresses and TLVs of version 2 that we read; the protocol allows 65535
)

// proxySignature begins a version 2 header.
var proxySignature = [12]byte{'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'} //nolint:gochecknoglobals // arrays cannot be constants

// ErrProxyHeader says that a connection does not begin with a PROXY header.
var ErrProxyHeader = errors.New("no valid PROXY header")

// ReadProxyHeader reads the header that a load balancer puts before a
// connection's first byte, and not a byte more. The address is the client's;
// it is not valid where the balancer speaks for itself or does not know.
func ReadProxyHeader(r io.Reader) (netip.AddrPort, error) {
	var first [len(proxySignature)]byte // shorter than any header of version 1
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
	}
	if first == proxySignature {
		return readProxy2(r)
	}
	if !bytes.HasPrefix(first[:], []byte("PROXY ")) {
		return netip.AddrPort{}, ErrProxyHeader
	}
	return readProxy1(r, first[:])
}

// readProxy1 reads on up to the line's end, byte by byte: what follows is the
// client's.
func readProxy1(r io.Reader, line []byte) (netip.AddrPort, error) {
	var b [1]byte
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxProxyLine {
			return netip.AddrPort{}, fmt.Errorf("%w: line too long", ErrProxyHeader)
		}
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
		}
		line = append(line, b[0])
	}
	words := strings.Split(string(line[:len(line)-2]), " ")
	switch {
	case words[1] == "UNKNOWN":
		return netip.AddrPort{}, nil
	case len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6":
		return netip.AddrPort{}, ErrProxyHeader
	}
	a, err := netip.ParseAddr(words[2])
	if err != nil || a.Is4() != (words[1] == "TCP4") || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: bad address", ErrProxyHeader)
	}
	port, err := strconv.ParseUint(words[4], 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: bad port", ErrProxyHeader)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}

// What a version 2 header says, in its 13th and 14th byte.
const (
	proxyLocal  = 0x20 // the balancer speaks for itself, for example to see whether we live
	proxyRemote = 0x21
	proxyTCP4   = 0x11
	proxyTCP6   = 0x21
)

func readProxy2(r io.Reader) (netip.AddrPort, error) {
	var head [proxyPrefix - len(proxySignature)]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	if size > maxProxyMore || head[0] != proxyLocal && head[0] != proxyRemote {
		return netip.AddrPort{}, ErrProxyHeader
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
	}
	var width int
	switch {
	case head[0] == proxyLocal:
		return netip.AddrPort{}, nil
	case head[1] == proxyTCP4:
		width = 4
	case head[1] == proxyTCP6:
		width = 16
	default: // unix sockets, datagrams, unspecified: nothing to take from it
		return netip.AddrPort{}, nil
	}
	if size < 2*width+4 {
		return netip.AddrPort{}, fmt.Errorf("%w: addresses cut off", ErrProxyHeader)
	}
	a, _ := netip.AddrFromSlice(body[:width])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[2*width:])), nil
}
