package rig

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// stages are what kwok's own "fast" set lacks: a pod's end as a kubelet reports it.
//
//go:embed stages/*.yaml
var stages embed.FS

// leaseSeconds makes the leases of the nodes, which kwok renews every quarter of it, no noise in the measurement.
const leaseSeconds = "3600"

// component starts one of Kubernetes' own programs, without its client's rate limits.
func (r *Rig) component(name string, flags ...string) (*child, error) {
	return r.run(name, r.bin("k8s", name), nil, append([]string{
		"--kubeconfig", r.kubeconfig, "--leader-elect=false", "--secure-port=0", "--kube-api-qps=10000", "--kube-api-burst=10000",
	}, flags...)...)
}

// StartScheduler starts kube-scheduler, and answers how to stop it. It is an administrator, whom the API server lets pass all
// queues: in its own place there, part of a burst of its bindings is turned away, and it is half as fast.
func (r *Rig) StartScheduler() (stop func() error, err error) {
	child, err := r.component("kube-scheduler")
	if err != nil {
		return nil, err
	}
	return child.stop, nil
}

// startComponents starts what runs beside an API server.
func (r *Rig) startComponents(context.Context) error {
	if _, err := r.component("kube-controller-manager", "--node-monitor-grace-period=2h", "--controllers="+strings.Join(r.options.Controllers, ",")); err != nil {
		return err
	}
	if !r.options.Unscheduled {
		if _, err := r.StartScheduler(); err != nil {
			return err
		}
	}
	configs, err := r.kwokConfigs()
	if err != nil {
		return err
	}
	args := []string{
		"--kubeconfig", r.kubeconfig, "--manage-all-nodes", "--node-lease-duration-seconds", leaseSeconds,
		// Nothing may ever leave this machine for the address of a pod that is none.
		"--cidr=127.64.0.0/16", "--node-ip=127.0.0.1",
	}
	for _, config := range configs {
		args = append(args, "--config", config)
	}
	_, err = r.run("kwok", r.bin("kwok"), nil, args...)
	return err
}

// kwokConfigs are kwok's own stages for the start of nodes and pods, and ours for the end of pods.
func (r *Rig) kwokConfigs() ([]string, error) {
	configs := []string{r.bin("kwok-stages", "node-initialize.yaml")}
	if r.options.Idle {
		return configs, nil
	}
	configs = append(configs, r.bin("kwok-stages", "pod-ready.yaml"))
	entries, err := stages.ReadDir("stages")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		content, err := stages.ReadFile(filepath.Join("stages", entry.Name()))
		if err != nil {
			return nil, err
		}
		path := filepath.Join(r.dir, entry.Name())
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, fmt.Errorf("writing kwok's configuration: %w", err)
		}
		configs = append(configs, path)
	}
	return configs, nil
}
