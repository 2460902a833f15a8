package pgtest

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed odoo.sql
var odooSQL string

// OdooSchema makes a database like Odoo's in the empty database that conn is
// connected to, with rows rows in account_move and the other tables in
// proportion: critical tables, foreign keys with ON DELETE CASCADE, an updatable
// view, a partitioned table, a trigger, a deferred trigger and functions that
// write.
func OdooSchema(ctx context.Context, conn *pgx.Conn, rows int) error {
	sql := strings.ReplaceAll(odooSQL, ":rows", strconv.Itoa(rows))
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("make the Odoo-like database: %w", err)
	}
	if _, err := conn.Exec(ctx, "ANALYZE"); err != nil {
		return fmt.Errorf("analyze the Odoo-like database: %w", err)
	}
	return nil
}
