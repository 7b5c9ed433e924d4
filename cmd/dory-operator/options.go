package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/dory-io/dory/internal/controller/drain"
	"github.com/dory-io/dory/internal/scheduler"
)

type options struct {
	databaseURL       string
	databaseDirectURL string
	followSecret      bool
	resyncInterval    time.Duration
	maxDeletionShare  float64

	imagePullSecret string
	discoverSDK     bool
	concurrency     int

	checkpoints           bool
	checkpointConcurrency int
	migrationConcurrency  int

	placement       bool
	placementBuffer int

	proactiveDrain bool
	drainPatience  time.Duration
	drainPerNode   int
	drainParallel  int

	webhookPort         int
	webhookCertificates string
	features            features

	metricsAddress string
	probeAddress   string
	pprofAddress   string
	leaderElect    bool
	leaderElectNS  string
	logLevel       zapcore.Level
}

// parseOptions reads the flags. The database's URL may hold a password, so it can come from the environment,
// which a process list does not show.
func parseOptions(args []string, lookupEnv func(string) (string, bool), stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("dory-operator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o.register(flags)
	ctrlconfig.RegisterFlags(flags)
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: every option is a flag, see --help", flags.Arg(0))
	}
	o.fromEnv(lookupEnv)
	return o, o.validate()
}

func (o *options) register(flags *flag.FlagSet) {
	flags.StringVar(&o.databaseURL, "database-url", "", "PostgreSQL URL of the desired state (or environment DORY_DATABASE_URL). Empty: custom resources alone.")
	flags.StringVar(&o.databaseDirectURL, "database-direct-url", "", "URL past a transaction-pooling proxy, for LISTEN and migrations (or environment DORY_DATABASE_DIRECT_URL). Default: --database-url.")
	flags.BoolVar(&o.followSecret, "follow-database-secret", false, "Start Deployment dory-operator anew when the URL in Secret dory-database is another one than this process was started with; config/manager sets it.")
	flags.DurationVar(&o.resyncInterval, "resync-interval", 30*time.Second, "How often all rows and all objects are compared.")
	flags.Float64Var(&o.maxDeletionShare, "max-deletion-share", 0.2, "The largest share of the database-owned objects that a resync may delete without a person's approval: above 0, up to 1.")
	flags.StringVar(&o.imagePullSecret, "image-pull-secret", "ecr-registry-secret", "Name of the image pull secret to use in namespaces that have it. Empty: none.")
	flags.BoolVar(&o.discoverSDK, "discover-sdk", true, "Ask every new instance over HTTP for its SDK version and liveness path.")
	flags.IntVar(&o.concurrency, "concurrency", 8, "How many Processors are reconciled at once.")
	flags.BoolVar(&o.checkpoints, "checkpoints", true, "Copy the state of running processors on their interval. Without it a crash loses what a processor did not save by itself.")
	flags.IntVar(&o.checkpointConcurrency, "checkpoint-concurrency", 32, "How many processors are asked for their state at once.")
	flags.IntVar(&o.migrationConcurrency, "migration-concurrency", 16, "How many processors move at once.")
	flags.BoolVar(&o.placement, "placement", true, "Find nodes for the pods whose spec.schedulerName is dory-scheduler: those of processors with spec.placement.scheduler dory, and any others.")
	flags.IntVar(&o.placementBuffer, "placement-buffer-percent", scheduler.DefaultBufferPercent, "How much of every node's CPU and memory placement keeps free. A pod that would fit nowhere else gets it after half a minute.")
	flags.BoolVar(&o.proactiveDrain, "proactive-drain", false, "Move processors off a node that is cordoned, or tainted NoSchedule against them, before anybody evicts. Nodes that are announced for removal are emptied in any case.")
	flags.DurationVar(&o.drainPatience, "drain-patience", drain.DefaultPatience, "How long whoever drains nodes waits for a pod. A move that cannot end within it gives way to a restart of the processor elsewhere from its state, unless spec.migration.drainFallback is Never.")
	flags.IntVar(&o.drainPerNode, "drain-parallel-per-node", drain.DefaultPerNode, "How many processors drains move off one node at once.")
	flags.IntVar(&o.drainParallel, "drain-parallel", drain.DefaultTotal, "How many processors drains move at once in all.")
	flags.IntVar(&o.webhookPort, "webhook-port", 0, "Port where the API server asks about evictions; config/manager sets 9443. 0: nobody may ask.")
	flags.StringVar(&o.webhookCertificates, "webhook-certificates", certificatesOwn, "Own: the leader makes and replaces the webhook's certificate, and has the API server trust it. External: somebody else does, such as cert-manager; see docs/drain.md.")
	flags.Func("feature-gates", "What is off unless asked for, as in EvictionResponder=true: respond to Evictions of lifecycle.k8s.io/v1alpha1, on clusters that serve it.", o.features.parse)
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "Address of /metrics; 0 turns it off.")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "Address of /healthz and /readyz; 0 turns it off.")
	flags.StringVar(&o.pprofAddress, "pprof-bind-address", "0", "Address of /debug/pprof, such as 127.0.0.1:6060; 0 turns it off. Whoever reaches it sees the command line and can slow the operator down.")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "Let one of several replicas work at a time. Turn it off only on a desk.")
	flags.StringVar(&o.leaderElectNS, "leader-election-namespace", "", "Namespace of the leader's Lease. Default: the operator's own; must be set outside of a cluster.")
	flags.TextVar(&o.logLevel, "log-level", zapcore.InfoLevel, "debug, info, warn or error.")
}

func (o *options) fromEnv(lookupEnv func(string) (string, bool)) {
	for _, setting := range []struct {
		value *string
		name  string
	}{{&o.databaseURL, "DORY_DATABASE_URL"}, {&o.databaseDirectURL, "DORY_DATABASE_DIRECT_URL"}} {
		if value, ok := lookupEnv(setting.name); ok && *setting.value == "" {
			*setting.value = strings.TrimSpace(value)
		}
	}
}

func (o *options) validate() error {
	switch {
	case o.resyncInterval < time.Second:
		return fmt.Errorf("--resync-interval=%s is too short: use 1s or more", o.resyncInterval)
	case o.maxDeletionShare <= 0 || o.maxDeletionShare > 1:
		return fmt.Errorf("--max-deletion-share=%g is no share: use a number above 0 and up to 1", o.maxDeletionShare)
	case o.concurrency < 1:
		return fmt.Errorf("--concurrency=%d: use 1 or more", o.concurrency)
	case o.checkpointConcurrency < 1 || o.migrationConcurrency < 1:
		return fmt.Errorf("--checkpoint-concurrency=%d, --migration-concurrency=%d: use 1 or more", o.checkpointConcurrency, o.migrationConcurrency)
	case o.placementBuffer < 0 || o.placementBuffer > 99:
		return fmt.Errorf("--placement-buffer-percent=%d: use 0 to 99", o.placementBuffer)
	case o.drainPatience < minDrainPatience:
		return fmt.Errorf("--drain-patience=%s is too short for any move: use %s or more", o.drainPatience, minDrainPatience)
	case o.drainPerNode < 1 || o.drainParallel < 1:
		return fmt.Errorf("--drain-parallel-per-node=%d, --drain-parallel=%d: use 1 or more", o.drainPerNode, o.drainParallel)
	case o.leaderElect && o.leaderElectNS == "" && !inCluster():
		return errors.New("--leader-elect outside of a cluster needs --leader-election-namespace, or use --leader-elect=false")
	default:
		return o.validateWebhook()
	}
}

// minDrainPatience is about what a restart takes.
const minDrainPatience = 10 * time.Second

const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// inCluster says whether Kubernetes mounted a namespace for us.
func inCluster() bool {
	_, err := os.Stat(namespaceFile)
	return err == nil
}
