// Command cluster runs a real Kubernetes cluster on this machine without Docker: etcd, the control plane, kube-proxy,
// CoreDNS, three kubelets with a containerd each, and PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `usage: cluster COMMAND [flags] [arguments]

  up                     bring the cluster up, or repair it
  down                   stop it and remove everything that it made
  status                 say what runs; exit status 1 unless all is well
  load-image TAR...      import image archives into every node
  kubeconfig             print the path of the administrator's kubeconfig
  database-url           print the URL of the PostgreSQL database
  node stop NAME         stop a node's kubelet; its pods go on
  node kill NAME         power loss: kubelet, containerd and all containers die, the network goes dead
  node partition NAME    cut node and pods off the network; kubelet and pods go on
  node start NAME        undo any of the three, and wait until the node is Ready

flags of all commands:
  --state DIR            where the cluster keeps its files (DORY_CLUSTER_STATE, default .run/cluster beside bin)
  --bin DIR              where the binaries are (default: where this program is)
cluster up -h lists the flags of up.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Print(usage)
		return nil
	}
	command, args := args[0], args[1:]
	o, rest, err := parseOptions(command, args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := newCluster(o, os.Stdout)
	if err != nil {
		return err
	}
	return c.dispatch(ctx, command, rest)
}

func (c *cluster) dispatch(ctx context.Context, command string, args []string) error {
	switch command {
	case "up":
		return c.locked("cluster up", func() error { return c.up(ctx) })
	case "down":
		return c.locked("cluster down", func() error { return c.down(ctx) })
	case "status":
		return c.status(ctx)
	case "kubeconfig":
		return c.printIfUp(c.userPath("kubeconfig"))
	case "database-url":
		return c.printDatabaseURL()
	case "load-image":
		return c.loadImages(ctx, args)
	case "node":
		return c.locked("cluster node", func() error { return c.node(ctx, args) })
	}
	return fmt.Errorf("unknown command %q; see cluster help", command)
}

// options are what a person chooses; those of a running cluster are kept in its state directory.
type options struct {
	State        string        `json:"-"`
	Bin          string        `json:"-"`
	Timeout      time.Duration `json:"-"`
	Subnet       string        `json:"subnet"`
	APIPort      uint16        `json:"apiPort"`
	EtcdPort     uint16        `json:"etcdPort"`
	DatabasePort uint16        `json:"databasePort"`
	// NodeGrace is how long a node may be silent before it is NotReady.
	NodeGrace time.Duration `json:"nodeGrace"`
}

func parseOptions(command string, args []string) (options, []string, error) {
	o := options{Bin: besideThisProgram()}
	flags := flag.NewFlagSet("cluster "+command, flag.ContinueOnError)
	flags.StringVar(&o.State, "state", os.Getenv("DORY_CLUSTER_STATE"), "`directory` of the cluster's files")
	flags.StringVar(&o.Bin, "bin", o.Bin, "`directory` of the binaries")
	if command == "up" {
		flags.StringVar(&o.Subnet, "subnet", "10.83.0.0/16", "private /16 for host, pods and Services")
		flags.Func("api-port", "port of the API server (default 6443)", portInto(&o.APIPort))
		flags.Func("etcd-port", "port of etcd on 127.0.0.1; the next one is used too (default 12379)", portInto(&o.EtcdPort))
		flags.Func("database-port", "port of PostgreSQL (default 5432)", portInto(&o.DatabasePort))
		flags.DurationVar(&o.NodeGrace, "node-monitor-grace-period", 20*time.Second, "silence after which a node is NotReady")
		flags.DurationVar(&o.Timeout, "timeout", 3*time.Minute, "give up after this `duration`")
	}
	o.APIPort, o.EtcdPort, o.DatabasePort = 6443, 12379, 5432
	if err := flags.Parse(args); err != nil {
		return o, nil, err
	}
	return o, flags.Args(), o.complete()
}

func (o *options) complete() error {
	bin, err := filepath.Abs(o.Bin)
	if err != nil {
		return fmt.Errorf("--bin %q: %w", o.Bin, err)
	}
	o.Bin = bin
	if o.State == "" {
		o.State = filepath.Join(filepath.Dir(bin), ".run", "cluster")
	}
	if o.State, err = filepath.Abs(o.State); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	return nil
}

func portInto(target *uint16) func(string) error {
	return func(s string) error {
		var n int
		if _, err := fmt.Sscanf(s, "%d", &n); err != nil || n < 1 || n > 65534 {
			return fmt.Errorf("%q is not a port between 1 and 65534", s)
		}
		*target = uint16(n)
		return nil
	}
}

func besideThisProgram() string {
	program, err := os.Executable()
	if err != nil {
		return "bin"
	}
	return filepath.Dir(program)
}
