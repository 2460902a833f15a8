package policy

import (
	_ "embed" // the default policies are files that people read, too
	"fmt"
)

//go:embed defaults/odoo.yaml
var odooYAML string

//go:embed defaults/postgres.yaml
var postgresYAML string

// DefaultYAML returns the text of a profile's default policy.
func DefaultYAML(profile string) (string, error) {
	switch profile {
	case ProfileOdoo:
		return odooYAML, nil
	case ProfilePostgres:
		return postgresYAML, nil
	default:
		return "", fmt.Errorf("unknown profile %q: want %s or %s", profile, ProfileOdoo, ProfilePostgres)
	}
}

// Default returns the default policy of a profile.
func Default(profile string) (*Policy, error) {
	s, err := defaultSpec(profile)
	if err != nil {
		return nil, err
	}
	return compile(s), nil
}

// defaultSpec reads a profile's default policy.
func defaultSpec(profile string) (*spec, error) {
	text, err := DefaultYAML(profile)
	if err != nil {
		return nil, err
	}
	r := &reader{file: "default policy " + profile}
	n := r.load([]byte(text))
	if n == nil {
		return nil, r.err()
	}
	s := r.spec(n)
	return s, r.err()
}
