package host

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// EnsurePackages installs the Debian packages that are missing, with the given script, and says so on out.
func EnsurePackages(ctx context.Context, script string, out io.Writer, packages ...string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-s", "--"}, packages...)...) //nolint:gosec // our own script
	cmd.Stdin = strings.NewReader(script)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make sure that the Debian packages %s are installed: %w", strings.Join(packages, ", "), err)
	}
	return nil
}
