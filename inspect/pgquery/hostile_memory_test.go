package pgquery

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/pganalyze/pg_query_go/v5/parser"
)

// What a parse may take, and what many may leave behind, in bytes.
const (
	perToken    = 400
	perByte     = 16
	slack       = 16 << 20
	mayStayOver = 64 << 20
)

// memoryOf returns a line of this process's status, VmRSS or VmHWM, in bytes.
func memoryOf(t *testing.T, line string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), line+":")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// measureInChild runs a test that measures its process in a process of its own.
// One that has not come to its measure has shown nothing.
func measureInChild(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	output, err := runChild(t, 8192)
	if err != nil || !strings.Contains(output, measured) {
		t.Errorf("%v\n%s", err, output)
	}
	t.Log(output)
}

// measured begins what such a test says at its end.
const measured = "measured: "

// TestMemoryOfAParse measures what the parser takes for the productions that
// are shortest, and have most nodes for that, repeated until the text is long,
// in a process of its own.
func TestMemoryOfAParse(t *testing.T) {
	if os.Getenv(inChild) == "" {
		measureInChild(t)
		return
	}
	const size = 32 << 10
	worst, name := 0, ""
	for i := range productions {
		p := &productions[i]
		if len(p.open)+len(p.end) > 4 {
			continue
		}
		text := p.text(p.deepest(20)) + ";"
		text = strings.Repeat(text, max(1, size/len(text)))
		debug.FreeOSMemory()
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // VmHWM begins again
			t.Fatal(err)
		}
		before := memoryOf(t, "VmRSS")
		_, _ = parser.ParseToJSON(text)
		_, _ = parser.ParseToProtobuf(text)
		took, tokens := memoryOf(t, "VmHWM")-before, loadOf(text).tokens
		if took > perToken*tokens+perByte*len(text)+slack {
			t.Errorf("%s: %d bytes for %d tokens in %d bytes", p.name, took, tokens, len(text))
		}
		if took > worst {
			worst, name = took, fmt.Sprintf("%s: %d tokens, %d a token", p.name, tokens, took/tokens)
		}
	}
	fmt.Printf(measured+"at most %d kB for %d kB of text: %s\n", worst>>10, size>>10, name)
}

// TestManyParsesLeaveNothing gives hostile texts to the parser, thousands of
// them, and looks at what the process has kept: what C allocates Go does not
// see. LOCKKEEPER_HOSTILE_TEXTS is how many.
func TestManyParsesLeaveNothing(t *testing.T) {
	if os.Getenv(inChild) == "" {
		measureInChild(t)
		return
	}
	texts := 600
	if s := os.Getenv("LOCKKEEPER_HOSTILE_TEXTS"); s != "" {
		var err error
		if texts, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	parseSome := func(n int) int {
		for i := range n {
			p := &productions[i%len(productions)]
			text := p.text(p.deepest(50 + i%50))
			Parse(text)
			Parse(text + ")")
		}
		debug.FreeOSMemory()
		return memoryOf(t, "VmRSS")
	}
	before := parseSome(len(productions))
	after := parseSome(texts / 2)
	if after > before+mayStayOver {
		t.Errorf("%d bytes after one round, %d after %d texts", before, after, texts)
	}
	fmt.Printf(measured+"%d kB after one round, %d kB after %d texts\n", before>>10, after>>10, texts)
}
