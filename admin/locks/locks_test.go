package locks

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockkeeper/internal/pgtest"
	"lockkeeper/proxy"
)

// connect opens a connection that ends with the test.
func connect(t *testing.T, s *pgtest.Server, database string) *pgx.Conn {
	t.Helper()
	conn, err := s.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// queue makes the incident: a reader's transaction stays open, an ALTER TABLE
// waits for it, and a second reader waits for the ALTER TABLE.
func queue(t *testing.T, s *pgtest.Server, database string) (root, alter, reader *pgx.Conn) {
	t.Helper()
	s.MustExec(t, database, `CREATE TABLE hot (id int); CREATE TABLE "Cold" (id int)`)
	root, alter, reader = connect(t, s, database), connect(t, s, database), connect(t, s, database)
	exec(t, root, "BEGIN; SELECT * FROM hot; LOCK TABLE \"Cold\"")
	background(t, alter, "ALTER TABLE hot ADD COLUMN x int")
	waitFor(t, s, alter)
	background(t, reader, "SELECT * FROM hot WHERE id = 1")
	waitFor(t, s, reader)
	t.Cleanup(func() { _, _ = root.Exec(context.Background(), "ROLLBACK") })
	return root, alter, reader
}

// background runs a statement that will wait; it is over when the test is.
func background(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		_, _ = conn.Exec(ctx, sql)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func waitFor(t *testing.T, s *pgtest.Server, conn *pgx.Conn) {
	t.Helper()
	monitor := connect(t, s, "postgres")
	for range 1000 {
		var waits bool
		err := monitor.QueryRow(t.Context(), "SELECT coalesce(bool_or(wait_event_type = 'Lock'), false) FROM pg_stat_activity WHERE pid = $1",
			conn.PgConn().PID()).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		if waits {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the statement never waited")
}

func TestSnapshotShowsTheQueueBehindAnAlterTable(t *testing.T) {
	pg := pgtest.Shared(t)
	db := pg.NewDatabase(t)
	root, alter, reader := queue(t, pg, db)
	rootPID, alterPID, readerPID := int32(root.PgConn().PID()), int32(alter.PgConn().PID()), int32(reader.PgConn().PID())
	s := &Server{Name: "main", Targets: []string{"*"}, Control: pg.ConnString("postgres")}
	t.Cleanup(func() { s.Close(context.Background()) })
	sessions := []proxy.SessionInfo{
		{ID: 7, Target: "*", ServerPID: uint32(alterPID), Statement: "ALTER TABLE", Fingerprint: 99, Tags: []string{"migration"}},
		{ID: 8, Target: "elsewhere", ServerPID: uint32(rootPID), Statement: "SELECT"},
	}
	snap, err := s.Snapshot(t.Context(), func() []proxy.SessionInfo { return sessions })
	if err != nil {
		t.Fatal(err)
	}
	byPID := map[int32]Process{}
	for _, p := range snap.Processes {
		byPID[p.PID] = p
	}
	if got := byPID[alterPID]; len(got.BlockedBy) != 1 || got.BlockedBy[0] != rootPID || got.Session != 7 || got.Statement != "ALTER TABLE" {
		t.Errorf("the ALTER TABLE is %+v, want session 7 blocked by %d", got, rootPID)
	}
	if got := byPID[readerPID]; len(got.BlockedBy) != 1 || got.BlockedBy[0] != alterPID {
		t.Errorf("the reader is %+v, want it blocked by %d", got, alterPID)
	}
	if got := byPID[rootPID]; got.Session != 0 || got.Statement != "" || got.State != "idle in transaction" || got.TxSince.IsZero() {
		t.Errorf("the root is %+v, want a foreign session, idle in transaction", got)
	}
	var wanted, held bool
	for _, l := range snap.Locks {
		wanted = wanted || l.PID == alterPID && !l.Granted && l.Mode == "ACCESS EXCLUSIVE" && l.Relation == "public.hot" && l.Database == db
		held = held || l.PID == rootPID && l.Granted && l.Mode == "ACCESS EXCLUSIVE" && l.Relation == "public.Cold"
	}
	if !wanted || !held {
		t.Errorf("ACCESS EXCLUSIVE waiter seen: %v, holder seen: %v, in %+v", wanted, held, snap.Locks)
	}
	if len(snap.Lacking) > 0 {
		t.Errorf("a superuser lacks %v", snap.Lacking)
	}
	checkTree(t, snap)
}

func checkTree(t *testing.T, snap *Snapshot) {
	t.Helper()
	var out strings.Builder
	snap.WriteTree(&out)
	lines := strings.Split(out.String(), "\n")
	want := []string{"pid ", "  └ pid ", "    └ pid "}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(lines[i], w) {
			t.Fatalf("line %d does not begin with %q:\n%s", i+1, w, out.String())
		}
	}
	if !strings.Contains(lines[1], "session 7") || !strings.Contains(lines[1], "wants ACCESS EXCLUSIVE on public.hot") {
		t.Errorf("the second line does not say what the ALTER TABLE wants:\n%s", out.String())
	}
	if !strings.Contains(lines[0], "holds ACCESS EXCLUSIVE on public.Cold") || !strings.Contains(lines[0], "holds ACCESS SHARE on public.hot") {
		t.Errorf("the first line does not say what the root holds:\n%s", out.String())
	}
	if strings.Contains(out.String(), "SELECT * FROM") {
		t.Errorf("text of a statement is shown:\n%s", out.String())
	}
}

func TestSnapshotSaysWhatItsRoleCannotSee(t *testing.T) {
	pg := pgtest.Shared(t)
	db := pg.NewDatabase(t)
	queue(t, pg, db)
	pg.MustExec(t, "postgres", "CREATE ROLE blind LOGIN PASSWORD 'x'; CREATE ROLE monitor LOGIN PASSWORD 'x' IN ROLE pg_monitor")
	t.Cleanup(func() { _ = pg.Exec(context.Background(), "postgres", "DROP ROLE blind; DROP ROLE monitor") })
	for role, want := range map[string]string{"blind": "pg_monitor", "monitor": ""} {
		s := &Server{Name: "main", Control: pg.ConnString("postgres") + " user=" + role + " password=x"}
		snap, err := s.Snapshot(t.Context(), noSessions)
		s.Close(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		if got := strings.Join(snap.Lacking, "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s lacks %q, want %q", role, got, want)
		}
	}
}

func TestSnapshotSurvivesALostConnection(t *testing.T) {
	pg := pgtest.Shared(t)
	s := &Server{Name: "main", Control: pg.ConnString("postgres")}
	t.Cleanup(func() { s.Close(context.Background()) })
	if _, err := s.Snapshot(t.Context(), noSessions); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockkeeper control'")
	if _, err := s.Snapshot(t.Context(), noSessions); err != nil {
		t.Errorf("after the connection was lost: %v", err)
	}
}

func TestSnapshotWithoutControlLoginSaysSo(t *testing.T) {
	s := &Server{Name: "main"}
	if _, err := s.Snapshot(t.Context(), noSessions); !errors.Is(err, ErrNoControl) {
		t.Errorf("got %v, want ErrNoControl", err)
	}
}

func TestConnectionStringIsNotInErrors(t *testing.T) {
	_, err := Connect(t.Context(), "host=/nowhere password=hunter2 port=nonsense", "")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestServersAreGroupedByAddress(t *testing.T) {
	got := Servers(map[string]proxy.Target{
		"b": {Host: "one", Port: 5432}, "a": {Host: "one", Port: 5432, Control: "x"}, "*": {Host: "two", Port: 5432},
	})
	if len(got) != 2 || got[0].Name != "two:5432" || got[1].Name != "one:5432" || strings.Join(got[1].Targets, ",") != "a,b" || got[1].Control != "x" {
		t.Errorf("got %+v %+v", got[0], got[1])
	}
}

func TestTreeDrawsACycleOnce(t *testing.T) {
	var out strings.Builder
	snap := Snapshot{Processes: []Process{{PID: 1, BlockedBy: []int32{2}}, {PID: 2, BlockedBy: []int32{1}}}}
	snap.WriteTree(&out)
	if got := strings.Count(out.String(), "pid"); got != 3 {
		t.Errorf("%d lines, want the cycle once and its closing:\n%s", got, out.String())
	}
}

func noSessions() []proxy.SessionInfo { return nil }
