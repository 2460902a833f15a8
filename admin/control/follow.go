package control

import (
	"fmt"
	"slices"

	"lockkeeper/policy"
)

// Desired is what is in force, as one process tells it to another that has to
// hold it too.
type Desired struct {
	Epoch        uint64               `json:"epoch"`
	Containments []policy.Containment `json:"containments"`
	Profile      string               `json:"profile"`
	Policy       Source               `json:"policy"` // without text it is the profile's default
}

// Follower is another process that has to hold what this one decides: the one
// that it has taken over from.
type Follower interface {
	// Follow returns when d is in force there, or nothing is left there that
	// could act against it.
	Follow(d *Desired) error
}

// Lead names the follower, tells it what is in force, and lets changes be made.
func (c *Control) Lead(f Follower) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.follower = nil, f
	return c.tellFollower()
}

// LeadNobody says that the follower has ended.
func (c *Control) LeadNobody() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follower = nil
}

// tellFollower tells what is in force. Callers hold mu: the follower hears of
// changes in their order.
func (c *Control) tellFollower() error {
	if c.follower == nil {
		return nil
	}
	err := c.follower.Follow(&Desired{
		Epoch: c.state.Epoch, Containments: slices.Clone(c.state.Containments), Profile: c.policy.Profile(), Policy: c.source,
	})
	if err != nil {
		return &Error{
			Kind: Incomplete, What: "it is in force, but not for sessions of the process that was taken over from",
			Hint: "End that process (SIGKILL), then look at `lockkeeper status`.", Err: err,
		}
	}
	return nil
}

// Hold lets nothing be changed, for the reason that whoever tries is given,
// until Release: another process reads the state, or has it.
func (c *Control) Hold(what, hint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = &Error{Kind: Unavailable, What: what, Hint: hint}
}

// Release lets changes be made again.
func (c *Control) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = nil
}

func (c *Control) mayChange() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		return c.held
	}
	return nil
}

// Follow puts in force what another process has decided. What cannot be
// followed as a whole is an error and changes nothing; only a policy that this
// program cannot read leaves the old one in force, and keeps says why.
func (c *Control) Follow(d *Desired) (keeps, err error) {
	for i := range d.Containments {
		if err := knownKind(d.Containments[i].Kind); err != nil {
			return nil, err
		}
	}
	p, keeps := d.policy()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.Epoch < c.state.Epoch {
		return nil, fmt.Errorf("its epoch is %d, that in force is %d", d.Epoch, c.state.Epoch)
	}
	if keeps == nil {
		c.policy, c.source, c.loadedAt = p, d.Policy, c.opts.Now()
	}
	next := c.state
	next.Epoch, next.Containments = d.Epoch, d.Containments
	c.put(next)
	return keeps, nil
}

func (d *Desired) policy() (*policy.Policy, error) {
	if d.Policy.Text == "" {
		return policy.Default(d.Profile)
	}
	return policy.Parse([]byte(d.Policy.Text), d.Policy.File)
}
