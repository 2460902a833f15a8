package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lockkeeper/admin/api"
	"lockkeeper/inspect"
	"lockkeeper/inspect/catalog"
	"lockkeeper/inspect/pgquery"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// maxExplainedBytes bounds a statement that is read from standard input.
const maxExplainedBytes = 1 << 20

// subjectFlags say who would send the statement.
type subjectFlags struct {
	user, database, application, address string
	tags                                 []string
	inTransaction                        bool
}

func (s *subjectFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.user, "user", "odoo", "who sends it")
	f.StringVar(&s.database, "database", "odoo", "to which database")
	f.StringVar(&s.application, "application", "", "as which application_name")
	f.StringVar(&s.address, "address", "127.0.0.1", "from where")
	f.StringSliceVar(&s.tags, "tag", nil, "tags that the session has, in place of those that the policy gives it")
	f.BoolVar(&s.inTransaction, "in-transaction", false, "in a transaction that is open")
}

func newExplain(g *global) *cobra.Command {
	var s subjectFlags
	var profile, database string
	cmd := &cobra.Command{
		Use:   "explain SQL",
		Short: "Say what would become of a statement, without a running lockkeeper",
		Long: `explain inspects the statement as the proxy would and asks the policy of the configuration, or of --profile, what
becomes of it and why. No running lockkeeper is needed; "lockkeeper policy explain" asks one, with what is in force there, and with its
catalogs of the databases in use. SQL "-" reads it from standard input. It exits with 1 when the statement would be refused.

Without --catalog names are taken as the text has them. With it they are looked up in a database: views, rules, partitions, foreign keys,
triggers, functions and sizes count. Any login that may connect will do; the catalogs are read, once, and nothing else. A password belongs
in PGPASSWORD or in the password file, not on the command line.`,
		Example: `  lockkeeper explain "delete from account_move"
  lockkeeper explain --catalog "host=db1 dbname=production user=lockkeeper" "select close_period()"
  lockkeeper explain -c lockkeeper.yaml --user etl "update sale_order set note = '' where true"
  lockkeeper explain --profile postgres - < migration.sql`,
		Args: cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			sql, err := argument(g.in, args[0])
			if err != nil {
				return err
			}
			p, err := g.offlinePolicy(profile)
			if err != nil {
				return err
			}
			if database != "" && !cmd.Flags().Changed("database") {
				s.database = ""
			}
			e, err := explain(cmd.Context(), p, &s, sql, database)
			if err != nil {
				return err
			}
			return g.explained(&api.Explanation{Explanation: e, Text: e.Text()})
		}),
	}
	s.add(cmd)
	cmd.Flags().StringVar(&database, "catalog", "", "look names up in the database of this libpq connection string; it is --database, too, where that is not given")
	cmd.Flags().StringVar(&profile, "profile", "", "the default policy of this profile: odoo or postgres (default: the configuration's policy, else odoo)")
	return cmd
}

// explained writes an explanation; a refusal is a no.
func (g *global) explained(e *api.Explanation) error {
	if err := g.print(e, func() { fmt.Fprint(g.out, e.Text) }); err != nil {
		return err
	}
	if e.Verdict != policy.Allow.String() {
		return errNo()
	}
	return nil
}

// argument returns an argument, or standard input for "-".
func argument(in io.Reader, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	data, err := io.ReadAll(io.LimitReader(in, maxExplainedBytes))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return string(data), nil
}

// offlinePolicy returns the profile's default policy, or the configuration's.
func (g *global) offlinePolicy(profile string) (*policy.Policy, error) {
	if profile != "" {
		return policy.Default(profile)
	}
	file, _ := g.configFile()
	if file == "" {
		return policy.Default(defaultProfile)
	}
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	p, _, err := cfg.loadPolicy()
	return p, err
}

// explain asks a policy about a text, whose names are looked up in the database
// of a connection string; "" is none.
func explain(ctx context.Context, p *policy.Policy, s *subjectFlags, sql, database string) (policy.Explanation, error) {
	batch := inspect.NewInspector(inspect.Limits{}, pgquery.Parse, nil).Inspect(ctx, []byte(sql), inspect.Lexing{})
	known := "as in the text; --catalog looks them up in a database"
	if database != "" {
		cfg := catalog.Config{Relations: proxy.Default().Limits.CatalogRelations, Parse: pgquery.Parse, Now: time.Now}
		var name string
		var err error
		if batch, name, known, err = catalog.Look(ctx, database, &cfg, batch); err != nil {
			return policy.Explanation{}, err
		}
		if s.database == "" {
			s.database = name
		}
	}
	sub := policy.Subject{User: s.user, Database: s.database, Application: s.application, Address: s.address, Tags: s.tags}
	if len(sub.Tags) == 0 {
		sub.Tags = p.Tags(&sub)
	}
	r := policy.Request{Subject: &sub, Batch: batch, Tx: policy.TxIdle, Now: time.Now()}
	if s.inTransaction {
		r.Tx, r.TxEpoch = policy.TxActive, 1
	}
	snap := policy.Snapshot{Epoch: 1, Policy: p}
	e := snap.Explain(&r)
	e.Names = known
	return e, nil
}
