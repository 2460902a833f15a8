package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"lockkeeper/admin/client"
)

// defaultConfig is read where no file is named and it is there.
const defaultConfig = "/etc/lockkeeper/lockkeeper.yaml"

// global are the flags of every command.
type global struct {
	stdio
	config    string
	json      bool
	admin     string
	tokenFile string
	ca        string
}

func newRoot(io stdio) *cobra.Command {
	g := &global{stdio: io}
	root := &cobra.Command{
		Use:   "lockkeeper",
		Short: "A guard proxy for PostgreSQL",
		Long: `lockkeeper stands between clients and PostgreSQL, refuses the statement that would change far too many rows,
keeps DDL from queueing in front of everybody, and contains an incident with one command.

Commands that speak to a running lockkeeper find it by --admin, LOCKKEEPER_ADMIN, or the configuration file; and
their token by --token-file, LOCKKEEPER_TOKEN, LOCKKEEPER_TOKEN_FILE, or the local token in the state folder.
They exit with 0 when all is fine, 1 when the answer is no, and 2 when they were misused.`,
		Example: `  lockkeeper serve -c lockkeeper.yaml
  lockkeeper explain "delete from account_move"
  lockkeeper mode read-only --reason "incident 42" --in-flight refuse-commit`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misused("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	f := root.PersistentFlags()
	f.StringVarP(&g.config, "config", "c", "", "configuration file (default "+defaultConfig+", where it is there)")
	f.BoolVar(&g.json, "json", false, "write JSON for programs")
	f.StringVar(&g.admin, "admin", "", "URL of the admin interface (default "+defaultAdminURL+")")
	f.StringVar(&g.tokenFile, "token-file", "", "file with the bearer token")
	f.StringVar(&g.ca, "admin-ca", "", "file with the certificate of who signed the admin interface's")
	root.AddCommand(
		newServe(g), newCheck(g), newExplain(g), newStatus(g), newSessions(g), newMode(g), newFreeze(g), newUnfreeze(g),
		newPause(g), newResume(g), newCancel(g), newTerminate(g), newLocks(g), newPolicy(g), newJournal(g), newDocs(g), newVersion(g),
	)
	root.InitDefaultCompletionCmd()
	return root
}

// runs makes a command's function one whose errors mean "no".
func runs(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		if err == nil {
			return nil
		}
		if _, ok := err.(*noError); ok { //nolint:errorlint // errNo comes as it is
			return err
		}
		if m, ok := err.(*misuse); ok { //nolint:errorlint // likewise
			return m
		}
		return &noError{err}
	}
}

// misuse is an error of the command line that cobra cannot find.
type misuse struct{ text string }

// Error returns what is wrong with the command line.
func (m *misuse) Error() string { return m.text }

func misused(format string, args ...any) error { return &misuse{fmt.Sprintf(format, args...)} }

// print writes v as JSON, or what people writes.
func (g *global) print(v any, people func()) error {
	if !g.json {
		people()
		return nil
	}
	e := json.NewEncoder(g.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// defaultAdminURL is where the admin interface listens by default.
const defaultAdminURL = "http://127.0.0.1:6434"

// client returns a client for the lockkeeper that is meant.
func (g *global) client() (*client.Client, error) {
	cfg := g.readable()
	at := client.Config{URL: g.admin, CA: g.ca}
	if at.URL == "" {
		at.URL = os.Getenv("LOCKKEEPER_ADMIN")
	}
	if at.URL == "" {
		at.URL = cfg.adminURL()
	}
	token, err := g.token(cfg)
	if err != nil {
		return nil, err
	}
	at.Token = token
	return client.New(at)
}

// readable returns the configuration if there is one that may be read: its
// mistakes are for check and serve to tell.
func (g *global) readable() *config {
	file, _ := g.configFile()
	if file != "" {
		if c, err := loadConfig(file); err == nil {
			return c
		}
	}
	return defaults()
}

// configFile returns the configuration's file, "" where none is named and
// there is none, and whether it was named.
func (g *global) configFile() (file string, named bool) {
	if g.config != "" {
		return g.config, true
	}
	if _, err := os.Stat(defaultConfig); err == nil {
		return defaultConfig, false
	}
	return "", false
}

func (g *global) token(cfg *config) (string, error) {
	file := g.tokenFile
	if file == "" {
		if t := os.Getenv("LOCKKEEPER_TOKEN"); t != "" {
			return t, nil
		}
		file = os.Getenv("LOCKKEEPER_TOKEN_FILE")
	}
	if file == "" {
		file = filepath.Join(cfg.Admin.State, localTokenFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("find a token (--token-file, LOCKKEEPER_TOKEN, or be who may read lockkeeper's state): %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Example: "  lockkeeper version --json",
		RunE: runs(func(*cobra.Command, []string) error {
			return g.print(map[string]string{"version": versionString()}, func() { fmt.Fprintf(g.out, "lockkeeper %s\n", versionString()) })
		}),
	}
}
