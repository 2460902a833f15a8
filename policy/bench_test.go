package policy

import (
	"fmt"
	"strings"
	"testing"

	"lockkeeper/inspect"
)

// manyRules returns the default policy of profile odoo with n rules more, as
// a big installation writes them: most name tables, some users, applications
// and databases.
func manyRules(t testing.TB, n int) *Policy {
	t.Helper()
	var b strings.Builder
	b.WriteString(odooYAML)
	for i := range n {
		var match string
		switch i % 4 {
		case 0:
			match = fmt.Sprintf("{users: [user_%d], classes: [write]}", i)
		case 1:
			match = fmt.Sprintf("{apps: [app_%d], kinds: [delete]}", i)
		default:
			match = fmt.Sprintf("{tables: [table_%d, other_%d], kinds: [update, delete], bound: [none]}", i, i)
		}
		fmt.Fprintf(&b, "\n  - {name: rule-%d, match: %s, action: refuse}", i, match)
	}
	return parse(t, b.String())
}

// TestDecideDoesNotAllocateWhereAStatementIsAllowed guards the hot path.
func TestDecideDoesNotAllocateWhereAStatementIsAllowed(t *testing.T) {
	plain := contained(t)
	readOnly := contained(t, readOnlySince(Finish, now))
	tests := []struct {
		name  string
		s     *Snapshot
		batch *inspect.Batch
	}{
		{"read", plain, batch(selectFrom("account_move"))},
		{"write", plain, batch(update("account_move", inspect.BoundKeyed))},
		{"DDL", plain, batch(alterTable("account_move"))},
		{"control", plain, batch(control(inspect.KindCommit))},
		{"begin", plain, batch(control(inspect.KindBegin))},
		{"read in read-only", readOnly, batch(selectFrom("account_move"))},
	}
	for _, tt := range tests {
		r := outside(tt.batch)
		if n := testing.AllocsPerRun(100, func() { tt.s.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	join := statement(inspect.Read, inspect.KindSelect,
		rel("account_move", inspect.AccessRead, 0), rel("res_partner", inspect.AccessRead, 0), rel("sale_order", inspect.AccessRead, 0))
	for _, n := range []int{0, 1, 1000} {
		s := &Snapshot{Policy: manyRules(b, n)}
		for name, st := range map[string]inspect.Statement{
			"read": selectFrom("account_move"), "join": join, "write": update("account_move", inspect.BoundKeyed), "begin": control(inspect.KindBegin),
		} {
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				r := outside(batch(st))
				b.ReportAllocs()
				for b.Loop() {
					s.Decide(r)
				}
			})
		}
	}
}
