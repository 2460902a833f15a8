package repotest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// ini reads sections, keys and values the way that systemd, PgBouncer and Odoo
// agree on: [section], key = value, comments after # or ; at the beginning.
func ini(t *testing.T, file string) map[string]map[string][]string {
	t.Helper()
	sections := map[string]map[string][]string{}
	section := ""
	for i, line := range strings.Split(read(t, file), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			sections[section] = map[string][]string{}
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" {
				t.Fatalf("%s:%d: neither a section nor key = value: %s", file, i+1, line)
			}
			key = strings.TrimSpace(key)
			sections[section][key] = append(sections[section][key], strings.TrimSpace(value))
		}
	}
	return sections
}

func TestEveryDeployFileIsTested(t *testing.T) {
	tested := []string{
		"deploy/Containerfile", "deploy/alerts.yaml", "deploy/lockkeeper.service", "deploy/lockkeeper.socket", "deploy/lockkeeper.yaml",
		"deploy/lockkeeper@.service",
		"deploy/odoo.conf", "deploy/pgbouncer.ini",
	}
	for _, file := range tracked(t) {
		if covers("deploy/...", file) && !slices.Contains(tested, file) {
			t.Errorf("no test loads %s", file)
		}
	}
}

func TestSystemdUnit(t *testing.T) {
	unit := ini(t, "deploy/lockkeeper.service")
	service := unit["Service"]
	for key, want := range map[string]string{
		"Type": "notify", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "StateDirectory": "lockkeeper", "Restart": "always",
	} {
		if got := strings.Join(service[key], " "); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	start := strings.Join(service["ExecStart"], " ")
	check := strings.Join(service["ExecStartPre"], " ")
	if start != strings.Replace(check, " check ", " serve ", 1) {
		t.Errorf("what is checked (%s) is not what is served (%s)", check, start)
	}
	if unit["Install"] == nil || unit["Unit"] == nil {
		t.Error("a section is missing")
	}
}

// TestSystemdTemplate holds the unit of instances that take turns to the other:
// it differs in what a takeover needs.
func TestSystemdTemplate(t *testing.T) {
	one, many := ini(t, "deploy/lockkeeper.service")["Service"], ini(t, "deploy/lockkeeper@.service")["Service"]
	differs := map[string]string{
		"ExecStart": one["ExecStart"][0] + " --takeover", "Restart": "on-failure", "RuntimeDirectoryPreserve": "yes",
	}
	for key, got := range many {
		want, ok := differs[key]
		if !ok {
			want = strings.Join(one[key], " ")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s=%s, want %s", key, strings.Join(got, " "), want)
		}
	}
	if len(many) != len(one)+1 { // RuntimeDirectoryPreserve
		t.Errorf("%d keys, want those of lockkeeper.service and one more: %d", len(many), len(one)+1)
	}
}

func TestSystemdSocketUnit(t *testing.T) {
	unit := ini(t, "deploy/lockkeeper.socket")
	if got := unit["Socket"]["ListenStream"]; !slices.Contains(got, "127.0.0.1:6433") {
		t.Errorf("ListenStream=%v, want the address of lockkeeper.yaml", got)
	}
	if got := strings.Join(unit["Install"]["WantedBy"], " "); got != "sockets.target" {
		t.Errorf("WantedBy=%s, want sockets.target", got)
	}
}

func TestChainOfPorts(t *testing.T) {
	const lockkeeperPort = "6433"
	if got := ini(t, "deploy/odoo.conf")["options"]["db_port"]; !slices.Equal(got, []string{lockkeeperPort}) {
		t.Errorf("odoo.conf: db_port = %v, want %s", got, lockkeeperPort)
	}
	bouncer := ini(t, "deploy/pgbouncer.ini")
	for name, target := range bouncer["databases"] {
		if !strings.Contains(target[0], "port="+lockkeeperPort) {
			t.Errorf("pgbouncer.ini: %s = %s, want port %s", name, target[0], lockkeeperPort)
		}
	}
	if got := bouncer["databases"]["postgres"]; len(got) != 1 || !strings.Contains(got[0], "pool_mode=session") {
		t.Errorf("pgbouncer.ini: database postgres, where Odoo LISTENs, is %v, want session mode", got)
	}
	if !strings.Contains(read(t, "deploy/lockkeeper.yaml"), ":"+lockkeeperPort) {
		t.Errorf("lockkeeper.yaml does not listen on %s", lockkeeperPort)
	}
}

func TestContainerfileRunsWhatTheMakefileBuilds(t *testing.T) {
	text := read(t, "deploy/Containerfile")
	for _, want := range []string{"make build", "/src/bin/lockkeeper", "USER lockkeeper", "VOLUME /var/lib/lockkeeper"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if !strings.Contains(text, "golang:"+version[1]) {
		t.Errorf("it does not build with Go %s, which go.mod asks for", version[1])
	}
}

func TestCIRunsMakeCheck(t *testing.T) {
	for _, file := range []string{".ci/run", ".github/workflows/ci.yml"} {
		if !strings.Contains(read(t, file), "make check\n") {
			t.Errorf("%s does not run make check", file)
		}
	}
	info, err := os.Stat(inRoot(".ci/run"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf(".ci/run cannot be executed: %v", err)
	}
}

// alerts is the part of a Prometheus rule file that this test looks at.
type alerts struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func TestAlertRules(t *testing.T) {
	var file alerts
	if err := yaml.Unmarshal([]byte(read(t, "deploy/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			found++
			if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["runbook"] == "" {
				t.Errorf("group %s: rule %q lacks a name, an expression, a severity, a summary or a runbook", g.Name, r.Alert)
			}
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
				t.Errorf("%s: parentheses do not match: %s", r.Alert, r.Expr)
			}
		}
	}
	if found == 0 {
		t.Error("no rules")
	}
}
