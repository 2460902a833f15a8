package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy/wire"
)

// packet is a startup packet.
func packet(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

// The first bytes of a connection, right or wrong, are answered as the server
// itself answers them; but GSS encryption is not offered.
func TestFirstBytesAreAnsweredAsByTheServer(t *testing.T) {
	g := open(t)
	login := "user\x00" + pgtest.Superuser + "\x00database\x00" + g.db + "\x00"
	ssl := packet(wire.SSLCode, "")
	for name, tt := range map[string]struct {
		steps []string
		bytes bool // one at a time
	}{
		"SSLRequest":                     {steps: []string{ssl, packet(wire.Version3, login+"\x00")}},
		"SSLRequest twice":               {steps: []string{ssl, ssl}},
		"SSLRequest and a cancel":        {steps: []string{ssl, string(wire.AppendCancel(nil, 1, make([]byte, 32)))}},
		"minor version of the future":    {steps: []string{packet(wire.Version3+9999, login+"_pq_.not_yet\x001\x00\x00")}},
		"an option of the future":        {steps: []string{packet(wire.Version3, login+"_pq_.not_yet\x001\x00\x00")}},
		"minor version 1":                {steps: []string{packet(wire.Version3+1, login+"\x00")}},
		"minor version 2":                {steps: []string{packet(wire.Version3+2, login+"\x00")}},
		"minor version 3":                {steps: []string{packet(wire.Version3+3, login+"\x00")}},
		"the highest minor version":      {steps: []string{packet(wire.Version3+0xffff, login+"\x00")}},
		"options, and no user":           {steps: []string{packet(wire.Version3+2, "_pq_.a\x00\x00_pq_.b\x00x\x00_pq_.a\x00y\x00\x00")}},
		"an option without a name":       {steps: []string{packet(wire.Version3, login+"_pq_.\x00x\x00\x00")}},
		"a setting that is no option":    {steps: []string{packet(wire.Version3+2, login+"_pq_not\x00x\x00\x00")}},
		"protocol 4.0":                   {steps: []string{packet(4<<16, login+"\x00")}},
		"protocol 2.0":                   {steps: []string{packet(2<<16, strings.Repeat("\x00", 288))}},
		"protocol 1.0":                   {steps: []string{packet(1<<16, "\x00")}},
		"the longest packet":             {steps: []string{packet(wire.Version3, login+"options\x00 "+strings.Repeat(" ", wire.MaxStartup-8-len(login)-11)+"\x00\x00")}},
		"a packet that is too long":      {steps: []string{packet(wire.Version3, login+"options\x00 "+strings.Repeat(" ", wire.MaxStartup-8-len(login)-10)+"\x00\x00")}},
		"without its terminator":         {steps: []string{packet(wire.Version3, login)}},
		"bytes behind the terminator":    {steps: []string{packet(wire.Version3, login+"\x00x")}},
		"a name without a value":         {steps: []string{packet(wire.Version3, login+"options\x00")}},
		"a packet of 8 bytes":            {steps: []string{packet(wire.Version3, "")}},
		"a length of 0":                  {steps: []string{"\x00\x00\x00\x00"}},
		"a length of 7":                  {steps: []string{"\x00\x00\x00\x07\x00\x03\x00"}},
		"HTTP":                           {steps: []string{"GET / HTTP/1.1\r\n\r\n"}},
		"a cancel request of nobody":     {steps: []string{string(wire.AppendCancel(nil, 1, []byte("key.")))}},
		"a cancel request, 32 bytes":     {steps: []string{string(wire.AppendCancel(nil, 1, make([]byte, 32)))}},
		"a cancel request, 256 bytes":    {steps: []string{string(wire.AppendCancel(nil, 1, make([]byte, 256)))}},
		"a cancel request, 257 bytes":    {steps: []string{string(wire.AppendCancel(nil, 1, make([]byte, 257)))}},
		"a cancel request, 3 bytes":      {steps: []string{string(wire.AppendCancel(nil, 1, make([]byte, 3)))}},
		"a cancel request without a key": {steps: []string{packet(wire.CancelCode, "pid.")}},
		"byte by byte":                   {steps: []string{packet(wire.Version3, login+"\x00") + "Q\x00\x00\x00\x0dselect 1\x00"}, bytes: true},
		"user twice":                     {steps: []string{packet(wire.Version3, "user\x00nobody_at_all\x00"+login+"\x00")}},
	} {
		direct, through := firstBytes(t, g.pg.Addr(), tt.steps, tt.bytes), firstBytes(t, g.addr, tt.steps, tt.bytes)
		if direct != through {
			t.Errorf("%s:\ndirect  %q\nthrough %q", name, direct, through)
		}
	}
}

// firstBytes sends each step when the one before was answered by a byte, ends
// with Terminate and returns all answers, process ids and keys left out.
func firstBytes(t *testing.T, addr string, steps []string, single bool) string {
	t.Helper()
	c := dialRaw(t, addr)
	if single {
		c.cut = func([]byte) int { return 1 }
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(rawPatience))
	answers := ""
	for i, s := range steps {
		c.out.WriteString(s)
		c.flush()
		if i+1 < len(steps) {
			b := make([]byte, 1)
			if _, err := io.ReadFull(c.conn, b); err != nil {
				return answers + " closed"
			}
			answers += string(b)
		}
	}
	c.send('X')
	c.flush()
	rest, _ := io.ReadAll(c.conn) // up to its end, however it ends
	for i := 0; i < len(rest); {
		size := wire.Size(rest[i:])
		if size <= 0 || i+size > len(rest) {
			return answers + string(rest[i:])
		}
		switch m := wire.Message(rest[i : i+size]); m.Type() {
		case 'K':
			answers += fmt.Sprintf("K%d", len(m))
		case 'E': // without lines of source
			answers += show(m) + string(wire.Field(m.Body(), 'M'))
		default:
			answers += string(m)
		}
		i += size
	}
	return answers
}

func TestGSSEncryptionIsNotOffered(t *testing.T) {
	g := open(t)
	login := packet(wire.Version3, "user\x00"+pgtest.Superuser+"\x00database\x00"+g.db+"\x00\x00")
	gss, ssl := packet(wire.GSSENCCode, ""), packet(wire.SSLCode, "")
	for _, steps := range [][]string{{gss, login}, {gss, ssl, login}, {ssl, gss, login}} {
		if got := firstBytes(t, g.addr, steps, false); !strings.HasPrefix(got, strings.Repeat("N", len(steps)-1)+"R") {
			t.Errorf("%d steps: %q", len(steps), got)
		}
	}
	c := loginRaw(t, g.addr, g.db)
	c.query("do $$ begin raise notice 'it runs'; perform pg_sleep(60); end $$")
	c.flush()
	c.until('N', 1)
	c.cancelAs(g.addr, "gss")
	if ms := c.until('Z', 1); types(ms) != "EZ" {
		t.Errorf("a cancel behind the request: %s", types(ms))
	}
}
