package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"lockkeeper/inspect"
)

func TestParseNamesFileLineAndRemedyOfEveryMistake(t *testing.T) {
	const rule = "profile: odoo\nrules:\n- name: r\n  match: {}\n"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", []string{"p.yaml:1: no documents in stream: write one YAML document"}},
		{"two documents", "profile: odoo\n---\nprofile: odoo", []string{"p.yaml:1: expected single document, found multiple: write one YAML document"}},
		{"no YAML", "profile: odoo\nrules: [", []string{"p.yaml:2: this is not YAML"}},
		{"tabs", "profile: odoo\n\trules: []", []string{"p.yaml:2: this is not YAML"}},
		{"no mapping", "- a", []string{"p.yaml:1: the policy must be a mapping of keys to values, not a list"}},
		{"no profile", "unknown: allow", []string{"p.yaml:1: the policy has no profile: write profile: odoo or profile: postgres"}},
		{"unknown profile", "profile: mysql", []string{`p.yaml:1: profile "mysql": write one of odoo, postgres`}},
		{"unknown key", "profile: odoo\nrule: []", []string{`p.yaml:2: unknown key "rule" in the policy: it may have profile, critical_tables, tags, unknown, rules`}},
		{"duplicate key", "profile: odoo\nunknown: allow\nunknown: refuse", []string{`p.yaml:3: "unknown" is written twice in the policy, first in line 2: remove one`}},
		{"no value", "profile: odoo\nrules:", []string{`p.yaml:2: "rules" has no value: write one or remove the key`}},
		{"anchor", "profile: odoo\ncritical_tables: &a [x]", []string{"p.yaml:2: critical_tables: anchors and aliases are not supported: write the value out"}},
		{"alias", "profile: &a odoo\nunknown: *a", []string{"p.yaml:1: profile: anchors", "p.yaml:2: unknown: anchors"}},
		{"merge key", "profile: odoo\n<<: {unknown: allow}", []string{`p.yaml:2: unknown key "<<"`}},
		{"several at once", "profile: odo\nunknown: maybe\nrules: 5\nx: 1", []string{
			`p.yaml:1: profile "odo"`, `p.yaml:2: unknown "maybe": write one of careful, refuse, allow`,
			`p.yaml:3: rules must be a list, as in [a, b], not "5"`, `p.yaml:4: unknown key "x"`,
		}},
		{"wrong type", "profile: odoo\ncritical_tables: [1, x, true]", []string{`p.yaml:2: critical_tables must be text, not "1": put it in quotes`, `p.yaml:2: critical_tables must be text, not "true"`}},
		{"table in quotes", "profile: odoo\ncritical_tables: ['\"x\"']", []string{`p.yaml:2: table "\"x\"": write the name as \d shows it, without quotes and spaces`}},
		{"table of three parts", "profile: odoo\ncritical_tables: [a.b.c]", []string{`p.yaml:2: table "a.b.c": write name or schema.name`}},
		{"every table", "profile: odoo\ncritical_tables: ['*', 'a*b', 'a.*']", []string{
			`p.yaml:2: table "*": a pattern is a prefix`, `p.yaml:2: table "a*b"`, `p.yaml:2: table "a.*"`,
		}},
		{"tag without match", "profile: odoo\ntags: [{tag: a}]", []string{"p.yaml:2: a tag needs tag: with its name and match:"}},
		{"tag by tag", "profile: odoo\ntags: [{tag: a, match: {tags: [b]}}]", []string{`p.yaml:2: unknown key "tags" in a tag's match`}},
		{"rule without name", "profile: odoo\nrules:\n- match: {}\n  action: refuse", []string{"p.yaml:3: a rule has no name"}},
		{"rule without match", "profile: odoo\nrules:\n- name: r\n  action: refuse", []string{`p.yaml:3: rule "r" has no match`}},
		{"rule without effect", rule, []string{`p.yaml:3: rule "r" does nothing: give it action, throttle or ddl`}},
		{"bad name", "profile: odoo\nrules:\n- name: My Rule\n  match: {}\n  action: refuse", []string{`p.yaml:3: name "My Rule": use at most 63 lower-case letters`}},
		{"reserved name", "profile: odoo\nrules:\n- name: read-only\n  match: {}\n  action: refuse", []string{`p.yaml:3: the name "read-only" is lockkeeper's own: choose another`}},
		{"same name twice", rule + "  action: allow\n- {name: r, match: {}, action: allow}", []string{`p.yaml:6: there is a rule "r" in line 3 already`}},
		{"unknown action", rule + "  action: deny", []string{`p.yaml:5: action "deny": write one of allow, refuse, disconnect`}},
		{"unknown kind", rule + "  action: allow\n- {name: s, match: {kinds: [updte, alter tabel]}, action: allow}", []string{`unknown kind "updte"`, `unknown kind "alter tabel"`}},
		{"procedures of no schema", "profile: odoo\nrules: [{name: s, match: {procedures: [p, a.b.c, 'a.*', 'a.p()']}, action: allow}]", []string{
			`procedure "p": write schema.name, without quotes, arguments and patterns`, `procedure "a.b.c"`, `procedure "a.*"`, `procedure "a.p()"`,
		}},
		{"procedures that are refused", "profile: odoo\nrules: [{name: s, match: {procedures: [a.p]}, action: refuse}]", []string{`rule "s" has procedures: that is for action: allow, since a CALL need not say the schema`}},
		{"a refusal in read-only", "profile: odoo\nrules: [{name: s, match: {kinds: [do]}, action: refuse, in_read_only: true}]", []string{`rule "s" has in_read_only: that is for action: allow and kinds: of do and call`}},
		{"anything in read-only", "profile: odoo\nrules: [{name: s, match: {users: [bob]}, action: allow, in_read_only: true}]", []string{`rule "s" has in_read_only`}},
		{"writes in read-only", "profile: odoo\nrules: [{name: s, match: {kinds: [do, insert]}, action: allow, in_read_only: true}]", []string{`rule "s" has in_read_only`}},
		{"DDL in read-only", "profile: odoo\nrules: [{name: s, match: {kinds: [call, reindex]}, action: allow, in_read_only: true}]", []string{`rule "s" has in_read_only`}},
		{"some tables in read-only", "profile: odoo\nrules: [{name: s, match: {kinds: [call], tables: critical}, action: allow, in_read_only: true}]", []string{`rule "s" has in_read_only`}},
		{"unknown class", "profile: odoo\nrules: [{name: s, match: {classes: [ddl]}, action: allow}]", []string{`unknown statement class "ddl": want one of`}},
		{"unknown bound", "profile: odoo\nrules: [{name: s, match: {bound: [all]}, action: allow}]", []string{`unknown bound "all": want one of`}},
		{"empty list", "profile: odoo\nrules: [{name: s, match: {users: []}, action: allow}]", []string{"users is an empty list: name at least one or remove the key"}},
		{"empty tables", "profile: odoo\nrules: [{name: s, match: {tables: []}, action: allow}]", []string{"tables is an empty list"}},
		{"tables in a word", "profile: odoo\nrules: [{name: s, match: {tables: all}, action: allow}]", []string{`tables "all": write one of critical, any`}},
		{"address", "profile: odoo\nrules: [{name: s, match: {addresses: [10.0.0.0/33, example.com]}, action: allow}]", []string{`address "10.0.0.0/33"`, `address "example.com": write an address`}},
		{"enforce", rule + "  action: allow\n  enforce: maybe", []string{`p.yaml:6: enforce must be true or false, not "maybe"`}},
		{"throttle without limit", rule + "  throttle: {by: user}", []string{"p.yaml:5: throttle limits nothing"}},
		{"throttle by what", rule + "  throttle: {rows_per_second: 1, by: host}", []string{`p.yaml:5: by "host": write one of user, application, table, rule`}},
		{"rates", rule + "  throttle: {rows_per_second: 0, statements_per_second: .inf}", []string{"rows_per_second must be a number above 0", "statements_per_second must be a number above 0"}},
		{"time without unit", rule + "  throttle: {rows_per_second: 1, max_wait: 5}", []string{`p.yaml:5: max_wait must be a time with a unit, from 1ms to 1h, as in 500ms, 5s, 15min or 1h, not "5"`}},
		{"negative time", rule + "  ddl: {lock_timeout: -5s}", []string{`p.yaml:5: lock_timeout must be a time with a unit`}},
		{"ddl without limit", rule + "  ddl: {}", []string{"p.yaml:5: ddl limits nothing"}},
		{"budgets", rule + "  budget: {transaction: 5}\n  on_exceed: refuse", []string{
			`p.yaml:5: "budget" in a rule is not supported by this version of lockkeeper: remove it`,
			`p.yaml:6: "on_exceed" in a rule is not supported by this version`,
		}},
		{"parking", rule + "  ddl: {park: true, max_wait: 5m, only_in_window: true, lock_timeout: 5s}", []string{
			`p.yaml:5: "park" in ddl is not supported`, `"max_wait" in ddl is not supported`, `"only_in_window" in ddl is not supported`,
		}},
		{"more than one reads", "profile: odoo\ncritical_tables: [" + strings.Repeat("1, ", 25) + "]", []string{"p.yaml: and 5 more"}},
		{"too long", "profile: odoo # " + strings.Repeat("x", maxPolicyBytes), []string{"p.yaml:1: the policy is longer than"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse([]byte(tt.text), "p.yaml")
			if err == nil || p != nil {
				t.Fatalf("got %v, %v", p, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got:\n%v\nwant: %s", err, want)
				}
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "p.yaml:") {
					t.Errorf("line without file: %s", line)
				}
			}
		})
	}
}

func TestWhatAPolicyDoesNotSayComesFromItsProfile(t *testing.T) {
	def := standard(t, ProfileOdoo)
	bare := parse(t, "profile: odoo")
	if !slices.Equal(bare.CriticalTables(), def.CriticalTables()) || len(bare.Rules()) != len(def.Rules()) || bare.unknown != carefulUnknown {
		t.Error("a bare policy is not the default policy")
	}
	own := parse(t, "profile: odoo\ncritical_tables: [x_contract]\nunknown: refuse\nrules: []\ntags: [{tag: etl, match: {users: [etl]}}]")
	if !slices.Equal(own.CriticalTables(), []string{"x_contract"}) || len(own.Rules()) != 0 || own.unknown != refuseUnknown {
		t.Error("what the policy says was not taken")
	}
	if got := own.Tags(&Subject{User: "etl", Application: "odoo-1"}); !slices.Equal(got, []string{"etl", "worker"}) {
		t.Errorf("tags: %v", got)
	}
	moved := parse(t, "profile: odoo\ncritical_tables: [x_contract]")
	s := &Snapshot{Policy: moved}
	if d := s.Decide(outside(batch(deleteFrom("x_contract", inspect.BoundNone)))); d.Verdict != Refuse {
		t.Error("the profile's rules are not about the policy's critical tables")
	}
	if d := s.Decide(outside(batch(deleteFrom("account_move", inspect.BoundNone)))); d.Verdict != Allow {
		t.Error("the profile's critical tables are still in force")
	}
}

func TestEnforce(t *testing.T) {
	for text, want := range map[string]bool{"": true, "enforce: true": true, "enforce: True": true, "enforce: false": false, "enforce: FALSE": false} {
		p := parse(t, "profile: odoo\nrules:\n- name: r\n  match: {}\n  action: refuse\n  "+text)
		if got := p.Rules()[0].Enforce; got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestTags(t *testing.T) {
	odoo, postgres := standard(t, ProfileOdoo), standard(t, ProfilePostgres)
	for _, tt := range []struct {
		application    string
		odoo, postgres []string
	}{
		{"odoo-4711", []string{"worker"}, nil},
		{"pg_dump", []string{"backup"}, []string{"backup"}},
		{"psql", nil, nil},
	} {
		sub := &Subject{Application: tt.application}
		if got := odoo.Tags(sub); !slices.Equal(got, tt.odoo) {
			t.Errorf("odoo, %s: %v", tt.application, got)
		}
		if got := postgres.Tags(sub); !slices.Equal(got, tt.postgres) {
			t.Errorf("postgres, %s: %v", tt.application, got)
		}
	}
}

func TestCritical(t *testing.T) {
	p := parse(t, "profile: postgres\ncritical_tables: [a, public.b, stock_*]")
	for name, want := range map[string]bool{
		"a": true, "public.a": true, "other.a": true, "b": true, "public.b": true, "other.b": false,
		"stock_move": true, "x.stock_quant": true, "stock": false, "c": false, "pg_temp.a": false,
	} {
		schema, name := splitName(name)
		if got := p.Critical(schema, name); got != want {
			t.Errorf("%s.%s: got %v", schema, name, got)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "5s": 5 * time.Second, "15min": 15 * time.Minute, "15 min": 15 * time.Minute,
		"1h": time.Hour, "1d": 24 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%s: got %s", text, got)
		}
	}
	for _, text := range []string{"", "5", "0", "min", "1w", "-d", "5 apples"} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		text string
		want int
	}{
		{"profile: odoo", 0},
		{"profile: postgres", 2},
		{"profile: postgres\nrules: []", 0},
		{"profile: odoo\nrules: []", 1},
		{"profile: odoo\nrules: [{name: r, enforce: false, match: {tables: critical}, action: refuse}]", 1},
		{"profile: odoo\nrules: [{name: r, match: {tables: critical, users: [bob]}, action: refuse}]", 1},
	}
	for _, tt := range tests {
		if got := parse(t, tt.text).Warnings(); len(got) != tt.want {
			t.Errorf("%s: got %q", tt.text, got)
		}
	}
}

func TestParseNodeKeepsLinesOfTheOuterDocument(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Load([]byte("listen: x\npolicy:\n  profile: odoo\n  budget: 1\n"), &doc); err != nil {
		t.Fatal(err)
	}
	_, err := ParseNode(doc.Content[0].Content[3], "lockkeeper.yaml")
	if err == nil || !strings.HasPrefix(err.Error(), "lockkeeper.yaml:4: ") {
		t.Errorf("got %v", err)
	}
	if _, err := ParseNode(nil, "lockkeeper.yaml"); err == nil {
		t.Error("no node is no policy")
	}
}

func TestEveryPolicyInTheDocsLoads(t *testing.T) {
	pages, err := filepath.Glob("../docs/checks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../docs/policy.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := fenced(string(text), "yaml")
		if len(blocks) == 0 {
			t.Errorf("%s has no policy", page)
		}
		for _, b := range blocks {
			if _, err := Parse([]byte(b), page); err != nil {
				t.Errorf("%v\nin:\n%s", err, b)
			}
		}
	}
}

// fenced returns the fenced blocks of a language in a page.
func fenced(page, language string) []string {
	var out []string
	parts := strings.Split(page, "\n```")
	for i := 1; i < len(parts); i += 2 {
		if body, ok := strings.CutPrefix(parts[i], language+"\n"); ok {
			out = append(out, body)
		}
	}
	return out
}

// FuzzParse holds Parse to its word: a policy or an error, never a panic, and
// a policy that can decide.
func FuzzParse(f *testing.F) {
	f.Add([]byte(odooYAML))
	f.Add([]byte(postgresYAML))
	for _, seed := range []string{
		"", "profile: odoo", "profile: odoo\nrules: [{name: a, match: {}, action: refuse}]", "a: &a [*a]", "? [a]\n: b",
		"profile: odoo\nrules:\n- name: r\n  match: {tables: [a.b, c_*], addresses: ['::1', 10.0.0.0/8, local], bound: [none]}\n  throttle: {rows_per_second: 1e3, by: table}",
		"profile: odoo\ntags: [{tag: x, match: {users: ['*a*b*']}}]\nunknown: refuse", "profile: odoo\nrules: [[], {}, 1, null]",
		"profile: odoo\nrules: [{name: r, match: {kinds: [copy, lock, 'create  table']}, ddl: {lock_timeout: 1d}}]",
	} {
		f.Add([]byte(seed))
	}
	b := batch(update("account_move", inspect.BoundNone), alterTable("c_1"), control(inspect.KindBegin))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, "f")
		if (p == nil) == (err == nil) {
			t.Fatalf("got %v, %v", p, err)
		}
		if p == nil {
			return
		}
		s := &Snapshot{Policy: p}
		p.Tags(odooWorker())
		p.Warnings()
		s.Decide(outside(b))
		e := s.Explain(outside(b))
		if e.Text() == "" {
			t.Error("nothing explained")
		}
	})
}
