package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packages are what the full run needs of Debian 12.
var packages = []string{
	"postgresql-15", "postgresql-server-dev-15", "libpq-dev", "dpkg-dev", "gcc", "libc6-dev", "make", "perl",
	"pgbouncer", "nodejs", "npm",
	"python3-psycopg2", "python3-psycopg", "python3-asyncpg", "libdbd-pg-perl", "libpostgresql-jdbc-java", "default-jdk-headless",
}

// installPackages installs what is missing; a machine that has everything is
// not touched, and no server is started on it.
func (s *stage) installPackages(ctx context.Context) error {
	var missing []string
	for _, name := range packages {
		if !s.installed(ctx, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(s.out, "installing %s\n", strings.Join(missing, " "))
	if err := s.command(ctx, "", nil, "apt-get", "-q", "update"); err != nil {
		return err
	}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	return s.command(ctx, "", env, "apt-get", append([]string{"-q", "-y", "--no-install-recommends", "install"}, missing...)...)
}

// installed also takes a program of that name for a package of Debian's: npm
// and Node.js come from elsewhere on many machines.
func (s *stage) installed(ctx context.Context, name string) bool {
	switch name {
	case "nodejs", "npm", "default-jdk-headless":
		program := map[string]string{"nodejs": "node", "npm": "npm", "default-jdk-headless": "javac"}[name]
		if _, err := exec.LookPath(program); err == nil {
			return true
		}
	}
	return s.try(ctx, "", nil, "dpkg-query", "-W", "-f", "${db:Status-Status}", name) == nil && string(s.last) == "installed"
}

// packageVersion is the version of an installed package.
func (s *stage) packageVersion(ctx context.Context, name string) (string, error) {
	err := s.command(ctx, "", nil, "dpkg-query", "-W", "-f", "${Version}", name)
	return strings.TrimSpace(string(s.last)), err
}

// fetchSource gets PostgreSQL's source from Debian and configures it. The index
// of sources is this program's own: the machine's package lists stay as they are.
func (s *stage) fetchSource(ctx context.Context) error {
	if s.source != "" {
		return nil
	}
	options, err := s.sourceLists()
	if err != nil {
		return err
	}
	if err := s.command(ctx, s.dir, nil, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	if err := s.command(ctx, s.dir, nil, "apt-cache", append(options, "showsrc", "postgresql-15")...); err != nil {
		return err
	}
	for _, version := range sourceVersions(string(s.last)) {
		fmt.Fprintf(s.out, "fetching the source of PostgreSQL %s\n", version)
		// Not every mirror has the newest one yet.
		if s.try(ctx, s.dir, nil, "apt-get", append(options, "source", "--download-only", "postgresql-15="+version)...) == nil {
			return s.unpackSource(ctx)
		}
	}
	return errors.New("no version of PostgreSQL's source can be had")
}

func (s *stage) sourceLists() ([]string, error) {
	for _, dir := range []string{s.path("apt", "lists", "partial"), s.path("apt", "sources")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	files, err := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	if err != nil {
		return nil, err
	}
	for _, name := range append(files, "/etc/apt/sources.list") {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		text := regexp.MustCompile(`(?m)^Types:.*`).ReplaceAllString(string(b), "Types: deb deb-src")
		text = regexp.MustCompile(`(?m)^deb (.*)`).ReplaceAllString(text, "deb $1\ndeb-src $1")
		if err := os.WriteFile(s.path("apt", "sources", filepath.Base(name)), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return []string{
		"-q", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=" + s.path("apt", "sources"),
		"-o", "Dir::State::Lists=" + s.path("apt", "lists"), "-o", "APT::Sandbox::User=root",
	}, nil
}

// sourceVersions are the versions in what apt-cache showsrc printed, newest
// first. They differ in the minor version alone, a number after "15.".
func sourceVersions(showsrc string) []string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^Version: (15\.\S+)`).FindAllStringSubmatch(showsrc, -1) {
		list = append(list, m[1])
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(-cmp.Compare(len(a), len(b)), -strings.Compare(a, b)) })
	return slices.Compact(list)
}

func (s *stage) unpackSource(ctx context.Context) error {
	archives, err := filepath.Glob(s.path("postgresql-15_*.orig.tar.*"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("want one archive of the source: %q, %w", archives, err)
	}
	if err := s.command(ctx, s.dir, nil, "tar", "-xf", archives[0]); err != nil {
		return err
	}
	trees, err := filepath.Glob(s.path("postgresql-15.*", "configure"))
	if err != nil || len(trees) != 1 {
		return fmt.Errorf("want one tree of the source: %q, %w", trees, err)
	}
	tree := filepath.Dir(trees[0])
	fmt.Fprintln(s.out, "configuring it")
	// Only test programs are built of it: what they leave out does not matter.
	if err := s.command(ctx, tree, nil, "./configure", "--without-readline", "--without-zlib", "CFLAGS=-O1"); err != nil {
		return err
	}
	s.source = tree
	return s.make(ctx, "src/backend", "generated-headers") // whatever is built first needs them
}

// make makes a folder of the source tree.
func (s *stage) make(ctx context.Context, dir string, args ...string) error {
	fmt.Fprintf(s.out, "building %s\n", dir)
	return s.command(ctx, filepath.Join(s.source, dir), nil, "make", append([]string{"-s", "-j2"}, args...)...)
}
