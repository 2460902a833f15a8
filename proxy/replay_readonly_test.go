package proxy_test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/policy"
)

// odooPage is what read-only means for Odoo, written by UPDATE_GOLDEN=1.
var odooPage = filepath.Join("..", "docs", "read-only-odoo.md")

const odooHead = `<!-- Written by TestOdooUnderReadOnly with UPDATE_GOLDEN=1; do not edit. -->

# What read-only refuses Odoo

The statements of a recorded run of Odoo: its start, logins, orders, invoices, deliveries, scheduled jobs (the checked-in part, at most 20
of each shape), decided under ` + "`mode read-only`" + ` with the default policy, which lets the tables be written that a login and the bus need. All that is refused is refused with 23G02, which Odoo shows in a dialog
and does not try again; a function that writes is refused by the server, with the same code. A plain change of what may be written passes if the
server agrees that it is one. What is not in the table passes. Whether a form
or a job gets as far as the statement that is refused, the statements do not show.

`

// What Odoo's own start, login, orders and scheduled jobs get under read-only.
func TestOdooUnderReadOnly(t *testing.T) {
	if os.Getenv(streamsVariable) != "" {
		t.Skip("the page has the checked-in part of the stream")
	}
	p, err := policy.Default(policy.ProfileOdoo)
	if err != nil {
		t.Fatal(err)
	}
	snap := &policy.Snapshot{Epoch: 1, Policy: p, Containments: []policy.Containment{{ID: "c1", Kind: policy.ReadOnlyMode, Reason: "test", Author: "test", Epoch: 1, Writable: p.WritableTables()}}}
	inspector := inspect.NewInspector(inspect.DefaultLimits(), pgquery.Parse, prometheus.NewRegistry())
	stream := openStream(t, "flows")
	facts := map[string]*inspect.Batch{} // of each shape
	inBlock := map[string]bool{}
	refused := map[string]int{}
	var statements, passed, functions int
	written := map[string]int{} // what may be
	for {
		var r recorded
		if err := stream.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(r.App, "odoo-") {
			continue // psql and pg_dump, which restore and save a copy
		}
		b := facts[r.Shape]
		if b == nil {
			b = inspector.Inspect(t.Context(), []byte(r.SQL), inspect.Lexing{})
			facts[r.Shape] = b
		}
		tx, epoch := policy.TxIdle, uint64(0)
		if inBlock[r.Session] {
			tx, epoch = policy.TxActive, 1
		}
		d := snap.Decide(&policy.Request{Subject: &policy.Subject{User: "odoo", Database: r.DB, Application: r.App}, Batch: b, Tx: tx, TxEpoch: epoch, Now: time.Unix(1, 0)})
		statements++
		if d.Verdict != policy.Allow {
			refused[deedOf(b)]++
			if d.Refusal.SQLSTATE != "23G02" {
				t.Errorf("%s: %s", shorten(r.SQL), d.Refusal.SQLSTATE)
			}
			continue
		}
		passed++
		if w := d.Obligations.Write; w != nil {
			written[string(b.Statements[0].Kind)+" "+w.Name]++
		}
		for i := range b.Statements {
			st := &b.Statements[i]
			if st.Hidden&inspect.HiddenFunction != 0 {
				functions++
			}
			switch st.Kind {
			case inspect.KindBegin, inspect.KindStart:
				inBlock[r.Session] = true
			case inspect.KindCommit, inspect.KindRollback:
				inBlock[r.Session] = false
			}
		}
	}
	total := 0
	for _, n := range refused {
		total += n
	}
	text := odooHead + fmt.Sprintf("Of %d statements %d pass, %d of them with a function that only the server can judge, and %d are refused.\n\n", statements, passed, functions, total)
	text += "Written all the same:\n\n" + countedTable("written", written) + "\nRefused:\n\n" + countedTable("refused", refused)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(odooPage, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want, err := os.ReadFile(odooPage); err != nil || string(want) != text {
		t.Errorf("%s is not what is decided: run the test with UPDATE_GOLDEN=1 (%v)", odooPage, err)
	}
}

// countedTable has the most frequent first.
func countedTable(head string, counts map[string]int) string {
	text := "| statement | " + head + " |\n|---|---|\n"
	for _, what := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) }) {
		text += fmt.Sprintf("| %s | %d |\n", what, counts[what])
	}
	return text
}

// deedOf names what of a batch writes first.
func deedOf(b *inspect.Batch) string {
	for i := range b.Statements {
		st := &b.Statements[i]
		for j := range st.Relations {
			if r := &st.Relations[j]; r.Access&(inspect.AccessWrite|inspect.AccessDefine|inspect.AccessLockRows) != 0 {
				if r.Access&inspect.AccessLockRows != 0 && st.Class == inspect.Read {
					return "SELECT … FOR UPDATE of " + r.Name
				}
				return string(st.Kind) + " " + r.Name
			}
		}
	}
	if len(b.Statements) == 0 {
		return "unclassified text"
	}
	return string(b.Statements[0].Kind)
}
