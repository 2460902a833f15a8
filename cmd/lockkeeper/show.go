package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// table writes rows in columns; the first row is the heading.
func (g *global) table(rows [][]string) {
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = w.Flush() // what cannot be shown cannot be said either
}

// age writes how long ago a moment was.
func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return max(0, now.Sub(then)).Round(time.Second).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Mode, restrictions in force, policy and sessions at a glance", Args: cobra.NoArgs,
		Example: "  lockkeeper status\n  lockkeeper status --json",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			c, err := g.client()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(s, func() { g.showStatus(&s) })
		}),
	}
}

func (g *global) showStatus(s *api.Status) {
	mode := s.Mode
	if s.Scoped {
		mode += " (for some, see below)"
	}
	rows := [][]string{
		{"mode", mode + ", for " + age(s.Now, s.Since)},
		{"version", s.Version + ", up " + age(s.Now, s.Started)},
		{"policy", fmt.Sprintf("%s, %d rules, from %s, loaded %s ago", s.Profile, s.Rules, s.PolicyFile, age(s.Now, s.PolicyLoaded))},
	}
	states := make([]string, 0, len(s.Sessions))
	for _, state := range slices.Sorted(maps.Keys(s.Sessions)) {
		states = append(states, fmt.Sprintf("%d %s", s.Sessions[state], state))
	}
	rows = append(rows, []string{"sessions", strings.TrimSuffix(fmt.Sprintf("%d: %s", s.SessionCount, strings.Join(states, ", ")), ": ")})
	for i := range s.Catalogs {
		rows = append(rows, []string{"catalog", s.Catalogs[i].Words(s.Now)})
	}
	if s.Unsaved != "" {
		rows = append(rows, []string{"state", "is not on disk, a restart undoes what was changed: " + s.Unsaved})
	}
	if s.JournalFailing {
		rows = append(rows, []string{"journal", "cannot be written, see lockkeeper's log; statements go on, and what is missing is counted"})
	}
	for _, server := range s.Unwatched {
		rows = append(rows, []string{"watchdog", "cannot look at " + server + "; DDL inside functions may wait for its lock for ever"})
	}
	g.table(rows)
	g.showInForce(s.Now, s.Containments)
}

// showInForce lists containments; nothing where there are none.
func (g *global) showInForce(now time.Time, list []control.InForce) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(g.out)
	rows := [][]string{{"IN FORCE", "FOR", "AGE", "ENDS", "BY", "REASON", ""}}
	for i := range list {
		c := &list[i]
		rows = append(rows, []string{c.ID, scopeWords(c.Scope), age(now, c.Since), ends(now, c.Until), c.Author, c.Reason, remarks(c)})
	}
	g.table(rows)
}

func ends(now, until time.Time) string {
	if until.IsZero() {
		return "when lifted"
	}
	return "in " + until.Sub(now).Round(time.Second).String()
}

// remarks says what else matters about a containment.
func remarks(c *control.InForce) string {
	var parts []string
	if c.Barrier != nil && !c.Barrier.Holds {
		parts = append(parts, "BARRIER DOES NOT HOLD: waits for "+c.Barrier.Waits)
	}
	if c.Barrier != nil && c.Barrier.Holds {
		parts = append(parts, "barrier holds")
	}
	switch {
	case c.Refuse:
		parts = append(parts, "refuses at once")
	case c.MaxHold > 0:
		parts = append(parts, "holds for up to "+time.Duration(c.MaxHold).String())
	}
	if len(c.Except) > 0 {
		parts = append(parts, "NOT FOR user "+strings.Join(c.Except, ", "))
	}
	if len(c.Writable) > 0 {
		parts = append(parts, "WRITABLE: "+strings.Join(c.Writable, ", "))
	}
	return strings.Join(parts, ", ")
}

func scopeWords(s policy.Scope) string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"database", s.Database}, {"user", s.User}, {"application", s.Application}, {"tag", s.Tag},
	} {
		if f.value != "" {
			parts = append(parts, f.name+" "+f.value)
		}
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

func newSessions(g *global) *cobra.Command {
	var user, database, application, tag, state string
	cmd := &cobra.Command{
		Use: "sessions", Short: "Live sessions", Args: cobra.NoArgs,
		Long:    "sessions lists who is connected, in which state, and what they last ran: its kind and fingerprint, never its text.",
		Example: "  lockkeeper sessions\n  lockkeeper sessions --tag cron\n  lockkeeper sessions --state \"idle in transaction\" --json",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			c, err := g.client()
			if err != nil {
				return err
			}
			list, err := c.Sessions(cmd.Context())
			if err != nil {
				return err
			}
			list.Sessions = slices.DeleteFunc(list.Sessions, func(s proxy.SessionInfo) bool {
				return user != "" && s.User != user || database != "" && s.Database != database || state != "" && s.State != state ||
					application != "" && s.Application != application || tag != "" && !slices.Contains(s.Tags, tag)
			})
			return g.print(list, func() { g.showSessions(list.Sessions) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "of this user only")
	f.StringVar(&database, "database", "", "of this database only")
	f.StringVar(&application, "application", "", "of this application_name only")
	f.StringVar(&tag, "tag", "", "with this tag only")
	f.StringVar(&state, "state", "", "in this state only")
	return cmd
}

func (g *global) showSessions(list []proxy.SessionInfo) {
	now := time.Now()
	rows := [][]string{{"ID", "USER", "DATABASE", "APPLICATION", "ADDRESS", "PID", "STATE", "FOR", "TX", "STATEMENT", "FINGERPRINT", "ROWS", "TAGS"}}
	for i := range list {
		s := &list[i]
		state := s.State
		if s.HeldBy != "" {
			state += " by " + s.HeldBy
		}
		if s.Draining {
			state += ", draining"
		}
		fingerprint := "-"
		if s.Fingerprint != 0 {
			fingerprint = fmt.Sprintf("%016x", s.Fingerprint)
		}
		rows = append(rows, []string{
			strconv.FormatUint(s.ID, 10), s.User, s.Database, orDash(s.Application), orDash(s.Address), strconv.FormatUint(uint64(s.ServerPID), 10),
			state, age(now, s.StateSince), age(now, s.TxSince), orDash(s.Statement), fingerprint,
			strconv.FormatInt(s.RowsWritten, 10), orDash(strings.Join(s.Tags, ",")),
		})
	}
	g.table(rows)
}

func newLocks(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "locks", Short: "Who waits for whom", Args: cobra.NoArgs,
		Long: `locks draws who waits for whom, the ones that everybody waits for first, and who holds or wants ACCESS EXCLUSIVE.
It asks the servers through lockkeeper's control login, and knows which process is which session. It exits with 1 when a server could
not be asked.`,
		Example: "  lockkeeper locks\n  lockkeeper locks --json",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			c, err := g.client()
			if err != nil {
				return err
			}
			list, err := c.Locks(cmd.Context())
			if err != nil {
				return err
			}
			if err := g.print(list, func() { g.showLocks(&list) }); err != nil {
				return err
			}
			for i := range list.Servers {
				if list.Servers[i].Error != "" {
					return errNo()
				}
			}
			return nil
		}),
	}
}

func (g *global) showLocks(list *api.LockList) {
	for i := range list.Servers {
		s := &list.Servers[i]
		if s.Error != "" {
			fmt.Fprintf(g.err, "lockkeeper: %s\n", s.Error)
			continue
		}
		s.Snapshot.WriteTree(g.out)
	}
}

func newJournal(g *global) *cobra.Command {
	var since, until, table, user, database, kind, rule string
	var session uint64
	var limit int
	cmd := &cobra.Command{
		Use: "journal", Short: "What was written, refused and done", Args: cobra.NoArgs,
		Long: `journal shows who did what and when: writes with their rows and outcome, refusals, and operators' actions. It holds
fingerprints and tables, never SQL text or values. --since and --until take a time or how long ago. A gap entry says how many entries
are missing. With --json each line is one entry.`,
		Example: "  lockkeeper journal --since 30m --table sale_order\n  lockkeeper journal --kind refusal --json\n  lockkeeper journal --kind action --since 2026-01-02T03:00:00Z",
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			set := func(key, value string) {
				if value != "" {
					q.Set(key, value)
				}
			}
			set("since", since)
			set("until", until)
			set("table", table)
			set("user", user)
			set("database", database)
			set("kind", kind)
			set("rule", rule)
			if session != 0 {
				q.Set("session", strconv.FormatUint(session, 10))
			}
			q.Set("limit", strconv.Itoa(limit))
			c, err := g.client()
			if err != nil {
				return err
			}
			list, err := c.Journal(cmd.Context(), q)
			if err != nil {
				return err
			}
			return g.showJournal(list.Entries)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "1h", "from then on: a duration ago, or a time as in 2006-01-02T15:04:05Z")
	f.StringVar(&until, "until", "", "before then")
	f.StringVar(&table, "table", "", "that wrote this table: name, or schema.name")
	f.StringVar(&user, "user", "", "of this user, or of the token of this name")
	f.StringVar(&database, "database", "", "in this database")
	f.StringVar(&kind, "kind", "", "statement, refusal, observed, transaction, action or gap")
	f.StringVar(&rule, "rule", "", "that this rule settled")
	f.Uint64Var(&session, "session", 0, "of this session")
	f.IntVar(&limit, "limit", 1000, "the newest that match")
	return cmd
}

func (g *global) showJournal(entries []journal.Entry) error {
	if g.json {
		var errs []error
		for i := range entries {
			errs = append(errs, g.line(&entries[i]))
		}
		return errors.Join(errs...)
	}
	rows := [][]string{{"TIME", "KIND", "WHO", "WHAT", "TABLES", "ROWS", "OUTCOME", "TRANSACTION", ""}}
	for i := range entries {
		rows = append(rows, journalRow(&entries[i]))
	}
	g.table(rows)
	return nil
}

func journalRow(e *journal.Entry) []string {
	who := e.User
	if e.Database != "" {
		who += "@" + e.Database
	}
	if e.Session != 0 && e.Kind != journal.ActionEntry {
		who += fmt.Sprintf(" #%d", e.Session)
	}
	what, rows, outcome := e.Statement, strconv.FormatInt(e.Rows, 10), e.Outcome
	var more []string
	add := func(format, s string) {
		if s != "" {
			more = append(more, fmt.Sprintf(format, s))
		}
	}
	switch e.Kind {
	case journal.ActionEntry:
		what, rows = e.Action, "-"
	case journal.GapEntry:
		what, rows = fmt.Sprintf("%d entries are missing", e.Count), "-"
	case journal.StatementEntry, journal.RefusalEntry, journal.ObservedEntry, journal.TransactionEntry:
		if e.Fingerprint != 0 {
			what += fmt.Sprintf(" %016x", e.Fingerprint)
		}
	}
	add("rule %s", e.Rule)
	add("%s", e.SQLSTATE)
	add("%s", e.Application)
	add("reason: %s", e.Reason)
	add("%s", e.Detail)
	return []string{
		e.Time.Local().Format("2006-01-02 15:04:05.000"), string(e.Kind), orDash(who), orDash(what), orDash(strings.Join(e.Tables, ",")),
		rows, orDash(outcome), orDash(e.Transaction), strings.Join(more, "; "),
	}
}
