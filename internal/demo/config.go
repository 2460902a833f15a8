package main

import (
	"os"
	"strings"
	"text/template"
)

// The demo's lockkeeper.yaml: profile odoo with a rule of its own for DDL, with
// a lock_timeout that one has the patience to watch.
var configTemplate = template.Must(template.New("lockkeeper.yaml").Parse(`# Written by the demo.
listen:
  tcp: ["127.0.0.1:{{.Port}}"]
server:
  "*":
    host: 127.0.0.1
    port: {{.ServerPort}}
    sslmode: disable
    control: host=127.0.0.1 port={{.ServerPort}} user=lockkeeper password={{.Password}} dbname={{.Database}} sslmode=disable
admin:
  listen: "127.0.0.1:{{.AdminPort}}"
  state: {{.State}} # containments, journal, and the token of whoever may read it
policy:
  profile: odoo
  rules:
    - name: unbounded-write
      match: {kinds: [update, delete, truncate, merge], tables: critical, bound: [none, vacuous]}
      action: refuse
    - name: ddl-on-hot-tables
      match: {classes: [define], tables: critical}
      ddl: {lock_timeout: {{.LockTimeout}}}
`))

func (s *stage) writeConfig() error {
	var b strings.Builder
	err := configTemplate.Execute(&b, map[string]any{
		"Port": s.port, "AdminPort": s.adminPort, "ServerPort": s.postgres.Port(), "Password": password,
		"Database": database, "State": s.state(), "LockTimeout": lockTimeout,
	})
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.state(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.config(), []byte(b.String()), 0o600)
}
