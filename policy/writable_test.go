package policy

import (
	"strings"
	"testing"
	"time"

	"lockkeeper/inspect"
)

func TestPlainWritesPassWhereAllReadOnlyLetThem(t *testing.T) {
	p, err := Default(ProfileOdoo)
	if err != nil {
		t.Fatal(err)
	}
	log := inspect.Statement{Class: inspect.Write, Kind: inspect.KindInsert, Plain: true, Relations: []inspect.Relation{{Name: "log", Access: inspect.AccessInsert}}}
	with := func(change func(*inspect.Statement)) inspect.Statement {
		st := log
		st.Relations = append([]inspect.Relation(nil), log.Relations...)
		change(&st)
		return st
	}
	for name, c := range map[string]struct {
		st       inspect.Statement
		writable [][]string // of each read-only
		schemas  string     // "": refused
	}{
		"named":               {log, [][]string{{"log"}}, "public"},
		"of a schema":         {log, [][]string{{"a.log", "log"}}, "a,public"},
		"another":             {log, [][]string{{"other"}}, ""},
		"none":                {log, [][]string{nil}, ""},
		"both":                {log, [][]string{{"a.log", "log"}, {"log"}}, "public"},
		"one of two":          {log, [][]string{{"log"}, {"other"}}, ""},
		"one names none":      {log, [][]string{{"log"}, nil}, ""},
		"qualified":           {with(func(s *inspect.Statement) { s.Relations[0].Schema = "a" }), [][]string{{"a.log", "log"}}, "a"},
		"qualified otherwise": {with(func(s *inspect.Statement) { s.Relations[0].Schema = "b" }), [][]string{{"a.log", "log"}}, ""},
		"temporary":           {with(func(s *inspect.Statement) { s.Relations[0].Schema = "pg_temp2" }), [][]string{{"log"}}, ""},
		"not plain":           {with(func(s *inspect.Statement) { s.Plain = false }), [][]string{{"log"}}, ""},
		"a trigger":           {with(func(s *inspect.Statement) { s.Hidden = inspect.HiddenTrigger }), [][]string{{"log"}}, ""},
		"reads another": {with(func(s *inspect.Statement) {
			s.Relations = append(s.Relations, inspect.Relation{Name: "x", Access: inspect.AccessRead})
		}), [][]string{{"log"}}, ""},
		"leads to another": {with(func(s *inspect.Statement) {
			s.Relations = append(s.Relations, inspect.Relation{Schema: "public", Name: "x", Access: inspect.AccessInsert, Via: "view log"})
		}), [][]string{{"log"}}, ""},
		"leads to one, allowed": {with(func(s *inspect.Statement) {
			s.Relations = append(s.Relations, inspect.Relation{Schema: "public", Name: "x", Access: inspect.AccessInsert, Via: "partition log"})
		}), [][]string{{"log", "x"}}, "public"},
	} {
		s := &Snapshot{Epoch: 1, Policy: p}
		for _, w := range c.writable {
			s.Containments = append(s.Containments, Containment{ID: "c", Kind: ReadOnlyMode, Epoch: 1, Writable: w})
		}
		b := &inspect.Batch{Class: inspect.Write, Statements: []inspect.Statement{c.st}}
		d := s.Decide(&Request{Subject: &Subject{}, Batch: b, Tx: TxIdle, Now: time.Unix(1, 0)})
		got := ""
		if w := d.Obligations.Write; w != nil {
			got = strings.Join(w.Schemas, ",")
		}
		if got != c.schemas || (d.Verdict == Allow) != (c.schemas != "") || d.Obligations.ReadOnly {
			t.Errorf("%s: %v, schemas %q, want %q", name, d.Verdict, got, c.schemas)
		}
	}
}

func TestNamesOfWritableTables(t *testing.T) {
	for name, ok := range map[string]bool{
		"log": true, "a.log": true, "_x9": true, "": false, ".": false, "a.": false, ".a": false, "a.b.c": false, "Log": false, `a"b`: false, "a'b": false, "a*": false,
		"9a": false, "pg_catalog.pg_class": false, "pg_temp.x": false, "information_schema.x": false, "a b": false, strings.Repeat("a", 64): false,
	} {
		if got := CheckWritable(name); (got == "") != ok {
			t.Errorf("%q: %q", name, got)
		}
	}
	for text, want := range map[string]string{
		"profile: odoo\nread_only: {writable_tables: []}\n":        "",
		"profile: postgres\nread_only: {writable_tables: [a.b]}\n": "a.b",
		"profile: postgres\n": "",
	} {
		p, err := Parse([]byte(text), "p.yaml")
		if err != nil || strings.Join(p.WritableTables(), ",") != want {
			t.Errorf("%s: %v %v", text, p, err)
		}
	}
	if _, err := Parse([]byte("profile: odoo\nread_only:\n  writable_tables: [ok, stock_*]\n"), "p.yaml"); err == nil || !strings.Contains(err.Error(), `p.yaml:3: table "stock_*"`) {
		t.Errorf("%v", err)
	}
}
