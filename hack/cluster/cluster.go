package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const (
	lockFile  = topology.RunDir + ".lock"
	ownerFile = topology.RunDir + "/owner"
	// markerFile tells a directory that is the cluster's to delete from one that a person has named by mistake.
	markerFile = "cluster.json"
)

// cluster is the one cluster of this machine, seen from one call of this program.
type cluster struct {
	options options
	plan    topology.Topology
	procs   process.Manager
	out     *reporter
	// started counts the components that this call had to start.
	started atomic.Int32
}

func newCluster(o options, out io.Writer) (*cluster, error) {
	if o.Subnet == "" { // not "up": the running cluster knows
		if err := o.load(); err != nil {
			return nil, err
		}
	}
	plan, err := topology.New(o.Subnet)
	if err != nil {
		return nil, fmt.Errorf("--subnet: %w", err)
	}
	return &cluster{
		options: o, plan: plan, out: newReporter(out),
		procs: process.Manager{Dir: topology.RunDir + "/pids", Logs: topology.StateMount + "/logs"},
	}, nil
}

// load reads what the running cluster was brought up with.
func (o *options) load() error {
	o.Subnet = "10.83.0.0/16"
	data, err := os.ReadFile(filepath.Join(o.State, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, o)
	}
	if err != nil {
		return fmt.Errorf("read the cluster's settings: %w", err)
	}
	return nil
}

func (o options) save() error {
	data, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(o.State, markerFile), data, 0o644)
}

// locked runs fn as root and as the only one at work on the cluster.
func (c *cluster) locked(who string, fn func() error) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s makes bridges, mounts and cgroups and must run as root, not as uid %d: try it with sudo", who, os.Geteuid())
	}
	unlock, err := host.Lock(lockFile, who)
	if err != nil {
		return err
	}
	defer unlock()
	return fn()
}

// owner is the state directory of the cluster that is up on this machine, empty for none.
func owner() string {
	data, _ := os.ReadFile(ownerFile) //nolint:errcheck // absent is empty
	return strings.TrimSpace(string(data))
}

// checkOwner refuses to touch a cluster that was brought up with another state directory.
func (c *cluster) checkOwner() error {
	if o := owner(); o != "" && o != c.options.State {
		return fmt.Errorf("the cluster of another state directory is up, and a machine carries one: --state %s down removes it", o)
	}
	return nil
}

func (c *cluster) printIfUp(text string) error {
	if err := c.checkOwner(); err != nil {
		return err
	}
	if owner() == "" {
		return errors.New("no cluster is up; make cluster-up brings one up")
	}
	_, err := fmt.Println(text)
	return err
}

// statePath is a path below the short mount point, for the components; userPath is the same file for people.
func (c *cluster) statePath(elements ...string) string {
	return filepath.Join(append([]string{topology.StateMount}, elements...)...)
}

func (c *cluster) userPath(elements ...string) string {
	return filepath.Join(append([]string{c.options.State}, elements...)...)
}

func (c *cluster) binary(name string) string { return filepath.Join(c.options.Bin, "k8s", name) }

func (c *cluster) apiServer() string {
	return fmt.Sprintf("https://%s:%d", c.plan.Host, c.options.APIPort)
}

// writeFile leaves a file alone that says the same already: some components watch theirs.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, data) { //nolint:gosec // the cluster's own
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the database's user must pass through
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
