package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lockkeeper/inspect"
)

// now is the time of all tests.
var now = time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC)

// parse parses a policy that must be right.
func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// standard returns the default policy of a profile.
func standard(t testing.TB, profile string) *Policy {
	t.Helper()
	p, err := Default(profile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// batch puts statements together as an inspector does.
func batch(statements ...inspect.Statement) *inspect.Batch {
	b := &inspect.Batch{Class: inspect.Read, Statements: statements}
	for i := range statements {
		b.Class = inspect.Worse(b.Class, statements[i].Class)
	}
	return b
}

// statement returns facts with the relations' widest bound.
func statement(class inspect.Class, kind inspect.Kind, relations ...inspect.Relation) inspect.Statement {
	s := inspect.Statement{Class: class, Kind: kind, Relations: relations}
	for i := range relations {
		s.Bound = inspect.Wider(s.Bound, relations[i].Bound)
	}
	return s
}

// rel returns a relation; name may be qualified.
func rel(name string, access inspect.Access, bound inspect.Bound) inspect.Relation {
	schema, name := splitName(name)
	return inspect.Relation{Schema: schema, Name: name, Access: access, Bound: bound}
}

// locked returns a relation that DDL locks.
func locked(name string, mode inspect.LockMode) inspect.Relation {
	r := rel(name, inspect.AccessDefine, inspect.NotApplicable)
	r.Lock = mode
	return r
}

func selectFrom(name string) inspect.Statement {
	return statement(inspect.Read, inspect.KindSelect, rel(name, inspect.AccessRead, 0))
}

// calling is a SELECT that calls a function.
func calling(effect inspect.CallEffect) inspect.Statement {
	st := selectFrom("a")
	st.Calls = []inspect.Call{{Name: "round", Effect: inspect.CallBuiltIn}, {Name: "f", Effect: effect}}
	return st
}

func update(name string, bound inspect.Bound) inspect.Statement {
	return statement(inspect.Write, inspect.KindUpdate, rel(name, inspect.AccessUpdate|inspect.AccessRead, bound))
}

func deleteFrom(name string, bound inspect.Bound) inspect.Statement {
	return statement(inspect.Write, inspect.KindDelete, rel(name, inspect.AccessDelete|inspect.AccessRead, bound))
}

func insertInto(name string) inspect.Statement {
	return statement(inspect.Write, inspect.KindInsert, rel(name, inspect.AccessInsert, 0))
}

func truncate(name string) inspect.Statement {
	r := rel(name, inspect.AccessTruncate, inspect.BoundNone)
	r.Lock = inspect.AccessExclusive
	return statement(inspect.Write, inspect.KindTruncate, r)
}

func alterTable(name string) inspect.Statement {
	return statement(inspect.Define, "ALTER TABLE", locked(name, inspect.AccessExclusive))
}

func lockTable(name string, mode inspect.LockMode) inspect.Statement {
	return statement(inspect.Define, inspect.KindLockTable, locked(name, mode))
}

func control(kind inspect.Kind) inspect.Statement { return statement(inspect.Control, kind) }

func beginReadWrite() inspect.Statement {
	s := control(inspect.KindBegin)
	s.AsksReadWrite = true
	return s
}

func chained(kind inspect.Kind) inspect.Statement {
	s := control(kind)
	s.Chain = true
	return s
}

func set(name, value string) inspect.Statement {
	s := statement(inspect.Session, inspect.KindSet)
	s.Set = &inspect.Setting{Name: name, Value: value}
	return s
}

func reset(name string) inspect.Statement {
	s := statement(inspect.Session, inspect.KindReset)
	s.Set = &inspect.Setting{Name: name, Reset: true}
	return s
}

func hiding(s inspect.Statement, h inspect.Hidden) inspect.Statement {
	s.Hidden |= h
	return s
}

func do(words ...string) *inspect.Batch {
	b := batch(hiding(statement(inspect.Unknown, inspect.KindDo), inspect.HiddenBlock))
	b.Words = words
	return b
}

// odooWorker is who sends the statements of most tests.
func odooWorker() *Subject {
	return &Subject{User: "odoo", Database: "prod", Application: "odoo-4711", Address: "10.1.2.3", Tags: []string{"worker"}}
}

// outside is a request outside a transaction.
func outside(b *inspect.Batch) *Request {
	return &Request{Subject: odooWorker(), Batch: b, Tx: TxIdle, Now: now}
}

// verdictOf writes a decision's verdict and what settled it.
func verdictOf(d *Decision) string {
	if d.Rule == "" {
		return d.Verdict.String()
	}
	return d.Verdict.String() + " " + d.Rule
}

func TestDefaultPolicies(t *testing.T) {
	unknown := inspect.NewUnknown("parser: syntax error", []string{"from", "res_partner"})
	tests := []struct {
		name           string
		batch          *inspect.Batch
		odoo, postgres string
	}{
		{"empty query", batch(), "allow", "allow"},
		{"read", batch(selectFrom("account_move")), "allow", "allow"},
		{"delete of everything", batch(deleteFrom("account_move", inspect.BoundNone)), "refuse unbounded-write", "allow"},
		{"in any schema where the text does not say", batch(deleteFrom("public.account_move", inspect.BoundNone)), "refuse unbounded-write", "allow"},
		{"of a temporary table", batch(deleteFrom("pg_temp.account_move", inspect.BoundNone)), "allow", "allow"},
		{"vacuous update", batch(update("sale_order", inspect.BoundVacuous)), "refuse unbounded-write", "allow"},
		{"update by predicate", batch(update("sale_order", inspect.BoundPredicate)), "allow", "allow"},
		{"update by key", batch(update("sale_order", inspect.BoundKeyed)), "allow", "allow"},
		{"update at cursor", batch(update("sale_order", inspect.BoundCursor)), "allow", "allow"},
		{"update of everything in another table", batch(update("x_log", inspect.BoundNone)), "allow", "allow"},
		{"truncate", batch(truncate("res_partner")), "refuse unbounded-write", "allow"},
		{"insert", batch(insertInto("res_partner")), "allow", "allow"},
		{"second of two statements", batch(selectFrom("x"), deleteFrom("stock_move", inspect.BoundNone)), "refuse unbounded-write", "allow"},
		{
			"hidden in a CTE of a SELECT",
			batch(hiding(statement(inspect.Write, inspect.KindSelect, rel("stock_move", inspect.AccessDelete, inspect.BoundNone)), inspect.HiddenCTEWrite)),
			"refuse unbounded-write", "allow",
		},
		{
			"hidden in EXPLAIN ANALYZE",
			batch(hiding(statement(inspect.Write, "EXPLAIN", rel("stock_move", inspect.AccessUpdate, inspect.BoundNone)), inspect.HiddenExplain)),
			"refuse unbounded-write", "allow",
		},
		{
			"bounded delete that reads a critical table",
			batch(statement(inspect.Write, inspect.KindDelete, rel("x_log", inspect.AccessDelete, inspect.BoundNone), rel("account_move", inspect.AccessRead, 0))),
			"allow", "allow",
		},
		{
			"merge",
			batch(statement(inspect.Write, inspect.KindMerge, rel("account_move", inspect.AccessUpdate|inspect.AccessInsert, inspect.BoundVacuous))),
			"refuse unbounded-write", "allow",
		},
		{
			"merge that only inserts",
			batch(statement(inspect.Write, inspect.KindMerge, rel("account_move", inspect.AccessInsert, inspect.NotApplicable))),
			"allow", "allow",
		},
		{"unclassified text with a critical name", unknown, "refuse unknown-text", "allow unknown-text"},
		{"unclassified text without", inspect.NewUnknown("parser: syntax error", []string{"selec"}), "allow unknown-text", "allow unknown-text"},
		{"unclassified text of any words", inspect.NewUnknown("parser busy", nil), "refuse unknown-text", "allow unknown-text"},
		{"DO with a critical name", do("account_move", "begin", "delete"), "refuse unknown-text", "allow unknown-text"},
		{"DO without", do("begin", "null"), "allow unknown-text", "allow unknown-text"},
		{"DO of which nobody knows the words", do(), "refuse unknown-text", "allow unknown-text"},
		{"CALL", batch(hiding(statement(inspect.Unknown, inspect.KindCall), inspect.HiddenCall)), "allow unknown-text", "allow unknown-text"},
		{"EXECUTE of an unseen statement", batch(statement(inspect.Unknown, inspect.KindExecute)), "allow unknown-text", "allow unknown-text"},
		{"DDL", batch(alterTable("account_move")), "allow", "allow"},
		{"pg_dump's lock", batch(lockTable("account_move", inspect.AccessShare)), "allow", "allow"},
	}
	for _, profile := range []string{ProfileOdoo, ProfilePostgres} {
		s := &Snapshot{Policy: standard(t, profile)}
		for _, tt := range tests {
			want := tt.odoo
			if profile == ProfilePostgres {
				want = tt.postgres
			}
			t.Run(profile+"/"+tt.name, func(t *testing.T) {
				d := s.Decide(outside(tt.batch))
				if got := verdictOf(&d); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				if (d.Refusal == nil) != (d.Verdict == Allow) {
					t.Errorf("verdict %s with refusal %v", d.Verdict, d.Refusal)
				}
			})
		}
	}
}

func TestARuleMayDecideAboutWhatCannotBeClassified(t *testing.T) {
	s := &Snapshot{Policy: parse(t, `
profile: odoo
unknown: refuse
rules:
  - {name: large-objects, match: {kinds: [function call]}, action: allow}
  - {name: admins, match: {users: [admin], classes: [unknown]}, action: allow}
`)}
	call := batch(statement(inspect.Unknown, "FUNCTION CALL"))
	call.Why, call.Words = "a function called by its number", []string{}
	hidden := batch(statement(inspect.Unknown, inspect.KindExecute), deleteFrom("x", inspect.BoundNone))
	hidden.Why = "a statement that was not prepared through this session"
	admin := odooWorker()
	admin.User = "admin"
	tests := []struct {
		name  string
		sub   *Subject
		batch *inspect.Batch
		want  string
	}{
		{"by kind", odooWorker(), call, "allow large-objects"},
		{"not by another kind", odooWorker(), do(), "refuse unknown-text"},
		{"nor for text of no kind", odooWorker(), inspect.NewUnknown("parser: syntax error", []string{}), "refuse unknown-text"},
		{"by class", admin, inspect.NewUnknown("parser: syntax error", nil), "allow admins"},
		{"one of several statements", odooWorker(), hidden, "refuse unknown-text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := outside(tt.batch)
			r.Subject = tt.sub
			d := s.Decide(r)
			if got := verdictOf(&d); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNothingPassesBeforeThereIsAPolicy(t *testing.T) {
	for _, s := range []*Snapshot{nil, {}} {
		d := s.Decide(outside(batch(selectFrom("x"))))
		if got := verdictOf(&d); got != "refuse no-policy" {
			t.Errorf("got %s", got)
		}
	}
}

func TestTimeouts(t *testing.T) {
	full := statement(inspect.Define, "VACUUM", locked("account_move", inspect.AccessExclusive))
	concurrently := statement(inspect.Define, "CREATE INDEX", locked("account_move", inspect.ShareUpdateExclusive))
	concurrently.Concurrently = true
	tests := []struct {
		name           string
		batch          *inspect.Batch
		odoo, postgres string // lock_timeout statement_timeout rule
	}{
		{"alter critical", batch(alterTable("account_move")), "5s 15m0s ddl-on-hot-tables", "5s 15m0s ddl-on-hot-tables"},
		{"alter other", batch(alterTable("x_log")), "15s 0s ddl-elsewhere", "0s 0s "},
		{"alter both", batch(alterTable("x_log"), alterTable("account_move")), "5s 15m0s ddl-on-hot-tables", "5s 15m0s ddl-on-hot-tables"},
		{"foreign key to critical", batch(statement(inspect.Define, "CREATE TABLE", locked("x", inspect.AccessExclusive), locked("account_move", inspect.ShareRowExclusive))), "5s 15m0s ddl-on-hot-tables", "5s 15m0s ddl-on-hot-tables"},
		{"table made from critical", batch(statement(inspect.Define, "CREATE TABLE AS", locked("x", inspect.AccessExclusive), rel("account_move", inspect.AccessRead, 0))), "5s 0s ddl-on-hot-tables", "5s 0s ddl-on-hot-tables"},
		{"table like critical", batch(statement(inspect.Define, "CREATE TABLE", locked("x", inspect.AccessExclusive), inspect.Relation{Name: "account_move", Access: inspect.AccessRead, Lock: inspect.AccessShare})), "5s 0s ddl-on-hot-tables", "5s 0s ddl-on-hot-tables"},
		{"new table", batch(statement(inspect.Define, "CREATE TABLE", locked("x", inspect.AccessExclusive))), "0s 0s ", "0s 0s "},
		{"pg_dump's lock", batch(lockTable("account_move", inspect.AccessShare)), "0s 0s ", "0s 0s "},
		{"lock as DML takes it", batch(lockTable("account_move", inspect.RowExclusive)), "0s 0s ", "0s 0s "},
		{"Odoo's attachment lock", batch(set("lock_timeout", "10s"), lockTable("ir_attachment", inspect.Share)), "5s 15m0s ddl-on-hot-tables", "0s 0s "},
		{"lock elsewhere", batch(lockTable("x", inspect.AccessExclusive)), "0s 0s ", "0s 0s "},
		{"concurrently", batch(concurrently), "0s 0s ", "0s 0s "},
		{"vacuum", batch(statement(inspect.Define, "VACUUM", locked("account_move", inspect.ShareUpdateExclusive))), "0s 0s ", "0s 0s "},
		{"vacuum full", batch(full), "5s 15m0s ddl-on-hot-tables", "5s 15m0s ddl-on-hot-tables"},
		{"comment", batch(statement(inspect.Define, "COMMENT", locked("account_move", inspect.ShareUpdateExclusive))), "5s 15m0s ddl-on-hot-tables", "5s 15m0s ddl-on-hot-tables"},
		{"grant", batch(statement(inspect.Define, "GRANT", locked("account_move", inspect.NoLock))), "0s 0s ", "0s 0s "},
		{"tables that are not named", batch(statement(inspect.Define, "DROP SCHEMA")), "5s 0s ddl-on-hot-tables", "5s 0s ddl-on-hot-tables"},
		{"vacuum of everything, FULL or not", batch(statement(inspect.Define, "VACUUM")), "5s 0s ddl-on-hot-tables", "5s 0s ddl-on-hot-tables"},
		{"truncate elsewhere", batch(truncate("x")), "15s 0s ddl-elsewhere", "0s 0s "},
		{"a write", batch(update("account_move", inspect.BoundKeyed)), "0s 0s ", "0s 0s "},
	}
	odoo := &Snapshot{Policy: standard(t, ProfileOdoo)}
	postgres := &Snapshot{Policy: parse(t, "profile: postgres\ncritical_tables: [account_move]")}
	for _, tt := range tests {
		for _, c := range []struct {
			s    *Snapshot
			want string
		}{{odoo, tt.odoo}, {postgres, tt.postgres}} {
			t.Run(c.s.Policy.Profile()+"/"+tt.name, func(t *testing.T) {
				o := c.s.Decide(outside(tt.batch)).Obligations
				if got := fmt.Sprint(o.LockTimeout, o.StatementTimeout, " ", o.Timeouts); strings.Join(strings.Fields(got), " ") != strings.TrimSpace(c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		}
	}
}

func TestNoTimeoutsWithoutCriticalTables(t *testing.T) {
	s := &Snapshot{Policy: standard(t, ProfilePostgres)}
	for _, st := range []inspect.Statement{alterTable("x"), truncate("x"), statement(inspect.Define, "DROP SCHEMA"), lockTable("x", inspect.AccessExclusive)} {
		if o := s.Decide(outside(batch(st))).Obligations; o.LockTimeout != 0 || o.StatementTimeout != 0 {
			t.Errorf("%s: got %+v", st.Kind, o)
		}
	}
}

func TestTheFirstMatchingActionDecidesForEachTable(t *testing.T) {
	s := &Snapshot{Policy: parse(t, `
profile: odoo
critical_tables: [account_move]
rules:
  - {name: scratch, match: {tables: [scratch]}, action: allow}
  - {name: admins, match: {users: [admin], kinds: [delete]}, action: allow}
  - {name: intruders, match: {databases: [secret]}, action: disconnect}
  - {name: writes, match: {classes: [write], tables: any}, action: refuse}
  - {name: never, match: {classes: [write]}, action: disconnect}
`)}
	admin := odooWorker()
	admin.User = "admin"
	secret := odooWorker()
	secret.Database = "secret"
	both := statement(inspect.Write, inspect.KindDelete,
		rel("account_move", inspect.AccessDelete, inspect.BoundNone), rel("scratch", inspect.AccessDelete, inspect.BoundNone))
	tests := []struct {
		name  string
		sub   *Subject
		batch *inspect.Batch
		want  string
	}{
		{"allowed table", odooWorker(), batch(deleteFrom("scratch", inspect.BoundNone)), "allow scratch"},
		{"other table", odooWorker(), batch(deleteFrom("account_move", inspect.BoundNone)), "refuse writes"},
		{"an allowed table does not cover another one", odooWorker(), batch(both), "refuse writes"},
		{"an allowed subject", admin, batch(both), "allow admins"},
		{"an allowed subject's other writes", admin, batch(update("account_move", inspect.BoundKeyed)), "refuse writes"},
		{"the strictest statement counts", admin, batch(deleteFrom("scratch", 0), update("x", inspect.BoundKeyed)), "refuse writes"},
		{"disconnect", secret, batch(selectFrom("x")), "disconnect intruders"},
		{"no rule", odooWorker(), batch(selectFrom("x")), "allow"},
		{"settings and control are meant only by name", secret, batch(set("a", "b"), control(inspect.KindRollback)), "allow"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := outside(tt.batch)
			r.Subject = tt.sub
			d := s.Decide(r)
			if got := verdictOf(&d); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		match string
		yes   []inspect.Statement
		no    []inspect.Statement
	}{
		{
			"{kinds: [update]}",
			[]inspect.Statement{update("a", inspect.BoundKeyed), statement(inspect.Write, inspect.KindMerge, rel("a", inspect.AccessUpdate, 0))},
			[]inspect.Statement{deleteFrom("a", 0), selectFrom("a"), insertInto("a")},
		},
		{
			"{kinds: [merge]}",
			[]inspect.Statement{statement(inspect.Write, inspect.KindMerge, rel("a", inspect.AccessInsert, 0))},
			[]inspect.Statement{update("a", 0)},
		},
		{
			"{kinds: [merge], tables: [a]}",
			[]inspect.Statement{statement(inspect.Write, inspect.KindMerge, rel("a", inspect.AccessInsert, 0))},
			[]inspect.Statement{statement(inspect.Write, inspect.KindMerge, rel("b", inspect.AccessInsert, 0), rel("a", inspect.AccessRead, 0))},
		},
		{"{kinds: [alter table, lock]}", []inspect.Statement{alterTable("a"), lockTable("a", inspect.Share)}, []inspect.Statement{truncate("a")}},
		{"{kinds: [Copy]}", []inspect.Statement{statement(inspect.Read, inspect.KindCopyTo), statement(inspect.Write, inspect.KindCopyFrom)}, []inspect.Statement{selectFrom("a")}},
		{"{kinds: [rollback]}", []inspect.Statement{control(inspect.KindRollback)}, []inspect.Statement{control(inspect.KindCommit)}},
		{"{classes: [control]}", []inspect.Statement{control(inspect.KindCommit)}, []inspect.Statement{selectFrom("a")}},
		{"{classes: [write], tables: [a]}", []inspect.Statement{insertInto("a")}, []inspect.Statement{statement(inspect.Write, inspect.KindInsert, rel("b", inspect.AccessInsert, 0), rel("a", inspect.AccessRead, 0))}},
		{"{bound: [none]}", []inspect.Statement{update("a", inspect.BoundNone)}, []inspect.Statement{update("a", inspect.BoundVacuous), selectFrom("a")}},
		{"{calls: volatile}", []inspect.Statement{calling(inspect.CallVolatile), calling(inspect.CallMissing), calling(inspect.CallUnknown)}, []inspect.Statement{calling(inspect.CallStable), calling(inspect.CallBuiltIn), selectFrom("a")}},
		{"{tables: [stock_*]}", []inspect.Statement{selectFrom("stock_move"), selectFrom("public.stock_move")}, []inspect.Statement{selectFrom("stocks"), selectFrom("pg_temp.stock_move")}},
		{"{tables: [public.a]}", []inspect.Statement{selectFrom("a"), selectFrom("public.a")}, []inspect.Statement{selectFrom("other.a")}},
		{"{tables: [a]}", []inspect.Statement{selectFrom("a"), selectFrom("public.a"), selectFrom("other.a")}, []inspect.Statement{selectFrom("b")}},
		{"{tables: [public.a_*]}", []inspect.Statement{selectFrom("a_1"), selectFrom("public.a_1")}, []inspect.Statement{selectFrom("other.a_1")}},
		{"{tables: critical}", []inspect.Statement{selectFrom("account_move")}, []inspect.Statement{selectFrom("b")}},
		{"{users: [odoo]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{users: [od*]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{users: [bob]}", nil, []inspect.Statement{selectFrom("a")}},
		{"{databases: [p*d]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{databases: [test]}", nil, []inspect.Statement{selectFrom("a")}},
		{"{apps: [psql, odoo-*]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{apps: [odoo]}", nil, []inspect.Statement{selectFrom("a")}},
		{"{tags: [worker]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{tags: [cron]}", nil, []inspect.Statement{selectFrom("a")}},
		{"{addresses: [10.0.0.0/8]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{addresses: [10.1.2.3]}", []inspect.Statement{selectFrom("a")}, nil},
		{"{addresses: [local, 192.168.0.0/16, '::1']}", nil, []inspect.Statement{selectFrom("a")}},
		{"{users: [odoo], databases: [test]}", nil, []inspect.Statement{selectFrom("a")}},
		{"{}", []inspect.Statement{selectFrom("a"), update("b", 0)}, []inspect.Statement{control(inspect.KindCommit), set("a", "b")}},
	}
	for _, tt := range tests {
		t.Run(tt.match, func(t *testing.T) {
			p := parse(t, "profile: odoo\ncritical_tables: [account_move]\nrules:\n- {name: it, match: "+tt.match+", action: refuse}")
			s := &Snapshot{Policy: p}
			for _, st := range tt.yes {
				if d := s.Decide(outside(batch(st))); d.Rule != "it" {
					t.Errorf("does not match %s", deed(&st, &st.Relations[0]))
				}
			}
			for _, st := range tt.no {
				if d := s.Decide(outside(batch(st))); d.Rule == "it" {
					t.Errorf("matches %s", deed(&st, worst(&st)))
				}
			}
		})
	}
}

func TestThrottles(t *testing.T) {
	s := &Snapshot{Policy: parse(t, `
profile: odoo
critical_tables: [account_move, sale_order]
rules:
  - name: imports
    match: {apps: ["import-*"], tables: critical}
    throttle: {rows_per_second: 500, by: table, max_wait: 5s}
  - name: each
    match: {classes: [write]}
    throttle: {statements_per_second: 10, by: user}
  - name: apps
    match: {apps: ["import-*"], kinds: [insert]}
    throttle: {statements_per_second: 10, by: application}
`)}
	importer := odooWorker()
	importer.Application = "import-1"
	tests := []struct {
		name  string
		sub   *Subject
		batch *inspect.Batch
		want  string
	}{
		{"write", odooWorker(), batch(update("account_move", inspect.BoundKeyed)), "each/user=odoo"},
		{"import", importer, batch(insertInto("public.account_move"), insertInto("account_move")), "apps/application=import-1 each/user=odoo imports/table=account_move"},
		{"read", importer, batch(selectFrom("x")), ""},
		{"begin", odooWorker(), batch(control(inspect.KindBegin)), "each/user=odoo?"},
		{"begin of an import", importer, batch(control(inspect.KindStart)), "apps/application=import-1? each/user=odoo? imports/table=account_move? imports/table=sale_order?"},
		{"begin and write in one text", odooWorker(), batch(control(inspect.KindBegin), insertInto("x")), "each/user=odoo"},
		{"commit", importer, batch(control(inspect.KindCommit)), ""},
		{"commit and chain", odooWorker(), batch(chained(inspect.KindCommit)), "each/user=odoo?"},
		{"setting", importer, batch(set("a", "b")), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := outside(tt.batch)
			r.Subject = tt.sub
			keys := []string{}
			for _, th := range s.Decide(r).Obligations.Throttles {
				key := th.Key
				if th.Begin {
					key += "?"
				}
				keys = append(keys, key)
				if th.Rule == "" || th.Refusal == nil || th.MaxWait == 0 || th.RowsPerSecond+th.StatementsPerSecond == 0 {
					t.Errorf("incomplete throttle %+v", th)
				}
			}
			slices.Sort(keys)
			if got := strings.Join(keys, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
