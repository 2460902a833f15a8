package proxy

import (
	"fmt"
	"testing"
	"time"

	"lockkeeper/proxy/session"
)

func TestDatabasesThatAreCountedAreBounded(t *testing.T) {
	sums := tallies{}
	configured := map[string]Target{"mine": {}, "*": {}}
	one := &Tally{Sessions: 1, BytesIn: 10}
	for i := range MaxStatsDatabases + 7 {
		sums.add(fmt.Sprint("made-up-", i), one, configured)
		sums.add("mine", one, configured)
	}
	if len(sums) > MaxStatsDatabases+2 || sums["mine"].Sessions != MaxStatsDatabases+7 || sums[OtherDatabases].BytesIn != 80 {
		t.Errorf("%d databases, mine %d, others %+v", len(sums), sums["mine"].Sessions, sums[OtherDatabases])
	}
	var all Tally
	for _, one := range sums {
		all.add(&one)
	}
	if want := int64(2 * (MaxStatsDatabases + 7)); all.Sessions != want {
		t.Errorf("%d sessions in all, want %d", all.Sessions, want)
	}
}

// TestAveragesAreOverTheLastPeriods follows the arithmetic of PgBouncer.
func TestAveragesAreOverTheLastPeriods(t *testing.T) {
	begin := time.Unix(1000, 0)
	x := stats{ended: tallies{}, olderAt: begin, newAt: begin}
	at := func(minutes int64) tallies {
		return tallies{"db": {
			Work: session.Work{
				Transactions: 60 * minutes, Queries: 120 * minutes, Parses: 180 * minutes, Binds: 240 * minutes,
				TransactionTime: time.Duration(minutes) * time.Minute, QueryTime: time.Duration(minutes) * 12 * time.Second,
				WaitTime: time.Duration(minutes) * 30 * time.Second,
			},
			Sessions: 300 * minutes, BytesIn: 600 * minutes, BytesOut: 6000 * minutes, RowsWritten: 60_000 * minutes,
		}}
	}
	for m := range int64(3) {
		x.period(at(m+1), begin.Add(time.Duration(m+1)*time.Minute))
	}
	if x.olderAt != begin.Add(2*time.Minute) {
		t.Fatalf("the averages begin at %v", x.olderAt)
	}
	now, old := at(4)["db"], x.older["db"]
	want := Tally{
		Work: session.Work{
			Transactions: 1, Queries: 2, Parses: 3, Binds: 4,
			TransactionTime: time.Second, QueryTime: 100 * time.Millisecond, WaitTime: 500 * time.Millisecond,
		},
		Sessions: 5, BytesIn: 10, BytesOut: 100, RowsWritten: 1000,
	}
	if got := now.per(&old, 2*time.Minute); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := now.per(&now, time.Minute); got != (Tally{}) {
		t.Errorf("nothing has happened: %+v", got)
	}
	if got := now.per(&old, 0); got != (Tally{}) {
		t.Errorf("no time has passed: %+v", got)
	}
}
