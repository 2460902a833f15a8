package policy

import (
	"time"

	"lockkeeper/internal/sqlstate"
)

// Connect decides about a new connection of the subject: nil lets it pass.
// The message is the server's for a database that does not take connections.
func (s *Snapshot) Connect(sub *Subject, now time.Time) *Refusal {
	if s == nil {
		return nil
	}
	c := s.find(Disable, sub, now)
	if c == nil {
		return nil
	}
	return &Refusal{
		SQLSTATE: sqlstate.NotInPrerequisiteState,
		Message:  `database "` + sub.Database + `" is not currently accepting connections`,
		Detail:   c.origin(),
		Hint:     orElse(c.Reason, "No reason was given.") + " " + c.end(),
	}
}
