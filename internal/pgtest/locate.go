package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// BinDirVariable is the environment variable that names the folder of the
// PostgreSQL binaries to use.
const BinDirVariable = "LOCKKEEPER_PG_BIN"

// ErrNoBinaries means that no PostgreSQL server is installed where this
// package looks.
var ErrNoBinaries = errors.New("no PostgreSQL server binaries found")

const howToInstall = `looked for initdb and postgres in $` + BinDirVariable + `, pg_config --bindir, /usr/lib/postgresql/*/bin and PATH.
Install a server, any supported major version:
  Debian, Ubuntu:  apt-get install postgresql     (or run internal/tools/setup.sh as root)
  Fedora:          dnf install postgresql-server
  macOS:           brew install postgresql
or name the folder of its binaries:  export ` + BinDirVariable + `=/path/to/postgresql/bin`

// BinDir returns the folder of the PostgreSQL binaries: $LOCKKEEPER_PG_BIN,
// what pg_config says, the newest of Debian's folders, or the folder in PATH.
// An error wraps ErrNoBinaries and tells how to install them.
func BinDir(ctx context.Context) (string, error) {
	if dir := os.Getenv(BinDirVariable); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("%w: $%s is %s, which has no initdb and postgres", ErrNoBinaries, BinDirVariable, dir)
		}
		return dir, nil
	}
	for _, dir := range candidates(ctx) {
		if hasServer(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrNoBinaries, howToInstall)
}

// InstalledBinDirs returns one folder of binaries for each PostgreSQL major
// version that Debian's packages installed, oldest first.
func InstalledBinDirs() []string {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil
	}
	installed := dirs[:0]
	for _, dir := range dirs {
		if hasServer(dir) {
			installed = append(installed, dir)
		}
	}
	sort.Slice(installed, func(i, j int) bool { return major(installed[i]) < major(installed[j]) })
	return installed
}

func candidates(ctx context.Context) []string {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	debian := InstalledBinDirs()
	for i := len(debian) - 1; i >= 0; i-- {
		dirs = append(dirs, debian[i])
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	return dirs
}

func hasServer(dir string) bool {
	return isProgram(filepath.Join(dir, "initdb")) && isProgram(filepath.Join(dir, "postgres"))
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// clientProgram returns the path of a client program for a server of a major
// version: the one beside the server, else one of Debian's packages that
// understands this server. "" is none.
func clientProgram(name, binDir string, server int) string {
	if path := filepath.Join(binDir, name); isProgram(path) {
		return path
	}
	for _, dir := range slices.Backward(InstalledBinDirs()) {
		path := filepath.Join(dir, name)
		if isProgram(path) && understands(name, major(dir), server) {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil && binDir == "" { // of a server that somebody else runs
		return path
	}
	return ""
}

// understands reports whether a program of one major version works with the
// server of another. Source: manual, the Notes of each program.
func understands(name string, program, server int) bool {
	switch name {
	case "psql", "pgbench":
		return true
	case "pg_waldump", "pg_ctl":
		return program == server
	default:
		return program >= server
	}
}

// major reads the version from a path such as /usr/lib/postgresql/15/bin.
func major(binDir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(binDir)))
	if err != nil {
		return 0
	}
	return n
}
