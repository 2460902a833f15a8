package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// glob reports whether s matches a pattern in which * stands for any number
// of any characters and everything else for itself. It does not allocate.
func glob(pattern, s string) bool {
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}

func anyGlob(patterns []string, s string) bool {
	for _, p := range patterns {
		if glob(p, s) {
			return true
		}
	}
	return false
}

// subjectMatch is the part of a match that asks who sends the statement.
// Empty fields match everybody.
type subjectMatch struct {
	users, databases, apps []string // patterns
	addresses              []addressMatch
	tags                   []string
}

// addressMatch is an exact address ("local" too) or a network.
type addressMatch struct {
	exact   string
	network netip.Prefix
}

func (a addressMatch) String() string {
	if a.exact != "" {
		return a.exact
	}
	return a.network.String()
}

func (a addressMatch) matches(address string, ip netip.Addr) bool {
	if a.exact != "" {
		return a.exact == address
	}
	return ip.IsValid() && a.network.Contains(ip)
}

// parseAddress reads one entry of addresses.
func parseAddress(s string) (addressMatch, bool) {
	if s == "local" {
		return addressMatch{exact: s}, true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return addressMatch{network: p.Masked()}, true
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return addressMatch{}, false
	}
	ip = ip.Unmap()
	return addressMatch{network: netip.PrefixFrom(ip, ip.BitLen())}, true
}

func (m *subjectMatch) empty() bool {
	return len(m.users)+len(m.databases)+len(m.apps)+len(m.addresses)+len(m.tags) == 0
}

// matches reports whether the subject is one of those asked for.
func (m *subjectMatch) matches(s *Subject) bool { return m.empty() || m.objection(s) == "" }

// objection names the field that does not match; "" when all do.
func (m *subjectMatch) objection(s *Subject) string {
	switch {
	case len(m.users) > 0 && !anyGlob(m.users, s.User):
		return "users"
	case len(m.databases) > 0 && !anyGlob(m.databases, s.Database):
		return "databases"
	case len(m.apps) > 0 && !anyGlob(m.apps, s.Application):
		return "apps"
	case len(m.tags) > 0 && !m.hasTag(s.Tags):
		return "tags"
	case len(m.addresses) > 0 && !m.hasAddress(s.Address):
		return "addresses"
	default:
		return ""
	}
}

func (m *subjectMatch) hasTag(tags []string) bool {
	for _, t := range m.tags {
		if slices.Contains(tags, t) {
			return true
		}
	}
	return false
}

func (m *subjectMatch) hasAddress(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err == nil {
		ip = ip.Unmap().WithZone("")
	}
	for _, a := range m.addresses {
		if a.matches(address, ip) {
			return true
		}
	}
	return false
}

// tagRule gives a tag to the subjects that match.
type tagRule struct {
	tag   string
	match subjectMatch
}

// MayMatch reports whether the scope may hold for somebody in a database.
func (s *Scope) MayMatch(database string) bool { return s.Database == "" || glob(s.Database, database) }

// Matches reports whether the scope holds for the subject.
func (s *Scope) Matches(sub *Subject) bool {
	switch {
	case s.Database != "" && !glob(s.Database, sub.Database),
		s.User != "" && !glob(s.User, sub.User),
		s.Application != "" && !glob(s.Application, sub.Application),
		s.Tag != "" && !slices.Contains(sub.Tags, s.Tag):
		return false
	default:
		return true
	}
}
