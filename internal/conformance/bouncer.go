package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"lockkeeper/internal/pgtest"
)

// chains starts PgBouncer and lockkeeper in both orders. PgBouncer alone, in the
// same mode, is the oracle, and comes first.
func (s *stage) chains(ctx context.Context, mode string) ([]target, error) {
	if s.chained[mode] != nil {
		return s.chained[mode], nil
	}
	alone, err := s.startBouncer(ctx, "alone-"+mode, mode, s.postgres.Port())
	if err != nil {
		return nil, err
	}
	alone.says = "PgBouncer, " + mode + " mode, alone"
	front, err := s.startBouncer(ctx, "front-"+mode, mode, s.guards[0].target.port)
	if err != nil {
		return nil, err
	}
	front.says = "PgBouncer in front, " + mode + " mode"
	back, err := s.startBouncer(ctx, "back-"+mode, mode, s.postgres.Port())
	if err != nil {
		return nil, err
	}
	g, err := s.startGuard(ctx, target{name: "before-" + mode, says: "PgBouncer behind, " + mode + " mode"}, back.port, allowsAll)
	if err != nil {
		return nil, err
	}
	s.guards = append(s.guards, g)
	s.chained[mode] = []target{alone, front, g.target}
	return s.chained[mode], nil
}

// startBouncer starts PgBouncer in front of a port.
func (s *stage) startBouncer(ctx context.Context, name, mode string, server int) (target, error) {
	b, err := pgtest.RunBouncer(ctx, pgtest.BouncerConfig{Server: net.JoinHostPort("127.0.0.1", strconv.Itoa(server)), Settings: map[string]string{
		"pool_mode": mode, "default_pool_size": "20", "max_client_conn": "200", "ignore_startup_parameters": "extra_float_digits",
	}})
	if err != nil {
		return target{}, err
	}
	s.bouncers = append(s.bouncers, b)
	return target{name: name, host: "127.0.0.1", port: b.Port()}, nil
}

func (s *stage) stopBouncers() error {
	var errs []error
	for _, b := range s.bouncers {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// bouncerSuite runs pgbench through PgBouncer and lockkeeper: how many
// transactions failed, and whether the money is all there.
func bouncerSuite(mode string) suite {
	var ways []target
	return suite{
		name: "pgbouncer-" + mode + "-pgbench",
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.fresh(ctx, "bench"); err != nil {
				return "", err
			}
			if err := s.command(ctx, "", nil, filepath.Join(s.bin, "pgbench"), "-i", "-q", "-s", "2", "-h", "127.0.0.1", "-p",
				strconv.Itoa(s.postgres.Port()), "-U", "postgres", "bench"); err != nil {
				return "", err
			}
			var err error
			if ways, err = s.chains(ctx, mode); err != nil {
				return "", err
			}
			version, err := s.bouncerVersion(ctx)
			return fmt.Sprintf("pgbench, PgBouncer %s, %s mode", version, mode), err
		},
		ways: func(*stage) []target { return ways },
		run:  benchProtocols,
	}
}

func (s *stage) bouncerVersion(ctx context.Context) (string, error) {
	version, err := s.packageVersion(ctx, "pgbouncer")
	version, _, _ = strings.Cut(version, "-")
	return version, err
}

// benchProtocols runs each of pgbench's protocols, a bounded number of
// transactions, with clients that stay and with clients that connect anew.
func benchProtocols(ctx context.Context, s *stage, t target) (results, error) {
	r := results{}
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for name, args := range map[string][]string{
			protocol:                    {"-c", "20", "-j", "2", "-t", "100"},
			protocol + ", reconnecting": {"-C", "-c", "4", "-j", "2", "-t", "25"},
			protocol + ", read only":    {"-S", "-c", "20", "-j", "2", "-t", "200"},
		} {
			all := append([]string{"-n", "-M", protocol, "-h", t.host, "-p", strconv.Itoa(t.port), "-U", "postgres"}, args...)
			err := s.try(ctx, "", nil, filepath.Join(s.bin, "pgbench"), append(all, "bench")...)
			r[name] = benchResult(string(s.last), err)
		}
	}
	balance, err := s.balance(ctx)
	maps.Copy(r, balance)
	return r, errors.Join(err, s.alive())
}

var (
	processed = regexp.MustCompile(`number of transactions actually processed: (\d+/\d+)`)
	aborted   = regexp.MustCompile(`(?m)^pgbench: error: client \d+ (.*)$`)
)

// benchResult leaves out what is not the same twice: times, and how far a
// client got before it gave up.
func benchResult(out string, err error) result {
	m := processed.FindStringSubmatch(out)
	if err == nil && m != nil {
		return result{status: passed, output: m[1]}
	}
	one := result{status: failed}
	if aborted.MatchString(out) {
		one.output = "clients gave up"
	}
	return one
}

// balance compares the sums that pgbench's transactions keep equal.
func (s *stage) balance(ctx context.Context) (results, error) {
	rows, err := s.postgres.Query(ctx, "bench", `SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
		AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)`)
	if err != nil {
		return nil, err
	}
	one := result{status: failed}
	if rows[0][0] == "t" {
		one.status = passed
	}
	return results{"the sums agree": one}, nil
}

// bouncerExercise is Odoo's exercise over the same chains.
func bouncerExercise(mode string) suite {
	var ways []target
	e := exercise{run: []string{"/usr/bin/python3", "odoo.py"}}
	return suite{
		name: "pgbouncer-" + mode + "-odoo",
		prepare: func(ctx context.Context, s *stage) (string, error) {
			if err := s.writeExercises(); err != nil {
				return "", err
			}
			var err error
			if ways, err = s.chains(ctx, mode); err != nil {
				return "", err
			}
			version, err := s.bouncerVersion(ctx)
			return fmt.Sprintf("psycopg2's exercise, PgBouncer %s, %s mode", version, mode), err
		},
		ways: func(*stage) []target { return ways },
		run:  e.once,
	}
}
