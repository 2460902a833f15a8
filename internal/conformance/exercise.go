package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// exercises are lockkeeper's own programs, for drivers whose test suites are in
// no package that can be fetched. They assert nothing: what they print is
// compared, step by step.
//
//go:embed exercises
var exercises embed.FS

// exercise is one of them.
type exercise struct {
	name, title string
	packageName string // of Debian's, for the version
	build, run  []string
}

func odooExercise() suite {
	return exercise{
		name: "exercise-odoo", title: "psycopg2 %s with Odoo's habits: exercise", packageName: "python3-psycopg2",
		run: []string{"/usr/bin/python3", "odoo.py"},
	}.suite()
}

func psycopg3Exercise() suite {
	return exercise{
		name: "exercise-psycopg3", title: "psycopg %s: exercise", packageName: "python3-psycopg",
		run: []string{"/usr/bin/python3", "psycopg3.py"},
	}.suite()
}

func asyncpgExercise() suite {
	return exercise{
		name: "exercise-asyncpg", title: "asyncpg %s: exercise", packageName: "python3-asyncpg",
		run: []string{"/usr/bin/python3", "asyncpg_steps.py"},
	}.suite()
}

func perlExercise() suite {
	return exercise{
		name: "exercise-dbdpg", title: "DBD::Pg %s: exercise", packageName: "libdbd-pg-perl",
		run: []string{"/usr/bin/perl", "dbdpg.pl"},
	}.suite()
}

func jdbcExercise() suite {
	const jar = "/usr/share/java/postgresql.jar"
	return exercise{
		name: "exercise-jdbc", title: "pgJDBC %s: exercise", packageName: "libpostgresql-jdbc-java",
		build: []string{"javac", "-encoding", "UTF-8", "-cp", jar, "Jdbc.java"},
		run:   []string{"java", "-Dfile.encoding=UTF-8", "-cp", jar + ":.", "Jdbc"},
	}.suite()
}

func (e exercise) suite() suite {
	return suite{
		name:    e.name,
		prepare: e.prepare,
		run:     e.once,
	}
}

func (e exercise) prepare(ctx context.Context, s *stage) (string, error) {
	if err := s.writeExercises(); err != nil {
		return "", err
	}
	if len(e.build) > 0 {
		if err := s.command(ctx, s.path("exercises"), nil, e.build[0], e.build[1:]...); err != nil {
			return "", err
		}
	}
	version, err := s.packageVersion(ctx, e.packageName)
	version, _, _ = strings.Cut(version, "-")
	return fmt.Sprintf(e.title, version), err
}

func (e exercise) once(ctx context.Context, s *stage, t target) (results, error) {
	if err := s.fresh(ctx, "exercise"); err != nil {
		return nil, err
	}
	env := append(libpqEnv(t, "postgres", "exercise"), "PYTHONIOENCODING=utf-8", "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1")
	err := s.try(ctx, s.path("exercises"), env, e.run[0], e.run[1:]...)
	r := stepResults(string(s.last))
	if len(r) == 0 || err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", e.run[0], err, s.lastOutput())
	}
	return r, s.alive()
}

// stepResults cuts what an exercise printed at its headings.
func stepResults(out string) results {
	r := results{}
	for _, part := range strings.Split("\n"+out, "\n== ")[1:] {
		name, output, _ := strings.Cut(part, "\n")
		one := result{status: passed, output: output}
		if strings.HasPrefix(output, "!!") || strings.Contains(output, "\n!!") {
			one.status = failed
		}
		r[name] = one
	}
	return r
}

func (s *stage) writeExercises() error {
	dir := s.path("exercises")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	entries, err := exercises.ReadDir("exercises")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		b, err := exercises.ReadFile("exercises/" + entry.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
