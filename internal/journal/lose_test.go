package journal

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestTwoProcessesWriteOneJournal: while one takes over from the other both
// write, nothing is missing, and what one has open is not lost by the other's
// coming.
func TestTwoProcessesWriteOneJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	statement := func(session uint64, tx string) Entry {
		return Entry{Time: at, Kind: StatementEntry, Session: session, Transaction: tx, Tables: []string{"t"}, Outcome: "ok"}
	}
	old, _ := open(t, Config{Path: path})
	old.Submit(statement(1, "finished"))
	old.Submit(statement(2, "cut off"))
	eventually(t, "the old one's are there", func() bool { return count(t, old, Filter{}) == 2 })
	next, _ := open(t, Config{Path: path, Joins: true})

	const each = 300
	var wait sync.WaitGroup
	for i, j := range []*Journal{old, next} {
		wait.Go(func() {
			for n := range each {
				session := uint64(i*1_000_000 + 10 + n)
				tx := fmt.Sprint(n)
				j.Submit(statement(session, tx))
				j.Submit(Entry{Time: at, Kind: TransactionEntry, Session: session, Transaction: tx, Outcome: "committed"})
			}
		})
	}
	wait.Wait()
	next.Submit(statement(1_000_001, "open"))
	old.Submit(Entry{Time: at, Kind: TransactionEntry, Session: 1, Transaction: "finished", Outcome: "committed"})
	// On a slow disk each waits for the other for longer than SQLite does, and
	// tries again.
	for end := time.Now().Add(2 * time.Minute); count(t, next, Filter{Limit: maxLimit}) < 4*each+4; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("some entries never arrive")
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(t, next); got["committed"] != 2*each+1 || got["ok"] != 2 {
		t.Errorf("before the end of the old one is known: %v", got)
	}
	if err := next.Lose(t.Context(), 1_000_000); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(t, next); got["committed"] != 2*each+1 || got["lost"] != 1 || got["ok"] != 1 {
		t.Errorf("afterwards: %v", got)
	}
}

func count(t *testing.T, j *Journal, f Filter) int {
	t.Helper()
	all, err := j.Query(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// outcomes counts statements by outcome.
func outcomes(t *testing.T, j *Journal) map[string]int {
	t.Helper()
	all, err := j.Query(t.Context(), Filter{Kind: StatementEntry, Limit: maxLimit})
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for i := range all {
		n[all[i].Outcome]++
	}
	return n
}

func TestLosingInAJournalThatIsClosed(t *testing.T) {
	j, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "journal.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Lose(t.Context(), 1); err == nil {
		t.Error("no error")
	}
}
