// Command placement compares Dory's placement with the real kube-scheduler: on the same API server, the same nodes that kwok
// plays and the same pods, in the same run, one after the other.
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
	flag.IntVar(&b.nodes, "nodes", 500, "How many nodes.")
	flag.IntVar(&b.pods, "pods", 5000, "How many pods in each round.")
	flag.IntVar(&b.rounds, "rounds", 3, "How many rounds of each side. The median counts.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.operator, "operator", "bin/dory-operator", "The operator to measure.")
	flag.StringVar(&b.profiler.Dir, "profiles", "", "Directory for pprof profiles of the operator and the API server. Empty: none.")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-placement:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
