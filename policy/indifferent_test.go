package policy

import (
	"reflect"
	"sync"
	"testing"

	"lockkeeper/inspect"
)

// TestWhatPassesIsWhatTheRulesAllow compares the two ways to decide, for many
// statements, policies and subjects.
func TestWhatPassesIsWhatTheRulesAllow(t *testing.T) {
	paced := "profile: odoo\nrules:\n  - {name: pace, match: {users: [bob], classes: [write]}, throttle: {rows_per_second: 5, by: user}}\n"
	policies := map[string]*Policy{
		"odoo": standard(t, ProfileOdoo), "postgres": standard(t, ProfilePostgres), "many": manyRules(t, 200),
		"none": parse(t, "profile: postgres\nrules: []\n"), "paced": parse(t, paced),
		"reads":  parse(t, "profile: postgres\nrules:\n  - {name: r, match: {users: [bob], tables: [\"sale*\"], classes: [read]}, action: refuse}\n"),
		"any":    parse(t, "profile: postgres\nrules:\n  - {name: r, match: {apps: [x]}, action: refuse}\n"),
		"watch":  parse(t, "profile: postgres\nrules:\n  - {name: r, match: {classes: [control]}, action: refuse, enforce: false}\n"),
		"f":      parse(t, "profile: postgres\nrules:\n  - {name: r, match: {classes: [read], calls: volatile}, action: refuse}\n"),
		"strict": parse(t, "profile: odoo\nunknown: refuse\n"),
	}
	var statements []inspect.Statement
	for _, table := range []string{"account_move", "sale_order", "sale_x", "table_2", "public.table_3", "nobody"} {
		for _, bound := range []inspect.Bound{inspect.BoundNone, inspect.BoundVacuous, inspect.BoundKeyed, inspect.BoundPredicate} {
			statements = append(statements, update(table, bound), deleteFrom(table, bound))
		}
		statements = append(statements, selectFrom(table), insertInto(table), truncate(table), alterTable(table), lockTable(table, inspect.AccessExclusive))
	}
	for _, kind := range []inspect.Kind{inspect.KindBegin, inspect.KindCommit, inspect.KindRollback, inspect.KindSavepoint} {
		statements = append(statements, control(kind), chained(kind))
	}
	statements = append(statements, set("work_mem", "1"), reset("all"), calling(inspect.CallVolatile), calling(inspect.CallBuiltIn), forUpdate(),
		statement(inspect.Define, "DROP SCHEMA"), statement(inspect.Define, "VACUUM"), statement(inspect.Unknown, inspect.KindDo))
	subjects := []*Subject{odooWorker(), {User: "bob", Database: "d", Application: "x"}, {User: "user_0", Application: "app_1"}}

	passed := 0
	for name, p := range policies {
		s := &Snapshot{Epoch: 1, Policy: p}
		for i := range statements {
			one := batch(statements[i])
			two := batch(statements[i], statements[(i+1)%len(statements)])
			costly := &inspect.Batch{Class: inspect.Read, Costly: true, Why: "x", Statements: statements[i : i+1]}
			for _, b := range []*inspect.Batch{one, two, costly, inspect.NewUnknown("x", nil)} {
				for _, sub := range subjects {
					r := outside(b)
					r.Subject = sub
					if got, want := s.Decide(r), s.evaluate(r); !b.Costly && !reflect.DeepEqual(got, want) {
						t.Errorf("%s: %+v by %s: %+v, the rules say %+v", name, b.Statements, sub.User, got, want)
					}
				}
				if s.Passes(b) {
					passed++
				}
				if b.Costly && s.Passes(b) {
					t.Errorf("%s: a costly text passes", name)
				}
			}
		}
	}
	if passed < 100 {
		t.Errorf("only %d batches pass", passed)
	}
}

// TestNothingPassesWithoutAskingInAContainment: what holds for everybody is not
// asked of the rules.
func TestNothingPassesWithoutAskingInAContainment(t *testing.T) {
	s, b := contained(t), batch(selectFrom("a"))
	if !s.Passes(b) {
		t.Fatal("a plain SELECT does not pass")
	}
	if c := contained(t, readOnlySince(Finish, now)); c.Passes(b) {
		t.Error("it passes read-only unasked")
	}
	if (&Snapshot{}).Passes(b) {
		t.Error("it passes where there is no policy")
	}
}

// TestOpinionsAreOfOneBatch: a batch that takes another one's place is looked at
// itself.
func TestOpinionsAreOfOneBatch(t *testing.T) {
	s := &Snapshot{Policy: standard(t, ProfileOdoo)}
	var wait sync.WaitGroup
	for range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 2 * MaxOpinions {
				harmless, harmful := batch(selectFrom("a")), batch(update("account_move", inspect.BoundNone))
				if !s.Passes(harmless) || s.Passes(harmful) || !s.Passes(harmless) {
					t.Error("an opinion was taken for another's")
					return
				}
			}
		}()
	}
	wait.Wait()
}

// TestLargeBatchesAreNotKept: what a policy remembers it keeps alive.
func TestLargeBatchesAreNotKept(t *testing.T) {
	p := standard(t, ProfileOdoo)
	s := &Snapshot{Policy: p}
	large := set("app.x", string(make([]byte, MaxOpinionBytes)))
	wide := update("nobody", inspect.BoundKeyed)
	wide.Columns = make([]string, MaxOpinionBytes)
	for _, st := range []inspect.Statement{large, wide} {
		b := batch(st)
		if s.Passes(b) {
			t.Errorf("%s: a batch of %d bytes is remembered", st.Kind, b.Bytes())
		}
	}
	for i := range p.opinions.indifferent {
		if p.opinions.indifferent[i].Load() != nil || p.opinions.concerned[i].Load() != nil {
			t.Error("there is an opinion")
		}
	}
}

// TestAnOpinionCostsNoAllocation, also where two batches take each other's place.
func TestAnOpinionCostsNoAllocation(t *testing.T) {
	s := &Snapshot{Policy: standard(t, ProfileOdoo)}
	one := batch(selectFrom("a"))
	other := batch(selectFrom("b"))
	for placeOf(other) != placeOf(one) {
		other = batch(selectFrom("b"))
	}
	if n := testing.AllocsPerRun(100, func() {
		if !s.Passes(one) || !s.Passes(other) {
			t.Error("a plain SELECT does not pass")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
