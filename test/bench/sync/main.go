// Command sync measures the way from database rows to Kubernetes: how long a change of a row takes until its Processor
// and its pod follow, how long a restarted operator needs to find that nothing is to be done, and what it costs at rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/utils/clock"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	b := &bench{clock: clock.RealClock{}}
	flag.IntVar(&b.rows, "rows", 10000, "How many rows there are.")
	flag.IntVar(&b.nodes, "nodes", 500, "How many nodes.")
	flag.IntVar(&b.rate, "rate", 50, "How many rows change in a second.")
	flag.DurationVar(&b.changing, "changing", time.Minute, "For how long rows change.")
	flag.IntVar(&b.inserts, "inserts", 20, "How many of 100 changes are new rows, which need a new pod; the others change the spec of a suspended processor, which has none.")
	flag.DurationVar(&b.resting, "resting", time.Minute, "For how long the operator is watched at rest.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.operator, "operator", "bin/dory-operator", "The operator to measure.")
	flag.Func("operator-flag", "A flag for the operator, such as --concurrency=16. May be given more than once.", func(value string) error {
		b.operatorFlags = append(b.operatorFlags, value)
		return nil
	})
	flag.StringVar(&b.profiler.Dir, "profiles", "", "Directory for pprof profiles of the operator and the API server. Empty: none.")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-sync:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
