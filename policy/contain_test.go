package policy

import (
	"slices"
	"testing"
	"time"

	"lockkeeper/inspect"
)

// readOnlySince returns a read-only containment of epoch 10.
func readOnlySince(in InFlight, drain time.Time) Containment {
	return Containment{
		ID: "c1", Kind: ReadOnlyMode, Reason: "incident 42", Author: "alice",
		Since: now.Add(-time.Minute), Epoch: 10, InFlight: in, DrainUntil: drain,
	}
}

// contained returns a snapshot of profile odoo with containments.
func contained(t testing.TB, c ...Containment) *Snapshot {
	t.Helper()
	return &Snapshot{Epoch: 11, Policy: standard(t, ProfileOdoo), Containments: c}
}

// in returns a request in a transaction begun in an epoch.
func in(epoch uint64, b *inspect.Batch) *Request {
	return &Request{Subject: odooWorker(), Batch: b, Tx: TxActive, TxEpoch: epoch, Now: now}
}

func copyToFile() inspect.Statement {
	return hiding(statement(inspect.Read, inspect.KindCopyTo, rel("x", inspect.AccessRead, 0)), inspect.HiddenServerSide)
}

func forUpdate() inspect.Statement {
	return hiding(statement(inspect.Read, inspect.KindSelect, rel("ir_cron", inspect.AccessRead|inspect.AccessLockRows, 0)), inspect.HiddenRowLock)
}

func TestReadOnly(t *testing.T) {
	tests := []struct {
		name  string
		batch *inspect.Batch
		allow bool
	}{
		{"empty query", batch(), true},
		{"read", batch(selectFrom("account_move")), true},
		{"two reads", batch(selectFrom("a"), selectFrom("b")), true},
		{"function that the server judges", batch(hiding(selectFrom("a"), inspect.HiddenFunction)), true},
		{"insert", batch(insertInto("x")), false},
		{"insert after a read", batch(selectFrom("a"), insertInto("x")), false},
		{"insert into a temporary table", batch(insertInto("pg_temp.x")), true},
		{"insert into a temporary table and another", batch(insertInto("pg_temp.x"), insertInto("x")), false},
		{"truncate of a temporary table", batch(statement(inspect.Write, inspect.KindTruncate, rel("pg_temp.x", inspect.AccessTruncate, 0))), false},
		{"copy from stdin", batch(statement(inspect.Write, inspect.KindCopyFrom, rel("x", inspect.AccessInsert, 0))), false},
		{"copy to stdout", batch(statement(inspect.Read, inspect.KindCopyTo)), true},
		{"copy to a file", batch(copyToFile()), false},
		{"rows locked", batch(forUpdate()), false},
		{"unclassified", inspect.NewUnknown("parser: syntax error", []string{"selec"}), false},
		{"DO", do("begin", "null"), false},
		{"CALL", batch(statement(inspect.Unknown, inspect.KindCall)), false},
		{"EXECUTE of an unseen statement", batch(statement(inspect.Unknown, inspect.KindExecute)), false},
		{"prepare of a read", batch(statement(inspect.Session, inspect.KindPrepare)), true},
		{"create table", batch(statement(inspect.Define, "CREATE TABLE", locked("x", inspect.AccessExclusive))), false},
		{"vacuum", batch(statement(inspect.Define, "VACUUM", locked("x", inspect.ShareUpdateExclusive))), false},
		{"analyze", batch(statement(inspect.Define, "ANALYZE")), false},
		{"reindex", batch(statement(inspect.Define, "REINDEX")), false},
		{"checkpoint", batch(statement(inspect.Define, "CHECKPOINT")), false},
		{"alter system", batch(statement(inspect.Define, "ALTER SYSTEM")), false},
		{"load", batch(statement(inspect.Session, "LOAD")), false},
		{"pg_dump's lock", batch(lockTable("x", inspect.AccessShare)), true},
		{"a lock that writers need", batch(lockTable("x", inspect.RowExclusive)), false},
		{"lock of a mode not seen", batch(lockTable("x", inspect.NoLock)), false},
		{"begin", batch(control(inspect.KindBegin)), true},
		{"begin as Odoo 18 sends it", batch(beginReadWrite()), true},
		{"commit", batch(control(inspect.KindCommit)), true},
		{"commit and chain", batch(chained(inspect.KindCommit)), true},
		{"savepoint", batch(control(inspect.KindSavepoint)), true},
		{"prepare transaction", batch(control(inspect.KindPrepareTransaction)), false},
		{"commit prepared", batch(control(inspect.KindCommitPrepared)), false},
		{"rollback prepared", batch(control(inspect.KindRollbackPrepared)), true},
		{"set", batch(set("lock_timeout", "5s")), true},
		{"discard all", batch(statement(inspect.Session, inspect.KindDiscard)), true},
		{"reset all", batch(reset("all")), true},
		{"set transaction read write", batch(asking(set("transaction_read_only", "0"))), false},
		{"set transaction_read_only off", batch(set("transaction_read_only", "OFF")), false},
		{"set transaction_read_only to a value not seen", batch(set("transaction_read_only", "")), false},
		{"reset transaction_read_only", batch(reset("transaction_read_only")), false},
		{"set transaction_read_only on", batch(set("transaction_read_only", "True")), true},
		{"set default_transaction_read_only off", batch(set("default_transaction_read_only", "off")), false},
		{"set default_transaction_read_only on", batch(set("default_transaction_read_only", "on")), true},
		{"reset default_transaction_read_only", batch(reset("default_transaction_read_only")), true},
		{"begin and set", batch(control(inspect.KindBegin), set("transaction_isolation", "serializable")), true},
		{"commit and begin", batch(control(inspect.KindCommit), control(inspect.KindBegin)), true},
		{"begin and read", batch(control(inspect.KindBegin), selectFrom("a")), false},
		{"begin, savepoint", batch(control(inspect.KindBegin), control(inspect.KindSavepoint)), false},
		{"begin, commit", batch(control(inspect.KindBegin), control(inspect.KindCommit)), false},
		{"read and commit", batch(selectFrom("a"), control(inspect.KindCommit)), false},
		{"commit and chain, read", batch(chained(inspect.KindCommit), selectFrom("a")), false},
		{"rollback to a savepoint, read", batch(control(inspect.KindRollbackTo), selectFrom("a")), true},
	}
	s := contained(t, readOnlySince(Finish, time.Time{}))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []*Request{outside(tt.batch), in(10, tt.batch), in(11, tt.batch)} {
				d := s.Decide(r)
				if got := d.Verdict == Allow; got != tt.allow {
					t.Fatalf("tx %c: got %s", r.Tx, verdictOf(&d))
				}
				if tt.allow && (!d.Obligations.ReadOnly || d.Obligations.GateCommit) {
					t.Errorf("tx %c: got obligations %+v", r.Tx, d.Obligations)
				}
				if !tt.allow && (d.Rule != CheckReadOnly || d.Refusal.SQLSTATE != "23G02") {
					t.Errorf("tx %c: got %s %+v", r.Tx, verdictOf(&d), d.Refusal)
				}
			}
		})
	}
}

func asking(s inspect.Statement) inspect.Statement {
	s.AsksReadWrite = true
	return s
}

func TestTransactionsInFlight(t *testing.T) {
	late := now.Add(time.Minute)
	early := now.Add(-time.Second)
	write, read := batch(insertInto("x")), batch(selectFrom("x"))
	commit, rollback := batch(control(inspect.KindCommit)), batch(control(inspect.KindRollback))
	tests := []struct {
		name  string
		c     Containment
		batch *inspect.Batch
		want  string
	}{
		{"finish: write", readOnlySince(Finish, late), write, "allow"},
		{"finish: commit", readOnlySince(Finish, late), commit, "allow"},
		{"finish: DDL", readOnlySince(Finish, late), batch(alterTable("x")), "allow"},
		{"finish: the next transaction is read-only", readOnlySince(Finish, late), batch(chained(inspect.KindCommit)), "allow read-only"},
		{"finish: so is one begun in the same text", readOnlySince(Finish, late), batch(control(inspect.KindRollback), control(inspect.KindBegin)), "allow read-only"},
		{"finish: nothing slips in behind the commit", readOnlySince(Finish, late), batch(control(inspect.KindCommit), insertInto("x")), "refuse"},
		{"finish: writes and commit in one text", readOnlySince(Finish, late), batch(insertInto("x"), control(inspect.KindCommit)), "refuse"},
		{"finish, too late: write", readOnlySince(Finish, early), write, "refuse"},
		{"finish, too late: commit", readOnlySince(Finish, early), commit, "allow read-only gate"},
		{"drain: write", readOnlySince(Drain, late), write, "allow"},
		{"drain, too late: commit", readOnlySince(Drain, early), commit, "allow read-only gate"},
		{"refuse-commit: write", readOnlySince(RefuseCommit, late), write, "refuse"},
		{"refuse-commit: read", readOnlySince(RefuseCommit, late), read, "allow read-only"},
		{"refuse-commit: commit", readOnlySince(RefuseCommit, late), commit, "allow read-only gate"},
		{"refuse-commit: commit and chain", readOnlySince(RefuseCommit, late), batch(chained(inspect.KindCommit)), "allow read-only gate"},
		{"refuse-commit: rollback", readOnlySince(RefuseCommit, late), rollback, "allow read-only"},
		{"refuse-commit: prepare transaction", readOnlySince(RefuseCommit, late), batch(control(inspect.KindPrepareTransaction)), "refuse"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := contained(t, tt.c).Decide(in(9, tt.batch))
			got := d.Verdict.String()
			if d.Obligations.ReadOnly {
				got += " read-only"
			}
			if d.Obligations.GateCommit {
				got += " gate"
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTheStricterOfTwoReadOnlyContainmentsCounts(t *testing.T) {
	s := contained(t, readOnlySince(Finish, now.Add(time.Minute)), readOnlySince(RefuseCommit, time.Time{}))
	if d := s.Decide(in(9, batch(insertInto("x")))); d.Verdict != Refuse {
		t.Errorf("got %s", verdictOf(&d))
	}
}

func TestContainmentsHoldForTheirScopeAndTime(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Containment)
		want   bool
	}{
		{"everything", func(*Containment) {}, true},
		{"database", func(c *Containment) { c.Scope.Database = "prod" }, true},
		{"other database", func(c *Containment) { c.Scope.Database = "test" }, false},
		{"user", func(c *Containment) { c.Scope.User = "odoo" }, true},
		{"users, by a pattern", func(c *Containment) { c.Scope.User = "od*" }, true},
		{"other user", func(c *Containment) { c.Scope.User = "odo" }, false},
		{"other users", func(c *Containment) { c.Scope.User = "*x" }, false},
		{"databases, by a pattern", func(c *Containment) { c.Scope.Database = "*rod" }, true},
		{"excepted", func(c *Containment) { c.Except = []string{"repair", "odoo"} }, false},
		{"excepted by a pattern", func(c *Containment) { c.Except = []string{"od*"} }, false},
		{"others are excepted", func(c *Containment) { c.Except = []string{"repair"} }, true},
		{"application", func(c *Containment) { c.Scope.Application = "odoo-*" }, true},
		{"other application", func(c *Containment) { c.Scope.Application = "psql" }, false},
		{"tag", func(c *Containment) { c.Scope.Tag = "worker" }, true},
		{"other tag", func(c *Containment) { c.Scope.Tag = "cron" }, false},
		{"one of two does not hold", func(c *Containment) { c.Scope.Tag, c.Scope.Database = "worker", "test" }, false},
		{"not over", func(c *Containment) { c.Until = now.Add(time.Nanosecond) }, true},
		{"over", func(c *Containment) { c.Until = now }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := readOnlySince(Finish, time.Time{})
			tt.change(&c)
			s := contained(t, c)
			d := s.Decide(outside(batch(insertInto("x"))))
			if got := d.Verdict == Refuse; got != tt.want {
				t.Errorf("refused: %v", got)
			}
			if got := s.ReadOnlyFor(odooWorker(), now) != nil; got != tt.want {
				t.Errorf("ReadOnlyFor: %v", got)
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	vacuumFull := statement(inspect.Define, "VACUUM", locked("x", inspect.AccessExclusive))
	tests := []struct {
		name  string
		batch *inspect.Batch
		allow bool
	}{
		{"read", batch(selectFrom("x")), true},
		{"write", batch(insertInto("x")), true},
		{"alter table", batch(alterTable("x")), false},
		{"alter table in a transaction", batch(control(inspect.KindBegin), alterTable("x")), false},
		{"create sequence", batch(statement(inspect.Define, "CREATE SEQUENCE")), false},
		{"temporary table that says so", batch(statement(inspect.Define, "CREATE TABLE", locked("pg_temp.x", inspect.AccessExclusive))), true},
		{"pg_dump's lock", batch(lockTable("x", inspect.AccessShare)), true},
		{"share lock", batch(lockTable("x", inspect.Share)), false},
		{"truncate", batch(truncate("x")), false},
		{"analyze", batch(statement(inspect.Define, "ANALYZE")), true},
		{"vacuum of a table", batch(statement(inspect.Define, "VACUUM", locked("x", inspect.ShareUpdateExclusive))), true},
		{"vacuum of everything, FULL or not", batch(statement(inspect.Define, "VACUUM")), false},
		{"vacuum full", batch(vacuumFull), false},
		{"unclassified", inspect.NewUnknown("parser: syntax error", []string{"selec"}), false},
		{"DO", do("begin", "null"), false},
	}
	s := contained(t, Containment{ID: "f", Kind: FreezeDDL, Reason: "release week", Author: "alice", Since: now})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.Decide(outside(tt.batch))
			if got := d.Verdict == Allow; got != tt.allow {
				t.Errorf("got %s", verdictOf(&d))
			}
			if !tt.allow && (d.Rule != CheckFreeze || d.Refusal.SQLSTATE != "23G01") {
				t.Errorf("got %s %+v", verdictOf(&d), d.Refusal)
			}
			if d.Obligations.ReadOnly {
				t.Error("a freeze is not read-only")
			}
		})
	}
}

func TestFreezeLetsUnknownTextThroughWhereThePolicyAllowsIt(t *testing.T) {
	s := &Snapshot{Policy: parse(t, "profile: odoo\nunknown: allow"), Containments: []Containment{{Kind: FreezeDDL}}}
	for _, b := range []*inspect.Batch{do("x"), inspect.NewUnknown("parser: syntax error", nil)} {
		if d := s.Decide(outside(b)); d.Verdict != Allow {
			t.Errorf("got %s", verdictOf(&d))
		}
	}
}

func TestPause(t *testing.T) {
	pause := Containment{ID: "p", Kind: Pause, Scope: Scope{Tag: "worker"}, Reason: "restore", Author: "alice", Since: now, MaxHold: Duration(time.Minute)}
	refuse := pause
	refuse.Refuse = true
	bare := pause
	bare.MaxHold = 0
	tests := []struct {
		name string
		c    Containment
		r    *Request
		want string
	}{
		{"begin", pause, outside(batch(control(inspect.KindBegin))), "hold 1m0s"},
		{"autocommit", pause, outside(batch(selectFrom("x"))), "hold 1m0s"},
		{"unclassified", pause, outside(inspect.NewUnknown("x", []string{"a"})), "hold 1m0s"},
		{"the hold is always bounded", bare, outside(batch(selectFrom("x"))), "hold 30s"},
		{"setting", pause, outside(batch(set("a", "b"))), "pass"},
		{"rollback of a pooler", pause, outside(batch(control(inspect.KindRollback))), "pass"},
		{"inside a transaction", pause, in(11, batch(selectFrom("x"))), "pass"},
		{"inside an older transaction", pause, in(1, batch(insertInto("x"))), "pass"},
		{"refuse", refuse, outside(batch(control(inspect.KindBegin))), "refuse 57P03"},
		{"refuse inside a transaction", refuse, in(1, batch(insertInto("x"))), "pass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := contained(t, tt.c).Decide(tt.r)
			got := "pass"
			switch {
			case d.Verdict == Refuse:
				got = "refuse " + d.Refusal.SQLSTATE
			case d.Obligations.Hold != nil:
				got = "hold " + d.Obligations.Hold.Max.String()
				if d.Obligations.Hold.Refusal.SQLSTATE != "55P03" || d.Obligations.Hold.Containment != "p" {
					t.Errorf("got %+v", d.Obligations.Hold)
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestObserveModeActsOnNoRuleAndOnEveryContainment(t *testing.T) {
	observe := Containment{ID: "o", Kind: ObserveMode}
	s := contained(t, observe)
	for name, b := range map[string]*inspect.Batch{
		"unbounded-write":   batch(deleteFrom("account_move", inspect.BoundNone)),
		"ddl-on-hot-tables": batch(alterTable("account_move")),
		CheckUnknownText:    do("account_move"),
	} {
		d := s.Decide(outside(b))
		if d.Verdict != Allow || d.Obligations.LockTimeout != 0 {
			t.Errorf("%s: got %s %+v", name, verdictOf(&d), d.Obligations)
		}
		if !slices.ContainsFunc(d.Observed, func(o Observation) bool { return o.Rule == name }) {
			t.Errorf("%s: observed %+v", name, d.Observed)
		}
	}
	s = contained(t, observe, readOnlySince(Finish, time.Time{}))
	if d := s.Decide(outside(batch(insertInto("x")))); d.Rule != CheckReadOnly {
		t.Errorf("observe mode lifted read-only: %s", verdictOf(&d))
	}
}

func TestServerReadOnlyRefusalHasTheProfilesCode(t *testing.T) {
	c := readOnlySince(Finish, time.Time{})
	for profile, want := range map[string]string{ProfileOdoo: "23G02", ProfilePostgres: "25006"} {
		s := &Snapshot{Policy: standard(t, profile)}
		for _, r := range []*Refusal{s.ServerReadOnlyRefusal(&c), s.ServerReadOnlyRefusal(nil), s.CommitRefusal(&c)} {
			if r.SQLSTATE != want {
				t.Errorf("%s: got %s", profile, r.SQLSTATE)
			}
		}
	}
}
