package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockkeeper/admin/api"
	"lockkeeper/admin/client"
	"lockkeeper/admin/control"
	"lockkeeper/policy"
)

// line writes a value as one line of JSON.
func (g *global) line(v any) error {
	e := json.NewEncoder(g.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// change are the flags of every command that changes something.
type change struct {
	reason   string
	lifetime time.Duration
	scope    policy.Scope
}

func (c *change) addReason(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.reason, "reason", "", "why; it is shown to others and journalled (required)")
	if err := cmd.MarkFlagRequired("reason"); err != nil {
		panic(err) // the flag was added a line above
	}
}

func (c *change) addScope(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.scope.Database, "database", "", "for this database only; * stands for any letters")
	f.StringVar(&c.scope.User, "user", "", "for this user only; * stands for any letters")
	f.StringVar(&c.scope.Application, "application", "", "for this application_name only; * stands for any letters")
	f.StringVar(&c.scope.Tag, "tag", "", "for sessions with this tag only")
}

func (c *change) addFor(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&c.lifetime, "for", 0, "end by itself after this long (default: when it is lifted)")
}

// changed asks for a change and shows it.
func (g *global) changed(ctx context.Context, ask func(context.Context, *client.Client) (api.Change, error)) error {
	c, err := g.client()
	if err != nil {
		return err
	}
	ch, err := ask(ctx, c)
	if err != nil {
		return err
	}
	return g.print(ch, func() { g.showChange(&ch) })
}

func (g *global) showChange(ch *api.Change) {
	if b := ch.Began; b != nil {
		fmt.Fprintf(g.out, "%s is in force for %s, %s\n", b.ID, scopeWords(b.Scope), endWords(b.Until))
		g.showBarrier(b.Barrier)
		if len(b.Writable) > 0 {
			fmt.Fprintf(g.out, "but plain changes of %s may still be committed\n", strings.Join(b.Writable, ", "))
		}
		return
	}
	for i := range ch.Lifted {
		fmt.Fprintf(g.out, "%s is lifted; it was in force since %s for %s\n", ch.Lifted[i].ID,
			ch.Lifted[i].Since.Local().Format(time.DateTime), scopeWords(ch.Lifted[i].Scope))
	}
	if len(ch.Lifted) == 0 {
		fmt.Fprintln(g.out, "nothing was in force")
	}
}

func endWords(until time.Time) string {
	if until.IsZero() {
		return "until it is lifted"
	}
	return "until " + until.Local().Format(time.DateTime)
}

// showBarrier says from where on nothing can have changed.
func (g *global) showBarrier(b *control.Barrier) {
	if b == nil {
		return
	}
	for i := range b.Reports {
		r := &b.Reports[i]
		lsn := "WAL position " + r.LSN
		if r.LSN == "" {
			lsn = "WAL position unknown"
		}
		fmt.Fprintf(g.out, "server %s: nothing that came through lockkeeper can commit a change from %s on, %s\n",
			r.Target, r.Time.UTC().Format(time.RFC3339Nano), lsn)
		fmt.Fprintf(g.out, "  waited for %d sessions, cancelled %d statements, terminated %d server processes without a client\n",
			r.Waited, r.Cancelled, r.Terminated)
		for _, l := range r.Lacking {
			fmt.Fprintf(g.out, "  not checked: %s\n", l)
		}
	}
}

func newMode(g *global) *cobra.Command {
	var ch change
	var inFlight string
	var maxWait, maxHold time.Duration
	var except, writable []string
	var noWritable bool
	cmd := &cobra.Command{
		Use:   "mode [read-only|hold|normal|observe]",
		Short: "Show or switch the mode",
		Long: `mode shows the mode, or switches it.

read-only   refuses writes, and makes the server enforce it. It returns when nothing that came through lockkeeper can commit a
            change any more, and prints the WAL position and the time from which that holds. If it cannot be reached the mode stays
            in force and the command exits with 1.
hold        is read-only that lets writers wait: BEGIN (without READ ONLY) and what may write outside a transaction is held for
            --max-hold, goes on as if nothing had been when the mode is lifted by then, and is treated as in read-only otherwise.
observe     is the break-glass: no rule is enforced, all are counted and journalled. Read-only, freeze and pauses stay in force.
normal      lifts them: with --database, --user … those of exactly that scope, otherwise all.

Several may be in force at a time, for different scopes; --database, --user and --application are patterns in which * stands for
any letters. Users named with --except may write all the same, and are not covered by what the command prints.

Some tables may be written all the same, so that people can log in: those of the policy's read_only.writable_tables (profile odoo
has some), or those that you name with --writable-table, or none with --no-writable-tables. Only plain changes pass, of such a table
and of nothing else, as the server itself is asked to confirm.

Transactions that are open when read-only begins may end as they like for --max-wait (finish), for a time of your choice
(drain=10s), or may not commit a change any more (refuse-commit, which also cancels what runs).`,
		Example: `  lockkeeper mode
  lockkeeper mode read-only --reason "incident 42" --in-flight refuse-commit
  lockkeeper mode read-only --reason "copy the database" --in-flight drain=10s --for 30m --database prod
  lockkeeper mode read-only --reason "repair" --except user=repair
  lockkeeper mode read-only --reason "copy the filestore" --writable-table res_users_log --writable-table bus_bus
  lockkeeper mode hold --reason "add a column" --max-hold 20s --in-flight drain=5s --for 1m
  lockkeeper mode observe --reason "rule 7 refuses the closing of the year" --for 1h
  lockkeeper mode normal --reason "incident 42 is over"`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{control.ModeReadOnly, control.ModeHold, control.ModeNormal, control.ModeObserve},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return g.showMode(cmd.Context())
			}
			req := api.ModeRequest{
				Mode: args[0], Scope: ch.scope, For: policy.Duration(ch.lifetime), MaxWait: policy.Duration(maxWait), MaxHold: policy.Duration(maxHold), Reason: ch.reason,
				Writable: writable, NoWritable: noWritable,
			}
			if err := parseMode(&req, inFlight, except); err != nil {
				return err
			}
			if args[0] == control.ModeReadOnly || args[0] == control.ModeHold {
				waits := time.AfterFunc(time.Second, func() {
					fmt.Fprintln(g.err, "waiting until nothing in flight can commit a change; the mode stays in force if you interrupt this")
				})
				defer waits.Stop()
			}
			return g.changed(cmd.Context(), func(ctx context.Context, c *client.Client) (api.Change, error) { return c.SetMode(ctx, req) })
		}),
	}
	ch.addScope(cmd)
	ch.addFor(cmd)
	f := cmd.Flags()
	f.StringVar(&ch.reason, "reason", "", "why; it is shown to others and journalled (required to switch)")
	f.StringVar(&inFlight, "in-flight", "", "read-only and hold: what becomes of open transactions: finish (default), drain=DURATION or refuse-commit")
	f.DurationVar(&maxWait, "max-wait", 0, "read-only with finish: for how long open transactions may go on (default 5m)")
	f.DurationVar(&maxHold, "max-hold", 0, "hold: for how long what may write waits (default 30s)")
	f.StringArrayVar(&except, "except", nil, "read-only and hold: user=NAME who may write all the same; may be repeated")
	f.StringArrayVar(&writable, "writable-table", nil, "read-only and hold: a table that may be written, as table (of schema public) or schema.table; may be repeated (default the policy's)")
	f.BoolVar(&noWritable, "no-writable-tables", false, "read-only and hold: no table may be written")
	return cmd
}

// parseMode reads --in-flight and --except, and refuses flags that would be
// ignored.
func parseMode(req *api.ModeRequest, inFlight string, except []string) error {
	readOnly := req.Mode == control.ModeReadOnly || req.Mode == control.ModeHold
	switch {
	case req.Reason == "":
		return misused("switching the mode needs --reason")
	case !readOnly && (inFlight != "" || req.MaxWait != 0 || len(except) > 0):
		return misused("--in-flight, --max-wait and --except are for read-only and hold")
	case !readOnly && (len(req.Writable) > 0 || req.NoWritable):
		return misused("--writable-table and --no-writable-tables are for read-only and hold")
	case req.NoWritable && len(req.Writable) > 0:
		return misused("--no-writable-tables and --writable-table exclude each other")
	case req.Mode != control.ModeHold && req.MaxHold != 0:
		return misused("--max-hold is for hold")
	case req.Mode == control.ModeNormal && req.For != 0:
		return misused("--for is for read-only, hold and observe")
	}
	for _, e := range except {
		user, ok := strings.CutPrefix(e, "user=")
		if !ok || user == "" {
			return misused("--except wants user=NAME, not %q", e)
		}
		req.Except = append(req.Except, user)
	}
	return parseInFlight(req, inFlight)
}

// parseInFlight reads --in-flight.
func parseInFlight(req *api.ModeRequest, s string) error {
	kind, drain, has := strings.Cut(s, "=")
	req.InFlight = policy.InFlight(kind)
	switch req.InFlight {
	case "", policy.Finish, policy.RefuseCommit:
		if has {
			return misused("--in-flight %s takes no duration", kind)
		}
	case policy.Drain:
		d, err := time.ParseDuration(drain)
		if err != nil || d <= 0 {
			return misused("--in-flight drain needs a duration, as in drain=10s")
		}
		req.Drain = policy.Duration(d)
	default:
		return misused("--in-flight: want finish, drain=DURATION or refuse-commit, not %q", s)
	}
	if req.MaxWait != 0 && req.InFlight != "" && req.InFlight != policy.Finish {
		return misused("--max-wait is for --in-flight finish")
	}
	return nil
}

func (g *global) showMode(ctx context.Context) error {
	c, err := g.client()
	if err != nil {
		return err
	}
	m, err := c.Mode(ctx)
	if err != nil {
		return err
	}
	return g.print(m, func() {
		scoped := ""
		if m.Scoped {
			scoped = " (for some)"
		}
		fmt.Fprintf(g.out, "%s%s\n", m.Mode, scoped)
		g.showInForce(time.Now(), m.Containments)
		for i := range m.Containments {
			g.showBarrier(m.Containments[i].Barrier)
		}
	})
}

func newFreeze(g *global) *cobra.Command {
	var ch change
	var off bool
	cmd := &cobra.Command{
		Use:   "freeze [ddl|off]",
		Short: "Refuse DDL, or let it pass again",
		Long:  `freeze refuses DDL until it is lifted: by "freeze off", which is "unfreeze", or by itself after --for.`,
		Example: `  lockkeeper freeze ddl --reason "no DDL before tonight" --for 8h
  lockkeeper freeze off --reason "window open"`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"ddl", "off"},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if off || len(args) == 1 && args[0] == "off" {
				if ch.lifetime != 0 {
					return misused("--for is for what begins")
				}
				return g.unfreeze(cmd.Context(), &ch)
			}
			req := api.FreezeRequest{Scope: ch.scope, For: policy.Duration(ch.lifetime), Reason: ch.reason}
			return g.changed(cmd.Context(), func(ctx context.Context, c *client.Client) (api.Change, error) { return c.Freeze(ctx, req) })
		}),
	}
	ch.addReason(cmd)
	ch.addScope(cmd)
	ch.addFor(cmd)
	cmd.Flags().BoolVar(&off, "off", false, "the same as off")
	return cmd
}

func (g *global) unfreeze(ctx context.Context, ch *change) error {
	req := api.LiftRequest{Scope: ch.scope, Reason: ch.reason}
	return g.changed(ctx, func(ctx context.Context, c *client.Client) (api.Change, error) { return c.Unfreeze(ctx, req) })
}

func newUnfreeze(g *global) *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use: "unfreeze", Short: "Let DDL pass again", Args: cobra.NoArgs,
		Long:    "unfreeze lifts the freeze of the scope that the flags give, or every one where they give none.",
		Example: `  lockkeeper unfreeze --reason "window open"`,
		RunE:    runs(func(cmd *cobra.Command, _ []string) error { return g.unfreeze(cmd.Context(), &ch) }),
	}
	ch.addReason(cmd)
	ch.addScope(cmd)
	return cmd
}

func newPause(g *global) *cobra.Command {
	var ch change
	var all, refuse bool
	var maxHold time.Duration
	cmd := &cobra.Command{
		Use: "pause", Short: "Hold or refuse new transactions of some", Args: cobra.NoArgs,
		Long: `pause lets nobody in its scope begin a transaction: they wait for up to --max-hold and are refused then, or at once with
--refuse. Transactions that are open go on.`,
		Example: `  lockkeeper pause --user integration --reason "mass update" --for 30m
  lockkeeper pause --tag cron --max-hold 2m --reason "migration"
  lockkeeper pause --application "import-*" --refuse --reason "incident 42"`,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if (ch.scope == policy.Scope{}) != all {
				return misused("say whom: --database, --user, --application or --tag; or --all")
			}
			req := api.PauseRequest{
				Scope: ch.scope, Refuse: refuse, MaxHold: policy.Duration(maxHold), For: policy.Duration(ch.lifetime), Reason: ch.reason,
			}
			return g.changed(cmd.Context(), func(ctx context.Context, c *client.Client) (api.Change, error) { return c.Pause(ctx, req) })
		}),
	}
	ch.addReason(cmd)
	ch.addScope(cmd)
	ch.addFor(cmd)
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "everybody")
	f.BoolVar(&refuse, "refuse", false, "refuse at once instead of holding")
	f.DurationVar(&maxHold, "max-hold", 0, "hold for at most this long, then refuse (default 30s)")
	cmd.MarkFlagsMutuallyExclusive("refuse", "max-hold")
	return cmd
}

func newResume(g *global) *cobra.Command {
	var ch change
	var all bool
	cmd := &cobra.Command{
		Use: "resume", Short: "Lift pauses", Args: cobra.NoArgs,
		Long:    "resume lifts the pause of exactly the scope that the flags give, or every one with --all.",
		Example: "  lockkeeper resume --user integration --reason \"fixed\"\n  lockkeeper resume --all --reason \"incident 42 is over\"",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if (ch.scope == policy.Scope{}) != all {
				return misused("say whom: --database, --user, --application or --tag; or --all")
			}
			req := api.LiftRequest{Scope: ch.scope, Reason: ch.reason}
			return g.changed(cmd.Context(), func(ctx context.Context, c *client.Client) (api.Change, error) { return c.Resume(ctx, req) })
		}),
	}
	ch.addReason(cmd)
	ch.addScope(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every pause")
	return cmd
}

func newCancel(g *global) *cobra.Command {
	return newOnSession(g, "cancel", "Cancel what a session runs, or what is held of it", (*client.Client).Cancel)
}

func newTerminate(g *global) *cobra.Command {
	return newOnSession(g, "terminate", "Close both sides of a session", (*client.Client).Terminate)
}

func newOnSession(g *global, name, short string, do func(*client.Client, context.Context, uint64, string) error) *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: short, Args: cobra.ExactArgs(1),
		Long:    short + ". \"lockkeeper sessions\" and \"lockkeeper locks\" show the sessions' numbers.",
		Example: "  lockkeeper " + name + " 17 --reason \"blocks account_move\"",
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return misused("%q is not a session's number", args[0])
			}
			c, err := g.client()
			if err != nil {
				return err
			}
			if err := do(c, cmd.Context(), id, ch.reason); err != nil {
				return err
			}
			return g.print(api.Done{Done: true}, func() { fmt.Fprintf(g.out, "session %d: %s is done\n", id, name) })
		}),
	}
	ch.addReason(cmd)
	return cmd
}

func newPolicy(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Show, check, reload and explain the policy in force",
		Example: "  lockkeeper policy show\n  lockkeeper policy reload --reason \"imports are paced\"", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return misused("say which: show, check, reload or explain") },
	}
	cmd.AddCommand(newPolicyShow(g), newPolicyCheck(g), newPolicyReload(g), newPolicyExplain(g))
	return cmd
}

func newPolicyShow(g *global) *cobra.Command {
	var source bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the policy in force", Args: cobra.NoArgs,
		Example: "  lockkeeper policy show\n  lockkeeper policy show --source",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			c, err := g.client()
			if err != nil {
				return err
			}
			p, err := c.Policy(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(p, func() {
				if source {
					fmt.Fprint(g.out, p.Source.Text)
					return
				}
				g.showPolicy(&p)
			})
		}),
	}
	cmd.Flags().BoolVar(&source, "source", false, "as it was written")
	return cmd
}

func (g *global) showPolicy(p *control.PolicyInfo) {
	fmt.Fprintf(g.out, "profile %s, from %s, loaded %s\n", p.Profile, p.Source.File, p.LoadedAt.Local().Format(time.DateTime))
	fmt.Fprintf(g.out, "critical tables: %s\n\n", strings.Join(p.CriticalTables, ", "))
	g.showRules(p)
}

func (g *global) showRules(p *control.PolicyInfo) {
	rows := [][]string{{"RULE", "ENFORCED", "EFFECT"}}
	for i := range p.Rules {
		enforced := "yes"
		if !p.Rules[i].Enforce {
			enforced = "no, observed"
		}
		rows = append(rows, []string{p.Rules[i].Name, enforced, p.Rules[i].Effect})
	}
	g.table(rows)
}

func newPolicyCheck(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Let the running lockkeeper read a policy without putting it in force", Args: cobra.ExactArgs(1),
		Long:    "check reads a file with a policy (\"-\": standard input), not a whole configuration: for that there is \"lockkeeper check\".",
		Example: "  lockkeeper policy check policy.yaml",
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			text, err := g.fileOrStdin(args[0])
			if err != nil {
				return err
			}
			c, err := g.client()
			if err != nil {
				return err
			}
			p, err := c.CheckPolicy(cmd.Context(), text)
			if err != nil {
				return err
			}
			return g.print(p, func() { fmt.Fprintf(g.out, "ok, profile %s, %d rules\n", p.Profile, len(p.Rules)) })
		}),
	}
}

func newPolicyReload(g *global) *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use: "reload", Short: "Read the policy again", Args: cobra.NoArgs,
		Long:    "reload reads the policy from the configuration as SIGHUP does. A policy with mistakes changes nothing, and the command exits with 1.",
		Example: "  lockkeeper policy reload --reason \"imports are paced\"",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			c, err := g.client()
			if err != nil {
				return err
			}
			p, err := c.ReloadPolicy(cmd.Context(), ch.reason)
			if err != nil {
				return err
			}
			return g.print(p, func() { fmt.Fprintf(g.out, "reloaded: profile %s, %d rules\n", p.Profile, len(p.Rules)) })
		}),
	}
	ch.addReason(cmd)
	return cmd
}

func newPolicyExplain(g *global) *cobra.Command {
	var s subjectFlags
	cmd := &cobra.Command{
		Use: "explain SQL", Short: "Say what would become of a statement now, with what is in force", Args: cobra.ExactArgs(1),
		Long:    "explain asks the running lockkeeper, with its catalogs of the databases in use; \"lockkeeper explain\" needs none. SQL \"-\" reads standard input. It exits with 1 when the statement would be refused.",
		Example: "  lockkeeper policy explain --user integration \"update sale_order set note = 'x' where id = 1\"",
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			sql, err := argument(g.in, args[0])
			if err != nil {
				return err
			}
			c, err := g.client()
			if err != nil {
				return err
			}
			e, err := c.Explain(cmd.Context(), api.ExplainRequest{
				SQL: sql, User: s.user, Database: s.database, Application: s.application, Address: s.address, Tags: s.tags, InTransaction: s.inTransaction,
			})
			if err != nil {
				return err
			}
			return g.explained(&e)
		}),
	}
	s.add(cmd)
	return cmd
}

// fileOrStdin returns a file's text, or standard input's for "-".
func (g *global) fileOrStdin(file string) (string, error) {
	if file == "-" {
		return argument(g.in, file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the policy: %w", err)
	}
	return string(data), nil
}
