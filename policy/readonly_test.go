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

// A rule vouches for DO and CALL in a transaction block, and for nothing else.
func TestARuleVouchesForCodeInReadOnly(t *testing.T) {
	p, err := Parse([]byte(`
profile: odoo
unknown: refuse
rules:
  - {name: observed, enforce: false, match: {kinds: [do, call]}, action: allow, in_read_only: true}
  - {name: by-name, match: {kinds: [call], procedures: [reports.refresh]}, action: allow, in_read_only: true}
  - {name: by-user, match: {kinds: [do, call], users: [reports]}, action: allow, in_read_only: true}
  - {name: elsewhere, match: {kinds: [do, call], databases: [prod]}, action: allow}
`), "p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	call := func(name string, h inspect.Hidden) *inspect.Batch {
		s := hiding(statement(inspect.Unknown, inspect.KindCall), inspect.HiddenCall|h)
		s.Name = name
		return batch(s)
	}
	fromTokens := call("reports.refresh", 0)
	fromTokens.FromTokens = true
	reports := &Subject{User: "reports", Database: "prod"}
	for _, tt := range []struct {
		name  string
		sub   *Subject
		batch *inspect.Batch
		want  string
	}{
		{"the procedure", odooWorker(), call("reports.refresh", 0), "allow by-name"},
		{"its schema is not said", odooWorker(), call("", 0), "refuse read-only"},
		{"another procedure", odooWorker(), call("reports.other", 0), "refuse read-only"},
		{"read from tokens", odooWorker(), fromTokens, "refuse read-only"},
		{"an argument with effects", odooWorker(), call("reports.refresh", inspect.HiddenServerSide), "refuse read-only"},
		{"an argument that locks", odooWorker(), call("reports.refresh", inspect.HiddenRowLock), "refuse read-only"},
		{"a write beside it", odooWorker(), batch(call("reports.refresh", 0).Statements[0], insertInto("x")), "refuse read-only"},
		{"DO of somebody else", odooWorker(), do("begin"), "refuse read-only"},
		{"the user's DO", reports, do("begin"), "allow by-user"},
		{"the user's CALL", reports, call("", 0), "allow by-user"},
		{"the user's write", reports, batch(insertInto("x")), "refuse read-only"},
		{"the user's unclassified text", reports, inspect.NewUnknown("parser: syntax error", nil), "refuse read-only"},
		{"EXECUTE of the unknown", reports, batch(statement(inspect.Unknown, inspect.KindExecute)), "refuse read-only"},
	} {
		r := &Request{Subject: tt.sub, Batch: tt.batch, Tx: TxActive, TxEpoch: 10, InBlock: true, Now: now}
		s := &Snapshot{Epoch: 11, Policy: p, Containments: []Containment{readOnlySince(Finish, time.Time{})}}
		d := s.Decide(r)
		if got := verdictOf(&d); got != tt.want || d.Verdict == Allow && !d.Obligations.ReadOnly {
			t.Errorf("%s: %s, want %s: %+v", tt.name, got, tt.want, d.Refusal)
		}
		r.InBlock = false
		if d := s.Decide(r); d.Verdict != Refuse || d.Rule != CheckReadOnly {
			t.Errorf("%s, outside a block: %s", tt.name, verdictOf(&d))
		}
		s.Containments = append(s.Containments, Containment{Kind: ObserveMode})
		r.InBlock = true
		if d := s.Decide(r); d.Verdict != Refuse {
			t.Errorf("%s, in observe mode: %s", tt.name, verdictOf(&d))
		}
	}
}

// The COMMIT of a transaction that has run such code is gated, however old the
// transaction is.
func TestCodeGatesItsCommit(t *testing.T) {
	s := contained(t, readOnlySince(Finish, time.Time{}))
	for _, b := range []*inspect.Batch{batch(control(inspect.KindCommit)), batch(chained(inspect.KindCommit)), batch(control(inspect.KindCommit), control(inspect.KindBegin))} {
		r := in(11, b)
		if d := s.Decide(r); d.Obligations.GateCommit {
			t.Errorf("%v: gated", b.Statements)
		}
		r.TxOpaque = true
		if d := s.Decide(r); !d.Obligations.GateCommit || d.Verdict != Allow {
			t.Errorf("%v: %s, not gated", b.Statements, verdictOf(&d))
		}
	}
}
