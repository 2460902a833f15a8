package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system's user that PostgreSQL runs as. PostgreSQL
// refuses to run as root; the zero account means "whoever runs the test".
type account struct {
	uid, gid uint32
	home     string
}

// unprivileged returns the account to drop to: none unless we are root.
func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), home: u.HomeDir}, nil
		}
	}
	return account{}, errors.New("running as root, and there is no user postgres or nobody to run PostgreSQL as: create one, or run as another user")
}

func (a account) credential() *syscall.Credential {
	if a.uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own gives path to the account.
func (a account) own(path string) error {
	if a.uid == 0 {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// ownAll gives everything below root to the account.
func (a account) ownAll(root string) error {
	if a.uid == 0 {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return a.own(path)
	})
}

// reaches checks that the account may pass every folder on the way to dir;
// otherwise initdb would fail with a message that does not say which.
func (a account) reaches(dir string) error {
	if a.uid == 0 {
		return nil
	}
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if info.Mode()&0o001 == 0 && (!ok || owner.Uid != a.uid || info.Mode()&0o100 == 0) {
			return fmt.Errorf("user %d, who PostgreSQL is run as because we are root, may not enter %s", a.uid, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}
