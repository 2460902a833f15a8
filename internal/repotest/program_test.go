package repotest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lockkeeper/internal/pgtest"
)

// program builds bin/lockkeeper for one test.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lockkeeper")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/lockkeeper")
	build.Dir = inRoot(".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// TestTheProgramAgrees gives the program what the documents say to it.
func TestTheProgramAgrees(t *testing.T) {
	path := program(t)
	t.Run("configurations load", func(t *testing.T) { configurationsLoad(t, path) })
	t.Run("commands exist", func(t *testing.T) { commandsExist(t, path) })
}

// configurationsLoad gives lockkeeper.yaml and every block marked "yaml config"
// to `lockkeeper check`.
func configurationsLoad(t *testing.T, program string) {
	t.Helper()
	configs := map[string]string{"deploy/lockkeeper.yaml": read(t, "deploy/lockkeeper.yaml")}
	for _, f := range fences(t) {
		if slices.Equal(f.info, []string{"yaml", "config"}) {
			configs[fmt.Sprintf("%s:%d", f.file, f.line)] = f.text
		}
	}
	if len(configs) < 2 {
		t.Error("no document shows a configuration")
	}
	etc := exampleFiles(t)
	for name, text := range configs {
		text = strings.ReplaceAll(text, "/etc/lockkeeper/", etc+"/")
		file := filepath.Join(t.TempDir(), "lockkeeper.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, "check", "--offline", "-c", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// exampleFiles makes the files that configurations in documents name, in a
// folder that stands for /etc/lockkeeper.
func exampleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	certs, err := pgtest.WriteCertificates(dir, "odoo")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(certs.CA, filepath.Join(dir, "clients-ca.crt")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"userlist.txt": `"odoo" "example"`, "auth.password": "example\n", "db.password": "example\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// commandsExist asks for the help of every command line that a document shows:
// its command must exist, and its flags.
func commandsExist(t *testing.T, program string) {
	t.Helper()
	found := 0
	for _, f := range fences(t) {
		if len(f.info) > 0 || covers("docs/reference/...", f.file) {
			continue
		}
		for i, line := range strings.Split(f.text, "\n") {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			rest, ok := strings.CutPrefix(strings.TrimPrefix(line, "bin/"), "lockkeeper ")
			if !ok {
				continue
			}
			found++
			args := append(words(rest), "--help")
			if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "lockkeeper "+args[0]) {
				t.Errorf("%s:%d: lockkeeper %s: %v\n%s", f.file, f.line+i+1, rest, err, out)
			}
		}
	}
	if found == 0 {
		t.Error("no document shows a command")
	}
}

// TestLinkedPackages compares the checked-in list of other people's packages in
// the binary with what is linked, so that a new one shows in review. make deps
// writes it.
func TestLinkedPackages(t *testing.T) {
	const file = "docs/reference/packages.txt"
	list := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-f", "{{with .Module}}{{if not .Main}}{{$.ImportPath}}{{end}}{{end}}", "./cmd/lockkeeper")
	list.Dir = inRoot(".")
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1") // the same list everywhere
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	slices.Sort(linked)
	want := strings.Join(linked, "\n") + "\n"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(inRoot(file), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, file); got != want {
		t.Errorf("%s is not what is linked (make deps writes it):\n--- is\n%s--- should be\n%s", file, got, want)
	}
}

// words splits a command line as a shell would that knows "…" and # only.
func words(line string) []string {
	var all []string
	word, quoted, begun := "", false, false
	for _, c := range line {
		switch {
		case c == '"':
			quoted, begun = !quoted, true
		case c == '#' && !quoted && !begun:
			return all
		case c == ' ' && !quoted:
			if begun {
				all = append(all, word)
			}
			word, begun = "", false
		default:
			word += string(c)
			begun = true
		}
	}
	if begun {
		all = append(all, word)
	}
	return all
}
