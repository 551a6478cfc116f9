package backing

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is whom a server runs as.
type account struct {
	name     string
	uid, gid uint32
	switched bool // it is not who we are: only root may
}

// accountOf returns the account for a server: our own, but as root the first of
// names that exists, else nobody. The servers must not run as root: PostgreSQL
// refuses, and the others would let whoever reaches their port be root.
func accountOf(names []string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	var errs []error
	for _, name := range append(append([]string{}, names...), "nobody") {
		a, err := lookup(name)
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
	}
	return account{}, fmt.Errorf("no account to run as: %w", errors.Join(errs...))
}

func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	return account{name: name, uid: uint32(uid), gid: uint32(gid), switched: true}, nil
}

func (a account) credential() *syscall.Credential {
	if !a.switched {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// makeDir makes dir the account's alone, and finds out as that account whether
// it can be reached: a parent that is closed to others is not seen from root.
func (a account) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if !a.switched {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	probe := exec.Command("/bin/sh", "-c", `cd "$1" && test -w .`, "sh", dir)
	probe.Dir = "/"
	probe.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("account %s cannot reach %s: %w", a.name, dir, err)
	}
	return nil
}

// writeFile writes a file for the account's eyes only.
func (a account) writeFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	if a.switched {
		return os.Chown(path, int(a.uid), int(a.gid))
	}
	return nil
}

// dataRoot returns the directory below which the servers' own directories can
// lie: dir itself, or a temporary one where an account cannot reach dir.
func dataRoot(dir string, who []account) (string, error) {
	err := reachable(dir, who)
	if err == nil {
		return dir, nil
	}
	errs := []error{err}
	for _, parent := range []string{os.TempDir(), "/var/tmp", "/tmp"} {
		root, err := os.MkdirTemp(parent, "doorbuster-")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err = errors.Join(os.Chmod(root, 0o711), reachable(root, who)); err == nil {
			return root, nil
		}
		errs = append(errs, err, os.RemoveAll(root))
	}
	return "", fmt.Errorf("no place for the servers' data: %w", errors.Join(errs...))
}

func reachable(root string, who []account) error {
	probe := filepath.Join(root, "probe")
	defer func() { _ = os.RemoveAll(probe) }()
	for _, a := range who {
		if err := a.makeDir(probe); err != nil {
			return err
		}
	}
	return nil
}
