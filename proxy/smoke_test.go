package proxy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestUnboundedDeleteIsRefusedInBothProtocols(t *testing.T) {
	g := newGuard(t)
	for _, mode := range []string{"simple_protocol", "exec", "cache_statement"} {
		c := g.connect("default_query_exec_mode=" + mode)
		var before, after int
		if err := c.QueryRow(t.Context(), "select count(*) from account_move").Scan(&before); err != nil {
			t.Fatal(mode, err)
		}
		_, err := c.Exec(t.Context(), "delete from account_move")
		if sqlstate(err) != "23G01" || !strings.Contains(err.Error(), "unbounded-write") {
			t.Errorf("%s: got %v", mode, err)
		}
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "update account_move set name = 'x'"); sqlstate(err) != "23G01" {
			t.Errorf("%s: in a transaction: %v", mode, err)
		}
		if _, err := tx.Exec(t.Context(), "select 1"); sqlstate(err) != "25P02" {
			t.Errorf("%s: the transaction goes on: %v", mode, err)
		}
		if err := tx.Commit(t.Context()); !errors.Is(err, pgx.ErrTxCommitRollback) {
			t.Errorf("%s: commit of a failed transaction: %v", mode, err)
		}
		if err := c.QueryRow(t.Context(), "select count(*) from account_move").Scan(&after); err != nil || before != after || before == 0 {
			t.Errorf("%s: %d rows before, %d after, %v", mode, before, after, err)
		}
	}
}
