package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// pgRegress is one call of pg_regress or of a program of its family.
type pgRegress struct {
	program string
	input   string // the suite's folder
	prefix  string // of the tests' names
	args    []string
	libs    string // folder of shared libraries; "" for the server's own
	inPlace bool   // it looks for what it expects beside what it writes
	env     []string
}

// run runs the suite into a folder of its own and returns what each test came
// to, with everything that it printed.
func (p *pgRegress) run(ctx context.Context, s *stage, t target, folder string) (results, error) {
	out := s.path(t.name, folder)
	folders := []string{out, filepath.Join(out, "results"), filepath.Join(out, "sql"), filepath.Join(out, "expected")}
	if p.inPlace {
		out = p.input
		folders = []string{filepath.Join(out, "results")}
	}
	if err := emptyFolders(folders...); err != nil {
		return nil, err
	}
	args := []string{
		"--inputdir=.", "--outputdir=" + out, "--bindir=" + s.bin, "--host=" + t.host, "--port=" + strconv.Itoa(t.port),
		"--user=postgres", "--max-connections=8",
	}
	if p.libs != "" {
		args = append(args, "--dlpath="+p.libs)
	}
	// It ends with 1 where a test fails: the tests are what counts.
	err := s.try(ctx, p.input, append(p.env, "PGSSLMODE=disable", "PGTZ=", "LC_ALL=C"), p.program, append(args, p.args...)...)
	r, readErr := p.results(string(s.last), filepath.Join(out, "results"))
	if len(r) == 0 {
		return nil, fmt.Errorf("%s: %w\n%s", p.program, errors.Join(err, readErr), s.lastOutput())
	}
	return r, errors.Join(readErr, s.alive())
}

// emptyFolders makes folders that the server may write to, too: it is another
// user where we are root.
func emptyFolders(names ...string) error {
	for _, name := range names {
		err := errors.Join(os.RemoveAll(name), os.MkdirAll(name, 0o755), os.Chmod(name, 0o777)) //nolint:gosec // in a temporary folder
		if err != nil {
			return err
		}
	}
	return nil
}

// verdictLine is what pg_regress says of a test: "test boolean ... ok   90 ms",
// or "     boolean   ... FAILED" in a parallel group.
var verdictLine = regexp.MustCompile(`(?m)^(?:test)? +(\S+) +\.\.\. (ok|FAILED|failed)`)

func (p *pgRegress) results(log, dir string) (results, error) {
	r := results{}
	for _, m := range verdictLine.FindAllStringSubmatch(log, -1) {
		one := result{status: failed}
		if m[2] == "ok" {
			one.status = passed
		}
		output, err := p.output(dir, m[1])
		if err != nil {
			return r, err
		}
		one.output = output
		r[p.prefix+m[1]] = one
	}
	return r, nil
}

// output is what a test printed: one file, but three of ECPG's tests.
func (p *pgRegress) output(dir, test string) (string, error) {
	var all strings.Builder
	for _, suffix := range []string{".out", ".c", ".stdout", ".stderr"} {
		b, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(test, "/", "-")+suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		all.Write(b)
	}
	return all.String(), nil
}

// regressSuite is PostgreSQL's own suite of that name, against the programs that
// Debian's package for server extensions has.
func regressSuite(name string) suite {
	p := pgRegress{program: "/usr/lib/postgresql/15/lib/pgxs/src/test/" + name}
	if name == "regress" {
		p.program += "/pg_regress"
		p.args = []string{"--schedule=./parallel_schedule"}
	} else {
		p.program += "/pg_isolation_regress"
		p.args = []string{"--schedule=./isolation_schedule"}
	}
	return suite{
		name: "postgres-" + name,
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.fetchSource(ctx); err != nil {
				return "", err
			}
			p.input = filepath.Join(s.source, "src", "test", name)
			if name == "regress" {
				p.libs = p.input
				if err := s.buildLibraries(ctx); err != nil {
					return "", err
				}
			}
			return fmt.Sprintf("PostgreSQL's %s tests (%s)", name, filepath.Base(s.source)), nil
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) { return p.run(ctx, s, t, name) },
	}
}

// buildLibraries makes the C functions that the regression tests load: their
// own, and two of contrib/spi.
func (s *stage) buildLibraries(ctx context.Context) error {
	if err := s.command(ctx, "", nil, filepath.Join(s.bin, "pg_config"), "--includedir-server"); err != nil {
		return err
	}
	include := strings.TrimSpace(string(s.last))
	regress := filepath.Join(s.source, "src", "test", "regress")
	for _, from := range []string{
		filepath.Join(regress, "regress.c"), filepath.Join(s.source, "contrib", "spi", "refint.c"), filepath.Join(s.source, "contrib", "spi", "autoinc.c"),
	} {
		to := filepath.Join(regress, strings.TrimSuffix(filepath.Base(from), ".c")+".so")
		if err := s.command(ctx, "", nil, "gcc", "-O1", "-fPIC", "-shared", "-I"+include, "-o", to, from); err != nil {
			return err
		}
	}
	return nil
}

// contribs are the extensions whose tests are run: those that Debian's server
// package has, and that say something to the server over the wire rather than
// to a program. PL/pgSQL's own tests are of the same kind.
var contribs = []string{
	"contrib/bloom", "contrib/btree_gin", "contrib/btree_gist", "contrib/citext", "contrib/cube", "contrib/dblink", "contrib/hstore",
	"contrib/intarray", "contrib/isn", "contrib/lo", "contrib/ltree", "contrib/pageinspect", "contrib/pg_stat_statements", "contrib/pg_trgm",
	"contrib/pgcrypto", "contrib/pgrowlocks", "contrib/pgstattuple", "contrib/postgres_fdw", "contrib/seg", "contrib/tablefunc",
	"contrib/tcn", "contrib/test_decoding", "contrib/tsm_system_rows", "contrib/unaccent", "contrib/xml2", "src/pl/plpgsql/src",
}

func contribSuite() suite {
	var runs []pgRegress
	return suite{
		name: "postgres-contrib",
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.fetchSource(ctx); err != nil {
				return "", err
			}
			runs = runs[:0]
			for _, dir := range contribs {
				more, err := s.contribRuns(ctx, dir)
				if err != nil {
					return "", err
				}
				runs = append(runs, more...)
			}
			return fmt.Sprintf("PostgreSQL's tests of PL/pgSQL and %d extensions (%s)", len(contribs)-1, filepath.Base(s.source)), nil
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) {
			all := results{}
			for i := range runs {
				r, err := runs[i].run(ctx, s, t, "contrib")
				if err != nil {
					return nil, fmt.Errorf("%s: %w", runs[i].prefix, err)
				}
				for name, one := range r {
					all[name] = one
				}
			}
			return all, nil
		},
	}
}

// contribRuns asks an extension's makefile which tests it has.
func (s *stage) contribRuns(ctx context.Context, dir string) ([]pgRegress, error) {
	var runs []pgRegress
	name := filepath.Base(strings.TrimSuffix(dir, "/src"))
	for variable, program := range map[string]string{"REGRESS": "regress/pg_regress", "ISOLATION": "isolation/pg_isolation_regress"} {
		err := s.command(ctx, filepath.Join(s.source, dir), nil, "make", "-s", "--eval=tests: ; @echo '$("+variable+")'", "tests")
		if err != nil {
			return nil, err
		}
		tests := strings.Fields(string(s.last))
		if len(tests) == 0 {
			continue
		}
		runs = append(runs, pgRegress{
			program: "/usr/lib/postgresql/15/lib/pgxs/src/test/" + program,
			input:   filepath.Join(s.source, dir), prefix: name + "/",
			args: append([]string{"--dbname=contrib_regression"}, tests...),
		})
	}
	return runs, nil
}
