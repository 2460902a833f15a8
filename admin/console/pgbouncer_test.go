package console

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// recorded is what PgBouncer 1.18 answers: the columns of each SHOW, and the
// names in the rows of those that list names.
const recorded = "testdata/pgbouncer-1.18.golden"

// shared are the views that PgBouncer 1.18 has, too.
var shared = strings.Fields("ACTIVE_SOCKETS CLIENTS CONFIG DATABASES LISTS MEM POOLS SERVERS SOCKETS STATS STATS_AVERAGES STATS_TOTALS TOTALS USERS VERSION") //nolint:gochecknoglobals // read only

// TestColumnsArePgBouncers compares what programs look for by name or position
// with PgBouncer 1.18's recorded answers. Newer versions have put columns in
// between, which ours has as well.
func TestColumnsArePgBouncers(t *testing.T) {
	theirs := readRecorded(t)
	if len(theirs) != len(shared)+2 {
		t.Fatalf("%d views are recorded, want %d", len(theirs), len(shared)+2)
	}
	for _, v := range views() {
		want, ok := theirs[v.name]
		if !ok {
			continue
		}
		have := strings.Fields(v.columns)
		at := -1
		for _, column := range want {
			i := slices.Index(have, column)
			switch {
			case i < 0:
				t.Errorf("SHOW %s has no column %s", v.name, column)
			case column == "reserve_pool": // it is reserve_pool_size in newer versions; the old name is behind theirs
			case i <= at:
				t.Errorf("SHOW %s has %s before %s", v.name, column, have[at])
			default:
				at = i
			}
		}
	}
	var totals []string
	for _, row := range totalsOf(&proxy.DatabaseStats{}) {
		totals = append(totals, row[0].(string))
	}
	if missing := without(theirs["TOTALS rows"], totals); len(missing) > 0 {
		t.Errorf("SHOW TOTALS has no %v", missing)
	}
}

func without(all, known []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(known, one) })
}

// TestExportersFindTheirColumns has the columns that the monitoring programs
// in wide use look for by name. Sources: collector.go of
// prometheus-community/pgbouncer_exporter, domain and sqlstore of
// jbub/pgbouncer_exporter, check_postgres (pgb_pool, pgbouncer_backends).
func TestExportersFindTheirColumns(t *testing.T) {
	have := map[string][]string{}
	for _, v := range views() {
		have[v.name] = strings.Fields(v.columns)
	}
	for name, columns := range map[string]string{
		"DATABASES": "name host port database force_user pool_size reserve_pool pool_mode max_connections current_connections paused disabled " +
			"min_pool_size reserve_pool_size server_lifetime max_client_connections current_client_connections",
		"STATS_TOTALS": "database query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count server_parse_count bind_count " +
			"server_assignment_count",
		"STATS": "database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time total_query_time total_wait_time " +
			"total_client_parse_count total_server_parse_count total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent " +
			"avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
		"POOLS": "database user cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested " +
			"sv_login maxwait maxwait_us pool_mode",
		"LISTS":  "list items",
		"CONFIG": "key value default changeable", // by position
	} {
		if missing := without(strings.Fields(columns), have[name]); len(missing) > 0 {
			t.Errorf("SHOW %s has no %v", name, missing)
		}
	}
}

func readRecorded(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		name, columns, _ := strings.Cut(strings.TrimSpace(line), ": ")
		out[name] = strings.Fields(columns)
	}
	return out
}

// TestRecordedAnswersArePgBouncers asks a real PgBouncer where there is one.
func TestRecordedAnswersArePgBouncers(t *testing.T) {
	conn, version := startPgBouncer(t)
	var b strings.Builder
	for _, name := range shared {
		columns, names := ask(t, conn, name)
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(columns, " "))
		if name == "LISTS" || name == "TOTALS" {
			fmt.Fprintf(&b, "%s rows: %s\n", name, strings.Join(names, " "))
		}
	}
	if version != "1.18.0" {
		t.Skipf("the answers of 1.18.0 are recorded, this is %s", version)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(recorded, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(recorded)
	if err != nil || string(want) != b.String() {
		t.Errorf("PgBouncer's answers are not those of %s (%v):\n%s", recorded, err, b.String())
	}
}

// ask runs a SHOW and returns its columns and the first value of each row.
func ask(t *testing.T, conn *pgconn.PgConn, name string) (columns, first []string) {
	t.Helper()
	results := conn.Exec(t.Context(), "SHOW "+name)
	for results.NextResult() {
		r := results.ResultReader()
		for _, f := range r.FieldDescriptions() {
			columns = append(columns, f.Name)
		}
		for r.NextRow() {
			first = append(first, string(r.Values()[0]))
		}
	}
	if err := results.Close(); err != nil {
		t.Fatalf("SHOW %s: %v", name, err)
	}
	return columns, first
}

// startPgBouncer starts one and logs in to its console.
func startPgBouncer(t *testing.T) (conn *pgconn.PgConn, version string) {
	t.Helper()
	b := pgtest.StartBouncer(t, pgtest.BouncerConfig{
		Server: "127.0.0.1:1", Settings: map[string]string{"auth_type": "any", "admin_users": "admin"},
	})
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=admin dbname=pgbouncer sslmode=disable", b.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	version, _, _ = strings.Cut(conn.ParameterStatus("server_version"), "/")
	return conn, version
}
