// Command conformance runs suites that lockkeeper's authors did not write, directly against PostgreSQL and through lockkeeper, and compares.
//
// The direct run is the oracle: a test whose result or output differs through
// lockkeeper is a difference, and one that differences.go does not explain
// makes the program fail. Versions are pinned here; sources are fetched when it
// runs, and none are kept. It fetches Debian's packages and sources, modules
// through Go's proxy, and packages from npm.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
)

func main() {
	runtime.LockOSThread() // lockkeeper ends with the thread that starts it, see childAttributes
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	fast := flags.Bool("fast", false, "only what needs nothing but Go and a PostgreSQL server: drivers' suites with no difference allowed")
	only := flags.String("only", "", "run only the suites whose name matches this `pattern`")
	docs := flags.String("docs", "", "keep the results in this `folder`'s compatibility, and write its compatibility.md of them")
	program := flags.String("lockkeeper", "", "run this `program` instead of building it")
	source := flags.String("source", "", "use this `folder` with PostgreSQL's configured source instead of fetching it")
	keep := flags.Bool("keep", false, "keep the folder with everything that the suites printed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	s := newStage(*fast, *keep)
	s.program, s.source = *program, *source
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	return runSuites(ctx, s, chosen(*fast, pattern), func(r *record) error { return publish(r, *docs) })
}

// publish shows a suite's record and, where there are documents, keeps it there.
func publish(r *record, docs string) error {
	fmt.Fprintln(os.Stdout, tables([]*record{r}))
	if docs == "" {
		return nil
	}
	dir := filepath.Join(docs, "compatibility")
	if err := r.keep(dir); err != nil {
		return err
	}
	records, err := kept(dir)
	if err != nil {
		return err
	}
	return writePage(filepath.Join(docs, "compatibility.md"), records)
}

// chosen are the suites to run. The fast ones need no package beyond those that
// internal/tools/setup.sh installs.
func chosen(fast bool, pattern *regexp.Regexp) []suite {
	all := fastSuites()
	if !fast {
		all = fullSuites()
	}
	var list []suite
	for _, u := range all {
		if pattern.MatchString(u.name) {
			list = append(list, u)
		}
	}
	return list
}

func fastSuites() []suite {
	return []suite{goSuite(libpq), goSuite(pgxCore)}
}

func fullSuites() []suite {
	return []suite{
		regressSuite("regress"), regressSuite("isolation"), contribSuite(), pipelineSuite(), ecpgSuite(),
		goSuite(pgxDriver), goSuite(libpq),
		mochaSuite("pg-cursor"),
		odooExercise(), psycopg3Exercise(), asyncpgExercise(), perlExercise(), jdbcExercise(),
		bouncerSuite("session"), bouncerExercise("session"), bouncerSuite("transaction"), bouncerExercise("transaction"),
	}
}
