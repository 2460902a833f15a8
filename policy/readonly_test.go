package policy

import (
	"reflect"
	"testing"
	"time"

	"lockkeeper/inspect"
)

// holding returns a containment of mode hold, of epoch 10.
func holding(d time.Duration) Containment {
	c := readOnlySince(Finish, time.Time{})
	c.ID, c.MaxHold = "h1", Duration(d)
	return c
}

func TestModeHoldHoldsWhatMayWrite(t *testing.T) {
	s := contained(t, holding(time.Minute))
	for _, tt := range []struct {
		name  string
		batch *inspect.Batch
		holds bool
	}{
		{"write", batch(insertInto("x")), true},
		{"BEGIN", batch(control(inspect.KindBegin)), true},
		{"BEGIN … READ WRITE", batch(beginReadWrite()), true},
		{"BEGIN … READ ONLY", batch(inspect.Statement{Class: inspect.Control, Kind: inspect.KindBegin, AsksReadOnly: true}), false},
		{"DDL", batch(statement(inspect.Define, "CREATE TABLE", locked("x", inspect.AccessExclusive))), true},
		{"a function", batch(hiding(selectFrom("a"), inspect.HiddenFunction)), true},
		{"a text of a whole transaction", batch(control(inspect.KindBegin), insertInto("x"), control(inspect.KindCommit)), true},
		{"unclassified", inspect.NewUnknown("parser: syntax error", []string{"selec"}), true},
		{"COMMIT PREPARED", batch(control(inspect.KindCommitPrepared)), true},
		{"a read", batch(selectFrom("a")), false},
		{"two reads", batch(selectFrom("a"), selectFrom("b")), false},
		{"a setting", batch(set("work_mem", "1MB")), false},
		{"nothing", batch(), false},
	} {
		d := s.Decide(outside(tt.batch))
		if got := d.Obligations.Hold != nil; got != tt.holds || !d.Obligations.ReadOnly || d.Verdict != Allow {
			t.Errorf("%s: %s, %+v", tt.name, verdictOf(&d), d.Obligations)
		}
		if h := d.Obligations.Hold; h != nil && (h.Max != time.Minute || h.Containment != "h1" || h.Refusal != nil) {
			t.Errorf("%s: %+v", tt.name, h)
		}
		for what, change := range map[string]func(*Request){
			"it has waited": func(r *Request) { r.Waited = time.Minute },
			"it cannot":     func(r *Request) { r.Pipelined = true },
			"in a block":    func(r *Request) { r.Tx, r.TxEpoch = TxActive, 10 },
		} {
			r := outside(tt.batch)
			change(r)
			want := contained(t, readOnlySince(Finish, time.Time{})).Decide(r)
			if d := s.Decide(r); d.Verdict != want.Verdict || !reflect.DeepEqual(d.Obligations, want.Obligations) {
				t.Errorf("%s, %s: %s, read-only: %s", tt.name, what, verdictOf(&d), verdictOf(&want))
			}
		}
	}
}

func TestReadOnlyIsStricterThanHold(t *testing.T) {
	for _, s := range []*Snapshot{contained(t, holding(time.Minute), readOnlySince(Finish, time.Time{})), contained(t, readOnlySince(Finish, time.Time{}), holding(time.Minute))} {
		if d := s.Decide(outside(batch(insertInto("x")))); d.Verdict != Refuse {
			t.Errorf("a write: %s", verdictOf(&d))
		}
		if c := s.ReadOnlyFor(odooWorker(), now); c.Holds() {
			t.Errorf("the strictest is %s", c.ID)
		}
	}
}

// Of several containments each keeps its promise, whichever comes first.
func TestSeveralReadOnlyContainments(t *testing.T) {
	old, younger := readOnlySince(Finish, now.Add(time.Minute)), readOnlySince(RefuseCommit, time.Time{})
	younger.Epoch = 12
	other := readOnlySince(RefuseCommit, time.Time{})
	other.Epoch, other.Scope.Database = 20, "elsewhere"
	for _, s := range []*Snapshot{contained(t, old, younger, other), contained(t, other, younger, old)} {
		for epoch, want := range map[uint64]bool{9: true, 10: true, 11: true, 12: false, 13: false} {
			if got := s.TooLate(odooWorker(), epoch, now) != nil; got != want {
				t.Errorf("a transaction of epoch %d is too late: %v", epoch, got)
			}
		}
		for epoch, want := range map[uint64]bool{9: true, 12: true, 13: false} {
			if got := s.Covers(odooWorker(), epoch, now); got != want {
				t.Errorf("covers what epoch %d promised: %v", epoch, got)
			}
		}
		d := s.Decide(in(11, batch(control(inspect.KindCommit))))
		if !d.Obligations.GateCommit {
			t.Errorf("COMMIT of a transaction between them: %+v", d.Obligations)
		}
	}
}
