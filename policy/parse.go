package policy

import "fmt"

// Parse reads a policy. file names the source in errors.
func Parse(data []byte, file string) (*Policy, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%s: the policy is empty", file)
	}
	return &Policy{profile: ProfilePostgres, critical: newTableSet(nil)}, nil
}

// Default returns the built-in policy of a profile.
func Default(profile string) (*Policy, error) {
	return &Policy{profile: profile, critical: newTableSet(nil)}, nil
}
