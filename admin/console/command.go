package console

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/internal/sqlstate"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// PauseHold is how long PAUSE holds one new transaction before it is refused:
// PgBouncer's query_wait_timeout.
const PauseHold = 2 * time.Minute

// needs says who may run what; commands that are not here are harmless.
func needs(verb string) api.Role {
	switch verb {
	case "PAUSE", "RESUME", "DISABLE", "ENABLE", "KILL", "KILL_CLIENT", "RECONNECT", "WAIT_CLOSE", "READ", "HOLD", "NORMAL", "FREEZE":
		return api.Operator
	case "RELOAD", "SHUTDOWN":
		return api.Admin
	}
	return api.Viewer
}

func (k *client) run(ctx context.Context, c *command) error {
	if role := needs(c.verb); k.role < role {
		return &failure{
			sqlstate: sqlstate.InsufficientPrivilege, message: fmt.Sprintf("%s needs the role %s", c.verb, role),
			detail: fmt.Sprintf("%q has the role %s.", k.user, k.role),
		}
	}
	if c.verb == "SHOW" {
		return k.show(ctx, c.what)
	}
	if err := k.act(ctx, c); err != nil {
		return err
	}
	k.out.Send(&pgproto3.CommandComplete{CommandTag: []byte(c.verb)})
	return nil
}

func (k *client) act(ctx context.Context, c *command) error {
	by, scope := k.by(c), policy.Scope{Database: c.arg}
	ct := k.c.deps.Control
	var err error
	switch c.verb {
	case "SET":
		return k.set(c)
	case "PAUSE":
		return k.pause(ctx, c, by)
	case "RESUME":
		var lifted []policy.Containment
		if lifted, err = ct.Resume(ctx, scope, by); err == nil && len(lifted) == 0 {
			k.notice("nothing was paused")
		}
	case "DISABLE":
		_, err = ct.Disable(ctx, scope, by)
	case "ENABLE":
		var lifted []policy.Containment
		if lifted, err = ct.Enable(ctx, scope, by); err == nil && len(lifted) == 0 {
			k.notice("it was not disabled")
		}
	case "KILL":
		return k.kill(ctx, scope, by)
	case "KILL_CLIENT":
		id, bad := strconv.ParseUint(c.arg, 10, 64)
		if bad != nil {
			return &failure{sqlstate: "22023", message: "KILL_CLIENT wants a number", hint: "It is the column id of SHOW CLIENTS."}
		}
		err = ct.Terminate(ctx, id, by)
	case "RECONNECT":
		return k.reconnect(ctx, c, by)
	case "WAIT_CLOSE":
		return k.waitClose(ctx, c)
	case "RELOAD":
		err = k.c.deps.Reload(ctx, by)
	case "SHUTDOWN":
		err = k.shutdown(ctx, c, by)
	case "READ":
		_, err = ct.SetReadOnly(ctx, control.ReadOnly{}, by)
	case "HOLD":
		_, err = ct.SetReadOnly(ctx, control.ReadOnly{Hold: control.DefaultMaxHold}, by)
	case "NORMAL":
		_, err = ct.SetNormal(ctx, policy.Scope{}, by)
	case "FREEZE":
		_, err = ct.Freeze(ctx, policy.Scope{}, 0, by)
	}
	return err
}

// by says who changes something, and why.
func (k *client) by(c *command) control.By {
	reason := "console: " + strings.ToValidUTF8(c.text, "?")
	switch c.verb {
	case "READ", "HOLD", "NORMAL", "FREEZE":
		if c.arg != "" {
			reason = c.arg
		}
	}
	const most = 400
	if len(reason) > most {
		reason = strings.ToValidUTF8(reason[:most], "")
	}
	return control.By{Author: k.user, Reason: reason}
}

func (k *client) notice(text string) {
	k.out.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: text})
}

// harmlessSettings are what drivers set when they connect.
var harmlessSettings = []string{
	"application_name", "bytea_output", "characteristics", "client_encoding", "client_min_messages", "datestyle", "default_transaction_isolation",
	"extra_float_digits", "idle_in_transaction_session_timeout", "intervalstyle", "lock_timeout", "names", "search_path",
	"standard_conforming_strings", "statement_timeout", "time", "timezone",
}

// set takes what drivers set, and says of everything else how it is changed.
func (k *client) set(c *command) error {
	if slices.Contains(harmlessSettings, c.what) {
		return nil
	}
	for i := range k.c.deps.Settings {
		if s := &k.c.deps.Settings[i]; s.Key == c.what || strings.HasPrefix(s.Key, c.what+".") {
			f := &failure{sqlstate: "55P02", message: fmt.Sprintf("%q cannot be changed here", c.what), hint: "Change it in lockkeeper.yaml and restart lockkeeper."}
			if s.Changeable {
				f.hint = "Change it in lockkeeper.yaml; RELOAD takes it."
			}
			return f
		}
	}
	return &failure{sqlstate: "42704", message: "there is no such setting", hint: "SHOW CONFIG lists them."}
}

// pause holds new transactions and returns when none is open. When it does
// not come to that, nothing stays paused.
func (k *client) pause(ctx context.Context, c *command, by control.By) error {
	ct := k.c.deps.Control
	n, err := ct.Pause(ctx, control.PauseOptions{Scope: policy.Scope{Database: c.arg}, MaxHold: PauseHold}, by)
	if err != nil {
		return err
	}
	lifted := false
	err = k.await(ctx, c, func() []string {
		if lifted = !ct.InForceStill(n.ID); lifted {
			return nil
		}
		return open(ct.Sessions(), &policy.Scope{Database: c.arg})
	})
	switch {
	case lifted:
		return &failure{sqlstate: sqlstate.NotInPrerequisiteState, message: "the pause was ended by a RESUME, or replaced, while it waited for transactions"}
	case err == nil:
		return nil
	}
	undo := control.By{Author: k.user, Reason: "console: PAUSE did not come to its end"}
	if _, bad := ct.Lift(context.WithoutCancel(ctx), n.ID, undo); bad != nil {
		return fmt.Errorf("%w; and it is still paused: %w", err, bad)
	}
	return err
}

// open names the sessions in a scope that are inside a transaction. A walsender
// that streams is in none, and may go on for ever.
func open(sessions []proxy.SessionInfo, scope *policy.Scope) []string {
	var out []string
	for i := range sessions {
		s := &sessions[i]
		busy := !s.TxSince.IsZero() || s.State == "active" && !s.Replicating
		who := policy.Subject{User: s.User, Database: s.Database, Application: s.Application, Address: s.Address, Tags: s.Tags}
		if busy && scope.Matches(&who) {
			out = append(out, name(s))
		}
	}
	return out
}

func name(s *proxy.SessionInfo) string {
	return fmt.Sprintf("%d (%s, user %s, database %s, server process %d)", s.ID, s.State, s.User, s.Database, s.ServerPID)
}

// await polls until nothing is left, and says of what when it takes too long.
func (k *client) await(ctx context.Context, c *command, left func() []string) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		waiting := left()
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &failure{
				sqlstate: sqlstate.QueryCanceled, message: c.verb + " did not come to its end: it waited for " + count(len(waiting), "session"),
				detail: listed(waiting), hint: "SHOW SESSIONS says what they do; KILL_CLIENT ends one.",
			}
		}
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// listed names the first few.
func listed(names []string) string {
	const most = 10
	if len(names) <= most {
		return "Sessions: " + strings.Join(names, ", ") + "."
	}
	return "Sessions: " + strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more.", len(names)-most)
}

// kill pauses, as PgBouncer does, and ends every session.
func (k *client) kill(ctx context.Context, scope policy.Scope, by control.By) error {
	ct := k.c.deps.Control
	if _, err := ct.Pause(ctx, control.PauseOptions{Scope: scope, MaxHold: PauseHold}, by); err != nil {
		return err
	}
	for _, s := range ct.Sessions() {
		if scope.Database != "" && s.Database != scope.Database {
			continue
		}
		if err := ct.Terminate(ctx, s.ID, by); err != nil {
			k.notice(err.Error()) // it has ended by itself, in most cases
		}
	}
	return nil
}

// reconnect ends the sessions that there are, each as soon as it is outside a
// transaction.
func (k *client) reconnect(ctx context.Context, c *command, by control.By) error {
	p := k.c.attached()
	if p == nil {
		return &failure{sqlstate: sqlstate.CannotConnectNow, message: "the proxy is not serving yet"}
	}
	if err := k.c.deps.Control.Note(ctx, "reconnect", "database "+orAll(c.arg), by); err != nil {
		return err
	}
	var ids []uint64
	for _, s := range k.c.deps.Control.Sessions() {
		if c.arg == "" || s.Database == c.arg {
			ids = append(ids, s.ID)
		}
	}
	k.c.mark(ids, true)
	defer k.c.mark(ids, false)
	return k.await(ctx, c, func() []string {
		var left []string
		ids = slices.DeleteFunc(ids, func(id uint64) bool {
			busy := p.EndQuietSession(id)
			if busy {
				left = append(left, strconv.FormatUint(id, 10))
			} else {
				k.c.mark([]uint64{id}, false)
			}
			return !busy
		})
		return left
	})
}

func orAll(s string) string {
	if s == "" {
		return "all"
	}
	return s
}

// mark notes the sessions that are to end.
func (c *Console) mark(ids []uint64, ending bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if ending {
			c.closing[id] = true
		} else {
			delete(c.closing, id)
		}
	}
}

func (c *Console) ending(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing[id]
}

// waitClose waits for what RECONNECT of somebody else ends.
func (k *client) waitClose(ctx context.Context, c *command) error {
	return k.await(ctx, c, func() []string {
		var left []string
		for _, s := range k.c.deps.Control.Sessions() {
			if (c.arg == "" || s.Database == c.arg) && k.c.ending(s.ID) {
				left = append(left, name(&s))
			}
		}
		return left
	})
}

func (k *client) shutdown(ctx context.Context, c *command, by control.By) error {
	if err := k.c.deps.Control.Note(ctx, "shutdown", strings.ToLower(cmp.Or(c.what, "at once")), by); err != nil {
		return err
	}
	k.c.deps.Stop(map[string]How{"WAIT_FOR_CLIENTS": WaitForClients, "WAIT_FOR_SERVERS": WaitForServers, "": AtOnce}[c.what])
	return nil
}
