package control

import (
	"context"

	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// Disable refuses new connections in the scope; sessions that exist go on.
func (c *Control) Disable(ctx context.Context, scope policy.Scope, by By) (policy.Containment, error) {
	return c.addRecorded(ctx, "disable", policy.Containment{Kind: policy.Disable, Scope: scope}, 0, by)
}

// Enable lifts what Disable of the scope did, or all where it is empty.
func (c *Control) Enable(ctx context.Context, scope policy.Scope, by By) ([]policy.Containment, error) {
	return c.liftKinds(ctx, "enable", scope, by, policy.Disable)
}

// InForceStill reports whether a containment has neither been lifted nor
// ended.
func (c *Control) InForceStill(id string) bool { return c.inForce(id) }

// Note journals an action that changes nothing that is kept: a shutdown, new
// connections.
func (c *Control) Note(ctx context.Context, action, detail string, by By) error {
	if err := by.validate(); err != nil {
		return err
	}
	c.record(ctx, journal.Entry{Action: action, User: by.Author, Reason: by.Reason, Outcome: "ok", Detail: detail})
	return nil
}
