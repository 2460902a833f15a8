package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"lockkeeper/proxy/wire"
)

func startup(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func TestSizeTakesWhatAServerTakes(t *testing.T) {
	for _, tt := range []struct {
		in   string
		size int
	}{
		{"", 0},
		{"Q\x00\x00\x00", 0},
		{"Q\x00\x00\x00\x03", -1},
		{"S\x00\x00\x00\x04", 5},
		{"Q\x00\x00\x00\x04more", 5},
		{"Q\x7f\xff\xff\xff", -1},
		{"Q\xff\xff\xff\xff", -1},
	} {
		if size := wire.Size([]byte(tt.in)); size != tt.size {
			t.Errorf("Size(%q) = %d, want %d", tt.in, size, tt.size)
		}
	}
}

func TestARunHoldsWholeMessagesOfOneType(t *testing.T) {
	row := "D\x00\x00\x00\x06\x00\x01"
	for _, tt := range []struct {
		in       string
		messages int
	}{
		{"", 0},
		{row, 1},
		{row + row + row, 3},
		{row + row[:6], 1},
		{row + row[:4], 1},
		{row + "C" + row, 1},
		{"d" + row, 0},
		{row + "D\x00\x00\x00\x03" + row, 1},
		{row + "D\xff\xff\xff\xff" + row, 1},
		{"D\x00\x00\x00\x04" + row, 2},
	} {
		n, messages := wire.Run([]byte(tt.in), 'D')
		rest := []byte(tt.in)
		for range messages {
			size := wire.Size(rest)
			if size <= 0 || rest[0] != 'D' || size > len(rest) {
				t.Fatalf("Run(%q) has a message that is none", tt.in)
			}
			rest = rest[size:]
		}
		if messages != tt.messages || len(tt.in)-len(rest) != n {
			t.Errorf("Run(%q) = %d bytes, %d messages", tt.in, n, messages)
		}
	}
}

func TestStartupPacketsAreReadAsTheServerReadsThem(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		want string // user, or why not
	}{
		{"parameters", startup(wire.Version3, "user\x00me\x00database\x00d\x00\x00"), "me"},
		{"the last of two values", startup(wire.Version3, "user\x00a\x00user\x00b\x00\x00"), "b"},
		{"none", startup(wire.Version3, "\x00"), ""},
		{"minor version", startup(wire.Version3+9999, "user\x00me\x00\x00"), "me"},
		{"no terminator", startup(wire.Version3, "user\x00me\x00"), "expected terminator"},
		{"no value", startup(wire.Version3, "user\x00\x00"), "expected terminator"},
		{"nothing", startup(wire.Version3, ""), "expected terminator"},
		{"bytes behind the terminator", startup(wire.Version3, "user\x00me\x00\x00x"), "expected terminator"},
		{"another protocol", startup(2<<16, "anything"), ""},
		{"length is not the packet's", append(startup(wire.Version3, "\x00"), 0), "invalid length"},
		{"cancel without key", startup(wire.CancelCode, "pid."), "invalid length"},
		{"too long", startup(wire.Version3, strings.Repeat("x", wire.MaxStartup)), "invalid length"},
	} {
		s, err := wire.DecodeStartup(tt.in)
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = s.Get("user")
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want) || tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCancelRequestsAreReadBack(t *testing.T) {
	for _, key := range []string{"four", strings.Repeat("k", 32), strings.Repeat("k", 256)} {
		s, err := wire.DecodeStartup(wire.AppendCancel(nil, 4711, []byte(key)))
		if err != nil || s.Code != wire.CancelCode || s.PID != 4711 || string(s.Key) != key {
			t.Errorf("%d bytes: %+v, %v", len(key), s, err)
		}
	}
}

func TestReplaceParameterChangesOneValueOnly(t *testing.T) {
	in := startup(wire.Version3, "user\x00me\x00database\x00old\x00options\x00-c a=b\x00\x00")
	want := startup(wire.Version3, "user\x00me\x00database\x00newer\x00options\x00-c a=b\x00\x00")
	if got := wire.ReplaceParameter(in, "database", "newer"); !bytes.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	in = startup(wire.Version3, "user\x00me\x00\x00")
	want = startup(wire.Version3, "user\x00me\x00database\x00d\x00\x00")
	if got := wire.ReplaceParameter(in, "database", "d"); !bytes.Equal(got, want) {
		t.Errorf("added: %q", got)
	}
}

func FuzzReplaceParameter(f *testing.F) {
	f.Add(startup(wire.Version3, "user\x00me\x00database\x00old\x00\x00"), "new")
	f.Add(startup(wire.Version3, "\x00"), "")
	f.Add(startup(wire.Version3+1, "database\x00a\x00database\x00b\x00\x00"), "c")
	f.Fuzz(func(t *testing.T, b []byte, value string) {
		s, err := wire.DecodeStartup(b)
		if err != nil || s.Code>>16 != 3 || strings.ContainsRune(value, 0) || len(value) > 1000 {
			return
		}
		r, err := wire.DecodeStartup(wire.ReplaceParameter(b, "database", value))
		if errors.Is(err, wire.ErrStartup) && len(b) > wire.MaxStartup-1100 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Get("database") != value || r.Code != s.Code {
			t.Errorf("%q in %+v", value, r)
		}
		for _, p := range s.Parameters {
			if p.Name != "database" && r.Get(p.Name) != s.Get(p.Name) {
				t.Errorf("%s changed", p.Name)
			}
		}
	})
}

func TestCommandTagCountsRows(t *testing.T) {
	for _, tt := range []struct {
		in, tag string
		rows    int64
	}{
		{"UPDATE 3\x00", "UPDATE 3", 3},
		{"INSERT 0 12\x00", "INSERT 0 12", 12},
		{"COPY 10000000000\x00", "COPY 10000000000", 10_000_000_000},
		{"CREATE TABLE\x00", "CREATE TABLE", 0},
		{"DELETE\x00", "DELETE", 0},
		{"12\x00", "12", 0},
		{"\x00", "", 0},
		{"", "", 0},
		{"UPDATE3\x00", "UPDATE3", 0},
		{"UPDATE 3", "", 0},
	} {
		tag, rows := wire.CommandTag([]byte(tt.in))
		if string(tag) != tt.tag || rows != tt.rows {
			t.Errorf("CommandTag(%q) = %q, %d", tt.in, tag, rows)
		}
	}
}

func FuzzServerBodies(f *testing.F) {
	f.Add([]byte("SERROR\x00C42601\x00Mwrong\x00P7\x00\x00"))
	f.Add([]byte("P7"))
	f.Add([]byte("SELECT 18446744073709551615\x00"))
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 1, 0x7f, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		wire.Field(body, 'C')
		if _, rows := wire.CommandTag(body); rows < 0 {
			t.Errorf("%d rows", rows)
		}
		wire.FirstColumn(body)
		m := wire.Message(wire.Append(nil, 'E', string(body)))
		same := wire.ShiftPosition(m, func(p int) int { return p })
		if wire.Size(same) != len(same) {
			t.Errorf("%q became %q", m, same)
		}
		for _, code := range []byte("SCMDH") {
			if !bytes.Equal(wire.Field(body, code), wire.Field(same.Body(), code)) {
				t.Errorf("field %c changed", code)
			}
		}
	})
}

func TestShiftPositionMovesOrDropsThePosition(t *testing.T) {
	m := wire.Message(wire.Append(nil, 'E', "SERROR\x00P17\x00R parse\x00\x00"))
	if got := wire.ShiftPosition(m, func(p int) int { return p - 9 }); string(got.Body()) != "SERROR\x00P8\x00R parse\x00\x00" {
		t.Errorf("moved: %q", got.Body())
	}
	if got := wire.ShiftPosition(m, func(int) int { return 0 }); string(got.Body()) != "SERROR\x00R parse\x00\x00" {
		t.Errorf("dropped: %q", got.Body())
	}
	m = wire.Message(wire.Append(nil, 'E', "SERROR\x00\x00"))
	if got := wire.ShiftPosition(m, func(int) int { return 1 }); !bytes.Equal(got, m) {
		t.Errorf("without one: %q", got)
	}
}

// What comes out of an Out is what went in, in order, whatever the neighbours
// in memory, and neighbours become one segment.
func FuzzOut(f *testing.F) {
	f.Add([]byte("some bytes of a client"), []byte{3, 1, 255, 4, 0, 9})
	f.Fuzz(func(t *testing.T, buf, cuts []byte) {
		var o wire.Out
		var want []byte
		at, runs := 0, 0
		joined := false
		for _, c := range cuts {
			if c == 255 { // ours
				o.Forward([]byte("ours"))
				want = append(want, "ours"...)
				runs, joined = runs+1, false
				continue
			}
			n := min(int(c), len(buf)-at)
			o.Forward(buf[at : at+n])
			want = append(want, buf[at:at+n]...)
			at += n
			if n > 0 && !joined {
				runs, joined = runs+1, true
			}
		}
		if o.Len() != len(want) {
			t.Errorf("%d bytes of %d", o.Len(), len(want))
		}
		segments := o.Take(nil)
		if got := bytes.Join(segments, nil); !bytes.Equal(got, want) {
			t.Errorf("%q became %q", want, got)
		}
		if len(segments) > runs {
			t.Errorf("%d segments for %d runs", len(segments), runs)
		}
		if o.Len() != 0 || len(o.Take(nil)) != 0 {
			t.Error("not empty after Take")
		}
	})
}
