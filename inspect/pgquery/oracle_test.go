package pgquery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockkeeper/inspect"
	"lockkeeper/internal/pgtest"
)

// oracleSchema has one table without NULLs and one with NULLs and duplicates
// in all columns but the key.
const oracleSchema = `
CREATE TABLE m (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, s text NOT NULL, f bool NOT NULL);
INSERT INTO m SELECT i, i % 4, i % 7 - 3, chr(97 + i % 5), i % 3 = 0 FROM generate_series(1, 30) i;
CREATE TABLE nulls (id int PRIMARY KEY, a int, b int, s text, f bool);
INSERT INTO nulls SELECT i, nullif(i % 4, 0), nullif(i % 7 - 3, 0), nullif(chr(97 + i % 5), 'a'), CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END
  FROM generate_series(1, 30) i;`

const oracleRows = 30

// generator writes conditions at random.
type generator struct{ random *rand.Rand }

func (g *generator) pick(list ...string) string { return list[g.random.IntN(len(list))] }

// number, text and predicate are of any value; depth is how deep they may nest.
func (g *generator) number(depth int) string {
	if depth <= 0 {
		return g.pick("id", "a", "b", "m.id", "m.a", "0", "1", "2", "7", "-1", "NULL::int", "'3'::int")
	}
	switch g.random.IntN(9) {
	case 0:
		return "(" + g.number(depth-1) + g.pick(" + ", " - ", " * ") + g.number(depth-1) + ")"
	case 1:
		return "coalesce(" + g.number(depth-1) + ", " + g.number(depth-1) + ")"
	case 2:
		return "CASE WHEN " + g.predicate(depth-1) + " THEN " + g.number(depth-1) + " ELSE " + g.number(depth-1) + " END"
	case 3:
		return "abs(" + g.number(depth-1) + ")"
	case 4:
		return "length(" + g.text(depth-1) + ")"
	case 5:
		return g.pick("greatest", "least", "nullif") + "(" + g.number(depth-1) + ", " + g.number(depth-1) + ")"
	case 6:
		return "(SELECT " + g.number(depth-1) + ")"
	case 7:
		return "(SELECT max(id) FROM m WHERE " + g.predicate(depth-1) + ")"
	default:
		return g.number(0)
	}
}

func (g *generator) text(depth int) string {
	if depth <= 0 {
		return g.pick("s", "m.s", "''", "'a'", "'b'", "NULL::text", "a::text")
	}
	switch g.random.IntN(5) {
	case 0:
		return "(" + g.text(depth-1) + " || " + g.text(depth-1) + ")"
	case 1:
		return g.pick("lower(", "upper(", "btrim(", "concat(") + g.text(depth-1) + ")"
	case 2:
		return "coalesce(" + g.text(depth-1) + ", " + g.text(depth-1) + ")"
	case 3:
		return "(" + g.text(depth-1) + ` COLLATE "C")`
	default:
		return g.text(0)
	}
}

func (g *generator) predicate(depth int) string {
	if depth <= 0 {
		return g.pick("f", "id = 3", "id IN (1, 2, 2)", "a = 1", "s = 'b'", "true", "false", "NULL::bool", "id > 5", "m.id = 4 AND f", "a IS NULL")
	}
	n := func() string { return g.number(depth - 1) }
	s := func() string { return g.text(depth - 1) }
	p := func() string { return g.predicate(depth - 1) }
	switch g.random.IntN(20) {
	case 0:
		return "(" + p() + " AND " + p() + ")"
	case 1:
		return "(" + p() + " OR " + p() + ")"
	case 2:
		return "NOT (" + p() + ")"
	case 3:
		return n() + g.pick(" = ", " <> ", " < ", " <= ", " > ", " >= ") + n()
	case 4:
		return n() + g.pick(" IN (", " NOT IN (") + n() + ", " + n() + ")"
	case 5:
		return n() + g.pick(" BETWEEN ", " NOT BETWEEN ", " BETWEEN SYMMETRIC ") + n() + " AND " + n()
	case 6:
		return n() + g.pick(" IS NULL", " IS NOT NULL")
	case 7:
		return n() + g.pick(" IS DISTINCT FROM ", " IS NOT DISTINCT FROM ") + n()
	case 8:
		return "(" + p() + ")" + g.pick(" IS TRUE", " IS NOT TRUE", " IS FALSE", " IS NOT FALSE", " IS UNKNOWN", " IS NOT UNKNOWN")
	case 9:
		return s() + g.pick(" = ", " <> ", " LIKE ", " NOT LIKE ", " ~ ", " >= ") + s()
	case 10:
		return "(" + n() + ", " + s() + ")" + g.pick(" = ", " <> ", " >= ") + "(" + n() + ", " + s() + ")"
	case 11:
		return "(id, a) IN ((" + n() + ", " + n() + "), (" + n() + ", " + n() + "))"
	case 12:
		return "id" + g.pick(" = ANY (ARRAY[", " <> ALL (ARRAY[") + n() + ", " + n() + "])"
	case 13:
		return "id = ANY ('{1,2,NULL,2}'::int[])"
	case 14:
		return g.pick("", "NOT ") + "EXISTS (SELECT 1 FROM m x WHERE x.id = m.id AND " + p() + ")"
	case 15:
		return "id " + g.pick("IN", "NOT IN") + " (SELECT id FROM m WHERE " + p() + ")"
	case 16:
		return "id IN (VALUES (" + strconv.Itoa(g.random.IntN(9)) + "), (" + g.pick("3", "NULL", "4") + "))"
	case 17:
		return "CASE WHEN " + p() + " THEN " + p() + " ELSE " + p() + " END"
	case 18:
		return "coalesce(" + p() + ", " + p() + ")"
	default:
		return g.predicate(0)
	}
}

// truth writes a condition that holds for every row of a table without NULLs;
// falsehood one that holds for none.
func (g *generator) truth(depth int) string {
	if depth <= 0 {
		return g.pick("true", "1 = 1", "id = id", "m.a = a", "s = s", "id IS NOT NULL", "'t'::bool", "NOT false", "id IN (id)", "length(s) >= 0", "s LIKE '%'",
			"f = f", "f OR NOT f", "(id, a) = (id, a)", "id IN (SELECT id FROM m)", "a <= a", "a BETWEEN a AND a", "s IS NOT DISTINCT FROM s", "1 < 2", "m = m",
			"EXISTS (SELECT 1)", "id = ANY (ARRAY[id])", "NULL IS NULL", "abs(a) >= 0", "s || '' = s", "coalesce(s, 'x') IS NOT NULL")
	}
	t := func() string { return g.truth(depth - 1) }
	p := func() string { return g.predicate(1) }
	switch g.random.IntN(22) {
	case 0:
		return "(" + t() + " OR " + p() + ")"
	case 1:
		return "(" + p() + " OR " + t() + ")"
	case 2:
		return "(" + t() + " AND " + t() + ")"
	case 3:
		return "NOT (" + g.falsehood(depth-1) + ")"
	case 4:
		return "(" + t() + ")" + g.pick(" IS TRUE", " IS NOT FALSE", " = true", " IS NOT DISTINCT FROM true", "::bool", " <> false", " IN (true)", " IS NOT UNKNOWN")
	case 5:
		return "CASE WHEN " + g.pick("f", "a = 1", "id > 3") + " THEN " + t() + " ELSE " + t() + " END"
	case 6:
		return "CASE WHEN " + t() + " THEN " + t() + " END"
	case 7:
		return "coalesce(" + t() + ", " + p() + ")"
	case 8:
		return "coalesce(NULL, " + t() + ")"
	case 9:
		return "(SELECT " + t() + ")"
	case 10:
		return "EXISTS (SELECT 1 WHERE " + t() + ")"
	case 11:
		return "id IN (SELECT id FROM m WHERE " + t() + ")"
	case 12:
		return "EXISTS (SELECT 1 FROM m x WHERE x.id = m.id AND " + g.pick("true", "x.a = x.a", "x.id IS NOT NULL") + ")"
	case 13:
		e := g.pick("id", "a", "s", "id + 1", "lower(s)", "a * 2", "coalesce(a, 0)", "f")
		return e + g.pick(" = ", " IS NOT DISTINCT FROM ", " >= ", " <= ") + e
	case 14:
		e := g.pick("id > 3", "f", "a = 1", "s = 'a'")
		return "(" + e + " OR NOT (" + e + "))"
	case 15:
		e := g.pick("a", "s", "id", "f")
		return "(" + e + " IS NULL OR " + e + " IS NOT NULL)"
	case 16:
		return "(" + t() + ") = (" + t() + ")"
	case 17:
		return "NOT (" + g.falsehood(depth-1) + " OR " + g.falsehood(depth-1) + ")"
	case 18:
		return "NOT (" + g.falsehood(depth-1) + " AND " + p() + ")"
	case 19:
		return "((" + t() + "), 1) = (true, 1)"
	case 20:
		return "(" + t() + ") = ANY (ARRAY[true, false])"
	default:
		return "nullif(" + t() + ", false)"
	}
}

func (g *generator) falsehood(depth int) string {
	if depth <= 0 {
		return g.pick("false", "1 = 2", "id <> id", "id IS NULL", "a < a", "'f'::bool", "s <> s", "NOT true", "id NOT IN (id)", "id > id + 1", "s IS DISTINCT FROM s")
	}
	f := func() string { return g.falsehood(depth - 1) }
	switch g.random.IntN(6) {
	case 0:
		return "NOT (" + g.truth(depth-1) + ")"
	case 1:
		return "(" + f() + " AND " + g.predicate(1) + ")"
	case 2:
		return "(" + f() + " OR " + f() + ")"
	case 3:
		return "(" + f() + ")" + g.pick(" IS TRUE", " = true", "::bool", " IS NOT FALSE")
	case 4:
		return "coalesce(" + f() + ", true)"
	default:
		return "CASE WHEN f THEN " + f() + " ELSE " + f() + " END"
	}
}

// oracleRounds is how many conditions are tried: LOCKKEEPER_ORACLE_ROUNDS
// makes it more than a moment's work.
func oracleRounds(t *testing.T) (rounds int, seed uint64) {
	t.Helper()
	rounds = 600
	if s := os.Getenv("LOCKKEEPER_ORACLE_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds, seed = n, uint64(n)
	}
	return rounds, seed
}

func oracle(t *testing.T) *pgx.Conn {
	t.Helper()
	server := pgtest.Shared(t)
	database := server.NewDatabase(t)
	server.MustExec(t, database, oracleSchema)
	conn, err := server.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, conn *pgx.Conn, from, condition string) (n int, err error) {
	t.Helper()
	err = conn.QueryRow(t.Context(), "SELECT count(*) FROM "+from+" WHERE "+condition, pgx.QueryExecModeSimpleProtocol).Scan(&n)
	return n, err
}

// TestRandomConditionsAgainstServer asks a server about conditions that were
// made at random: what is keyed holds for no more rows than it says, also
// with NULLs; what is vacuous holds for all rows or none where there are none.
func TestRandomConditionsAgainstServer(t *testing.T) {
	conn := oracle(t)
	rounds, seed := oracleRounds(t)
	g := generator{random: rand.New(rand.NewPCG(seed, 1))}
	asked, alarms, found := 0, 0, map[string]int{}
	for range rounds {
		c := g.predicate(1 + g.random.IntN(4))
		r := Parse("DELETE FROM m WHERE " + c).Statements[0].Relations[0]
		n, err := count(t, conn, "m", c)
		if err != nil {
			continue // types that do not fit, numbers that are too large
		}
		asked++
		found[r.Bound.String()]++
		withNulls, err := count(t, conn, "nulls m", c)
		if err != nil {
			withNulls = 0
		}
		if r.Bound == inspect.BoundVacuous && n != 0 && n != oracleRows {
			alarms++ // for all rows or none, in an OR with something else
		}
		if r.Bound == inspect.BoundKeyed && r.Rows > 0 && max(n, withNulls) > r.Rows {
			t.Errorf("keyed(%d), but holds for %d rows: %s", r.Rows, max(n, withNulls), c)
		}
	}
	if asked < rounds/2 {
		t.Errorf("only %d of %d conditions could be asked", asked, rounds)
	}
	t.Logf("%d of %d conditions asked: %v; vacuous and not true of all: %d", asked, rounds, found, alarms)
}

// TestRandomTautologiesAreVacuous composes truths of truths, and has a server
// say that they are.
func TestRandomTautologiesAreVacuous(t *testing.T) {
	conn := oracle(t)
	rounds, seed := oracleRounds(t)
	g := generator{random: rand.New(rand.NewPCG(seed, 2))}
	asked, missed := 0, 0
	for range rounds {
		c := g.truth(g.random.IntN(4))
		n, err := count(t, conn, "m", c)
		if err != nil || n != oracleRows {
			if err == nil || !strings.Contains(fmt.Sprint(err), "division by zero") {
				t.Errorf("no truth: %d rows, %v: %s", n, err, c)
			}
			continue
		}
		asked++
		if r := Parse("DELETE FROM m WHERE " + c).Statements[0].Relations[0]; r.Bound != inspect.BoundVacuous {
			missed++
			t.Logf("%s(%d): %s", r.Bound, r.Rows, c)
		}
	}
	t.Logf("%d of %d tautologies are not seen", missed, asked)
}
