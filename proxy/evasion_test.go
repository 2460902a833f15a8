package proxy_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
	"lockkeeper/policy"
)

// disguise is one case of the corpus: a statement that is not what it seems,
// and what a guard owes it.
type disguise struct {
	ID, Intent, Grade, Why string
	Setup                  string            `json:"setup_sql"`
	Startup                map[string]string // parameters of the client
	Steps                  []disguiseStep
	Check                  string `json:"check_sql"` // one more value that must stay as it is
	Teardown               string
}

type disguiseStep struct {
	Protocol, SQL, Name, Func, Data string
	Hex                             string  `json:"sql_hex"`
	Parts                           [][]any `json:"sql_parts"`
	Params, Args                    []any
	Items                           [][]string
}

func (s *disguiseStep) text(t testing.TB) []byte {
	switch {
	case s.Hex != "":
		return unhex(t, s.Hex)
	case len(s.Parts) > 0:
		var b strings.Builder
		for _, part := range s.Parts {
			text, _ := part[0].(string)
			times, _ := part[1].(float64)
			b.WriteString(strings.Repeat(text, int(times)))
		}
		return []byte(b.String())
	default:
		return []byte(s.SQL)
	}
}

// heldAtLeast is how many cases of each intent and grade are held. A change that
// holds more raises the number.
var heldAtLeast = map[string]int{
	"must_allow core":                   25,
	"must_block_as_unbounded core":      11,
	"must_block_as_unbounded hidden":    28,
	"must_block_as_unbounded wrapped":   28,
	"must_block_as_unbounded tautology": 30,
	"must_block_as_unbounded indirect":  11,
	"must_block_as_unbounded gray":      1,
	"must_block_in_readonly core":       13,
	"must_block_in_readonly escape":     13,
	"must_block_in_readonly sideeffect": 5,
	"must_block_in_readonly indirect":   1,
	"must_be_seen_as_ddl core":          14,
	"must_be_seen_as_ddl wrapped":       1,
	"must_be_seen_as_ddl lock_timeout":  12,
}

// The corpus is judged by effects: rows of account_move that changed, results
// that differ from the direct ones, a state that changed, a wait behind a lock.
func TestDisguisedStatements(t *testing.T) {
	g := newGuard(t, func(s *setup) {
		s.pg = evasionServer(t)
		s.policy = impatient(t)
	})
	j := newJudge(t, g)
	knowing := *j // where texts alone cannot do, and where a catalog must not be in the way
	knowing.g = newGuard(t, catalogued, func(s *setup) { s.pg, s.policy = g.pg, impatient(t) })
	held, all := map[string]int{}, map[string]int{}
	for _, c := range readDisguises(t, "evasion-dev.jsonl") {
		key := c.Intent + " " + c.Grade
		all[key]++
		judge := j
		if c.Grade == "indirect" || c.Grade == "gray" || c.Intent == "must_allow" {
			judge = &knowing
		}
		if why := judge.judge(&c); why == "" {
			held[key]++
		} else {
			t.Logf("%s (%s, %s): %s", c.ID, key, c.Why, why)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		t.Logf("%-34s held %3d of %3d", key, held[key], all[key])
		if held[key] < heldAtLeast[key] {
			t.Errorf("%s: held %d, and were %d once", key, held[key], heldAtLeast[key])
		}
	}
}

// evasionServer is a server that checkpoints when it is told to only: one case
// says so, and it is judged by the control file.
func evasionServer(t *testing.T) *pgtest.Server {
	t.Helper()
	return pgtest.Start(t, pgtest.Setting("checkpoint_timeout", "1d"), pgtest.Setting("max_wal_size", "10GB"))
}

// impatient is the default policy of profile odoo, with times that a test can
// wait for.
func impatient(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "policy", "defaults", "odoo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	short := strings.NewReplacer("lock_timeout: 5s", "lock_timeout: 300ms", "lock_timeout: 15s", "lock_timeout: 500ms").Replace(string(text))
	if !strings.Contains(short, "300ms") || !strings.Contains(short, "500ms") {
		t.Fatal("the default policy has other lock_timeouts by now")
	}
	return short
}

func readDisguises(t *testing.T, file string) []disguise {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "internal", "testdata", "evasion", file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []disguise
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c disguise
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil || len(out) < 100 {
		t.Fatalf("%d cases, %v", len(out), err)
	}
	return out
}

// emptyDatabase removes what a case has left in the database.
const emptyDatabase = `DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' LOOP
		EXECUTE format('DROP EXTENSION %I CASCADE', name);
	END LOOP;
	FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
		EXECUTE format('DROP SCHEMA %I CASCADE', name);
	END LOOP;
	PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
	CREATE SCHEMA public;
	GRANT ALL ON SCHEMA public TO PUBLIC;
	ALTER DATABASE evasion RESET ALL;
	ALTER ROLE conf RESET ALL;
END $$`

// judge runs cases, each in a database made anew.
type judge struct {
	t     *testing.T
	g     *guard
	base  string // SQL that makes the tables
	admin *peer
}

const (
	judgeUser = "conf" // a superuser that two cases name
	judgeDB   = "evasion"
	patience  = 30 * time.Second // much more than the longest lock_timeout and what the watchdog adds to it, on a slow machine, too
)

func newJudge(t *testing.T, g *guard) *judge {
	base, err := os.ReadFile(filepath.Join("..", "internal", "testdata", "evasion", "base.sql"))
	if err != nil {
		t.Fatal(err)
	}
	j := &judge{t: t, g: g, base: string(base), admin: newPeer(t, g.pg.Addr(), "postgres", "postgres")}
	j.admin.ok("CREATE ROLE " + judgeUser + " SUPERUSER LOGIN")
	j.admin.ok("CREATE DATABASE " + judgeDB + " TEMPLATE template0")
	return j
}

// end closes the connection as libpq does.
func (p *peer) end() {
	p.send(&pgproto3.Terminate{})
	_ = p.conn.Close()
}

func (j *judge) direct() *peer { return newPeer(j.t, j.g.pg.Addr(), judgeUser, judgeDB) }

// judge says why a case is not held; "" when it is.
func (j *judge) judge(c *disguise) string {
	if c.Intent == "must_block_in_readonly" {
		j.g.contain(policy.Containment{Kind: policy.ReadOnlyMode, InFlight: policy.RefuseCommit})
		defer j.g.contain()
	}
	through := j.effect(c, j.g.addr)
	switch c.Intent {
	case "must_block_as_unbounded":
		if through.changed > 0 {
			return fmt.Sprintf("%d rows changed", through.changed)
		}
	case "must_allow":
		direct := j.effect(c, j.g.pg.Addr())
		if !slices.EqualFunc(direct.results, through.results, slices.Equal) || direct.changed != through.changed {
			return fmt.Sprintf("%v and %d rows, direct %v and %d", through.results, through.changed, direct.results, direct.changed)
		}
	case "must_block_in_readonly":
		if through.state {
			return fmt.Sprintf("state changed: %v", through.results)
		}
	case "must_be_seen_as_ddl":
		if through.hung {
			return "waited behind the lock"
		}
	default:
		return "no such intent"
	}
	if through.unreachable {
		return "not reached"
	}
	return ""
}

// effect is what a case did.
type effect struct {
	results     [][]string
	changed     int
	state       bool
	hung        bool
	unreachable bool
}

// effect runs a case against address.
func (j *judge) effect(c *disguise, address string) effect {
	watch := j.direct()
	defer watch.end()
	watch.ok(emptyDatabase)
	watch.ok(j.base)
	if c.Setup != "" {
		watch.ok(c.Setup)
	}
	before, state := j.rows(watch), j.state(watch, c.Check)
	var blocker *peer
	if c.Intent == "must_be_seen_as_ddl" {
		blocker = j.direct()
		blocker.ok("BEGIN; LOCK TABLE public.account_move IN ACCESS EXCLUSIVE MODE")
	}
	e := j.steps(c, address)
	if blocker != nil {
		blocker.end()
	}
	j.settle(watch, e.hung)
	after := j.rows(watch)
	for id, row := range before {
		if after[id] != row {
			e.changed++
		}
	}
	e.state = j.state(watch, c.Check) != state
	j.cleanUp(c)
	return e
}

func (j *judge) steps(c *disguise, address string) (e effect) {
	var parameters []string
	for name, value := range c.Startup {
		parameters = append(parameters, name, value)
	}
	p, err := dialPeer(j.t, address, judgeUser, judgeDB, parameters...)
	if err != nil {
		e.unreachable = true
		return e
	}
	defer func() { _ = p.conn.Close() }()
	if address == j.g.addr && j.g.catalogs != nil {
		if err := j.g.catalogs.Refresh(j.t.Context()); err != nil { // what the set-up did passed nobody
			j.t.Fatal(err)
		}
	}
	for i := range c.Steps {
		replies, err := j.step(p, &c.Steps[i])
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			e.hung = true
			return e
		}
		if err != nil {
			e.results = append(e.results, []string{"closed"})
			return e
		}
		e.results = append(e.results, replies)
	}
	_, _ = p.conn.Write(message('X'))
	return e
}

// step sends one step's messages and returns tags and SQLSTATEs.
func (j *judge) step(p *peer, s *disguiseStep) ([]string, error) {
	text := s.text(j.t)
	var out []byte
	switch s.Protocol {
	case "simple", "copyin":
		out = message('Q', cstring(text))
	case "extended":
		out = slices.Concat(parseMessage("", text), bindMessage("", "", s.Params),
			message('D', []byte("P\x00")), executeMessage(""), message('S'))
	case "parse":
		out = slices.Concat(parseMessage(s.Name, text), message('S'))
	case "close":
		out = slices.Concat(message('C', []byte("S"+s.Name+"\x00")), message('S'))
	case "execute":
		out = slices.Concat(bindMessage("", s.Name, s.Params), executeMessage(""), message('S'))
	case "pipeline":
		for _, item := range s.Items {
			switch item[0] {
			case "P":
				out = append(out, parseMessage(item[1], []byte(item[2]))...)
			case "B":
				out = append(out, bindMessage(item[1], item[2], nil)...)
			default:
				out = append(out, executeMessage(item[1])...)
			}
		}
		out = append(out, message('S')...)
	case "fastpath":
		out = j.callMessage(s)
	default:
		return nil, errors.New("no such protocol")
	}
	if out == nil {
		return []string{"no function"}, nil
	}
	if _, err := p.conn.Write(out); err != nil {
		return nil, err
	}
	return readJudged(p, s.Data)
}

// readJudged reads to ReadyForQuery and keeps tags and SQLSTATEs; data answers
// a COPY.
func readJudged(p *peer, data string) ([]string, error) {
	out := []string{}
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	for {
		m, err := p.fe.Receive()
		if err != nil {
			return out, err
		}
		text, kind := p.told(m)
		switch kind {
		case 'Z':
			return out, nil
		case 'E', 'C', 'I', 'V':
			out = append(out, text)
		case 'G':
			if _, err := p.conn.Write(slices.Concat(message('d', []byte(data)), message('c'))); err != nil {
				return out, err
			}
		}
	}
}

func parseMessage(name string, text []byte) []byte {
	return message('P', cstring([]byte(name)), cstring(text), []byte{0, 0})
}

func bindMessage(portal, name string, params []any) []byte {
	body := slices.Concat(cstring([]byte(portal)), cstring([]byte(name)), []byte{0, 0})
	body = binary.BigEndian.AppendUint16(body, uint16(len(params)))
	for _, v := range params {
		if v == nil {
			body = append(body, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		text := fmt.Sprint(v)
		body = binary.BigEndian.AppendUint32(body, uint32(len(text)))
		body = append(body, text...)
	}
	return message('B', body, []byte{0, 0})
}

func executeMessage(portal string) []byte {
	return message('E', cstring([]byte(portal)), []byte{0, 0, 0, 0})
}

// callMessage is a FunctionCall of the function of that name; nil where there
// is none.
func (j *judge) callMessage(s *disguiseStep) []byte {
	look := j.direct()
	defer look.end()
	found := look.ok("SELECT oid FROM pg_proc WHERE proname = '" + s.Func + "' ORDER BY oid DESC LIMIT 1")
	if len(found) == 0 {
		return nil
	}
	var oid uint32
	if _, err := fmt.Sscan(found[0], &oid); err != nil {
		j.t.Fatal(err)
	}
	body := binary.BigEndian.AppendUint32(nil, oid)
	binaryArgs := s.Func == "lo_creat"
	if binaryArgs {
		body = append(body, 0, 1, 0, 1)
	} else {
		body = append(body, 0, 0)
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(s.Args)))
	for _, a := range s.Args {
		text := []byte(fmt.Sprint(a))
		if binaryArgs {
			text = []byte{0xff, 0xff, 0xff, 0xff}
		}
		body = binary.BigEndian.AppendUint32(body, uint32(len(text)))
		body = append(body, text...)
	}
	return message('F', body, []byte{0, 0})
}

// settle waits until no other client runs anything; what hung is ended.
func (j *judge) settle(watch *peer, hung bool) {
	others := " FROM pg_stat_activity WHERE datname = '" + judgeDB + "' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
	if hung {
		watch.ok("SELECT pg_terminate_backend(pid)" + others)
	}
	eventually(j.t, "other clients end", func() bool { return watch.value("SELECT count(*)"+others) == "0" })
}

// rows returns account_move by id, whatever it is called by now.
func (j *judge) rows(p *peer) map[string]string {
	for _, table := range []string{"account_move", "am", "am9"} {
		if p.value("SELECT pg_catalog.to_regclass('public."+table+"') IS NULL") == "t" {
			continue
		}
		out := map[string]string{}
		for _, row := range p.ok("SELECT id::text || '=' || t::text FROM public." + table + " t") {
			id, rest, _ := strings.Cut(row, "=")
			out[id] = rest
		}
		return out
	}
	return nil
}

// catalogState is what may not change in read-only besides rows: relations,
// columns, functions, extensions, large objects, comments and role settings.
const catalogState = `SELECT md5(concat(
 (SELECT string_agg(concat_ws(' ', c.oid, relname, relkind, relfilenode, relacl), ',' ORDER BY c.oid) FROM pg_class c
   WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)),
 (SELECT string_agg(concat_ws(' ', attrelid, attname, atttypid), ',' ORDER BY attrelid, attnum) FROM pg_attribute a
   JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace),
 (SELECT string_agg(concat_ws(' ', oid, proname), ',' ORDER BY oid) FROM pg_proc WHERE oid >= 16384),
 (SELECT string_agg(extname, ',' ORDER BY extname) FROM pg_extension),
 (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_largeobject_metadata),
 (SELECT string_agg(description, ',' ORDER BY objoid, objsubid) FROM pg_description WHERE objoid >= 16384),
 (SELECT string_agg(concat_ws(' ', setrole, setconfig), ',' ORDER BY setrole) FROM pg_db_role_setting)))`

// state is a fingerprint of everything a read-only session must leave alone.
func (j *judge) state(p *peer, check string) string {
	parts := []string{p.value(catalogState)}
	for _, table := range p.ok("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY oid") {
		parts = append(parts, p.value("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM "+table+" t"))
	}
	for _, sequence := range p.ok("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace ORDER BY oid") {
		parts = append(parts, p.value("SELECT concat(last_value, is_called) FROM "+sequence))
	}
	if check != "" {
		parts = append(parts, p.value("SELECT concat(("+check+"))"))
	}
	return strings.Join(parts, ",")
}

// cleanUp removes what a case leaves outside its database.
func (j *judge) cleanUp(c *disguise) {
	if c.Teardown != "" {
		j.admin.ok(c.Teardown)
	}
	j.admin.ok("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
	for i := range c.Steps {
		if strings.Contains(c.Steps[i].SQL, "ALTER SYSTEM") {
			j.admin.ok("ALTER SYSTEM RESET ALL")
		}
	}
}
