package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// debianPackage is what to install where there is no PostgreSQL.
const debianPackage = "postgresql"

// binaries are the programs of one PostgreSQL installation.
type binaries struct {
	initdb, postgres string
}

// binaryDirs are the directories of PATH, and then those where Debian installs PostgreSQL, newest first.
func binaryDirs() ([]string, error) {
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(installed, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
	return append(filepath.SplitList(os.Getenv("PATH")), installed...), nil
}

// findBinaries takes both programs from the first directory that has both.
func findBinaries(dirs []string) (binaries, error) {
	for _, dir := range dirs {
		b := binaries{initdb: filepath.Join(dir, "initdb"), postgres: filepath.Join(dir, "postgres")}
		if executable(b.initdb) && executable(b.postgres) {
			return b, nil
		}
	}
	return binaries{}, fmt.Errorf("neither PATH nor /usr/lib/postgresql/*/bin has PostgreSQL's initdb and postgres: install it, on Debian with: apt-get install %s", debianPackage)
}

// majorVersion reads the 15 in /usr/lib/postgresql/15/bin; 0 if it is no number.
func majorVersion(dir string) int {
	version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return version
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
