package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/policy"
)

// orm is what Odoo's ORM sends, 1 kB of it, with the values written into it.
const orm = `SELECT "account_move_line"."id" AS "id", "account_move_line"."move_id" AS "move_id", "account_move_line"."journal_id" AS "journal_id", ` +
	`"account_move_line"."company_id" AS "company_id", "account_move_line"."name" AS "name", "account_move_line"."debit" AS "debit", ` +
	`"account_move_line"."credit" AS "credit", "account_move_line"."balance" AS "balance", "account_move_line"."partner_id" AS "partner_id", ` +
	`"account_move_line"."product_id" AS "product_id", "account_move_line"."tax_line_id" AS "tax_line_id" FROM "account_move_line" ` +
	`LEFT JOIN "account_move" AS "account_move_line__move_id" ON ("account_move_line"."move_id" = "account_move_line__move_id"."id") ` +
	`WHERE (("account_move_line"."parent_state" = 'posted') AND ("account_move_line"."account_id" IN (101, 102, 103, 104, 105, 106)) ` +
	`AND ("account_move_line"."date" >= '2024-01-01') AND ("account_move_line"."company_id" = 1)) ` +
	`ORDER BY "account_move_line"."date" DESC, "account_move_line"."move_name" DESC, "account_move_line"."id" LIMIT 80`

// BenchmarkInspectAndDecide is what a statement costs whose shape is known,
// with the default policy; and one that was never seen.
func BenchmarkInspectAndDecide(b *testing.B) {
	p, err := policy.Default("odoo")
	if err != nil {
		b.Fatal(err)
	}
	s := &policy.Snapshot{Policy: p}
	lexing := inspect.LexingFor("on", "UTF8")
	i := inspect.NewInspector(inspect.DefaultLimits(), pgquery.Parse, prometheus.NewRegistry())
	text := []byte(orm)
	i.Inspect(b.Context(), text, lexing)
	who := &policy.Subject{User: "odoo", Database: "prod", Application: "odoo-1", Address: "10.1.2.3", Tags: []string{"worker"}}
	r := &policy.Request{Subject: who, Tx: policy.TxIdle, Now: time.Unix(1, 0)}
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(text)))
		for n := 0; b.Loop(); n++ {
			text[len(text)-1] = byte('0' + n%10) // another literal each time
			r.Batch = i.Lookup(text, lexing)
			if s.Decide(r); r.Batch == nil {
				b.Fatal("not known")
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Batch = pgquery.Parse(orm)
			s.Decide(r)
		}
	})
}

// manyRules is the default policy with n rules more, as a big installation might
// have them: by table, table pattern, user, application and kind. The last one
// is about the statement.
func manyRules(b *testing.B, n int) *policy.Policy {
	b.Helper()
	text, err := policy.DefaultYAML("odoo")
	if err != nil {
		b.Fatal(err)
	}
	for i := range n - 1 {
		match := []string{
			"{tables: [x_table_%[1]d], kinds: [update, delete], bound: [none]}", "{tables: [x_other_%[1]d, y_other_%[1]d], classes: [read]}",
			"{users: [user_%[1]d], classes: [write]}", "{apps: [app_%[1]d], kinds: [delete]}",
			"{tables: [x_table_%[1]d], users: [user_%[1]d]}", "{tables: [x_own_%[1]d_*], classes: [write]}",
			"{users: [user_%[1]d], tables: [account_move]}", "{databases: [test_%[1]d], kinds: [truncate]}",
		}[i%8]
		text += fmt.Sprintf("\n  - {name: more-%d, match: "+match+", action: refuse}", i)
	}
	text += "\n  - {name: last, match: {tables: [account_move_line], classes: [read, write]}, action: allow}\n"
	p, err := policy.Parse([]byte(text), "many.yaml")
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkRules is what a statement costs whose shape is known, with one rule
// more than the default policy has, and with a thousand.
func BenchmarkRules(b *testing.B) {
	lexing := inspect.LexingFor("on", "UTF8")
	i := inspect.NewInspector(inspect.DefaultLimits(), pgquery.Parse, prometheus.NewRegistry())
	who := &policy.Subject{User: "odoo", Database: "prod", Application: "odoo-1", Address: "10.1.2.3", Tags: []string{"worker"}}
	for _, n := range []int{1, 1000} {
		s := &policy.Snapshot{Policy: manyRules(b, n)}
		for name, text := range map[string]string{
			"read": orm, "short": "SELECT id FROM res_partner WHERE id = 5", "write": "UPDATE account_move_line SET name = 'x' WHERE id IN (5)", "begin": "BEGIN",
		} {
			text := []byte(text)
			i.Inspect(b.Context(), text, lexing)
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				r := &policy.Request{Subject: who, Tx: policy.TxIdle, Now: time.Unix(1, 0)}
				b.ReportAllocs()
				for b.Loop() {
					r.Batch = i.Lookup(text, lexing)
					s.Decide(r)
				}
			})
		}
	}
}
