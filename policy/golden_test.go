package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockkeeper/inspect"
)

// golden compares text with a file of testdata; UPDATE_GOLDEN=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; UPDATE_GOLDEN=1 rewrites it. Got:\n%s", path, got)
	}
}

// paced is a policy with a throttle, an observed rule and a rule with a reason.
const paced = `
profile: odoo
critical_tables: [account_move, stock_move]
rules:
  - name: closed-books
    doc: Nobody deletes journal entries.
    reason: the books of last year are closed
    match: {kinds: [delete], tables: [account_move]}
    action: refuse
  - name: no-scripts
    match: {apps: ["script-*"]}
    action: disconnect
  - name: imports
    match: {apps: ["import-*"], tables: critical}
    throttle: {rows_per_second: 500, by: user, max_wait: 30s}
  - name: watched
    enforce: false
    match: {kinds: [update], tables: [stock_move]}
    action: refuse
  - name: ddl
    match: {classes: [define], tables: critical}
    ddl: {lock_timeout: 2s, statement_timeout: 1min}
`

// told is one situation and the words it is met with.
type told struct {
	name string
	s    *Snapshot
	r    *Request
}

func situations(t *testing.T) []told {
	odoo, postgres := contained(t), &Snapshot{Policy: parse(t, "profile: postgres\ncritical_tables: [account_move]")}
	script := outside(batch(selectFrom("x")))
	script.Subject.Application = "script-7"
	importer := outside(batch(insertInto("account_move")))
	importer.Subject.Application = "import-7"
	importBegins := outside(batch(beginReadWrite()))
	importBegins.Subject.Application = "import-7"
	own := &Snapshot{Policy: parse(t, paced)}
	until := readOnlySince(Finish, now.Add(time.Minute))
	until.Until = now.Add(time.Hour)
	freeze := Containment{ID: "f7", Kind: FreezeDDL, Reason: "release week", Author: "bob", Since: now, Until: now.Add(24 * time.Hour)}
	pause := Containment{ID: "p1", Kind: Pause, Reason: "restore of a table", Author: "bob", Since: now}
	refusing := pause
	refusing.Refuse = true
	upsert := statement(inspect.Write, inspect.KindInsert, rel("account_move", inspect.AccessInsert|inspect.AccessUpdate, inspect.BoundNone))
	merge := statement(inspect.Write, inspect.KindMerge, rel("account_move", inspect.AccessDelete, inspect.BoundNone))
	hidden := hiding(statement(inspect.Write, inspect.KindSelect, rel("public.account_move", inspect.AccessDelete, inspect.BoundNone)), inspect.HiddenCTEWrite)
	return []told{
		{"delete without WHERE, profile odoo", odoo, outside(batch(deleteFrom("account_move", inspect.BoundNone)))},
		{"delete without WHERE, profile postgres", postgres, outside(batch(deleteFrom("account_move", inspect.BoundNone)))},
		{"update with a vacuous condition", odoo, outside(batch(update("public.account_move", inspect.BoundVacuous)))},
		{"truncate", odoo, outside(batch(truncate("account_move")))},
		{"upsert of every row", odoo, outside(batch(upsert))},
		{"merge that deletes every row", odoo, outside(batch(merge))},
		{"hidden in a SELECT", odoo, outside(batch(selectFrom("x"), hidden))},
		{"a rule with a reason", own, outside(batch(deleteFrom("account_move", inspect.BoundKeyed)))},
		{"disconnect", own, script},
		{"throttled insert", own, importer},
		{"throttled transaction", own, importBegins},
		{"a rule in observe mode", own, outside(batch(update("stock_move", inspect.BoundPredicate)))},
		{"timeouts", own, outside(batch(alterTable("stock_move")))},
		{"a lock that needs no limit", own, outside(batch(lockTable("stock_move", inspect.AccessShare)))},
		{"tables that are not named", own, outside(batch(statement(inspect.Define, "DROP SCHEMA")))},
		{"unclassified text with a critical name", odoo, outside(inspect.NewUnknown(inspect.ParserReason+"syntax error", []string{"account_move"}))},
		{"unclassified text without", odoo, outside(inspect.NewUnknown(inspect.ParserReason+"syntax error", []string{"selec"}))},
		{"unclassified text that is too long", odoo, outside(inspect.NewUnknown(inspect.ReasonTooLong, nil))},
		{"parser busy", odoo, outside(inspect.NewUnknown(inspect.ReasonBusy, nil))},
		{"DO", odoo, outside(do("account_move"))},
		{"read-only: insert", contained(t, readOnlySince(Finish, time.Time{})), outside(batch(insertInto("account_move")))},
		{"read-only with an end: read", contained(t, until), outside(batch(selectFrom("account_move")))},
		{"read-only with an end: update", contained(t, until), outside(batch(update("account_move", inspect.BoundKeyed)))},
		{"read-only: in flight, finishing", contained(t, until), in(9, batch(update("account_move", inspect.BoundKeyed)))},
		{"read-only: in flight, commit", contained(t, readOnlySince(RefuseCommit, time.Time{})), in(9, batch(control(inspect.KindCommit)))},
		{"read-only: rows locked", contained(t, until), outside(batch(forUpdate()))},
		{"read-only: unclassified", contained(t, until), outside(inspect.NewUnknown(inspect.ParserReason+"syntax error", nil))},
		{"read-only: mixed text", contained(t, until), outside(batch(control(inspect.KindBegin), selectFrom("x"), control(inspect.KindCommit)))},
		{"read-only: asks for read-write", contained(t, until), outside(batch(set("transaction_read_only", "off")))},
		{"read-only: COPY to a file", contained(t, until), outside(batch(copyToFile()))},
		{"read-only: two-phase commit", contained(t, until), outside(batch(control(inspect.KindCommitPrepared)))},
		{"freeze: DDL", contained(t, freeze), outside(batch(alterTable("account_move")))},
		{"freeze: DO", contained(t, freeze), outside(do("x"))},
		{"freeze: unclassified", contained(t, freeze), outside(inspect.NewUnknown(inspect.ParserReason+"syntax error", nil))},
		{"pause", contained(t, pause), outside(batch(control(inspect.KindBegin)))},
		{"pause with refusal", contained(t, refusing), outside(batch(control(inspect.KindBegin)))},
		{"observe mode", contained(t, Containment{ID: "o1", Kind: ObserveMode}), outside(batch(deleteFrom("account_move", inspect.BoundNone)))},
		{"no policy", &Snapshot{}, outside(batch(selectFrom("x")))},
		{"empty query", odoo, outside(batch())},
	}
}

// TestRefusals keeps every refusal's text, those included that a decision only
// carries along for later.
func TestRefusals(t *testing.T) {
	var b strings.Builder
	tell := func(name string, r *Refusal) {
		if r != nil {
			fmt.Fprintf(&b, "# %s\n", name)
			writeRefusal(&b, r, "")
			b.WriteString("\n")
		}
	}
	for _, c := range situations(t) {
		d := c.s.Decide(c.r)
		tell(c.name, d.Refusal)
		if d.Obligations.Hold != nil {
			tell(c.name+": held for too long", d.Obligations.Hold.Refusal)
		}
		for _, th := range d.Obligations.Throttles {
			tell(c.name+": throttled for too long", th.Refusal)
		}
		for _, o := range d.Observed {
			tell(c.name+": observed", o.Refusal)
		}
	}
	c := readOnlySince(Finish, now)
	tell("the server's own refusal in read-only", contained(t).ServerReadOnlyRefusal(&c))
	tell("the server's own refusal after read-only", contained(t).ServerReadOnlyRefusal(nil))
	tell("a commit in flight", contained(t).CommitRefusal(&c))
	golden(t, "refusals.golden", b.String())
}

func TestExplain(t *testing.T) {
	var b strings.Builder
	for _, c := range situations(t) {
		e := c.s.Explain(c.r)
		fmt.Fprintf(&b, "# %s\n%s\n", c.name, e.Text())
	}
	golden(t, "explain.golden", b.String())
}

func TestExplainAsJSON(t *testing.T) {
	e := contained(t, readOnlySince(Finish, time.Time{})).Explain(outside(batch(update("account_move", inspect.BoundNone))))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain.json.golden", b.String())
}

// randomBatch returns statements that the policies of these tests are about.
func randomBatch(r *rand.Rand) *inspect.Batch {
	tables := []string{"account_move", "public.account_move", "stock_move", "x", "other.x", "pg_temp.x"}
	pick := func() string { return tables[r.IntN(len(tables))] }
	bound := func() inspect.Bound { return inspect.Bound(r.IntN(6)) }
	make1 := []func() inspect.Statement{
		func() inspect.Statement { return selectFrom(pick()) },
		func() inspect.Statement { return update(pick(), bound()) },
		func() inspect.Statement { return deleteFrom(pick(), bound()) },
		func() inspect.Statement { return insertInto(pick()) },
		func() inspect.Statement { return truncate(pick()) },
		func() inspect.Statement { return lockTable(pick(), inspect.LockMode(r.IntN(9))) },
		func() inspect.Statement { return alterTable(pick()) },
		beginReadWrite,
		func() inspect.Statement { return chained(inspect.KindCommit) },
		func() inspect.Statement { return set("transaction_read_only", "off") },
		func() inspect.Statement { return statement(inspect.Unknown, inspect.KindDo) },
		func() inspect.Statement { return statement(inspect.Define, "DROP SCHEMA") },
		func() inspect.Statement {
			return statement(inspect.Write, inspect.KindMerge, rel(pick(), inspect.Access(r.IntN(128)), bound()), rel(pick(), inspect.AccessRead, 0))
		},
	}
	if r.IntN(10) == 0 {
		return inspect.NewUnknown("parser: syntax error", [][]string{nil, {"a"}, {"account_move"}}[r.IntN(3)])
	}
	var out []inspect.Statement
	for range r.IntN(4) {
		out = append(out, make1[r.IntN(len(make1))]())
	}
	return batch(out...)
}

func randomRequest(r *rand.Rand) *Request {
	q := outside(randomBatch(r))
	if r.IntN(2) == 0 {
		q = in(uint64(8+r.IntN(5)), q.Batch)
	}
	q.Subject.Application = []string{"odoo-1", "import-1", "script-1", "psql"}[r.IntN(4)]
	q.Subject.User = []string{"odoo", "bob"}[r.IntN(2)]
	return q
}

// observers are rules that would change everything if they were enforced.
const observers = `
  - {name: o-all, enforce: false, match: {}, action: disconnect}
  - {name: o-allow, enforce: false, match: {}, action: allow}
  - {name: o-user, enforce: false, match: {users: [bob]}, action: refuse, throttle: {rows_per_second: 1}}
  - {name: o-ddl, enforce: false, match: {classes: [define, write], tables: [account_move]}, ddl: {lock_timeout: 1ms}}
`

func TestObservingRulesNeverChangeADecision(t *testing.T) {
	head, rules, _ := strings.Cut(paced, "rules:")
	plain := parse(t, paced)
	before := parse(t, head+"rules:"+observers+strings.TrimLeft(rules, "\n"))
	after := parse(t, strings.TrimRight(paced, "\n")+observers)
	random := rand.New(rand.NewPCG(1, 2))
	containments := [][]Containment{nil, {readOnlySince(Drain, now.Add(time.Second))}, {{Kind: FreezeDDL}}, {{Kind: Pause}}}
	for range 5000 {
		r := randomRequest(random)
		c := containments[random.IntN(len(containments))]
		decide := func(p *Policy) string {
			d := (&Snapshot{Policy: p, Containments: c}).Decide(r)
			return fmt.Sprintf("%s %+v %+v", verdictOf(&d), d.Refusal, d.Obligations.words())
		}
		want := decide(plain)
		for _, p := range []*Policy{before, after} {
			if got := decide(p); got != want {
				t.Fatalf("%s\nbecame %s\nfor %+v", want, got, r.Batch)
			}
		}
	}
}

func TestTheIndexFindsWhatAskingEveryRuleFinds(t *testing.T) {
	p := parse(t, strings.TrimRight(paced, "\n")+`
  - {name: by-user, match: {users: [bob], classes: [read]}, action: refuse}
  - {name: by-app, match: {apps: [psql], kinds: [update]}, action: refuse}
  - {name: by-database, match: {databases: [prod, test], tables: [x]}, action: allow}
  - {name: by-pattern, match: {users: [b*], kinds: [begin]}, action: refuse}
  - {name: by-prefix, match: {tables: [acc*]}, action: allow}
  - {name: by-longer-prefix, match: {tables: [account_*, res_partner]}, action: allow}
  - {name: by-whole-prefix, match: {tables: ["account_move*", "s*"], users: [alice, bob]}, action: allow}
  - {name: by-any, match: {tables: ["r*", "a*"], apps: [odoo]}, action: allow}
  - {name: by-table-and-user, match: {tables: [account_move], users: [bob]}, action: allow}
  - {name: by-table-and-app, match: {tables: [account_move], apps: [psql], databases: [prod]}, action: allow}
`)
	random := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		r := randomRequest(random)
		for _, part := range partsOf(r.Batch) {
			var indexed, all []int
			lists := p.index.about(r.Subject)
			p.index.lists(&lists, part.s.Class, part.rel)
			for l := range lists {
				for _, i := range lists[l] {
					if p.rules[i].matches(part.s, part.rel, r.Subject) {
						indexed = append(indexed, i)
					}
				}
			}
			for i := range p.rules {
				if p.rules[i].matches(part.s, part.rel, r.Subject) {
					all = append(all, i)
				}
				if why := p.rules[i].objection(part.s, part.rel, r.Subject); (why == "") != slices.Contains(all, i) {
					t.Fatalf("rule %s: explained as %q", p.rules[i].name, why)
				}
			}
			slices.Sort(indexed)
			if !slices.Equal(indexed, all) {
				t.Fatalf("the index finds %v of %v for %+v", indexed, all, part.s)
			}
		}
	}
}

// TestPatternsThatANameMeets compares the index of patterns with asking each.
func TestPatternsThatANameMeets(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	word := func() string {
		b := make([]byte, 1+random.IntN(4))
		for i := range b {
			b[i] = "ab_"[random.IntN(3)]
		}
		return string(b)
	}
	for range 500 {
		byPattern := map[string][]int{}
		for i := range random.IntN(12) {
			list(byPattern, []string{word(), word()}, i)
		}
		x := newPatternIndex(byPattern)
		for range 20 {
			name := word()
			want := map[int]bool{}
			for pattern, rules := range byPattern {
				for _, i := range rules {
					want[i] = want[i] || strings.HasPrefix(name, pattern)
				}
			}
			maps.DeleteFunc(want, func(_ int, meets bool) bool { return !meets })
			if got := x.find(name); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
				t.Fatalf("%q meets %v of %v", name, got, byPattern)
			}
		}
	}
}
