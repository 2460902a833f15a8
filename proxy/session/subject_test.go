package session

import (
	"testing"

	"lockkeeper/policy"
)

func TestEqualSubjectsAreOne(t *testing.T) {
	first := policy.Subject{User: "odoo", Database: "shop", Application: "odoo-1", Address: "10.0.0.1", Tags: []string{"cron"}}
	kept := share(&first)
	again := first
	again.Tags = []string{"cron"}
	if share(&again) != kept {
		t.Error("an equal subject is another one")
	}
	for what, differ := range map[string]func(*policy.Subject){
		"user": func(s *policy.Subject) { s.User = "odoo2" }, "database": func(s *policy.Subject) { s.Database = "test" },
		"application": func(s *policy.Subject) { s.Application = "odoo-2" }, "address": func(s *policy.Subject) { s.Address = "10.0.0.2" },
		"tags": func(s *policy.Subject) { s.Tags = nil }, "more tags": func(s *policy.Subject) { s.Tags = []string{"cron", "backup"} },
		"shifted": func(s *policy.Subject) { s.User, s.Database = "odooshop", "" },
	} {
		other := first
		differ(&other)
		if got := share(&other); got == kept || got.User != other.User || got.Database != other.Database || got.Application != other.Application || got.Address != other.Address || len(got.Tags) != len(other.Tags) {
			t.Errorf("with another %s it is %+v", what, got)
		}
	}
}

// More of them than are kept are each their own.
func TestManySubjectsStayApart(t *testing.T) {
	for i := range 4 * len(subjects) {
		name := string(rune('a'+i%26)) + string(rune('0'+i/26))
		if got := share(&policy.Subject{User: name}); got.User != name {
			t.Fatalf("%q is %q", name, got.User)
		}
	}
}
