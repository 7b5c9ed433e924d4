// Command drain measures drains by the upstream kubectl on a cluster with real kubelets: a node with many processors, there
// and back, and the same with StatefulSets of one replica that run the same pods. The measure is the processors' own log
// on one clock.
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

	"github.com/dory-io/dory/test/bench/cluster"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	b := &bench{clock: clock.RealClock{}}
	flag.IntVar(&b.processors, "processors", 30, "How many processors are on the node, and how many StatefulSets.")
	flag.IntVar(&b.rounds, "rounds", 10, "How often the node is drained, and then the one to which all have moved.")
	flag.DurationVar(&b.interval, "interval", 10*time.Millisecond, "The counters' pause between two iterations.")
	flag.DurationVar(&b.flush, "flush", 100*time.Millisecond, "For how long the counters hold back what they print, which carries its own time. With 0s, collecting a line at a time takes more of the machine than the counters do.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.kubectl, "kubectl", "bin/k8s/kubectl", "The upstream kubectl.")
	flag.StringVar(&b.podLogs, "pod-logs", "", "Where the nodes keep the logs of pods, as a pattern. Default: where the local cluster does.")
	flag.StringVar(&b.counterImage, "counter-image", "dory-counter:dev", "The image of examples/counter.")
	flag.StringVar(&b.keepLogs, "keep-logs", "", "Directory for what the counters printed. Empty: it is not kept.")
	flag.Parse()
	if b.podLogs == "" {
		b.podLogs = cluster.PodLogs(b.root)
	}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-drain:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
