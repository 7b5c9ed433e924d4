//go:build !unix

package sdk

// lockFile locks nothing where there is no flock: processors run in Linux containers, and elsewhere only on somebody's
// desk, alone.
func lockFile(string) (unlock func(), err error) { return func() {}, nil }

func tryLockFile(string) (heldBy string, err error) { return "", nil }

func syncDir(string) error { return nil }
