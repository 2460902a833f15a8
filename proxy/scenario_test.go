package proxy_test

import (
	"encoding/hex"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
	"lockkeeper/proxy/wire"
)

// transparent is a policy under which nothing acts.
const transparent = "profile: postgres\n"

// Scenarios are what a client sends (F), when it waits (until KIND n), and what
// it receives (B), one message a line. Each is played to the server directly
// and through lockkeeper, whole, byte by byte and in random pieces, without
// rules and under the default policy: all runs receive the same messages.
// UPDATE_GOLDEN=1 writes the B lines as the server answers directly.
//
// Other lines: "startup NAME VALUE …" instead of the default login, "protocol
// MINOR" before it asks for 3.MINOR, "flush"
// writes what was collected, "other SQL" runs SQL on another connection ($pid
// is the client's server process), "eventually SQL" waits until that returns
// true, "again KIND SQL" sends a Query until a message of that kind comes and
// shows the last exchange, "cancel" sends a CancelRequest ("ssl" and "gss"
// behind a request for encryption, "wrong" with another key), "shutdown" closes
// the client's sending side, "# …" is a comment, "# cites …" names the
// paragraphs of docs/message-flow.md that the scenario is about.
func TestScenariosAreTheSameDirectAndThroughTheGuard(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	guards := map[string]*guard{
		"no rules": newGuard(t, func(s *setup) { s.policy = transparent }),
		"odoo":     newGuard(t),
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			g := guards["no rules"]
			direct := play(t, string(text), g.directly())
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(direct.golden), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if direct.golden != string(text) && g.pg.Value(t, g.db, "show server_version_num")[:2] == goldenMajor {
				t.Errorf("the server itself answers otherwise:\n%s", firstDifference(string(text), direct.golden))
			}
			for policy, g := range guards {
				for cut, f := range pieces() {
					through := play(t, string(text), place{addr: g.addr, db: g.db, pg: g.pg, cut: f})
					direct.equals(t, policy+", "+cut, through)
				}
			}
		})
	}
}

// The same with TLS on both sides of lockkeeper, byte by byte, and with a
// server whose answers come in pieces.
func TestScenariosOverTLSAndInPieces(t *testing.T) {
	pg := pgtest.Start(t, pgtest.TLS())
	encrypted := newGuard(t, withTLS(t, proxy.TLSVersions{}), func(s *setup) {
		s.pg, s.policy = pg, transparent
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: pg.Host(), Port: uint16(pg.Port()), SSLMode: "require"}}
	})
	chopped := newGuard(t, func(s *setup) {
		s.pg = pg
		host, port := inPieces(t, pg.Addr())
		s.cfg.Servers = map[string]proxy.Target{"*": {Host: host, Port: port, SSLMode: "disable"}}
	})
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	cuts := pieces()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			direct := encrypted.directly()
			direct.tls = true
			want := play(t, string(text), direct)
			want.equals(t, "TLS", play(t, string(text), place{addr: encrypted.addr, db: encrypted.db, pg: pg, cut: cuts["bytes"], tls: true}))
			want = play(t, string(text), chopped.directly())
			want.equals(t, "in pieces", play(t, string(text), place{addr: chopped.addr, db: chopped.db, pg: pg, cut: cuts["random"]}))
		})
	}
}

// inPieces relays connections to addr and passes everything on in pieces of a
// few bytes.
func inPieces(t *testing.T, addr string) (host string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = from.Close()
				continue
			}
			go pass(from, to)
			go pass(to, from)
		}
	}()
	local := l.Addr().(*net.TCPAddr)
	return local.IP.String(), uint16(local.Port)
}

// pass copies one direction of a connection up to its end.
func pass(from, to net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			k := min(len(b), 1+rand.IntN(40))
			if _, err := to.Write(b[:k]); err != nil {
				_ = from.Close()
				return
			}
			b = b[k:]
			runtime.Gosched()
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// goldenMajor is the PostgreSQL that the scenarios' B lines were written with;
// others may differ in them, but not through the guard.
const goldenMajor = "15"

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := firstUnequal(w, g)
	if i < 0 {
		return ""
	}
	return strings.Join(w[max(0, i-6):i], "\n") + "\n- " + at(w, i) + "\n+ " + at(g, i)
}

func firstUnequal(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if at(a, i) != at(b, i) || i >= len(a) || i >= len(b) {
			return i
		}
	}
	return -1
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "nothing"
}

// played is one run of a scenario.
type played struct {
	golden   string   // the scenario's text with the B lines of this run
	received []string // every message
}

// equals reports the first message in which another run differs.
func (p played) equals(t *testing.T, how string, other played) {
	t.Helper()
	if other.golden != p.golden {
		t.Fatalf("%s:\n%s", how, firstDifference(p.golden, other.golden))
	}
	if i := firstUnequal(p.received, other.received); i >= 0 {
		t.Fatalf("%s: message %d\ndirect  %q\nthrough %q", how, i, at(p.received, i), at(other.received, i))
	}
}

// place is where and how a scenario is played.
type place struct {
	addr, db string
	pg       *pgtest.Server // for what others do
	cut      func([]byte) int
	tls      bool
}

// directly is the guard's server itself.
func (g *guard) directly() place {
	return place{addr: g.pg.Addr(), db: g.db, pg: g.pg, cut: pieces()["whole"]}
}

// player runs the lines of a scenario.
type player struct {
	place
	t        *testing.T
	c        *rawClient
	golden   strings.Builder
	loggedIn bool
	all      []string
}

func play(t *testing.T, text string, at place) played {
	t.Helper()
	p := &player{place: at, t: t, c: dialRaw(t, at.addr)}
	if at.tls {
		p.c.encrypt()
	}
	p.c.cut = at.cut
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "startup") }) {
		p.c.startup("user", pgtest.Superuser, "database", at.db, "application_name", "scenario")
		p.c.flush()
		p.receive('Z', 1, false)
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "B ") {
			continue
		}
		p.golden.WriteString(line + "\n")
		p.line(words(t, line))
	}
	p.c.send('X')
	p.c.flush()
	p.receive(0, 1, false)
	_ = p.c.conn.Close()
	return played{p.golden.String(), p.all}
}

// receive reads up to the n-th message of a kind; 0 is the connection's end.
func (p *player) receive(kind byte, n int, golden bool) {
	p.t.Helper()
	for _, m := range p.c.until(kind, n) {
		p.all = append(p.all, same(m))
		p.loggedIn = p.loggedIn || m != nil && m.Type() == 'Z'
		if golden && (p.loggedIn || m == nil || m.Type() != 'S') { // the settings reported at login depend on the server
			p.golden.WriteString("B " + show(m) + "\n")
		}
	}
}

// words splits a line at spaces; quoted words are unquoted as in Go.
func words(t *testing.T, line string) []string {
	t.Helper()
	var out []string
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		if line[0] == '"' {
			q, err := strconv.QuotedPrefix(line)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			w, err := strconv.Unquote(q)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out = append(out, w)
			line = line[len(q):]
			continue
		}
		w, rest, _ := strings.Cut(line, " ")
		out = append(out, w)
		line = rest
	}
	return out
}

func (p *player) line(w []string) {
	p.t.Helper()
	if len(w) == 0 || w[0][0] == '#' {
		return
	}
	switch w[0] {
	case "F":
		p.message(w[1], append(w[2:], "", "", "")) // missing words are empty
	case "startup":
		for i := range w {
			w[i] = strings.ReplaceAll(w[i], "$db", p.db)
		}
		p.c.startup(w[1:]...)
	case "protocol":
		minor, _ := strconv.Atoi(w[1])
		p.c.version = wire.Version3 + uint32(minor)
	case "flush":
		p.c.flush()
	case "until":
		p.c.flush()
		n := 1
		if len(w) > 2 {
			n, _ = strconv.Atoi(w[2])
		}
		kind := byte(0)
		if w[1] != "EOF" {
			kind = w[1][0]
		}
		p.receive(kind, n, true)
	case "other":
		p.pg.MustExec(p.t, p.db, strings.ReplaceAll(w[1], "$pid", strconv.Itoa(int(p.c.pid))))
	case "eventually":
		settle(p.t, w[1], func() bool { return p.pg.Value(p.t, p.db, w[1]) == "t" })
	case "again":
		p.again(w[1][0], w[2])
	case "cancel":
		p.c.flush()
		p.c.cancelAs(p.addr, append(w, "")[1])
	case "shutdown":
		p.c.flush()
		_ = p.c.conn.(interface{ CloseWrite() error }).CloseWrite()
	default:
		p.t.Fatalf("unknown line %q", w)
	}
}

// again sends a Query until a message of kind is among its answers: what the
// server reports when it gets to it.
func (p *player) again(kind byte, sql string) {
	p.t.Helper()
	settle(p.t, sql, func() bool {
		ms := p.c.exec(sql)
		if !strings.ContainsRune(types(ms), rune(kind)) {
			return false
		}
		for _, m := range ms {
			p.all = append(p.all, same(m))
			p.golden.WriteString("B " + show(m) + "\n")
		}
		return true
	})
}

func (p *player) message(kind string, w []string) {
	p.t.Helper()
	zero := "\x00"
	switch kind {
	case "Query":
		p.c.query(strings.ReplaceAll(w[0], "$pid", strconv.Itoa(int(p.c.pid))))
	case "Parse":
		p.c.send('P', w[0], zero, w[1], zero, "\x00\x00")
	case "ParseTyped":
		p.c.send('P', w[0], zero, w[1], zero, oids(w[2:len(w)-3]))
	case "Bind":
		p.c.send('B', w[0], zero, w[1], zero, "\x00\x00", parameters(w[2:len(w)-3]), "\x00\x00")
	case "BindBinary": // its results
		p.c.send('B', w[0], zero, w[1], zero, "\x00\x00", parameters(w[2:len(w)-3]), "\x00\x01\x00\x01")
	case "Describe":
		p.c.send('D', w[0], w[1], zero)
	case "Close":
		p.c.send('C', w[0], w[1], zero)
	case "Execute":
		n, _ := strconv.Atoi(w[1])
		p.c.send('E', w[0], zero, string([]byte{0, 0, byte(n >> 8), byte(n)}))
	case "Sync":
		p.c.send('S')
	case "Flush":
		p.c.send('H')
	case "Terminate":
		p.c.send('X')
	case "CopyData":
		p.c.send('d', w[0])
	case "CopyDone":
		p.c.send('c')
	case "CopyFail":
		p.c.send('f', w[0], zero)
	case "FunctionCall": // one argument, as text
		oid, _ := strconv.Atoi(w[0])
		p.c.send('F', string([]byte{0, 0, byte(oid >> 8), byte(oid)}), "\x00\x00", parameters(w[1:2]), "\x00\x00")
	case "Password":
		p.c.send('p', w[0], zero)
	case "Raw":
		b, err := hex.DecodeString(w[0])
		if err != nil {
			p.t.Fatal(err)
		}
		p.c.out.Write(b)
	default:
		p.t.Fatalf("unknown message %q", kind)
	}
}

// oids writes numbers of types as Parse has them.
func oids(numbers []string) string {
	out := string([]byte{0, byte(len(numbers))})
	for _, n := range numbers {
		out += oid(n)
	}
	return out
}

// parameters writes values as Bind and FunctionCall have them.
func parameters(values []string) string {
	b := []byte{byte(len(values) >> 8), byte(len(values))}
	for _, v := range values {
		if v == "NULL" {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(b, 0, 0, byte(len(v)>>8), byte(len(v)))
		b = append(b, v...)
	}
	return string(b)
}
