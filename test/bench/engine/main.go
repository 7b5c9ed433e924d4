// Command engine measures the placement engine alone, in one goroutine: how many decisions a second it makes in a full
// cluster, for plain pods and for pods with constraints, how long it takes to take in an event, and its memory.
package main

import (
	"flag"
	"fmt"
	"os"

	"k8s.io/utils/clock"
)

func main() {
	b := &bench{clock: clock.RealClock{}}
	flag.IntVar(&b.nodes, "nodes", 5000, "How many nodes.")
	flag.IntVar(&b.pods, "pods", 50000, "How many pods are in their place.")
	flag.IntVar(&b.plain, "plain", 200000, "How many decisions for plain pods.")
	flag.IntVar(&b.constrained, "constrained", 20000, "How many decisions for pods with selectors, tolerations, spreading and anti-affinity.")
	flag.IntVar(&b.events, "events", 100000, "How many events.")
	flag.Uint64Var(&b.seed, "seed", 1, "Seed of everything random.")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-engine:", err)
		os.Exit(1)
	}
}
