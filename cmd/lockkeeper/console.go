package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v4"

	"lockkeeper/admin/api"
	"lockkeeper/admin/console"
	"lockkeeper/admin/control"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// consoleConfig is the key admin.console.
type consoleConfig struct {
	Database string `yaml:"database"` // that leads to the console; "" switches it off
}

// stopping is how a shutdown is asked for from inside.
type stopping struct {
	asked, now chan struct{}
	once       [2]sync.Once
}

func newStopping() *stopping {
	return &stopping{asked: make(chan struct{}), now: make(chan struct{})}
}

// begin asks for a shutdown, which waits for transactions or does not.
func (s *stopping) begin(immediately bool) {
	if immediately {
		s.once[0].Do(func() { close(s.now) })
	}
	s.once[1].Do(func() { close(s.asked) })
}

// makeConsole makes the console; the proxy is attached later.
func (a *app) makeConsole() error {
	tokens, err := a.cfg.tokens()
	if err != nil {
		return err
	}
	keys, err := api.NewKeyring(tokens)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	a.console = console.New(console.Deps{
		Database: a.cfg.Admin.Console.Database, Control: a.control, Locks: a.locks, Keys: keys, Servers: a.cfg.Servers,
		Settings: append(settings(a.cfg), pgbouncerSettings(&a.cfg.Limits)...), Limits: a.cfg.Limits, Version: versionString(), Reload: a.reloadAll,
		Stop: a.stop, Registerer: a.registerer, Logger: a.log, Now: time.Now,
	})
	return nil
}

// stop shuts down as somebody at the console has asked for.
func (a *app) stop(how console.How) {
	if how != console.WaitForClients {
		a.stopping.begin(how == console.AtOnce)
		return
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "stopping, clients leave by themselves")
	a.control.Drain()
	a.proxy.Drain()
}

// reloadAll reads the policy, every certificate and the files of users again.
func (a *app) reloadAll(ctx context.Context, by control.By) error {
	_, err := a.control.Reload(ctx, by)
	err = errors.Join(err, a.proxy.Reload())
	if a.admin != nil {
		err = errors.Join(err, a.admin.Reload())
	}
	return err
}

// signalled is who does what a signal asks for.
func signalled(name string) control.By { return control.By{Author: "signal", Reason: name} }

// pauseBySignal is SIGUSR1: everything new waits, until SIGUSR2.
func (a *app) pauseBySignal(ctx context.Context) error {
	_, err := a.control.Pause(ctx, control.PauseOptions{MaxHold: console.PauseHold}, signalled("SIGUSR1"))
	return err
}

// resumeBySignal is SIGUSR2.
func (a *app) resumeBySignal(ctx context.Context) error {
	_, err := a.control.Resume(ctx, policy.Scope{}, signalled("SIGUSR2"))
	return err
}

// settings are the configuration as SHOW CONFIG shows it.
func settings(c *config) []console.Setting {
	var out []console.Setting
	flatten("", reflect.ValueOf(c).Elem(), reflect.ValueOf(defaults()).Elem(), &out)
	return out
}

// pgbouncerSettings are limits under the names that PgBouncer has for them, for
// programs that look for those; times are in seconds, 0 is none.
func pgbouncerSettings(l *proxy.Limits) []console.Setting {
	d := proxy.Default().Limits
	number := func(key string, v, d int) console.Setting {
		return console.Setting{Key: key, Value: strconv.Itoa(v), Default: strconv.Itoa(d)}
	}
	seconds := func(key string, v, d time.Duration) console.Setting {
		return console.Setting{Key: key, Value: fmt.Sprint(v.Seconds()), Default: fmt.Sprint(d.Seconds())}
	}
	return []console.Setting{
		seconds("client_idle_timeout", l.IdleTimeout, d.IdleTimeout),
		seconds("client_login_timeout", l.LoginTimeout, d.LoginTimeout),
		seconds("idle_transaction_timeout", l.IdleInTransactionTimeout, d.IdleInTransactionTimeout),
		number("max_client_conn", l.Sessions, d.Sessions),
		number("max_db_connections", l.DatabaseSessions, d.DatabaseSessions),
		number("max_user_connections", l.UserSessions, d.UserSessions),
		seconds("query_timeout", l.StatementTimeout, d.StatementTimeout),
		seconds("query_wait_timeout", console.PauseHold, console.PauseHold),
		seconds("server_connect_timeout", l.ConnectTimeout, d.ConnectTimeout),
		seconds("stats_period", proxy.StatsPeriod, proxy.StatsPeriod),
		seconds("transaction_timeout", l.TransactionTimeout, d.TransactionTimeout),
	}
}

// secret are keys whose values nobody is shown.
func secret(key string) bool { return key == "control" || key == "tokens" }

// flatten lists the keys of a struct and of the structs in it.
func flatten(prefix string, v, d reflect.Value, out *[]console.Setting) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := cutTag(f)
		switch {
		case !f.IsExported() || key == "-" || f.Type == reflect.TypeFor[func() time.Time]():
		case f.Type == reflect.TypeFor[yaml.Node]():
			*out = append(*out, console.Setting{Key: prefix + key, Value: "see SHOW RULES", Changeable: true})
		case f.Anonymous:
			flatten(prefix, v.Field(i), d.Field(i), out)
		case f.Type.Kind() == reflect.Struct:
			flatten(prefix+key+".", v.Field(i), d.Field(i), out)
		case f.Type.Kind() == reflect.Map:
			flattenMap(prefix+key+".", v.Field(i), out)
		default:
			*out = append(*out, console.Setting{Key: prefix + key, Value: settingText(key, v.Field(i)), Default: settingText(key, d.Field(i))})
		}
	}
}

// flattenMap lists the servers.
func flattenMap(prefix string, m reflect.Value, out *[]console.Setting) {
	for _, name := range sortedNames(m) {
		v := m.MapIndex(reflect.ValueOf(name))
		if v.Kind() == reflect.Struct {
			flatten(prefix+name+".", v, reflect.Zero(v.Type()), out)
			continue
		}
		*out = append(*out, console.Setting{Key: prefix + name, Value: fmt.Sprint(v.Interface())})
	}
}

func settingText(key string, v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	if secret(key) {
		return "********"
	}
	return fmt.Sprint(v.Interface())
}

func cutTag(f reflect.StructField) (key, options string, ok bool) {
	return strings.Cut(f.Tag.Get("yaml"), ",")
}

func sortedNames(m reflect.Value) []string {
	var names []string
	for _, k := range m.MapKeys() {
		names = append(names, k.String())
	}
	slices.Sort(names)
	return names
}
