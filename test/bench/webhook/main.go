// Command webhook measures how soon evictions are answered: a burst of evictions of running processors, in a cluster with
// many more of them, and evictions of other pods, which the webhook must not be asked about. API server, PostgreSQL,
// scheduler and the operator are real; kwok plays the nodes, so that the moves that follow find nobody to talk to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/utils/clock"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	b := &bench{clock: clock.RealClock{}}
	flag.IntVar(&b.processors, "processors", 2000, "How many processors there are.")
	flag.IntVar(&b.evictions, "evictions", 1000, "How many of them are evicted at once.")
	flag.IntVar(&b.others, "others", 200, "How many other pods are evicted.")
	flag.IntVar(&b.connections, "connections", 8, "Over how many connections to the API server.")
	flag.IntVar(&b.nodes, "nodes", 50, "How many nodes.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.operator, "operator", "bin/dory-operator", "The operator to measure.")
	flag.Func("operator-flag", "A flag for the operator, such as --concurrency=16. May be given more than once.", func(value string) error {
		b.operatorFlags = append(b.operatorFlags, value)
		return nil
	})
	flag.StringVar(&b.profiler.Dir, "profiles", "", "Directory for pprof profiles of the operator and the API server. Empty: none.")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-webhook:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
