package pgtest

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

// dirPattern names the servers' directories in the system's temporary directory.
const dirPattern = "dory-pgtest-*"

// dataDir is a server's directory: data, sockets, and a lock that is held while its owner lives.
type dataDir struct {
	path       string
	lock       *os.File
	credential *syscall.Credential // nil: run as ourselves
}

// newDataDir makes a directory, after it removed those of test binaries that were killed.
func newDataDir() (*dataDir, error) {
	removeStale()
	credential, err := serverCredential()
	if err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp("", dirPattern)
	if err != nil {
		return nil, fmt.Errorf("directory for PostgreSQL: %w", err)
	}
	d := &dataDir{path: path, credential: credential}
	if d.lock, err = createLock(path); err == nil {
		err = errors.Join(os.Mkdir(filepath.Join(path, "s"), 0o700), d.own(path), d.own(filepath.Join(path, "s")))
	}
	if err != nil {
		d.remove()
		return nil, fmt.Errorf("directory for PostgreSQL: %w", err)
	}
	return d, nil
}

func (d *dataDir) own(path string) error {
	if d.credential == nil {
		return nil
	}
	return os.Chown(path, int(d.credential.Uid), int(d.credential.Gid))
}

func (d *dataDir) data() string { return filepath.Join(d.path, "data") }

// command runs a PostgreSQL program as the directory's owner. The program dies with us.
func (d *dataDir) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:noctx // It lives as long as the server; end stops it.
	cmd.Dir = d.path
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PGDATA=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.credential, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

func (d *dataDir) remove() {
	if d.lock != nil {
		_ = d.lock.Close() // Read-only use: nothing can be lost.
	}
	if err := os.RemoveAll(d.path); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest: leaving", d.path, "behind:", err)
	}
}

// serverCredential is who runs the server: PostgreSQL refuses to run as root.
func serverCredential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // No credential means our own.
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and %w: install the Debian package %q or run the tests as another user", err, debianPackage)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, fmt.Errorf("account postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// lockName is the file whose lock says that the directory is in use.
const lockName = "lock"

// createLock makes the lock file, which gets its name when it is locked: others never see it unlocked while
// we live. The kernel lets go of it when we die.
func createLock(path string) (*os.File, error) {
	unnamed := filepath.Join(path, lockName+".new")
	file, err := takeLock(unnamed, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return file, os.Rename(unnamed, filepath.Join(path, lockName))
}

func takeLock(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// removeStale removes directories whose owner was killed. One without a lock file is in the making.
func removeStale() {
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), dirPattern))
	if err != nil {
		return // Only a bad pattern can do that, and tidying is not worth a failed test.
	}
	for _, path := range paths {
		if lock, err := takeLock(filepath.Join(path, lockName), 0); err == nil {
			(&dataDir{path: path, lock: lock}).remove()
		}
	}
}
