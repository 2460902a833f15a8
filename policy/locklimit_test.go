package policy_test

import (
	"strings"
	"testing"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/policy"
)

const lockLimits = `
profile: postgres
critical_tables: [hot, "s.warm"]
rules:
  - name: watched
    match: {classes: [define], tables: [hot]}
    enforce: false
    ddl: {lock_timeout: 1s}
  - name: critical
    match: {classes: [define], tables: critical}
    ddl: {lock_timeout: 5s}
  - name: batch
    match: {classes: [define], tables: critical, users: [batch]}
    ddl: {lock_timeout: 2s}
  - name: kinds
    match: {kinds: [alter table], tables: critical}
    ddl: {lock_timeout: 10ms}
  - name: everywhere
    match: {classes: [define]}
    ddl: {lock_timeout: 20ms}
  - name: queries
    match: {classes: [read], tables: critical}
    ddl: {lock_timeout: 30ms}
`

func TestLockLimits(t *testing.T) {
	p, err := policy.Parse([]byte(lockLimits), "p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := &policy.Snapshot{Policy: p}
	for _, tt := range []struct {
		user, names string
		want        policy.LockLimit
	}{
		{"odoo", "public.hot", policy.LockLimit{Timeout: 5 * time.Second, Rule: "critical", Enforced: true}},
		{"batch", "public.hot", policy.LockLimit{Timeout: 2 * time.Second, Rule: "batch", Enforced: true}},
		{"odoo", "public.hot_idx public.hot", policy.LockLimit{Timeout: 5 * time.Second, Rule: "critical", Enforced: true}},
		{"odoo", "s.warm", policy.LockLimit{Timeout: 5 * time.Second, Rule: "critical", Enforced: true}},
		{"odoo", "public.warm", policy.LockLimit{}},
		{"odoo", "public.cold", policy.LockLimit{}},
	} {
		if got := s.LockLimit(&policy.Subject{User: tt.user}, relationsNamed(tt.names), time.Time{}); got != tt.want {
			t.Errorf("%s waiting for %s: %+v, want %+v", tt.user, tt.names, got, tt.want)
		}
	}
	if got := s.ShortestLockLimit(); got != time.Second {
		t.Errorf("the shortest is %s", got)
	}
}

// In observe mode, and by a rule that is not enforced, nobody is cancelled.
func TestLockLimitsThatAreNotEnforced(t *testing.T) {
	p, err := policy.Parse([]byte(lockLimits), "p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := &policy.Snapshot{Policy: p, Containments: []policy.Containment{{Kind: policy.ObserveMode}}}
	want := policy.LockLimit{Timeout: time.Second, Rule: "watched"}
	if got := s.LockLimit(&policy.Subject{}, relationsNamed("public.hot"), time.Time{}); got != want {
		t.Errorf("observing: %+v, want %+v", got, want)
	}
	var none *policy.Snapshot
	if none.LockLimit(&policy.Subject{}, relationsNamed("public.hot"), time.Time{}).Timeout != 0 || none.ShortestLockLimit() != 0 {
		t.Error("there is a limit without a policy")
	}
}

func TestTheRefusalOfALockLimit(t *testing.T) {
	l := policy.LockLimit{Timeout: 5 * time.Second, Rule: "ddl-on-hot-tables"}
	r := l.Refusal("ACCESS EXCLUSIVE", &inspect.Relation{Schema: "public", Name: "hot"})
	if r.SQLSTATE != "55P03" || !strings.Contains(r.Detail, `"ddl-on-hot-tables"`) || !strings.Contains(r.Detail, `ACCESS EXCLUSIVE on "public.hot"`) || r.Hint == "" {
		t.Errorf("%+v", r)
	}
}

func relationsNamed(names string) []inspect.Relation {
	var out []inspect.Relation
	for name := range strings.FieldsSeq(names) {
		schema, table, _ := strings.Cut(name, ".")
		out = append(out, inspect.Relation{Schema: schema, Name: table})
	}
	return out
}
