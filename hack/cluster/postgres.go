package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const (
	database       = "dory"
	postgresSocket = topology.RunDir + "/postgres"
)

// postgres runs Debian's server as the user postgres: it refuses root.
func (c *cluster) postgres(ctx context.Context) error {
	who, err := postgresUser()
	if err != nil {
		return err
	}
	bin, err := postgresBinaries()
	if err != nil {
		return err
	}
	data := c.statePath("postgres")
	for _, dir := range []string{data, postgresSocket} {
		if err := ownedDir(dir, who, 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Stat(data + "/PG_VERSION"); errors.Is(err, fs.ErrNotExist) {
		if _, err := host.RunAs(ctx, who, "", bin+"/initdb", "--pgdata", data, "--username", "postgres", "--encoding", "UTF8",
			"--locale", "C.UTF-8", "--auth-local", "peer", "--auth-host", "scram-sha-256", "--no-sync"); err != nil {
			return err
		}
	}
	hba := data + "/pg_hba.conf"
	if err := writeFile(hba, []byte(c.accessRules()), 0o644); err != nil {
		return err
	}
	if err := clearStaleLock(ctx, data); err != nil {
		return err
	}
	if err := c.ensure(ctx, c.postgresComponent(bin, data, hba, who)); err != nil {
		return err
	}
	return c.createDatabase(ctx, bin, who)
}

func (c *cluster) postgresComponent(bin, data, hba string, who *syscall.Credential) component {
	return component{
		Spec: process.Spec{
			Name: "postgres", Path: bin + "/postgres", Credential: who, Files: []string{hba},
			Args: []string{
				"-D", data, "-k", postgresSocket, "-h", c.plan.Host.String(), "-p", strconv.Itoa(int(c.options.DatabasePort)),
				"-c", "max_connections=200",
			},
		},
		healthy: func(ctx context.Context) error {
			_, err := c.psql(ctx, bin, who, "postgres", "SELECT 1")
			return err
		},
	}
}

// clearStaleLock removes the locks of a server that was killed and that nobody has waited for: PostgreSQL takes such a
// zombie for alive. Its sessions may live on for a moment, and must not write beside those of a new server.
func clearStaleLock(ctx context.Context, data string) error {
	lock := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(lock) //nolint:gosec // the cluster's own
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read PostgreSQL's lock: %w", err)
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || process.Running(pid) {
		return nil // a server's own matter
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the killed server's sessions do not end"))
	defer cancel()
	if err := poll(ctx, 50*time.Millisecond, func(context.Context) error {
		if pids := process.WorkingIn(data); len(pids) > 0 {
			return fmt.Errorf("PostgreSQL processes %v work in %s", pids, data)
		}
		return nil
	}); err != nil {
		return err
	}
	locks, _ := filepath.Glob(postgresSocket + "/.s.PGSQL.*.lock") //nolint:errcheck // the pattern is well-formed
	for _, file := range append(locks, lock) {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove the lock of a killed PostgreSQL server: %w", err)
		}
	}
	return nil
}

// accessRules let the user postgres in over the socket, and everybody in the cluster's range with a password.
func (c *cluster) accessRules() string {
	return fmt.Sprintf("local all postgres peer\nhost all all %s scram-sha-256\n", c.plan.Range)
}

func (c *cluster) createDatabase(ctx context.Context, bin string, who *syscall.Credential) error {
	password, err := c.databasePassword()
	if err != nil {
		return err
	}
	create := fmt.Sprintf(`SELECT 'CREATE ROLE %[1]s LOGIN CREATEDB' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s')\gexec
ALTER ROLE %[1]s PASSWORD '%[2]s';
SELECT 'CREATE DATABASE %[1]s OWNER %[1]s' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '%[1]s')\gexec
`, database, password)
	_, err = c.psql(ctx, bin, who, "postgres", create)
	return err
}

func (c *cluster) psql(ctx context.Context, bin string, who *syscall.Credential, db, script string) (string, error) {
	return host.RunAs(ctx, who, script, bin+"/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
		"--set", "ON_ERROR_STOP=1", "--host", postgresSocket, "--port", strconv.Itoa(int(c.options.DatabasePort)),
		"--username", "postgres", "--dbname", db)
}

// databasePassword reads the password, and draws one the first time.
func (c *cluster) databasePassword() (string, error) {
	file := c.statePath("database-password")
	data, err := os.ReadFile(file) //nolint:gosec // the cluster's own
	if errors.Is(err, fs.ErrNotExist) {
		password := rand.Text()
		return password, writeFile(file, []byte(password), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("read the database's password: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (c *cluster) databaseURL() (string, error) {
	password, err := c.databasePassword()
	return fmt.Sprintf("postgres://%[1]s:%[2]s@%[3]s:%[4]d/%[1]s?sslmode=disable",
		database, password, c.plan.Host, c.options.DatabasePort), err
}

func (c *cluster) printDatabaseURL() error {
	if owner() == "" {
		return c.printIfUp("")
	}
	url, err := c.databaseURL()
	if err != nil {
		return err
	}
	return c.printIfUp(url)
}

func postgresUser() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("the package postgresql should have made the user postgres: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("the user postgres has uid %q: %w", u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("the user postgres has gid %q: %w", u.Gid, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// postgresBinaries finds the newest server that is installed.
func postgresBinaries() (string, error) {
	servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") //nolint:errcheck // the pattern is well-formed
	if len(servers) == 0 {
		return "", errors.New("no PostgreSQL server in /usr/lib/postgresql: install the package postgresql")
	}
	newest := slices.MaxFunc(servers, func(a, b string) int { return postgresVersion(a) - postgresVersion(b) })
	return filepath.Dir(newest), nil
}

func postgresVersion(path string) int {
	version, _ := strconv.Atoi(strings.Split(path, "/")[4]) //nolint:errcheck // an odd name is the oldest
	return version
}
