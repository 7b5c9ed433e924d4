package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const shimProgram = "containerd-shim-runc-v2"

// node does to one node what fate does to nodes, or undoes it.
func (c *cluster) node(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("say what to do with which node: cluster node stop|kill|partition|start NAME")
	}
	if owner() == "" {
		return errors.New("no cluster is up; make cluster-up brings one up")
	}
	if err := c.checkOwner(); err != nil {
		return err
	}
	n, err := c.plan.Node(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "stop":
		return c.out.step("kubelet of "+n.Name+" stopped; its pods go on", func() error { return c.stopKubelet(ctx, n) })
	case "kill":
		return c.out.step(n.Name+" lost power", func() error { return c.kill(ctx, n) })
	case "partition":
		return c.out.step(n.Name+" is cut off the network; kubelet and pods go on", func() error { return c.partition(ctx, n) })
	case "start":
		return c.out.step(n.Name+" is Ready", func() error { return sequence(c.runtime(n), c.nodeUp(n))(ctx) })
	}
	return fmt.Errorf("%q is nothing to do with a node: stop, kill, partition or start", args[0])
}

func (c *cluster) stopKubelet(ctx context.Context, n topology.Node) error {
	return c.procs.Stop(ctx, kubeletName(n), syscall.SIGTERM, 15*time.Second)
}

func (c *cluster) partition(ctx context.Context, n topology.Node) error {
	_, err := host.RunAs(ctx, nil, c.partitionRules(n), "nft", "-f", "-")
	return err
}

// kill takes the network first, so that nobody hears the last words of what dies.
func (c *cluster) kill(ctx context.Context, n topology.Node) error {
	if _, err := host.RunAs(ctx, nil, c.deadRules(n), "nft", "-f", "-"); err != nil {
		return err
	}
	return c.killProcesses(ctx, n)
}

// killProcesses ends kubelet, containerd, shims and containers of a node without asking any of them.
func (c *cluster) killProcesses(ctx context.Context, n topology.Node) error {
	// First those that would start others again.
	for _, name := range []string{kubeletName(n), containerdName(n)} {
		if err := c.procs.Stop(ctx, name, syscall.SIGKILL, 10*time.Second); err != nil {
			return err
		}
	}
	for _, pid := range shims(n) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
	}
	// A new containerd would clear away the dead shims' bundles, which say where their sockets are.
	for _, socket := range shimSocketsOf(n) {
		_ = os.Remove(socket) // "down" looks once more
	}
	return host.KillCgroup(ctx, n.Name)
}

func shims(n topology.Node) []int {
	return process.WithArguments(shimProgram, "-address", n.ContainerdSocket())
}

// heal gives a node its network back.
func (c *cluster) heal(ctx context.Context, n topology.Node) error {
	tables, err := c.tables(ctx)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if table == "ip "+partitionTable(n) {
			return c.deleteTables(ctx, []string{table})
		}
	}
	return nil
}
