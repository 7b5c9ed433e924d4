package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// status says what runs. Its error makes the exit status tell the same to scripts.
func (c *cluster) status(ctx context.Context) error {
	if owner() == "" {
		return c.statusDown(ctx)
	}
	if err := c.checkOwner(); err != nil {
		return err
	}
	var broken []string
	for _, name := range c.expected() {
		if pid, alive := c.procs.Alive(name); alive {
			fmt.Printf("%-28s running, pid %d\n", name, pid)
		} else {
			fmt.Printf("%-28s dead; its log is %s\n", name, c.userPath("logs", name+".log"))
			broken = append(broken, name)
		}
	}
	if os.Geteuid() == 0 { // the administrator's key is root's
		broken = append(broken, c.statusNodes(ctx)...)
	}
	fmt.Printf("%-28s %s\n", "kubeconfig", c.userPath("kubeconfig"))
	if len(broken) > 0 {
		return fmt.Errorf("not well: %s; make cluster-up repairs it", strings.Join(broken, ", "))
	}
	return nil
}

func (c *cluster) statusNodes(ctx context.Context) []string {
	var broken []string
	for _, n := range c.plan.Nodes {
		if err := c.nodeReady(n.Name)(ctx); err != nil {
			fmt.Printf("%-28s %v\n", n.Name, err)
			broken = append(broken, n.Name)
		} else {
			fmt.Printf("%-28s Ready\n", n.Name)
		}
	}
	return broken
}

func (c *cluster) statusDown(ctx context.Context) error {
	if os.Geteuid() != 0 { // the rules of the network are root's to read
		return errors.New("no cluster is up")
	}
	left, err := c.residue(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("no cluster is up, but this is left of one: %s; make cluster-down removes it", strings.Join(left, ", "))
	}
	return errors.New("no cluster is up; nothing of one is left")
}

// expected lists all processes of a whole cluster.
func (c *cluster) expected() []string {
	names := []string{"coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "postgres"}
	for _, n := range c.plan.Nodes {
		names = append(names, containerdName(n), kubeletName(n))
	}
	slices.Sort(names)
	return names
}
