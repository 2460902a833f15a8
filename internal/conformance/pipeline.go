package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pipelineSuite is PostgreSQL's src/test/modules/libpq_pipeline. Each test is
// run with libpq's trace, every message of both directions; where PostgreSQL has
// an expected trace, it has to be that one, and the same through lockkeeper.
func pipelineSuite() suite {
	const module = "src/test/modules/libpq_pipeline"
	var tests []string
	program := func(s *stage) string { return filepath.Join(s.source, module, "libpq_pipeline") }
	return suite{
		name: "postgres-libpq_pipeline",
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.fetchSource(ctx); err != nil {
				return "", err
			}
			for _, dir := range []string{"src/interfaces/libpq", module} {
				if err := s.make(ctx, dir); err != nil {
					return "", err
				}
			}
			if err := s.command(ctx, "", s.libraryPath(), program(s), "tests"); err != nil {
				return "", err
			}
			tests = strings.Fields(string(s.last))
			return fmt.Sprintf("libpq_pipeline with libpq's traces (%s)", filepath.Base(s.source)), nil
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) {
			r := results{}
			dir := s.path(t.name, "pipeline")
			if err := errors.Join(emptyFolders(dir), s.fresh(ctx, "pipeline")); err != nil {
				return nil, err
			}
			for _, test := range tests {
				trace := filepath.Join(dir, test+".trace")
				conn := fmt.Sprintf("host=%s port=%d user=postgres dbname=pipeline sslmode=disable", t.host, t.port)
				one := result{status: passed}
				// 700 rows, as PostgreSQL's own TAP test does it.
				if s.try(ctx, dir, s.libraryPath(), program(s), "-r", "700", "-t", trace, test, conn) != nil {
					one.status = failed
				}
				b, err := os.ReadFile(trace)
				if err != nil {
					return nil, err
				}
				// How messages interleave in the other tests depends on the sockets' buffers.
				expected, err := os.ReadFile(filepath.Join(s.source, module, "traces", test+".trace"))
				if err == nil {
					one.output = string(b)
					if string(expected) != one.output {
						one.status = failed
					}
				}
				r[test] = one
			}
			return r, s.alive()
		},
	}
}

// libraryPath makes programs of the source tree use its libpq.
func (s *stage) libraryPath() []string {
	return []string{"LD_LIBRARY_PATH=" + strings.Join([]string{
		filepath.Join(s.source, "src/interfaces/libpq"), filepath.Join(s.source, "src/interfaces/ecpg/ecpglib"),
		filepath.Join(s.source, "src/interfaces/ecpg/pgtypeslib"), filepath.Join(s.source, "src/interfaces/ecpg/compatlib"),
	}, ":")}
}

// ecpgSuite is PostgreSQL's tests of embedded SQL in C: programs of ecpg's.
func ecpgSuite() suite {
	p := pgRegress{inPlace: true}
	return suite{
		name: "postgres-ecpg",
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.fetchSource(ctx); err != nil {
				return "", err
			}
			if err := s.make(ctx, "src/interfaces/ecpg"); err != nil {
				return "", err
			}
			if err := s.make(ctx, "src/interfaces/ecpg/test"); err != nil {
				return "", err
			}
			p.input = filepath.Join(s.source, "src/interfaces/ecpg/test")
			p.program, p.env = "./pg_regress", s.libraryPath()
			p.args = []string{
				"--dbname=ecpg1_regression,ecpg2_regression", "--create-role=regress_ecpg_user1,regress_ecpg_user2",
				"--schedule=./ecpg_schedule", "sql/twophase",
			}
			return fmt.Sprintf("ecpg's tests (%s)", filepath.Base(s.source)), nil
		},
		run: func(ctx context.Context, s *stage, t target) (results, error) { return p.run(ctx, s, t, "ecpg") },
	}
}
