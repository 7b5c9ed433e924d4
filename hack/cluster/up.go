package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/dory-io/dory/hack"
	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/topology"
)

var debianPackages = []string{"containerd", "runc", "containernetworking-plugins", "nftables", "iproute2", "postgresql"}

// up brings the cluster up. Every step looks first at what is there, so that it also repairs.
func (c *cluster) up(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, c.options.Timeout, fmt.Errorf("not up after %s (--timeout)", c.options.Timeout))
	defer cancel()
	if err := c.preflight(ctx); err != nil {
		return err
	}
	if err := sequence(c.prepare, c.foundation, c.workers)(ctx); err != nil {
		return fmt.Errorf("%w\nThe logs are in %s. \"up\" again goes on from here; \"down\" removes everything", err, c.userPath("logs"))
	}
	if c.started.Load() == 0 {
		c.out.say("the cluster was up and well already (checked in %s)", elapsed(began))
	} else {
		c.out.say("the cluster is up (%s)", elapsed(began))
	}
	c.out.say("export KUBECONFIG=%s", c.userPath("kubeconfig"))
	return nil
}

// preflight finds what stands in the way while nothing has been changed yet, but for the packages that are missing.
func (c *cluster) preflight(ctx context.Context) error {
	for _, check := range []func() error{c.checkOwner, c.checkBinaries, c.checkStateDir} {
		if err := check(); err != nil {
			return err
		}
	}
	if err := host.EnsurePackages(ctx, hack.InstallPackages, c.out.out, debianPackages...); err != nil {
		return err
	}
	if err := host.CheckFree(ctx, c.plan.Range, c.plan.Bridges()); err != nil {
		return err
	}
	return c.checkPorts()
}

// prepare makes everything that the programs stand on.
func (c *cluster) prepare(ctx context.Context) error {
	if err := c.claimState(); err != nil {
		return err
	}
	if err := c.issueCertificates(); err != nil {
		return err
	}
	return c.network(ctx)
}

func (c *cluster) checkBinaries() error {
	wanted := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "kube-proxy", "coredns"}
	paths := []string{c.options.Bin + "/pause.tar"}
	for _, name := range wanted {
		paths = append(paths, c.binary(name))
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: make cluster-up builds it", err)
		}
	}
	return nil
}

// claimState makes the state directory this cluster's, and shows it under the short path that the components know.
func (c *cluster) claimState() error {
	if err := c.options.save(); err != nil {
		return err
	}
	if err := writeFile(ownerFile, []byte(c.options.State+"\n"), 0o644); err != nil {
		return err
	}
	if err := host.Bind(c.options.State, topology.StateMount); err != nil {
		return err
	}
	volumes := c.statePath("volumes")
	if err := ownedDir(volumes, &syscall.Credential{Uid: topology.NonRoot, Gid: topology.NonRoot}, 0o755); err != nil {
		return err
	}
	return host.Bind(volumes, topology.HostVolumes)
}

// checkStateDir refuses a directory that holds something else, for "down" deletes it, and another plan for a running cluster.
func (c *cluster) checkStateDir() error {
	entries, err := os.ReadDir(c.options.State)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the state directory: %w", err)
	}
	if _, err := os.Stat(c.userPath(markerFile)); err != nil {
		return fmt.Errorf("--state %s is not empty and not a cluster's: name a directory of its own, which \"down\" may delete", c.options.State)
	}
	previous := options{State: c.options.State}
	if err := previous.load(); err != nil {
		return err
	}
	if previous.Subnet != c.options.Subnet {
		return fmt.Errorf("the cluster in %s has --subnet %s, not %s: a subnet changes only by \"down\" and \"up\"",
			c.options.State, previous.Subnet, c.options.Subnet)
	}
	return nil
}

// foundation is what the nodes need: API server, database, and a container runtime each.
func (c *cluster) foundation(ctx context.Context) error {
	tasks := []func(context.Context) error{c.controlPlane, c.postgres}
	for _, n := range c.plan.Nodes {
		tasks = append(tasks, c.runtime(n))
	}
	return parallel(ctx, tasks...)
}

func (c *cluster) workers(ctx context.Context) error {
	proxy, err := c.proxy()
	if err != nil {
		return err
	}
	coredns, err := c.coredns()
	if err != nil {
		return err
	}
	tasks := []func(context.Context) error{
		c.run(c.controllerManager()), c.run(c.scheduler()), sequence(c.firstNode, c.run(proxy)), sequence(c.applyManifests, c.run(coredns)),
	}
	for _, n := range c.plan.Nodes {
		tasks = append(tasks, c.nodeUp(n))
	}
	return parallel(ctx, append(tasks, c.defaultAccount)...)
}

// firstNode waits for the node whose name kube-proxy bears: without it, kube-proxy would wait in longer and longer steps.
func (c *cluster) firstNode(ctx context.Context) error {
	return poll(ctx, 100*time.Millisecond, c.nodeReady(c.plan.Nodes[0].Name))
}

// defaultAccount waits for what the first pod in a namespace needs.
func (c *cluster) defaultAccount(ctx context.Context) error {
	namespace := c.apiServer() + "/api/v1/namespaces/default"
	return poll(ctx, 200*time.Millisecond, func(ctx context.Context) error {
		if err := c.get(ctx, namespace+"/serviceaccounts/default", nil); err != nil {
			return err
		}
		return c.get(ctx, namespace+"/configmaps/kube-root-ca.crt", nil)
	})
}
