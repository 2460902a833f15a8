package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// initData fills the data directory: initdb costs seconds, so it runs once for
// each version and set of arguments, and its result is kept and copied.
func (s *Server) initData(ctx context.Context) error {
	args := append([]string{
		"--no-sync", "--auth=trust", "--username=" + Superuser, "--encoding=UTF8", "--locale=C", "--no-instructions",
	}, s.config.InitDB...)
	cache, err := cacheDir()
	if err != nil {
		return s.initdb(ctx, s.dataDir(), args) // slower, but right
	}
	template, err := s.template(ctx, cache, args)
	if err != nil {
		return err
	}
	if err := copyTree(template, s.dataDir()); err != nil {
		return fmt.Errorf("copy the template data directory: %w", err)
	}
	return s.account.ownAll(s.dataDir())
}

// template returns the kept data directory for args, and makes it when it is
// not there. A lock lets one of several test binaries do that.
func (s *Server) template(ctx context.Context, cache string, args []string) (string, error) {
	version, err := exec.CommandContext(ctx, filepath.Join(s.binDir, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask postgres for its version: %w", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, s.binDir, "\n", string(version), strings.Join(args, "\n")))
	final := filepath.Join(cache, "data-"+hex.EncodeToString(sum[:8]))
	unlock, err := lockFile(final + ".lock")
	if err != nil {
		return "", fmt.Errorf("lock the template data directory: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	fresh := filepath.Join(s.dir, "template")
	if err := s.initdb(ctx, fresh, args); err != nil {
		return "", err
	}
	partial := final + ".partial" // ours alone: we hold the lock
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	if err := copyTree(fresh, partial); err != nil {
		return "", fmt.Errorf("keep the template data directory: %w", err)
	}
	if err := os.Rename(partial, final); err != nil {
		return "", err
	}
	return final, os.RemoveAll(fresh)
}

func (s *Server) initdb(ctx context.Context, dir string, args []string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, "initdb"), append(args, "--pgdata="+dir)...)
	cmd.Dir = s.dir
	cmd.Env = s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "lockkeeper", "pgtest")
	return dir, os.MkdirAll(dir, 0o700)
}

// lockFile takes an exclusive lock that other processes respect and that ends
// with this one.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// copyTree copies folders and plain files with their permissions.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}
