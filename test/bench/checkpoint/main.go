// Command checkpoint measures what it costs the operator to keep the states of many processors safe, and how old the
// copies get. API server, PostgreSQL and the operator are real; the processors are HTTP servers in this process that speak
// the contract, each on a loopback address of its own, and this process plays the kubelet that runs their pods.
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
	flag.IntVar(&b.processors, "processors", 2000, "How many processors there are.")
	flag.IntVar(&b.stateBytes, "state-bytes", 16<<10, "How large each state is.")
	flag.DurationVar(&b.interval, "interval", 30*time.Second, "spec.state.checkpointInterval.")
	flag.IntVar(&b.intervals, "intervals", 3, "For how many intervals the operator is watched.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.operator, "operator", "bin/dory-operator", "The operator to measure.")
	flag.Func("operator-flag", "A flag for the operator, such as --concurrency=16. May be given more than once.", func(value string) error {
		b.operatorFlags = append(b.operatorFlags, value)
		return nil
	})
	flag.StringVar(&b.profiler.Dir, "profiles", "", "Directory for pprof profiles of the operator and the API server. Empty: none.")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-checkpoint:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
