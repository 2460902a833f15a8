package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// goDriver is a Go module with tests of its own, at a pinned version whose
// content is pinned too.
type goDriver struct {
	name, module string
	version, sum string // "" for a dependency of lockkeeper: go.mod and go.sum pin it
	packages     []string
	skip, why    string // tests that are left out
	setup        func(ctx context.Context, s *stage, dir string) error
	env          func(target) []string
}

// The drivers. Each has a database of its own.
var (
	pgxDriver = goDriver{
		name: "pgx", module: "github.com/jackc/pgx/v5",
		packages: []string{".", "./pgconn/...", "./pgtype/...", "./pgxpool/...", "./stdlib/..."},
		setup:    setUpPgx, env: pgxEnv,
	}
	// The part that speaks the protocol; the rest is about Go's types.
	pgxCore = goDriver{
		name: "pgx", module: "github.com/jackc/pgx/v5",
		packages: []string{"./pgconn"},
		setup:    setUpPgx, env: pgxEnv,
	}
	libpq = goDriver{
		name: "lib-pq", module: "github.com/lib/pq",
		version: "v1.12.3", sum: "h1:tTWxr2YLKwIvK90ZXEw8GP7UFHtcbTtty8zsI+YjrfQ=",
		packages: []string{"./..."},
		// The listener's end the whole program where a login takes longer than a tenth
		// of a second, and with it the tests behind them; the other one measures time.
		skip: "^TestListe(rn|n)er|^TestQueryRowContext$", why: "without those of its listener, which need a login within 100 ms, and one that measures time",
		setup: setUpLibpq, env: libpqDriverEnv,
	}
)

func goSuite(d goDriver) suite {
	var dir string
	return suite{
		name: d.name,
		prepare: func(ctx context.Context, s *stage) (title string, err error) {
			title, dir, err = d.fetch(ctx, s)
			if err != nil {
				return "", err
			}
			return title, d.setup(ctx, s, dir)
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) {
			args := append([]string{"test", "-p=1", "-count=1", "-json", "-timeout=10m"}, d.packages...)
			if d.skip != "" {
				args = append(args, "-skip="+d.skip)
			}
			err := s.try(ctx, dir, append(d.env(t), "GOFLAGS=-mod=mod", "GOWORK=off"), "go", args...)
			r := goResults(s.last)
			if len(r) == 0 {
				return nil, fmt.Errorf("go test: %w\n%s", err, s.lastOutput())
			}
			return r, s.alive()
		},
	}
}

// fetch copies a module, because tests write beside themselves.
func (d *goDriver) fetch(ctx context.Context, s *stage) (title, dir string, err error) {
	version := d.version
	if version == "" {
		if err := s.command(ctx, "", nil, "go", "list", "-m", "-f", "{{.Version}}", d.module); err != nil {
			return "", "", err
		}
		version = strings.TrimSpace(string(s.last))
	}
	if err := s.command(ctx, s.dir, nil, "go", "mod", "download", "-json", d.module+"@"+version); err != nil {
		return "", "", err
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(s.last, &module); err != nil {
		return "", "", err
	}
	if d.sum != "" && module.Sum != d.sum {
		return "", "", fmt.Errorf("%s@%s is %s, and %s is pinned", d.module, version, module.Sum, d.sum)
	}
	dir = s.path("go-" + d.name)
	if err := os.CopyFS(dir, os.DirFS(module.Dir)); err != nil {
		return "", "", err
	}
	title = strings.TrimPrefix(d.module, "github.com/") + " " + version
	if d.why != "" {
		title += ", " + d.why
	}
	return title, dir, makeWritable(dir)
}

func makeWritable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o200)
	})
}

// random are the parts of test names that are not the same in two runs: the
// name of a temporary folder, for example.
var random = regexp.MustCompile(`/[^ ]*[0-9]{6,}[^ ]*`)

// goResults reads what go test -json printed.
func goResults(out []byte) results {
	r := results{}
	for line := range bytes.Lines(out) {
		var event struct{ Action, Package, Test string }
		if json.Unmarshal(line, &event) != nil || event.Test == "" {
			continue // compilers and panicking tests print what is not JSON
		}
		status, ok := map[string]status{"pass": passed, "fail": failed, "skip": skipped}[event.Action]
		if ok {
			_, name, _ := strings.Cut(event.Package, "/")
			r[name+"."+random.ReplaceAllString(event.Test, "/…")] = result{status: status}
		}
	}
	return r
}

func setUpPgx(ctx context.Context, s *stage, dir string) error {
	if err := s.fresh(ctx, "pgx_test"); err != nil {
		return err
	}
	return s.psql(ctx, "pgx_test", "-f", filepath.Join(dir, "testsetup", "postgresql_setup.sql"))
}

func pgxEnv(t target) []string {
	base := fmt.Sprintf("host=%s port=%d dbname=pgx_test sslmode=disable", t.host, t.port)
	return []string{
		"PGX_TEST_DATABASE=" + base + " user=postgres",
		"PGX_TEST_TCP_CONN_STRING=" + base + " user=pgx_md5 password=secret",
		"PGX_TEST_MD5_PASSWORD_CONN_STRING=" + base + " user=pgx_md5 password=secret",
		"PGX_TEST_PLAIN_PASSWORD_CONN_STRING=" + base + " user=pgx_pw password=secret",
		"PGX_TEST_SCRAM_PASSWORD_CONN_STRING=" + base + " user=pgx_scram password=secret",
	}
}

// setUpLibpq does what lib/pq's own container does; its TLS part is in the
// matrix of authentication and TLS.
func setUpLibpq(ctx context.Context, s *stage, _ string) error {
	if err := s.fresh(ctx, "pqgo"); err != nil {
		return err
	}
	return s.psql(ctx, "pqgo", "-c", `
		CREATE ROLE pqgo LOGIN SUPERUSER;
		CREATE ROLE pqgossl LOGIN; CREATE ROLE pqgosslcert LOGIN;
		CREATE ROLE pqgopassword LOGIN PASSWORD 'wordpass';
		CREATE ROLE pqgoscram LOGIN PASSWORD 'wordpass';
		SET password_encryption = 'md5';
		CREATE ROLE pqgomd5 LOGIN PASSWORD 'wordpass'`)
}

func libpqDriverEnv(t target) []string { return libpqEnv(t, "pqgo", "pqgo") }
