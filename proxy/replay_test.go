package proxy_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy/wire"
)

// streamsVariable is the environment variable that names a folder with full
// streams (install.jsonl.gz …) for the replay to use instead of the checked-in
// ones, which have at most 20 instances of each shape of statement.
const streamsVariable = "LOCKKEEPER_ODOO_STREAMS"

// recorded is one statement of a stream.
type recorded struct {
	DB      string `json:"db"`
	App     string `json:"app"`
	Session string `json:"session"`
	SQL     string `json:"sql"`
	Shape   string `json:"shape"` // equal for texts that differ in literals only
	Error   string `json:"error"` // the SQLSTATE that it ended in, if any
}

// An installation of Odoo, statement by statement, is answered through
// lockkeeper under the default policy as it is answered without: the same
// messages, command tags, rows and SQLSTATEs, and nothing is refused. Readings
// of the clock and rows that differ between two direct runs (OIDs, random
// numbers) are not compared, and of others their order is not: plans differ with statistics.
func TestOdooStreamIsAnsweredAsDirectly(t *testing.T) {
	g := newGuard(t, catalogued)
	stream := openStream(t, "install")
	lanes := []*lane{
		newLane(t, g, g.pg.Addr()),
		newLane(t, g, g.pg.Addr()),
		newLane(t, g, g.addr),
	}
	var n, failed, volatile int
	for {
		var r recorded
		if err := stream.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
		var replies [3][]wire.Message
		for _, l := range lanes {
			l.send(&r)
		}
		for i, l := range lanes {
			replies[i] = l.receive(&r)
		}
		a, b, c := digest(replies[0]), digest(replies[1]), digest(replies[2])
		if a.outline != c.outline {
			t.Fatalf("statement %d, %s\ndirect  %s\nthrough %s", n, shorten(r.SQL), a.outline, c.outline)
		}
		switch {
		case a.rows != b.rows:
			volatile++
		case a.rows != c.rows:
			t.Fatalf("statement %d, %s: rows differ", n, shorten(r.SQL))
		}
		if strings.Contains(a.outline, "E ") {
			failed++
		}
		for _, l := range lanes {
			l.goOn(&r)
		}
	}
	if refused := g.journal(journal.RefusalEntry); len(refused) > 0 {
		t.Errorf("%d statements refused, the first by %s: %+v", len(refused), refused[0].Rule, refused[0])
	}
	t.Logf("%d statements: %d failed directly and through the guard alike, %d with rows that no two runs have in common", n, failed, volatile)
	if n < 10_000 || failed > n/2 {
		t.Errorf("%d statements replayed, %d failed", n, failed)
	}
}

// No statement that a real Odoo sends is refused by the default policy, and each
// is understood, but for those that the server does not understand either. Of the
// checked-in part one instance of each shape is enough.
func TestOdooStreamsPassTheDefaultPolicy(t *testing.T) {
	p, err := policy.Default(policy.ProfileOdoo)
	if err != nil {
		t.Fatal(err)
	}
	snap := &policy.Snapshot{Epoch: 1, Policy: p}
	inspector := inspect.NewInspector(inspect.DefaultLimits(), pgquery.Parse, prometheus.NewRegistry())
	for _, name := range []string{"install", "upgrade", "flows"} {
		stream, n, opaque := openStream(t, name), 0, map[inspect.Kind]int{}
		seen := map[string]bool{}
		for {
			var r recorded
			if err := stream.Decode(&r); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if seen[r.Shape] && os.Getenv(streamsVariable) == "" {
				continue
			}
			seen[r.Shape] = true
			n++
			b := inspector.Inspect(t.Context(), []byte(r.SQL), inspect.Lexing{})
			if b.Why != "" && r.Error != "42601" {
				t.Errorf("%s, statement %d is unknown: %s: %s", name, n, b.Why, shorten(r.SQL))
			}
			if b.Why == "" && b.Class == inspect.Unknown {
				opaque[b.Statements[0].Kind]++
			}
			d := snap.Decide(&policy.Request{Subject: &policy.Subject{User: "odoo", Database: r.DB, Application: r.App}, Batch: b, Tx: policy.TxIdle, Now: time.Unix(1, 0)})
			if d.Verdict != policy.Allow {
				t.Errorf("%s, statement %d is refused by %s: %s", name, n, d.Rule, shorten(r.SQL))
			}
		}
		t.Logf("%s: %d statements, none refused; Unknown by their kind, as DO is: %v", name, n, opaque)
		if n < 400 {
			t.Errorf("%s: %d statements", name, n)
		}
	}
}

// openStream opens a recorded stream.
func openStream(t *testing.T, name string) *json.Decoder {
	t.Helper()
	dir := filepath.Join("..", "internal", "testdata", "odoo")
	if full := os.Getenv(streamsVariable); full != "" {
		dir = full
	} else {
		t.Logf("$%s is not set: the checked-in part of the stream is replayed", streamsVariable)
	}
	f, err := os.Open(filepath.Join(dir, name+".jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	return json.NewDecoder(z)
}

// lane is one replay: its connections and the database it makes.
type lane struct {
	t        *testing.T
	addr     string
	demo     string // stands for the database that the stream makes
	sessions map[string]*rawClient
}

func newLane(t *testing.T, g *guard, addr string) *lane {
	t.Helper()
	l := &lane{t: t, addr: addr, demo: g.pg.NewDatabase(t) + "_demo", sessions: map[string]*rawClient{}}
	t.Cleanup(func() {
		for _, name := range slices.Sorted(maps.Keys(l.sessions)) {
			_ = l.sessions[name].conn.Close()
		}
		if err := g.pg.Exec(context.Background(), pgtest.Superuser, "DROP DATABASE IF EXISTS "+l.demo+" WITH (FORCE)"); err != nil {
			t.Errorf("drop %s: %v", l.demo, err)
		}
	})
	return l
}

func (l *lane) session(r *recorded) *rawClient {
	if c := l.sessions[r.Session]; c != nil {
		return c
	}
	database := pgtest.Superuser
	if r.DB != "postgres" {
		database = l.demo
	}
	c := loginRaw(l.t, l.addr, database, "application_name", r.App, "options", "-c statement_timeout=20s")
	l.sessions[r.Session] = c
	return c
}

func (l *lane) send(r *recorded) {
	text := r.SQL
	if strings.HasPrefix(text, "CREATE DATABASE") {
		text = strings.ReplaceAll(text, `"demo"`, l.demo)
	}
	c := l.session(r)
	c.query(text)
	c.flush()
}

// receive reads one exchange. COPY data was not recorded: there is none.
func (l *lane) receive(r *recorded) []wire.Message {
	c := l.session(r)
	var out []wire.Message
	for {
		m := c.read()
		out = append(out, m)
		switch {
		case m == nil:
			l.t.Fatalf("connection lost at %s", shorten(r.SQL))
		case m.Type() == 'G':
			c.send('c')
			c.flush()
		case m.Type() == 'Z':
			return out
		}
	}
}

// goOn ends a transaction that has failed: the checked-in stream leaves out
// what repeats, ROLLBACK too.
func (l *lane) goOn(r *recorded) {
	c := l.session(r)
	if c.status == 'E' {
		c.exec("ROLLBACK")
	}
}

// clock matches what now() gave. Two direct runs may read the clock in the same
// microsecond while the run through lockkeeper reads it in the next: such values
// would pass for constant.
var clock = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+`)

// summary is an exchange without what differs between two databases.
type summary struct{ outline, rows string }

func digest(ms []wire.Message) summary {
	var outline strings.Builder
	var rows []string
	for _, m := range ms {
		switch m.Type() {
		case 'D':
			outline.WriteString("D;")
			rows = append(rows, clock.ReplaceAllString(values(m.Body()), "<clock>"))
		case 'E', 'N':
			outline.WriteString(string(m.Type()) + " " + string(wire.Field(m.Body(), 'C')) + ";")
		default:
			outline.WriteString(show(m) + ";")
		}
	}
	slices.Sort(rows)
	return summary{outline.String(), strings.Join(rows, ";")}
}

func shorten(sql string) string {
	if len(sql) > 200 {
		return sql[:200] + "…"
	}
	return sql
}
