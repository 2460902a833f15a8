package lex

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// marks makes a key readable.
var marks = strings.NewReplacer("\x01", "⟨s⟩", "\x02", "⟨i⟩", "\x03", "⟨n⟩", "\x04", "⟨b⟩", "\x05", "⟨c⟩", "\x06", "⟨numbers⟩", "\x07", "⟨strings⟩", "\x08", "⟨row⟩", "\x0e", "⟨drawn⟩")

// uuid is a savepoint's name as Odoo draws it.
const uuid = `"4f1c2a9e-11aa-11ef-8d6c-0242ac120002"`

func TestShapes(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"SELECT a FROM t", "SELECT a FROM t"},
		{"SELECT 1, 2.5, 'a''b', B'01', $1, x1 FROM \"t'1\"", "SELECT ⟨i⟩, ⟨n⟩, ⟨s⟩, ⟨b⟩, $1, x1 FROM \"t'1\""},
		{"select 2147483647, 2147483648, 0000000001, 000", "select ⟨i⟩, ⟨n⟩, 0000000001, ⟨i⟩"},
		{
			"SELECT a = 1, a = -1, a = 'x', a = NULL, a = true, a =- 1, a = -1::int, a = b'1'",
			"SELECT a = ⟨c⟩, a = ⟨c⟩, a = ⟨c⟩, a = ⟨c⟩, a = ⟨c⟩, a =- ⟨i⟩, a = -⟨i⟩::int, a = ⟨b⟩",
		},
		{"SELECT a = /* x */ NULL, a = \n -5", "SELECT a = /* x */ NULL, a = \n ⟨c⟩"},
		{"SELECT NULL, -1, a.true", "SELECT NULL, -⟨i⟩, a.true"},
		{
			"SELECT x IN (1, -2,3.5), x IN ('a'), x in( 'a','b' ), x IN (1, 'a'), x IN (1, $1)",
			"SELECT x IN (⟨numbers⟩), x IN (⟨strings⟩), x in( ⟨strings⟩ ), x IN (⟨i⟩, ⟨s⟩), x IN (⟨i⟩, $1)",
		},
		{"SELECT x IN ((1, 2), (3, 'a')), a.in (1, 2), a . /* x */ in (1)", "SELECT x IN (⟨row⟩(⟨c⟩,⟨c⟩)), a.in (⟨i⟩, ⟨i⟩), a . /* x */ in (⟨i⟩)"},
		{"SELECT position('a' IN ('b')), x IN (1)", "SELECT position(⟨s⟩ IN (⟨s⟩)), x IN (⟨i⟩)"},
		{
			"INSERT INTO t VALUES (1, 'a'), (NULL,-2),( 3 , DEFAULT ), (now(), 1) RETURNING id",
			"INSERT INTO t VALUES ⟨row⟩(⟨c⟩,⟨c⟩)⟨row⟩(⟨c⟩,DEFAULT), (now(), ⟨i⟩) RETURNING id",
		},
		{"VALUES ('a'::date, 'b'::int[]), (NULL::date, '{}'::int[])", "VALUES ⟨row⟩(⟨c⟩::date,⟨c⟩::int[])"},
		{"VALUES ('a'::numeric(5)), (-1::int), (-default), (DEFAULT)", "VALUES (⟨s⟩::numeric(⟨i⟩)), (-⟨i⟩::int), (-default), (DEFAULT)"},
		{"MERGE INTO t WHEN NOT MATCHED THEN INSERT VALUES (1), (2)", "MERGE INTO t WHEN NOT MATCHED THEN INSERT VALUES (⟨i⟩), (⟨i⟩)"},
		{"SELECT 1::float(5), 1", "SELECT ⟨i⟩::float(5), ⟨i⟩"},
		{"SELECT E'a\\'b', e'\\x41', E'\\\\', 'a' \n 'b', $$x$$", "SELECT ⟨s⟩, e'\\x41', ⟨s⟩, 'a' \n 'b', ⟨s⟩"},
		{"SELECT 1; -- x\n;", "SELECT ⟨i⟩; -- x\n;"},
		{" -- c 1\n((SELECT 1)) /* 2 /* 3 */ */", " -- c 1\n((SELECT ⟨i⟩)) /* 2 /* 3 */ */"},
		{"SELECT a--1\n", "SELECT a--1\n"},
		{"SELECT a*-1, a-1.5.5", "SELECT a*-⟨i⟩, a-⟨n⟩⟨n⟩"},
		{`SELECT "a"."b", "c""d", "e'f"."g", 1, "h` + "\n" + `i",1,""."j" , "k"`, `SELECT "a"."b", "c""d", "e'f"."g", ⟨i⟩, "h` + "\n" + `i",⟨i⟩,""."j" , "k"`},
		{"SAVEPOINT " + uuid, `SAVEPOINT "⟨drawn⟩"`},
		{" release\tsavepoint\n\"4F1C2A9E11AA11EF8D6C0242AC120002\" ; ", " release\tsavepoint\n\"⟨drawn⟩\" ; "},
		{"Rollback Work To " + uuid, `Rollback Work To "⟨drawn⟩"`},
	} {
		var s Shape
		if why := s.Read([]byte(test.text)); why != Shaped || marks.Replace(string(s.Key)) != test.want {
			t.Errorf("%q: %d\n%q, want\n%q", test.text, why, marks.Replace(string(s.Key)), test.want)
		}
	}
}

func TestTextsWithoutShape(t *testing.T) {
	for text, want := range map[string]Unshaped{
		"BEGIN": NoQuery, "": NoQuery, "selecting 1": NoQuery, "-- select": NoQuery, "EXPLAIN SELECT 1": NoQuery,
		`SAVEPOINT "abc"`: NoQuery, `SAVEPOINT ""`: NoQuery, `SAVEPOINT "lockkeeper_a"`: NoQuery, `SAVEPOINT "` + strings.Repeat("a", 64) + `"`: NoQuery,
		"SAVEPOINT " + uuid + " -- c": NoQuery, "SAVEPOINT " + uuid + `"b"`: NoQuery, "SAVEPOINT " + uuid + "; SELECT 1": NoQuery, "RELEASE " + uuid + ".": NoQuery,
		"(SAVEPOINT " + uuid: NoQuery, "ROLLBACK " + uuid: NoQuery, "ROLLBACK PREPARED " + uuid: NoQuery, uuid: NoQuery,
		"SAVEPOINT " + uuid[:37]: NoQuery, "SAVEPOINT a" + strings.Repeat("0", 35): NoQuery,
		"SELECT 1; SELECT 2": Several, "SELECT 1;+": Several,
		"SELECT n'x'": Uncertain, "SELECT U&'x'": Uncertain, "SELECT u&\"x\"": Uncertain, "SELECT 1a": Uncertain, "SELECT 'a": Uncertain,
		"SELECT \"a": Uncertain, "SELECT 'a\x00'": Uncertain, "SELECT '\xff'": Uncertain, "SELECT \x01": Uncertain, "SELECT $a$": Uncertain,
		"SELECT E'a": Uncertain, "SELECT b'1": Uncertain, "SELECT {": Uncertain,
		"SELECT 1" + strings.Repeat(",1", MaxSlots): Crowded,
	} {
		var s Shape
		if why := s.Read([]byte(text)); why != want {
			t.Errorf("%.40q: %d, want %d", text, why, want)
		}
	}
}

// FuzzShapePass compares the pass over a text, which takes what most of a text
// is made of in steps of its own, with one that goes from token to token.
func FuzzShapePass(f *testing.F) {
	for _, text := range []string{
		`SELECT "a"."b", "c" AS "d" , "long_name_of_a_table"."id"."x", "e""f", "a"."b""c", "" FROM "t`,
		`SELECT a.in (1, 2), "a".values (1), a = /* c */ null, "a" = null, x IN (1), "b"` + "\n;;",
		`SELECT "é", 'x'."a", ("a"), ["b"], "c"."d`, `MERGE "a" VALUES (1), (2)`, `SELECT "a" = true, "b".false, c=false, "d", "e" 5`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var fast, dull Shape
		why := fast.Read(text)
		if why == NoQuery || why == Uncertain && fast.l.Text != nil {
			return // it was not passed over
		}
		dull = Shape{l: Lexer{Text: text}}
		dull.isQuery()
		for dull.l.pos < len(text) && dull.why == Shaped {
			dull.token()
		}
		if dull.why != why {
			t.Fatalf("%q: %d, and from token to token %d", text, why, dull.why)
		}
		dull.copyTo(len(text))
		if why == Shaped && (!bytes.Equal(fast.Key, dull.Key) || !slices.Equal(fast.Slots, dull.Slots)) {
			t.Fatalf("%q: %q %v, and from token to token %q %v", text, fast.Key, fast.Slots, dull.Key, dull.Slots)
		}
	})
}

func TestSlots(t *testing.T) {
	text := "UPDATE t SET a = NULL, b = 'x' WHERE id IN (1, 22) AND c > -5 AND (d, e) IN ((1,2),(3,4),(5,6))"
	var s Shape
	s.Read([]byte(text))
	var got []string
	for _, slot := range s.Slots {
		got = append(got, text[slot.Start:slot.End]+"×"+string(rune('0'+slot.Count)))
	}
	if want := "NULL×0|'x'×0|1, 22×2|5×0|(1,2),(3,4),(5,6)×3"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShapeAllocatesNothing(t *testing.T) {
	text := []byte("SELECT a, 'b', $$c$$, 1.5 FROM \"t\" /* d */ WHERE x = $1 AND id IN (1, 2, 3)")
	var s Shape
	s.Read(text)
	if n := testing.AllocsPerRun(100, func() { s.Read(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var shapeTexts = map[string]string{
	"pgbench": "SELECT abalance FROM pgbench_accounts WHERE aid = 1234;",
	"mixed":   "SELECT " + strings.Repeat("\"account_move\".\"id\", 'text', 12345, account_move.state ", 20),
	"orm": `SELECT "account_move_line"."id" AS "id", "account_move_line"."move_id" AS "move_id", "account_move_line"."journal_id" AS "journal_id", ` +
		`"account_move_line"."company_id" AS "company_id", "account_move_line"."name" AS "name" FROM "account_move_line" ` +
		`LEFT JOIN "account_move" AS "account_move_line__move_id" ON ("account_move_line"."move_id" = "account_move_line__move_id"."id") ` +
		`WHERE (("account_move_line"."parent_state" = 'posted') AND ("account_move_line"."account_id" IN (101, 102, 103, 104, 105, 106)) ` +
		`AND ("account_move_line"."date" >= '2024-01-01') AND ("account_move_line"."company_id" = 1)) ` +
		`ORDER BY "account_move_line"."date" DESC, "account_move_line"."move_name" DESC, "account_move_line"."id" LIMIT 80`,
}

func BenchmarkShape(b *testing.B) {
	for name, text := range shapeTexts {
		b.Run(name, func(b *testing.B) {
			text := []byte(text)
			b.SetBytes(int64(len(text)))
			var s Shape
			for b.Loop() {
				s.Read(text)
			}
		})
	}
}
