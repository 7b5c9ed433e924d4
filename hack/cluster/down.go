package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/topology"
)

// down stops everything and removes all traces, also those of a cluster that broke halfway up.
func (c *cluster) down(ctx context.Context) error {
	if err := c.checkOwner(); err != nil {
		return err
	}
	left, err := c.residue(ctx)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		c.out.say("no cluster is up, and nothing of one is left")
		return nil
	}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"nodes and their containers ended", c.endNodes},
		{"control plane and database ended", c.endProcesses},
		{"mounts removed", removeMounts},
		{"network removed", c.removeNetwork},
		{"cgroups removed", c.removeCgroups},
		{"files removed", c.removeFiles},
	}
	for _, step := range steps {
		if err := c.out.step(step.what, func() error { return step.do(ctx) }); err != nil {
			return fmt.Errorf("%w; \"down\" again goes on from here", err)
		}
	}
	return c.proveDown(ctx)
}

func (c *cluster) endNodes(ctx context.Context) error {
	var tasks []func(context.Context) error
	for _, n := range c.plan.Nodes {
		tasks = append(tasks, func(ctx context.Context) error { return c.killProcesses(ctx, n) })
	}
	return parallel(ctx, tasks...)
}

// endProcesses ends the rest. Their data goes too, so that only PostgreSQL is asked: it has shared memory to give back.
func (c *cluster) endProcesses(ctx context.Context) error {
	var tasks []func(context.Context) error
	for _, name := range c.procs.Known() {
		signal := syscall.SIGKILL
		if name == "postgres" {
			signal = syscall.SIGQUIT // an immediate shutdown
		}
		tasks = append(tasks, func(ctx context.Context) error { return c.procs.Stop(ctx, name, signal, 10*time.Second) })
	}
	return parallel(ctx, tasks...)
}

func removeMounts(ctx context.Context) error {
	// The volumes' directory lies below the state's, so that it goes first.
	return sequence(
		func(ctx context.Context) error { return host.UnmountBelow(ctx, topology.HostVolumes) },
		func(ctx context.Context) error { return host.UnmountBelow(ctx, topology.RunDir) },
	)(ctx)
}

func (c *cluster) removeNetwork(ctx context.Context) error {
	tables, err := c.tables(ctx)
	if err != nil {
		return err
	}
	if err := c.deleteTables(ctx, tables); err != nil {
		return err
	}
	links, err := host.LinksOf(ctx, c.plan.Bridges())
	if err != nil {
		return err
	}
	if err := host.DeleteLinks(ctx, links); err != nil {
		return err
	}
	return host.Sysctls{File: topology.RunDir + "/sysctls.json"}.Restore()
}

func (c *cluster) removeCgroups(ctx context.Context) error {
	for _, n := range c.plan.Nodes {
		if err := host.RemoveCgroup(ctx, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// proveDown looks at the machine itself, and not at what "down" believes to have done.
func (c *cluster) proveDown(ctx context.Context) error {
	left, err := c.residue(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("\"down\" left this behind: %s", strings.Join(left, ", "))
	}
	c.out.say("the cluster is down; nothing of it is left")
	return nil
}
