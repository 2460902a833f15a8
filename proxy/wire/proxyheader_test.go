package wire_test

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"lockkeeper/proxy/wire"
)

// proxy2 is a header of version 2.
func proxy2(command, family byte, body string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

func TestProxyHeader(t *testing.T) {
	const six = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	for _, tt := range []struct{ name, in, want string }{
		{"1, IPv4", "PROXY TCP4 192.0.2.1 192.0.2.9 40000 5432\r\n", "192.0.2.1:40000"},
		{"1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::9 40000 5432\r\n", "[2001:db8::1]:40000"},
		{"1, unknown", "PROXY UNKNOWN\r\n", "invalid AddrPort"},
		{"1, unknown with more", "PROXY UNKNOWN ff:ff 1 2 3\r\n", "invalid AddrPort"},
		{"1, family and address differ", "PROXY TCP6 192.0.2.1 192.0.2.9 40000 5432\r\n", ""},
		{"1, port too large", "PROXY TCP4 192.0.2.1 192.0.2.9 65536 5432\r\n", ""},
		{"1, zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", ""},
		{"1, too few words", "PROXY TCP4 192.0.2.1\r\n", ""},
		{"1, no line end", "PROXY TCP4 192.0.2.1 192.0.2.9 40000 5432\n", ""},
		{"1, too long", "PROXY UNKNOWN " + string(bytes.Repeat([]byte("x"), 200)) + "\r\n", ""},
		{"2, IPv4", proxy2(0x21, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x09\x9c\x40\x15\x38"), "192.0.2.1:40000"},
		{"2, IPv4 and more", proxy2(0x21, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x09\x9c\x40\x15\x38\x03\x00\x04abcd"), "192.0.2.1:40000"},
		{"2, IPv6", proxy2(0x21, 0x21, six+six+"\x9c\x40\x15\x38"), "[2001:db8::1]:40000"},
		{"2, local", proxy2(0x20, 0, ""), "invalid AddrPort"},
		{"2, unix", proxy2(0x21, 0x31, string(make([]byte, 216))), "invalid AddrPort"},
		{"2, cut off", proxy2(0x21, 0x11, "\xc0\x00\x02\x01"), ""},
		{"2, another version", proxy2(0x11, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x09\x9c\x40\x15\x38"), ""},
		{"2, too long", proxy2(0x21, 0x11, string(make([]byte, 5000))), ""},
		{"none", string(make([]byte, 20)), ""},
		{"end", "PROXY ", ""},
	} {
		r := bytes.NewReader([]byte(tt.in + "rest"))
		if tt.name == "end" {
			r = bytes.NewReader([]byte(tt.in))
		}
		got, err := wire.ReadProxyHeader(r)
		if (err == nil) != (tt.want != "") || err == nil && got.String() != tt.want {
			t.Errorf("%s: %v, %v, want %q", tt.name, got, err, tt.want)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "rest" {
			t.Errorf("%s: %q is left", tt.name, rest)
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.9 40000 5432\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(proxy2(0x21, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x09\x9c\x40\x15\x38")))
	f.Add([]byte(proxy2(0x20, 0, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := wire.ReadProxyHeader(r)
		taken := len(b) - r.Len()
		if taken > 16+4096 {
			t.Errorf("%d bytes taken", taken)
		}
		if err != nil && got != (netip.AddrPort{}) {
			t.Errorf("%v with %v", got, err)
		}
		if err != nil {
			return
		}
		// What was taken is the header, whatever follows it.
		again, err := wire.ReadProxyHeader(bytes.NewReader(b[:taken]))
		if err != nil || again != got {
			t.Errorf("again: %v, %v, want %v", again, err, got)
		}
	})
}
