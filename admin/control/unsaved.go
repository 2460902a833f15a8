package control

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// saveAgain is how long after a change that the disk did not take it is tried
// again.
const saveAgain = 5 * time.Second

// notOnDisk is the error of a change that was made and that a restart would
// undo.
func notOnDisk(made string, cause error) *Error {
	return &Error{
		Kind: Unsaved,
		What: made + ", but not on disk: a restart brings back what the state file says",
		Hint: "Give the state folder room and its owner's rights. It is written again every " + saveAgain.String() + "; `lockkeeper status` says when it is not on disk.",
		Err:  cause,
	}
}

func isUnsaved(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Unsaved
}

// Unsaved returns why what is in force is not on disk; nil when it is.
func (c *Control) Unsaved() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsaved
}

// trySaving writes the state that the disk did not take.
func (c *Control) trySaving(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsaved == nil || c.held != nil {
		return
	}
	if c.unsaved = c.state.save(c.opts.StatePath); c.unsaved == nil {
		c.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "what is in force is on disk again")
	}
}
