package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"lockkeeper/admin/api"
	"lockkeeper/admin/control"
	"lockkeeper/internal/journal"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// The files in the state folder.
const (
	stateFile      = "state.json"
	journalFile    = "journal.db"
	processesFile  = "processes"
	processesFile2 = "processes.2" // of every second of a row of processes that take over from each other
	localTokenFile = "admin.token"
	lockFile       = "lock"
	mockFile       = "mock-secret"
)

// config is lockkeeper.yaml.
type config struct {
	proxy.Config `yaml:",inline"`
	Admin        adminConfig    `yaml:"admin"`
	Journal      journal.Config `yaml:"journal"`
	Policy       yaml.Node      `yaml:"policy"` // a mapping, or the path of a file that holds one

	file string // where it was read; "" for the defaults
}

// adminConfig is the key admin.
type adminConfig struct {
	Listen    string      `yaml:"listen"`     // host:port
	Cert      string      `yaml:"cert"`       // file
	Key       string      `yaml:"key"`        // file
	Tokens    []api.Token `yaml:"tokens"`     // with sha256, or token
	TokenFile string      `yaml:"token_file"` // a file with one token a line: name, role, SHA-256
	State     string      `yaml:"state"`      // the folder of everything that lockkeeper keeps

	Console consoleConfig `yaml:"console"`
}

// defaults returns the configuration before any file is read.
func defaults() *config {
	return &config{
		Config:  proxy.Default(),
		Admin:   adminConfig{Listen: "127.0.0.1:6434", State: "/var/lib/lockkeeper", Console: consoleConfig{Database: "lockkeeper"}},
		Journal: journal.Default(),
	}
}

// loadConfig reads a file strictly and completes it.
func loadConfig(file string) (*config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c := defaults()
	c.file = file
	if len(bytes.TrimSpace(data)) > 0 {
		if err := yaml.Load(data, c, yaml.WithKnownFields()); err != nil {
			return nil, inFile(file, err)
		}
	}
	if err := c.validate(); err != nil {
		return nil, prefixed(file, err)
	}
	return c, nil
}

// unknownKey is how the YAML library speaks of one.
var unknownKey = regexp.MustCompile(`^field (.*) not found in type `)

// inFile turns the YAML library's errors into lines of "file:line: mistake".
func inFile(file string, err error) error {
	many, ok := errors.AsType[*yaml.LoadErrors](err)
	if !ok {
		if one, is := errors.AsType[*yaml.LoadError](err); is {
			return fmt.Errorf("%s:%d: %s", file, max(one.Mark.Line, 1), one.Message)
		}
		return prefixed(file, err)
	}
	var errs []error
	for _, e := range many.Errors {
		text := e.Message
		if m := unknownKey.FindStringSubmatch(text); m != nil {
			text = "unknown key " + strconv.Quote(m[1])
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s", file, max(e.Mark.Line, 1), text))
	}
	return errors.Join(errs...)
}

// prefixed puts the file before each line of an error.
func prefixed(file string, err error) error {
	var errs []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		errs = append(errs, errors.New(file+": "+line))
	}
	return errors.Join(errs...)
}

func (c *config) validate() error {
	errs := []error{c.Config.Validate()}
	listen := c.adminListen()
	for key, err := range map[string]error{
		"admin": listen.Validate(), "admin.tokens": api.ValidateTokens(c.Admin.Tokens), "journal": c.Journal.Validate(),
	} {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if !filepath.IsAbs(c.Admin.State) && c.file != "" {
		c.Admin.State = filepath.Join(filepath.Dir(c.file), c.Admin.State)
	}
	if c.Admin.State == "" {
		errs = append(errs, errors.New("admin.state: a folder is needed"))
	}
	if name := c.Admin.Console.Database; name != "" {
		if _, taken := c.Servers[name]; taken || name == "*" {
			errs = append(errs, fmt.Errorf("admin.console.database: %q is under server: too; choose another name, or \"\" for no console", name))
		}
	}
	if len(c.Admin.Tokens) > 0 && c.Admin.TokenFile != "" {
		errs = append(errs, errors.New("admin: tokens and token_file: choose one"))
	}
	if len(c.Admin.Tokens) == 0 && c.Admin.TokenFile == "" && c.Admin.Cert != "" && !loopback(c.Admin.Listen) {
		errs = append(errs, fmt.Errorf("admin: listen: %s is reachable by others, and nobody has a token: name some under tokens or in token_file, "+
			"for the local one is for whoever may read the state folder", c.Admin.Listen))
	}
	slices.SortStableFunc(errs, func(a, b error) int { return strings.Compare(text(a), text(b)) })
	return errors.Join(errs...)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (c *config) adminListen() api.Config {
	return api.Config{Listen: c.Admin.Listen, Cert: c.Admin.Cert, Key: c.Admin.Key}
}

// adminURL is where the admin interface of this configuration is asked.
func (c *config) adminURL() string {
	host, port, err := net.SplitHostPort(c.Admin.Listen)
	if err != nil {
		return defaultAdminURL
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if c.Admin.Cert != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// state returns the path of a file in the state folder.
func (c *config) state(name string) string { return filepath.Join(c.Admin.State, name) }

// journalConfig returns the journal's configuration with its path.
func (c *config) journalConfig() journal.Config {
	j := c.Journal
	if j.Path == "" {
		j.Path = c.state(journalFile)
	}
	return j
}

// tokens returns the tokens that are in force; the local one, made if need
// be, where none are configured.
func (c *config) tokens() ([]api.Token, error) {
	switch {
	case c.Admin.TokenFile != "":
		return api.LoadTokens(c.relative(c.Admin.TokenFile))
	case len(c.Admin.Tokens) > 0:
		return c.Admin.Tokens, nil
	}
	t, err := api.LocalToken(c.state(localTokenFile))
	return []api.Token{t}, err
}

// relative finds a file that the configuration names: beside itself.
func (c *config) relative(path string) string {
	if filepath.IsAbs(path) || c.file == "" {
		return path
	}
	return filepath.Join(filepath.Dir(c.file), path)
}

// defaultProfile is in force where no policy is configured.
const defaultProfile = policy.ProfileOdoo

// loadPolicy reads the policy that is configured.
func (c *config) loadPolicy() (*policy.Policy, control.Source, error) {
	switch {
	case c.Policy.IsZero():
		p, err := policy.Default(defaultProfile)
		return p, control.Source{File: "built in"}, err
	case c.Policy.Kind == yaml.ScalarNode:
		file := c.relative(c.Policy.Value)
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, control.Source{}, fmt.Errorf("read the policy: %w", err)
		}
		p, err := policy.Parse(data, file)
		return p, control.Source{File: file, Text: string(data)}, err
	}
	text, err := yaml.Marshal(&c.Policy)
	if err != nil {
		return nil, control.Source{}, fmt.Errorf("show the policy: %w", err)
	}
	p, err := policy.ParseNode(&c.Policy, c.file)
	return p, control.Source{File: c.file, Text: string(text)}, err
}

// reloadPolicy reads the policy from the configuration file as it is now. Keys
// that need a restart must be as they were.
func (c *config) reloadPolicy() (*policy.Policy, control.Source, error) {
	if c.file == "" {
		return c.loadPolicy()
	}
	n, err := loadConfig(c.file)
	if err != nil {
		return nil, control.Source{}, err
	}
	if changed := c.needRestart(n); len(changed) > 0 {
		return nil, control.Source{}, fmt.Errorf("%s: %s changed: that needs a restart", c.file, strings.Join(changed, ", "))
	}
	return n.loadPolicy()
}

// needRestart names the keys that differ and are read at the start only.
func (c *config) needRestart(n *config) []string {
	var changed []string
	for _, k := range []struct {
		key      string
		old, new any
	}{
		{"listen", c.Listen, n.Listen},
		{"server", c.Servers, n.Servers},
		{"tls", c.TLS, n.TLS},
		{"limits", c.Limits, n.Limits},
		{"peers", c.Peers, n.Peers},
		{"admin", c.Admin, n.Admin},
		{"journal", withoutClock(&c.Journal), withoutClock(&n.Journal)},
	} {
		if fmt.Sprintf("%+v", k.old) != fmt.Sprintf("%+v", k.new) {
			changed = append(changed, k.key)
		}
	}
	return changed
}

func withoutClock(j *journal.Config) journal.Config {
	c := *j
	c.Now = nil
	return c
}
