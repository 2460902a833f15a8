package main

import (
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
