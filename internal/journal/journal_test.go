package journal

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func open(t *testing.T, cfg Config) (*Journal, *syncBuffer) {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC) }
	}
	log := &syncBuffer{}
	j, err := Open(t.Context(), cfg, slog.New(slog.NewJSONHandler(log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, log
}

// eventually polls for a condition that background work brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func query(t *testing.T, j *Journal, f Filter) []Entry {
	t.Helper()
	entries, err := j.Query(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func full() Entry {
	return Entry{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC), Kind: RefusalEntry, Session: 1<<64 - 1, ServerPID: 4711,
		User: "odoo", Database: "prod", Application: "odoo-1", Address: "10.0.0.1", Transaction: "7-1",
		Fingerprint: 1<<64 - 2, Class: "write", Statement: "UPDATE", Tables: []string{"public.sale_order", "res_partner"},
		Rows: 12, Duration: time.Second, Verdict: "refuse", Rule: "unbounded-write", SQLSTATE: "23G01", Outcome: "refused",
		Action: "a", Reason: "r", Detail: "d", Count: 3,
	}
}

func TestEntryComesBackAsItWasSubmitted(t *testing.T) {
	j, _ := open(t, Config{})
	if err := j.SubmitDurable(t.Context(), full()); err != nil {
		t.Fatal(err)
	}
	got := query(t, j, Filter{})
	if len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", full()) {
		t.Errorf("got  %+v\nwant %+v", got, full())
	}
}

// Of many tables the first are kept, and how many more there were.
func TestManyTablesAreCounted(t *testing.T) {
	j, _ := open(t, Config{})
	e := full()
	for n := range 70 {
		e.Tables = append(e.Tables, fmt.Sprintf("part_%d", n))
	}
	if err := j.SubmitDurable(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got := query(t, j, Filter{Table: "res_partner"})
	if len(got) != 1 || len(got[0].Tables) != tablesInEntry+1 || got[0].Tables[tablesInEntry] != "… and 8 more" {
		t.Errorf("got %+v", got)
	}
}

func TestDurableEntryIsOnDiskForOthersAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := open(t, Config{Path: path})
	if err := j.SubmitDurable(t.Context(), full()); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dsn(path, "ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM entries").Scan(&n); err != nil || n != 1 {
		t.Errorf("another connection sees %d entries, %v", n, err)
	}
}

func TestQueryFilters(t *testing.T) {
	j, _ := open(t, Config{})
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	entries := []Entry{
		{Kind: StatementEntry, User: "a", Database: "x", Session: 1, Tables: []string{"public.sale_order"}},
		{Kind: StatementEntry, User: "b", Database: "y", Session: 2, Tables: []string{"sale_order_line"}},
		{Kind: RefusalEntry, User: "a", Database: "x", Session: 1, Tables: []string{"other.sale_order"}, Rule: "r"},
		{Kind: ActionEntry, User: "boss", Action: "mode read-only"},
		{Kind: StatementEntry, User: "c", Database: "x", Session: 3, Tables: []string{"sale_order"}},
	}
	for i := range entries {
		entries[i].Time = base.Add(time.Duration(i) * time.Minute)
		if err := j.SubmitDurable(t.Context(), entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		f    Filter
		want []int
	}{
		{"everything", Filter{}, []int{0, 1, 2, 3, 4}},
		{"since is included", Filter{Since: base.Add(3 * time.Minute)}, []int{3, 4}},
		{"until is not", Filter{Until: base.Add(1 * time.Minute)}, []int{0}},
		{"bare table in any schema", Filter{Table: "sale_order"}, []int{0, 2, 4}},
		{"qualified table", Filter{Table: "public.sale_order"}, []int{0, 4}},
		{"wildcards are letters", Filter{Table: "sale%"}, nil},
		{"underscore is a letter", Filter{Table: "saleXorder"}, nil},
		{"user", Filter{User: "a"}, []int{0, 2}},
		{"database", Filter{Database: "y"}, []int{1}},
		{"kind", Filter{Kind: ActionEntry}, []int{3}},
		{"rule", Filter{Rule: "r"}, []int{2}},
		{"session", Filter{Session: 1}, []int{0, 2}},
		{"limit takes the newest", Filter{Limit: 2}, []int{3, 4}},
		{"all at once", Filter{User: "a", Table: "sale_order", Kind: StatementEntry}, []int{0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []int
			for _, e := range query(t, j, test.f) {
				got = append(got, int(e.Time.Sub(base)/time.Minute))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestTransactionSettlesItsStatements(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := open(t, Config{Path: path})
	j.Submit(Entry{Kind: StatementEntry, Session: 1, Transaction: "1-1", Outcome: "ok", Statement: "UPDATE"})
	j.Submit(Entry{Kind: StatementEntry, Session: 1, Transaction: "1-1", Outcome: "error", Statement: "DELETE"})
	j.Submit(Entry{Kind: StatementEntry, Session: 1, Transaction: "1-2", Outcome: "ok", Statement: "INSERT"})
	j.Submit(Entry{Kind: StatementEntry, Session: 1, Outcome: "ok", Statement: "TRUNCATE TABLE"})
	j.Submit(Entry{Kind: TransactionEntry, Session: 1, Transaction: "1-1", Outcome: "committed"})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _ = open(t, Config{Path: path})
	// The same name in another run is another transaction.
	j.Submit(Entry{Kind: TransactionEntry, Session: 1, Transaction: "1-1", Outcome: "rolled back"})
	if err := j.SubmitDurable(t.Context(), Entry{Kind: ActionEntry}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range query(t, j, Filter{Kind: StatementEntry}) {
		got[e.Statement] = e.Outcome
	}
	want := map[string]string{"UPDATE": "committed", "DELETE": "error", "INSERT": "lost", "TRUNCATE TABLE": "ok"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A transaction's end may come with its statements, or long behind them.
func TestTransactionSettlesItsStatementsWhereverABatchEnds(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	statement := func(tx, outcome string) Entry {
		return Entry{Time: at, Kind: StatementEntry, Session: 1, Transaction: tx, Outcome: outcome, Statement: tx + " " + outcome}
	}
	all := []Entry{
		statement("1", "ok"), statement("2", "ok"), statement("1", "error"),
		{Time: at, Kind: TransactionEntry, Session: 2, Transaction: "1", Outcome: "rolled back"}, // another one's
		{Time: at, Kind: TransactionEntry, Session: 1, Transaction: "1", Outcome: "committed"},
		statement("", "ok"),
		{Time: at, Kind: TransactionEntry, Session: 1, Transaction: "2", Outcome: "rolled back"},
		statement("3", "ok"),
	}
	want := "map[ ok:ok 1 error:error 1 ok:committed 2 ok:rolled back 3 ok:ok]"
	for cut := range len(all) + 1 {
		for _, unsure := range []bool{false, true} {
			j, _ := open(t, Config{})
			j.db.unsure = unsure
			for _, part := range [][]Entry{all[:cut], all[cut:]} {
				if err := j.put(slices.Clone(part)); err != nil {
					t.Fatal(err)
				}
			}
			if len(j.db.open) != 1 {
				t.Errorf("cut at %d: %v are remembered", cut, j.db.open)
			}
			got := map[string]string{}
			for _, e := range query(t, j, Filter{Kind: StatementEntry}) {
				got[e.Statement] = e.Outcome
			}
			if fmt.Sprint(got) != want {
				t.Errorf("cut at %d: %v", cut, got)
			}
		}
	}
}

// Refusals are never dropped and never wait: a client that is refused again and
// again must not keep the others' statements out of the journal.
func TestAFloodOfRefusalsLeavesRoomForStatements(t *testing.T) {
	j := &Journal{normal: make(chan item, batchEntries), reserved: make(chan item, 2*batchEntries)}
	for range cap(j.normal) {
		j.normal <- item{entry: Entry{Kind: StatementEntry}}
	}
	for range cap(j.reserved) {
		j.reserved <- item{entry: Entry{Kind: RefusalEntry}}
	}
	n := map[Kind]int{}
	for _, i := range j.fill(nil) {
		n[i.entry.Kind]++
	}
	if n[StatementEntry] < batchEntries/4 || n[RefusalEntry] < batchEntries/4 {
		t.Errorf("a batch has %v", n)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	j, _ := open(t, Config{Path: path})
	if err := j.SubmitDurable(t.Context(), full()); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("journal%s: %v, %v", suffix, info.Mode(), err)
		}
	}
}

// lock keeps others from writing to the database until the function that it
// returns is called.
func lock(t *testing.T, path string) func() {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, "rw"))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = tx.Rollback()
		_ = db.Close()
	}
}

func TestSlowDiskDelaysAStatementBrieflyThenCountsAGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := open(t, Config{Path: path, QueueEntries: 1})
	unlock := lock(t, path)
	j.Submit(Entry{Kind: StatementEntry, Statement: "first"})
	eventually(t, "the writer takes the first", func() bool { return len(j.normal) == 0 })
	var longest time.Duration
	for range batchEntries + 3 { // the writer holds up to a batch
		began := time.Now()
		j.Submit(Entry{Kind: StatementEntry, Statement: "more"})
		longest = max(longest, time.Since(began))
		if j.missing() {
			break
		}
	}
	if !j.missing() {
		t.Fatal("nothing was dropped")
	}
	if longest < submitWait || longest > 20*submitWait {
		t.Errorf("the longest wait was %s, want about %s", longest, submitWait)
	}
	unlock()
	eventually(t, "the gap is recorded", func() bool { return len(query(t, j, Filter{Kind: GapEntry})) == 1 })
	if got := query(t, j, Filter{Kind: GapEntry})[0].Count; got != 1 {
		t.Errorf("gap of %d, want 1", got)
	}
}

func TestFullDiskKeepsStatementsGoingAndRecovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, log := open(t, Config{Path: path, QueueEntries: 4, ReservedEntries: 2})
	limit := func(pages int) {
		if _, err := j.db.write.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite does not go below what is in use
	action := Entry{Kind: ActionEntry, Detail: strings.Repeat("x", textBytes), Reason: "incident 42"}
	// Refusals and actions are not removed to make room, so they fill the file.
	eventually(t, "the disk is full", func() bool { j.Submit(action); return j.failing.Load() })
	eventually(t, "the reserved queue is full", func() bool {
		return j.reserve(item{entry: j.trim(action)}) != nil
	})
	before := strings.Count(log.String(), "journal entry kept in the log only")
	j.Submit(action)
	if err := j.SubmitDurable(t.Context(), action); err == nil {
		t.Error("a durable entry is said to be on a full disk")
	}
	if got := strings.Count(log.String(), "journal entry kept in the log only"); got < before+2 {
		t.Errorf("%d entries in the log, want the two that did not fit", got-before)
	}
	if !strings.Contains(log.String(), `"reason":"incident 42"`) {
		t.Error("the log does not hold the entry's fields")
	}
	began := time.Now()
	const lost = 200
	for range lost {
		j.Submit(Entry{Kind: StatementEntry})
	}
	if took := time.Since(began); took > 20*submitWait {
		t.Errorf("%d statements were delayed by %s in all", lost, took)
	}
	limit(100_000)
	eventually(t, "the gap is recorded", func() bool { return len(query(t, j, Filter{Kind: GapEntry})) > 0 })
	eventually(t, "everything is written or counted", func() bool {
		n := int64(len(query(t, j, Filter{Kind: StatementEntry})))
		for _, e := range query(t, j, Filter{Kind: GapEntry}) {
			n += e.Count
		}
		return n == lost
	})
	if got := testutil.ToFloat64(j.metrics.dropped); got == 0 {
		t.Error("lockkeeper_journal_dropped_total did not move")
	}
	if !strings.Contains(log.String(), "journal can be written again") {
		t.Error("recovery is not logged")
	}
}

func TestFullJournalMakesRoomOfStatementsOnly(t *testing.T) {
	j, _ := open(t, Config{MaxBytes: minMaxBytes})
	for range 20 {
		j.Submit(Entry{Kind: ActionEntry, Action: "kept"})
	}
	eventually(t, "old statements make room", func() bool {
		for range 200 {
			j.Submit(Entry{Kind: StatementEntry, Detail: strings.Repeat("x", 300)})
		}
		j.Submit(Entry{Kind: StatementEntry, Statement: "newest"})
		return j.metricsWritten() > 3000
	})
	if got := len(query(t, j, Filter{Kind: ActionEntry})); got != 20 {
		t.Errorf("%d actions, want all 20", got)
	}
	if got := query(t, j, Filter{Kind: StatementEntry, Limit: maxLimit}); len(got) > 2000 {
		t.Errorf("%d statements in a file of %d bytes", len(got), int64(minMaxBytes))
	}
}

func (j *Journal) metricsWritten() int { return int(testutil.ToFloat64(j.metrics.written)) }

func TestOldEntriesAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	j, _ := open(t, Config{Path: path, Retention: 24 * time.Hour, Now: clock})
	const old = pruneEntries + 10
	for i := range old {
		j.Submit(Entry{Kind: StatementEntry, Time: now.Add(-25*time.Hour + time.Duration(i))})
	}
	j.Submit(Entry{Kind: ActionEntry, Time: now.Add(-23 * time.Hour)})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _ = open(t, Config{Path: path, Retention: 24 * time.Hour, Now: clock})
	eventually(t, "only the younger one is left", func() bool {
		left := query(t, j, Filter{})
		return len(left) == 1 && left[0].Kind == ActionEntry
	})
}

func TestCloseWritesWhatIsQueued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, _ := open(t, Config{Path: path})
	for range 2000 {
		j.Submit(Entry{Kind: StatementEntry})
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j.Submit(Entry{Kind: StatementEntry})
	if err := j.SubmitDurable(t.Context(), Entry{Kind: ActionEntry}); err == nil {
		t.Error("a closed journal takes entries")
	}
	j, _ = open(t, Config{Path: path})
	if got := len(query(t, j, Filter{Limit: 5000})); got != 2000 {
		t.Errorf("%d entries, want 2000", got)
	}
}

func TestDamagedDatabaseIsSetAside(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.db")
	j, _ := open(t, Config{Path: good})
	for range 500 {
		j.Submit(full())
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(image)
	newer[63] = 99 // user_version
	torn := bytes.Clone(image)
	clear(torn[pageBytes : 3*pageBytes])
	tests := map[string][]byte{
		"text": []byte("this is no database, whatever its name says; it is long enough to be one, though, is it not?"),
		"torn": torn, "newer": newer, "cut": image[:len(image)/2], "zeroes with a header": append(bytes.Clone(image[:100]), make([]byte, 8000)...),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			j, log := open(t, Config{Path: path})
			if !strings.Contains(log.String(), "damaged journal set aside") {
				t.Errorf("not logged: %s", log)
			}
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) == 0 {
				t.Fatalf("nothing was set aside: %v", err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("what was set aside is not what was there: %v", err)
			}
			if err := j.SubmitDurable(t.Context(), full()); err != nil {
				t.Error(err)
			}
			if got := query(t, j, Filter{}); len(got) != 1 {
				t.Errorf("%d entries in the new journal", len(got))
			}
		})
	}
}

func TestDatabaseDamagedInUseIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, log := open(t, Config{Path: path})
	if err := j.SubmitDurable(t.Context(), full()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.db.write.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 8*pageBytes), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	j.db.write.SetMaxIdleConns(0) // forget the pages that were read before
	eventually(t, "a new journal takes entries", func() bool {
		_ = j.SubmitDurable(t.Context(), full())
		return strings.Contains(log.String(), "damaged journal set aside")
	})
	if err := j.SubmitDurable(t.Context(), full()); err != nil {
		t.Error(err)
	}
}

// TestSchemaIsAsItWas fails when the schema changes: then SchemaVersion grows,
// the new schema is kept beside the old one, and Open learns to convert.
func TestSchemaIsAsItWas(t *testing.T) {
	want, err := os.ReadFile(fmt.Sprintf("testdata/schema-%d.sql", SchemaVersion))
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(schema) != strings.TrimSpace(string(want)) {
		t.Errorf("the schema differs from testdata/schema-%d.sql", SchemaVersion)
	}
}

func FuzzOpenDamaged(f *testing.F) {
	dir := f.TempDir()
	j, err := Open(f.Context(), Config{Path: filepath.Join(dir, "good.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.Fatal(err)
	}
	if err := j.SubmitDurable(f.Context(), full()); err != nil {
		f.Fatal(err)
	}
	if err := j.Close(); err != nil {
		f.Fatal(err)
	}
	image, err := os.ReadFile(filepath.Join(dir, "good.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, []byte("SQLite format 3\x00"))
	f.Add(100, []byte{0, 0, 0, 0})
	f.Add(5000, bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		content := bytes.Clone(image)
		if at >= 0 && at < len(content) {
			copy(content[at:], patch)
		}
		path := filepath.Join(t.TempDir(), "journal.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, _ := open(t, Config{Path: path})
		_ = j.SubmitDurable(t.Context(), full()) // may be the one that finds the damage, but not twice
		if err := j.SubmitDurable(t.Context(), full()); err != nil {
			t.Errorf("no journal after damage at %d: %v", at, err)
		}
	})
}

// BenchmarkSubmit is what a writing transaction costs: a statement and its
// end, until both are on disk.
func BenchmarkSubmit(b *testing.B) {
	j, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "journal.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	e := full()
	e.Kind, e.Outcome = StatementEntry, "ok"
	e.Time = time.Time{}
	end := Entry{Kind: TransactionEntry, Session: 1, Outcome: "committed"}
	for i := range b.N {
		e.Session, e.Transaction = 1, fmt.Sprint(i)
		end.Transaction = e.Transaction
		j.Submit(e)
		j.Submit(end)
	}
	if err := j.SubmitDurable(b.Context(), Entry{Kind: ActionEntry}); err != nil {
		b.Fatal(err)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(testutil.ToFloat64(j.metrics.dropped)/float64(2*b.N), "dropped/entry")
}
