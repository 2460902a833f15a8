package proxy_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/journal"
	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

const watchPolicy = `
profile: odoo
critical_tables: [account_move, parted]
rules:
  - name: ddl-on-hot-tables
    match: {classes: [define], tables: critical}
    ddl: {lock_timeout: 300ms}
`

// hiding makes what hides DDL on account_move, and hinders it from being seen
// by its words.
const hiding = `
CREATE FUNCTION hidden() RETURNS int LANGUAGE plpgsql AS $$BEGIN EXECUTE 'ALTER TABLE account'||'_move ADD COLUMN c9 int'; RETURN 1; END$$;
CREATE FUNCTION hidden_and_set() RETURNS int LANGUAGE plpgsql SET lock_timeout = 0 AS $$BEGIN RETURN hidden(); END$$;
CREATE FUNCTION hidden_after_set() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('lock_timeout', '0', true); RETURN hidden(); END$$;
CREATE FUNCTION hidden_lock() RETURNS int LANGUAGE plpgsql AS $$BEGIN EXECUTE 'LOCK TABLE account'||'_move IN SHARE MODE'; RETURN 1; END$$;
CREATE PROCEDURE hidden_procedure() LANGUAGE plpgsql AS $$BEGIN PERFORM hidden(); END$$;
CREATE VIEW hidden_view AS SELECT hidden() AS x;
CREATE TABLE hiding_trigger (x int);
CREATE FUNCTION hidden_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM hidden(); RETURN NEW; END$$;
CREATE TRIGGER hides BEFORE INSERT ON hiding_trigger FOR EACH ROW EXECUTE FUNCTION hidden_trigger();
CREATE TABLE hiding_default (x int, y int DEFAULT hidden())`

// dodge is a way not to be limited by a lock_timeout.
type dodge struct {
	options string // of the startup packet
	before  string // sent first
	sql     string
	inBlock bool // works in a transaction block only
	alone   bool // does not work in one
	shown   bool // the text shows the DDL
}

var dodges = map[string]dodge{
	"SET":                           {before: "SET lock_timeout = 0", sql: addColumn, shown: true},
	"SET SESSION, quoted":           {before: `SET SESSION "lock_timeout" TO '1h'`, sql: addColumn, shown: true},
	"SET LOCAL":                     {before: "SET LOCAL lock_timeout = 0", sql: addColumn, inBlock: true, shown: true},
	"RESET":                         {before: "RESET lock_timeout", sql: addColumn, shown: true},
	"RESET ALL":                     {before: "RESET ALL", sql: addColumn, shown: true},
	"DISCARD ALL":                   {before: "DISCARD ALL", sql: addColumn, alone: true, shown: true},
	"set_config":                    {before: "SELECT set_config('lock'||'_timeout', '0', false)", sql: addColumn, shown: true},
	"set_config, local":             {before: "SELECT set_config('lock_timeout', '0', true)", sql: addColumn, inBlock: true, shown: true},
	"options":                       {options: "-c lock_timeout=0", sql: addColumn, shown: true},
	"DDL that reads":                {before: "SET lock_timeout = 0", sql: "CREATE TABLE copied AS SELECT * FROM account_move", shown: true},
	"DDL that is like":              {before: "SET lock_timeout = 0", sql: "CREATE TABLE alike (LIKE account_move)", shown: true},
	"a view of it":                  {before: "SET lock_timeout = 0", sql: "CREATE VIEW seen AS SELECT 1 FROM account_move", shown: true},
	"a new index":                   {before: "SET lock_timeout = 0", sql: "CREATE INDEX ON account_move (name)", shown: true},
	"a function":                    {before: "SET lock_timeout = 0", sql: "SELECT hidden()"},
	"a function's SET":              {sql: "SELECT hidden_and_set()"},
	"set_config in a function":      {sql: "SELECT hidden_after_set()"},
	"LOCK TABLE in a function":      {sql: "SELECT hidden_lock()"},
	"a function that is planned":    {sql: "SELECT 1 WHERE 1 = hidden()"},
	"DO":                            {sql: "DO $$BEGIN SET LOCAL lock_timeout = 0; EXECUTE 'ALTER TABLE account'||'_move ADD COLUMN c9 int'; END$$"},
	"CALL":                          {sql: "CALL hidden_procedure()"},
	"a view":                        {sql: "SELECT * FROM hidden_view"},
	"a trigger":                     {sql: "INSERT INTO hiding_trigger VALUES (1)"},
	"a default":                     {sql: "INSERT INTO hiding_default (x) VALUES (1)"},
	"EXPLAIN ANALYZE":               {sql: "EXPLAIN ANALYZE SELECT hidden()"},
	"a cursor":                      {before: "DECLARE c CURSOR FOR SELECT hidden()", sql: "FETCH c", inBlock: true},
	"PREPARE":                       {before: "PREPARE p AS SELECT hidden()", sql: "EXECUTE p"},
	"COPY":                          {sql: "COPY (SELECT hidden()) TO '/dev/null'"},
	"DDL whose default runs others": {sql: "CREATE TABLE made AS SELECT hidden() AS x"},
}

// dodgeWays are the ways to send a dodge: what is sent before the statement
// that will wait, each answered on its own, and the messages that will wait.
var dodgeWays = map[string]func(d *dodge) (before []string, last string){
	"simple":               func(d *dodge) ([]string, string) { return queries(d.before), "Q " + d.sql },
	"simple, in a block":   func(d *dodge) ([]string, string) { return queries("BEGIN", d.before), "Q " + d.sql },
	"extended":             func(d *dodge) ([]string, string) { return exchanges(d.before), exchanges(d.sql)[0] },
	"extended, in a block": func(d *dodge) ([]string, string) { return exchanges("BEGIN", d.before), exchanges(d.sql)[0] },
	"pipelined":            func(d *dodge) ([]string, string) { return nil, oneExchange(d.before, d.sql) },
	"pipelined, in a block": func(d *dodge) ([]string, string) {
		return nil, oneExchange("BEGIN", d.before, d.sql)
	},
}

func queries(texts ...string) []string {
	var out []string
	for _, text := range given(texts) {
		out = append(out, "Q "+text)
	}
	return out
}

func exchanges(texts ...string) []string {
	var out []string
	for _, text := range given(texts) {
		out = append(out, oneExchange(text))
	}
	return out
}

// oneExchange sends texts before one Sync.
func oneExchange(texts ...string) string {
	var out strings.Builder
	for _, text := range given(texts) {
		out.WriteString("P - " + text + " ; B - - ; E - ; ")
	}
	return out.String() + "S"
}

func given(texts []string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return s == "" })
}

// works reports whether the way suits the dodge. A pipeline outside a block is
// one transaction, in which DISCARD ALL fails.
func (d *dodge) works(way string) bool {
	inBlock := strings.HasSuffix(way, "in a block")
	if d.alone {
		return !inBlock && way != "pipelined"
	}
	return inBlock || !d.inBlock
}

// Whatever the client did before, or does inside the statement, nothing waits
// for a strong lock on a critical table for longer than the rule says. The
// control login has no more rights than the manual asks for.
func TestALockTimeoutCannotBeDodged(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(hiding)
	for way, messages := range dodgeWays {
		t.Run(way, func(t *testing.T) {
			release := g.block("account_move", "ACCESS EXCLUSIVE")
			waiting := map[string]*peer{}
			for name, d := range dodges {
				if !d.works(way) {
					continue
				}
				var options []string
				if d.options != "" {
					options = []string{"options", d.options}
				}
				p := g.peer(options...)
				before, last := messages(&d)
				for _, line := range before {
					if got := p.run(line); len(p.errs) > 0 {
						t.Errorf("%s: %s: %s", name, line, got)
					}
				}
				p.send(pipeline(last)...)
				waiting[name] = p
			}
			for name, p := range waiting {
				d := dodges[name]
				expectGivenUp(t, name, p, !d.shown)
			}
			release()
		})
	}
}

// expectGivenUp expects that what was sent ends with 55P03; in the rule's words
// where only the watchdog could have ended it.
func expectGivenUp(t *testing.T, name string, p *peer, watched bool) {
	t.Helper()
	got, err := p.read('Z')
	if err != nil || len(p.errs) != 1 || p.errs[0].Code != "55P03" {
		t.Errorf("%s: %q, %v", name, got, err)
		return
	}
	e := p.errs[0]
	if named := strings.Contains(e.Detail, `Rule "ddl-on-hot-tables"`) && e.Hint != ""; watched && !named {
		t.Errorf("%s: %q, detail %q, hint %q", name, e.Message, e.Detail, e.Hint)
	}
	if p.status != 'I' {
		p.ok("ROLLBACK")
	}
	if v := p.value("SELECT 1"); v != "1" {
		t.Errorf("%s: afterwards SELECT 1 is %s", name, v)
	}
}

// watchGuard starts a guard whose control login has no more rights than it
// needs.
func watchGuard(t *testing.T, change ...func(*setup)) *guard {
	t.Helper()
	return newGuard(t, append([]func(*setup){func(s *setup) {
		s.policy = watchPolicy
		s.pg = pgtest.Shared(t)
		role := watchRole(t, s.pg)
		s.cfg.Servers = map[string]proxy.Target{"*": {
			Host: s.pg.Host(), Port: uint16(s.pg.Port()), SSLMode: "prefer", Control: s.pg.ConnString("postgres") + " user=" + role + " password=x",
		}}
	}}, change...)...)
}

// watchRole makes a login with the rights that a control login needs.
func watchRole(t *testing.T, pg *pgtest.Server) string {
	t.Helper()
	role := fmt.Sprintf("watch_%d", os.Getpid())
	pg.MustExec(t, "postgres", "DO $$BEGIN CREATE ROLE "+role+" LOGIN PASSWORD 'x' IN ROLE pg_monitor, pg_signal_backend; EXCEPTION WHEN duplicate_object THEN END$$")
	t.Cleanup(func() { _ = pg.Exec(context.Background(), "postgres", "DROP ROLE IF EXISTS "+role) })
	return role
}

// labelled returns the value of name{label=value,…}; 0 where there is none.
func (g *guard) labelled(t *testing.T, name string) float64 {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			if f.GetName()+"{"+strings.Join(labels, ",")+"}" == name {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// A setting of a role or of a database is one of the session's.
func TestSettingsOfRolesAndDatabasesDoNotDodge(t *testing.T) {
	g := watchGuard(t)
	admin := g.directPeer()
	role := strings.ToLower(g.db) + "_slow"
	admin.ok("CREATE ROLE " + role + " SUPERUSER LOGIN; ALTER ROLE " + role + " SET lock_timeout = 0")
	t.Cleanup(func() { _ = g.pg.Exec(context.Background(), "postgres", "DROP ROLE IF EXISTS "+role) })
	admin.ok("ALTER DATABASE \"" + g.db + "\" SET lock_timeout = '1h'")
	defer g.block("account_move", "ACCESS EXCLUSIVE")()
	waiting := map[string]*peer{}
	for name, user := range map[string]string{"role": role, "database": "postgres"} {
		for way, line := range map[string]string{"simple": "Q " + addColumn, "extended": exchanges(addColumn)[0]} {
			p := newPeer(t, g.addr, user, g.db)
			p.send(pipeline(line)...)
			waiting[name+", "+way] = p
		}
	}
	for name, p := range waiting {
		expectGivenUp(t, name, p, false)
	}
	admin.ok("DROP ROLE " + role)
}

// TRUNCATE takes the strongest lock and is no DDL.
func TestTruncateGivesUpWhenItCannotHaveItsLock(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.policy = "profile: odoo\nrules:\n  - {name: t, match: {kinds: [truncate]}, ddl: {lock_timeout: 200ms}}\n"
	})
	g.directPeer().ok("CREATE TABLE emptied (x int)")
	defer g.block("emptied", "ACCESS SHARE")()
	for _, line := range []string{"Q TRUNCATE emptied", "P - TRUNCATE emptied ; B - - ; E - ; S", "Q BEGIN; TRUNCATE emptied; COMMIT"} {
		if got := g.peer().run(line); !strings.Contains(got, "E 55P03") {
			t.Errorf("%s: %s", line, got)
		}
	}
}

// awaitGivenUp sends what only the watchdog ends, once after the other, and
// returns when it has: by then it has looked at everybody else as often.
func (g *guard) awaitGivenUp(t *testing.T, times int) {
	t.Helper()
	for range times {
		p := g.peer()
		p.send(&pgproto3.Query{String: "SELECT hidden()"})
		expectGivenUp(t, "a function", p, true)
		p.end()
	}
}

// awaitWaiting waits until n other processes wait for a lock.
func (g *guard) awaitWaiting(n int) {
	g.t.Helper()
	look := g.directPeer()
	defer look.end()
	eventually(g.t, fmt.Sprintf("%d processes wait", n), func() bool {
		return look.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == fmt.Sprint(n)
	})
}

// Queries wait as they did, so do strong locks on other tables, and so does
// everybody who did not come through lockkeeper.
func TestTheWatchdogLeavesOthersAlone(t *testing.T) {
	g := watchGuard(t)
	admin := g.directPeer()
	admin.ok(hiding)
	admin.ok("CREATE TABLE cold (x int); CREATE FUNCTION hidden_cold() RETURNS int LANGUAGE plpgsql AS $$BEGIN EXECUTE 'ALTER TABLE co'||'ld ADD y int'; RETURN 1; END$$")
	hot, cold := g.block("account_move", "ACCESS EXCLUSIVE"), g.block("cold", "ACCESS EXCLUSIVE")
	patient := map[string]*peer{
		"UPDATE account_move SET name = name WHERE id = 1":             g.peer(),
		"SELECT 1 FROM account_move WHERE id = 1":                      g.peer(),
		"SELECT 1 FROM account_move WHERE id = 1 FOR UPDATE":           g.peer(),
		"SELECT hidden_cold()":                                         g.peer(),
		"BEGIN; LOCK TABLE account_move IN ACCESS SHARE MODE; COMMIT":  g.peer(),
		"ALTER TABLE account_move ADD COLUMN of_a_stranger int":        g.directPeer(),
		"CREATE TABLE another AS SELECT 1 AS x; UPDATE cold SET x = 1": g.peer(),
		"VACUUM cold": g.peer(),
	}
	for sql, p := range patient {
		p.send(&pgproto3.Query{String: sql})
	}
	g.awaitWaiting(len(patient))
	g.awaitGivenUp(t, 2)
	g.awaitWaiting(len(patient))
	hot()
	cold()
	for sql, p := range patient {
		if got, err := p.read('Z'); err != nil || len(p.errs) > 0 {
			t.Errorf("%s: %q, %v, %v", sql, got, p.errs, err)
		}
		p.end()
	}
}

// A partition is its parent, and an index its table.
func TestTheWatchdogKnowsPartsOfCriticalTables(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(`CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE plain (id int PRIMARY KEY);
CREATE FUNCTION reindexed() RETURNS int LANGUAGE plpgsql AS $$BEGIN REINDEX INDEX part_1_pkey; RETURN 1; END$$`)
	defer g.block("part_1", "ACCESS EXCLUSIVE")()
	waiting := map[string]*peer{}
	for _, sql := range []string{"ALTER TABLE part_1 ADD CHECK (id > 0)", "DROP INDEX part_1_pkey", "SELECT reindexed()", "TRUNCATE part_1", "DROP TABLE part_1"} {
		p := g.peer()
		p.send(&pgproto3.Query{String: sql})
		waiting[sql] = p
	}
	for sql, p := range waiting {
		expectGivenUp(t, sql, p, true)
	}
}

// An index is built without blocking anybody: before that has begun it gives up
// as all DDL, and after that it is left alone, or it would leave an invalid
// index.
func TestConcurrentlyGivesUpOnlyBeforeItHasBegun(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(hiding)
	g.directPeer().ok("CREATE TABLE elsewhere (id int)")
	release := g.block("account_move", "ACCESS EXCLUSIVE")
	waiting := map[string]*peer{}
	for _, sql := range []string{
		"CREATE INDEX CONCURRENTLY made ON account_move (name)", "REINDEX TABLE CONCURRENTLY account_move", "REINDEX INDEX CONCURRENTLY account_move_pkey",
	} {
		p := g.peer()
		p.send(&pgproto3.Query{String: sql})
		waiting[sql] = p
	}
	for sql, p := range waiting {
		expectGivenUp(t, sql, p, true)
	}
	release()
	if n := g.directPeer().value("SELECT count(*) FROM pg_index WHERE NOT indisvalid"); n != "0" {
		t.Errorf("%s invalid indexes", n)
	}
	release = g.block("account_move", "ROW EXCLUSIVE") // which it waits for when it has begun
	builds := g.peer()
	builds.send(&pgproto3.Query{String: "CREATE INDEX CONCURRENTLY made ON account_move (name)"})
	g.awaitWaiting(1)
	g.awaitGivenUp(t, 2)
	release()
	if got, err := builds.read('Z'); err != nil || len(builds.errs) > 0 {
		t.Errorf("%q, %v, %v", got, builds.errs, err)
	}
}

// No reader or writer queues behind who waits for SHARE UPDATE EXCLUSIVE.
func TestWaitsThatHinderNobodyAreLeftAlone(t *testing.T) {
	g := watchGuard(t)
	admin := g.directPeer()
	admin.ok(hiding)
	admin.ok("CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)")
	move, parted := g.block("account_move", "SHARE UPDATE EXCLUSIVE"), g.block("parted", "SHARE UPDATE EXCLUSIVE")
	patient := map[string]*peer{"VACUUM account_move": g.peer(), "ANALYZE account_move": g.peer(), "ALTER TABLE parted DETACH PARTITION part_1 CONCURRENTLY": g.peer()}
	for sql, p := range patient {
		p.send(&pgproto3.Query{String: sql})
	}
	g.awaitWaiting(len(patient))
	others := g.peer("options", "-c lock_timeout=5s")
	others.ok("UPDATE account_move SET name = name WHERE id = 1; INSERT INTO parted VALUES (1); SELECT 1 FROM account_move, parted")
	g.awaitGivenUp(t, 2)
	g.awaitWaiting(len(patient))
	move()
	parted()
	for sql, p := range patient {
		if got, err := p.read('Z'); err != nil || len(p.errs) > 0 {
			t.Errorf("%s: %q, %v, %v", sql, got, p.errs, err)
		}
	}
}

// The second half of DETACH PARTITION CONCURRENTLY waits for ACCESS EXCLUSIVE on
// the partition, as VACUUM FULL does on its table: everybody queues behind them.
func TestWaitsThatHinderEverybodyAreEnded(t *testing.T) {
	g := watchGuard(t)
	admin := g.directPeer()
	admin.ok("CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)")
	part, move := g.block("part_1", "ACCESS SHARE"), g.block("account_move", "ACCESS SHARE")
	waiting := map[string]*peer{"ALTER TABLE parted DETACH PARTITION part_1 CONCURRENTLY": g.peer(), "VACUUM (FULL) account_move": g.peer()}
	for sql, p := range waiting {
		p.send(&pgproto3.Query{String: sql})
	}
	for sql, p := range waiting {
		expectGivenUp(t, sql, p, strings.HasPrefix(sql, "ALTER"))
	}
	part()
	move()
	admin.ok("ALTER TABLE parted DETACH PARTITION part_1 FINALIZE")
}

func TestTheWatchdogJournalsWhatItCancels(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(hiding)
	defer g.block("account_move", "ROW EXCLUSIVE")()
	p := g.peer()
	p.send(&pgproto3.Query{String: "CALL hidden_procedure()"})
	expectGivenUp(t, "CALL", p, true)
	eventually(t, "the refusal is in the journal", func() bool { return len(g.journal(journal.RefusalEntry)) == 1 })
	e := g.journal(journal.RefusalEntry)[0]
	if e.Rule != "ddl-on-hot-tables" || e.SQLSTATE != "55P03" || e.Statement != "CALL" || !slices.Equal(e.Tables, []string{"public.account_move"}) ||
		e.ServerPID != p.pid || !strings.Contains(e.Detail, "ACCESS EXCLUSIVE") {
		t.Errorf("the journal has %+v", e)
	}
	if all := g.journal(journal.StatementEntry); len(all) != 1 || all[0].SQLSTATE != "55P03" || all[0].Outcome != "error" {
		t.Errorf("of the statement it has %+v", all)
	}
	for name, want := range map[string]float64{
		"lockkeeper_watchdog_waits_total{outcome=cancelled}": 1, "lockkeeper_rule_decisions_total{enforced=true,rule=ddl-on-hot-tables}": 1,
	} {
		if got := g.labelled(t, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// In observe mode each wait is recorded once and nobody is cancelled.
func TestInObserveModeTheWatchdogOnlyRecords(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(hiding)
	g.contain(policy.Containment{Kind: policy.ObserveMode})
	release := g.block("account_move", "ACCESS EXCLUSIVE")
	p := g.peer()
	p.send(&pgproto3.Query{String: "SELECT hidden()"})
	eventually(t, "the wait is in the journal", func() bool { return len(g.journal(journal.ObservedEntry)) == 1 })
	looks := g.metric(t, "lockkeeper_watchdog_looks_total")
	eventually(t, "the watchdog looks again", func() bool { return g.metric(t, "lockkeeper_watchdog_looks_total") > looks+1 })
	release()
	if got, err := p.read('Z'); err != nil || len(p.errs) > 0 {
		t.Errorf("%q, %v, %v", got, p.errs, err)
	}
	if n := len(g.journal(journal.ObservedEntry)); n != 1 {
		t.Errorf("%d entries of one wait", n)
	}
}

// Without a control login nothing is ended, and that is said.
func TestWithoutAControlLoginTheWatchdogIsBlind(t *testing.T) {
	g := watchGuard(t, func(s *setup) {
		one := s.cfg.Servers["*"]
		one.Control = ""
		s.cfg.Servers = map[string]proxy.Target{"*": one}
	})
	g.directPeer().ok(hiding)
	if got := g.srv.Unwatched(); len(got) != 1 || !strings.Contains(got[0], "no control login") {
		t.Errorf("unwatched: %q", got)
	}
	if n := g.metric(t, "lockkeeper_watchdog_unwatched"); n != 1 {
		t.Errorf("unwatched by its metric: %v", n)
	}
	release := g.block("account_move", "ACCESS EXCLUSIVE")
	p := g.peer()
	p.send(&pgproto3.Query{String: "SELECT hidden()"})
	eventually(t, "it is missed", func() bool { return g.labelled(t, "lockkeeper_watchdog_failures_total{cause=no_control}") > 0 })
	release()
	if got, err := p.read('Z'); err != nil || len(p.errs) > 0 {
		t.Errorf("%q, %v, %v", got, p.errs, err)
	}
}

// A database that the control login may not enter hides the names of its
// tables, and nothing else.
func TestADatabaseThatTheWatchdogMayNotEnter(t *testing.T) {
	g := watchGuard(t)
	g.directPeer().ok(hiding)
	closed := g.pg.NewDatabase(t)
	admin := newPeer(t, g.pg.Addr(), "postgres", closed)
	admin.ok("CREATE TABLE account_move (id int);" + hiding)
	admin.ok("REVOKE CONNECT ON DATABASE \"" + closed + "\" FROM PUBLIC")
	there := newPeer(t, g.pg.Addr(), "postgres", closed)
	there.ok("BEGIN; LOCK TABLE account_move")
	unseen := newPeer(t, g.addr, "postgres", closed)
	unseen.send(&pgproto3.Query{String: "SELECT hidden()"})
	eventually(t, "it is missed", func() bool { return g.labelled(t, "lockkeeper_watchdog_failures_total{cause=names}") > 0 })
	release := g.block("account_move", "ACCESS EXCLUSIVE")
	g.awaitGivenUp(t, 1)
	release()
	eventually(t, "its server is one that is not watched", func() bool { return len(g.srv.Unwatched()) == 1 })
	there.end()
	if got, err := unseen.read('Z'); err != nil || len(unseen.errs) > 0 {
		t.Errorf("%q, %v, %v", got, unseen.errs, err)
	}
}

// The watchdog costs nothing while nothing takes long.
func TestTheWatchdogAsksNobodyWhileNothingTakesLong(t *testing.T) {
	g := watchGuard(t)
	other := watchGuard(t)
	other.directPeer().ok(hiding)
	idle, inTransaction := g.peer(), g.peer()
	idle.ok("SELECT 1")
	inTransaction.ok("BEGIN; SELECT 1 FROM account_move")
	defer other.block("account_move", "ACCESS EXCLUSIVE")()
	other.awaitGivenUp(t, 2)
	if n := g.metric(t, "lockkeeper_watchdog_looks_total"); n != 0 {
		t.Errorf("it has looked %v times", n)
	}
}
