// Command dory-operator keeps stateful singleton workloads alive on Kubernetes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/go-logr/zapr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:], os.LookupEnv, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "dory-operator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, lookupEnv func(string) (string, bool), stderr io.Writer) error {
	opts, err := parseOptions(args, lookupEnv, stderr)
	if err != nil {
		return err
	}
	logger, err := newZap(opts.logLevel)
	if err != nil {
		return err
	}
	defer func() { _ = logger.Sync() }() // stderr cannot be synced on every system, and there is nobody to tell
	ctrl.SetLogger(zapr.NewLogger(logger))
	operator, err := newOperator(ctx, opts)
	if err != nil {
		return err
	}
	return operator.run(ctx)
}
