package control

import (
	"context"
	"time"

	"lockkeeper/inspect"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
)

// maxExplainedBytes bounds a text that is explained.
const maxExplainedBytes = 1 << 20

// PolicyInfo describes the policy in force.
type PolicyInfo struct {
	Profile        string            `json:"profile"`
	CriticalTables []string          `json:"critical_tables"`
	Rules          []policy.RuleInfo `json:"rules"`
	LoadedAt       time.Time         `json:"loaded_at"`
	Source         Source            `json:"source"`
}

// Policy returns the policy in force.
func (c *Control) Policy() PolicyInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return PolicyInfo{
		Profile: c.policy.Profile(), CriticalTables: c.policy.CriticalTables(), Rules: c.policy.Rules(),
		LoadedAt: c.loadedAt, Source: c.source,
	}
}

// Reload reads the policy again and puts it in force. A policy with mistakes
// changes nothing; the error says what is wrong with it.
func (c *Control) Reload(ctx context.Context, by By) (PolicyInfo, error) {
	if err := by.validate(); err != nil {
		return PolicyInfo{}, err
	}
	err := c.reload()
	e := journal.Entry{Action: "policy reload", User: by.Author, Reason: by.Reason, Outcome: outcome(err)}
	if refused(err) {
		e.Detail = "the old policy stays in force: " + err.Error()
	}
	c.record(ctx, e)
	c.metrics.reloads.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		return PolicyInfo{}, err
	}
	return c.Policy(), nil
}

func (c *Control) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, source, err := c.opts.LoadPolicy()
	if err != nil {
		return &Error{Kind: Invalid, What: "reload the policy", Hint: "The old policy stays in force.", Err: err}
	}
	old, oldSource := c.policy, c.source
	c.policy, c.source = p, source
	next := c.state
	next.Epoch++
	err = c.enforce(next)
	if c.state.Epoch != next.Epoch {
		c.policy, c.source = old, oldSource
		return err
	}
	c.loadedAt = c.opts.Now()
	return err
}

// CheckPolicy reads a policy without putting it in force.
func (c *Control) CheckPolicy(text string) (PolicyInfo, error) {
	p, err := policy.Parse([]byte(text), "policy")
	if err != nil {
		return PolicyInfo{}, &Error{Kind: Invalid, What: "check the policy", Err: err}
	}
	return PolicyInfo{Profile: p.Profile(), CriticalTables: p.CriticalTables(), Rules: p.Rules()}, nil
}

// Explain says what would become of a text that the subject sends now, under
// the policy and the containments in force.
func (c *Control) Explain(ctx context.Context, sub policy.Subject, text string, tx policy.TxStatus) (policy.Explanation, error) {
	if len(text) > maxExplainedBytes {
		return policy.Explanation{}, invalid("", "the text is longer than %d bytes", maxExplainedBytes)
	}
	snap := c.opts.Decider.Current()
	if len(sub.Tags) == 0 {
		sub.Tags = snap.Policy.Tags(&sub)
	}
	batch := c.opts.Inspector.Inspect(ctx, []byte(text), inspect.Lexing{})
	batch, known := c.opts.Catalogs.Resolve(sub.Database, batch)
	r := policy.Request{Subject: &sub, Batch: batch, Tx: tx, Now: c.opts.Now()}
	if tx != policy.TxIdle {
		r.TxEpoch = snap.Epoch
	}
	e := snap.Explain(&r)
	e.Names = known
	return e, nil
}
