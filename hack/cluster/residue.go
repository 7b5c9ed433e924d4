package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/topology"
)

// residue lists everything on this machine that is a cluster's: processes, shims, mounts, links, cgroups, tables, files.
func (c *cluster) residue(ctx context.Context) ([]string, error) {
	var found []string
	for _, name := range c.procs.Known() {
		if pid, alive := c.procs.Alive(name); alive {
			found = append(found, fmt.Sprintf("process %d (%s)", pid, name))
		}
	}
	for _, n := range c.plan.Nodes {
		for _, pid := range shims(n) {
			found = append(found, fmt.Sprintf("container shim %d of %s", pid, n.Name))
		}
		for _, dir := range host.CgroupsOf(n.Name) {
			found = append(found, "cgroup "+dir)
		}
	}
	network, err := c.networkResidue(ctx)
	if err != nil {
		return nil, err
	}
	files, err := c.fileResidue()
	return append(append(found, network...), files...), err
}

func (c *cluster) networkResidue(ctx context.Context) ([]string, error) {
	var found []string
	// On a machine that never had a cluster the tools may be missing; then there is nothing of theirs either.
	if _, err := exec.LookPath("nft"); err == nil {
		tables, err := c.tables(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, prefixed("nftables table ", tables)...)
	}
	if _, err := exec.LookPath("ip"); err == nil {
		links, err := host.LinksOf(ctx, c.plan.Bridges())
		if err != nil {
			return nil, err
		}
		found = append(found, prefixed("link ", links)...)
	}
	return found, nil
}

func (c *cluster) fileResidue() ([]string, error) {
	mounts, err := host.MountsBelow(topology.RunDir)
	if err != nil {
		return nil, err
	}
	volumes, err := host.MountsBelow(topology.HostVolumes)
	if err != nil {
		return nil, err
	}
	mounts = append(mounts, volumes...)
	stray, err := c.strayFiles()
	if err != nil {
		return nil, err
	}
	found := append(prefixed("mount ", mounts), prefixed("file ", stray)...)
	for _, dir := range []string{topology.RunDir, c.userPath(markerFile)} {
		if _, err := os.Stat(dir); err == nil {
			found = append(found, dir)
		}
	}
	return found, nil
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, prefix+name)
	}
	return out
}
