// Command scale compares the time until N one-replica StatefulSets run, through kube-controller-manager, with the time
// until N Processors run, through Dory: on the same API server, with the same kube-scheduler, the same nodes that kwok
// plays, the same pods, in the same run.
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
	flag.IntVar(&b.n, "n", 2000, "How many StatefulSets and how many Processors.")
	flag.IntVar(&b.nodes, "nodes", 500, "How many nodes.")
	flag.StringVar(&b.order, "order", orderStatefulSetsFirst, orderStatefulSetsFirst+" or "+orderDoryFirst+".")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.operator, "operator", "bin/dory-operator", "The operator to measure.")
	flag.Func("operator-flag", "A flag for the operator, such as --concurrency=16. May be given more than once.", func(value string) error {
		b.operatorFlags = append(b.operatorFlags, value)
		return nil
	})
	flag.StringVar(&b.profiler.Dir, "profiles", "", "Directory for pprof profiles of the operator and the API server. Empty: none.")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-scale:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
