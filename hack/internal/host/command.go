// Package host changes this machine's network, mounts and cgroups, and puts them back.
package host

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// Run runs a command and returns its output; its error holds the command line and what it printed.
func Run(ctx context.Context, name string, args ...string) (string, error) {
	return RunAs(ctx, nil, "", name, args...)
}

// RunAs is Run as another user and with something on standard input.
func RunAs(ctx context.Context, who *syscall.Credential, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // which command is the caller's choice
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
