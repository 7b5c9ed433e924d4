// Command handoff measures moves on a cluster with real kubelets: for how long a processor stands still while it is moved,
// and whether an iteration is lost or done twice. The measure is the processors' own log on one clock. Beside the live
// move it measures the other strategies, what a user does without Dory, and the transfer of a large state against a
// plain HTTP copy.
//
// It reads the logs from the nodes' files, so the nodes must be on this machine: test/bench/handoff/run brings the local
// cluster up, and installs Dory on it.
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
	short := flag.Bool("short", false, "Move only a few times, to see that all works; the figures say little.")
	flag.IntVar(&b.moves, "moves", 100, "How many live moves with 64 KiB of state, and how many with 8 MiB.")
	flag.IntVar(&b.others, "others", 10, "How many moves with Overlap, how many with StopAndCopy, and how many deletions of a StatefulSet's pod.")
	flag.IntVar(&b.transfers, "transfers", 40, "How often 8 MiB are transferred, and how often copied plainly.")
	flag.IntVar(&b.lanes, "lanes", 1, "How many processors move at a time. The more, the sooner it is over, and the more they are in each other's way.")
	flag.DurationVar(&b.interval, "interval", 2*time.Millisecond, "The counters' pause between two iterations, by which a pause may be longer than it need be.")
	flag.StringVar(&b.root, "root", ".", "The repository.")
	flag.StringVar(&b.podLogs, "pod-logs", "", "Where the nodes keep the logs of pods, as a pattern. Default: where the local cluster does.")
	flag.StringVar(&b.counterImage, "counter-image", "dory-counter:dev", "The image of examples/counter.")
	flag.StringVar(&b.peerImage, "peer-image", "dory-bench-peer:dev", "The image of test/bench/handoff/peer.")
	flag.StringVar(&b.keepLogs, "keep-logs", "", "Directory for what the counters printed. Empty: it is not kept.")
	flag.Parse()
	if *short {
		b.moves, b.others, b.transfers = 4, 2, 10
	}
	if b.podLogs == "" {
		b.podLogs = cluster.PodLogs(b.root)
	}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-handoff:", errors.Join(err, context.Cause(ctx)))
		os.Exit(1)
	}
}
