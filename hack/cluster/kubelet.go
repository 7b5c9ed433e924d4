package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const kubeletHealthPort = 10248

func kubeletName(n topology.Node) string { return "kubelet-" + n.Name }

func (c *cluster) kubelet(n topology.Node) (component, error) {
	config, kubeconfig, resolv := n.Dir()+"/kubelet.json", c.kubeconfigOf(n.Name), n.Dir()+"/resolv.conf"
	data, err := json.MarshalIndent(c.kubeletConfig(n, resolv), "", "  ")
	if err != nil {
		return component{}, err
	}
	if err := writeFile(config, data, 0o644); err != nil {
		return component{}, err
	}
	if err := writeFile(resolv, []byte("nameserver "+c.plan.Host.String()+"\n"), 0o644); err != nil {
		return component{}, err
	}
	if err := host.EnsureCgroup(n.Name); err != nil {
		return component{}, err
	}
	return component{
		Spec: process.Spec{
			Name: kubeletName(n), Path: c.binary("kubelet"), Files: []string{config, kubeconfig},
			Args: []string{
				"--config=" + config, "--kubeconfig=" + kubeconfig, "--hostname-override=" + n.Name,
				"--node-ip=" + n.Address.String(), "--node-labels=" + labelFlag(n.Labels),
				"--root-dir=" + n.Dir() + "/kubelet", "--cert-dir=" + n.Dir() + "/kubelet/pki",
			},
		},
		healthy: func(ctx context.Context) error {
			if err := c.get(ctx, fmt.Sprintf("http://%s:%d/healthz", n.Address, kubeletHealthPort), nil); err != nil {
				return err
			}
			return c.nodeReady(n.Name)(ctx)
		},
	}, nil
}

func labelFlag(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// kubeletConfig lets several kubelets share a machine: each has its addresses, directories and cgroup, and none reserves,
// evicts or cleans up for reasons that concern the machine as a whole.
func (c *cluster) kubeletConfig(n topology.Node, resolvConf string) map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": n.Address.String(), "port": topology.KubeletPort, "readOnlyPort": 0,
		"healthzBindAddress": n.Address.String(), "healthzPort": kubeletHealthPort,
		"tlsCertFile": c.pkiFile(n.Name + ".crt"), "tlsPrivateKeyFile": c.pkiFile(n.Name + ".key"),
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": c.pkiFile("ca.crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + n.ContainerdSocket(),
		"registerWithTaints":       taints(n.Taint),
		"clusterDNS":               []string{c.plan.Host.String()}, "clusterDomain": topology.Domain, "resolvConf": resolvConf,
		"podLogsDir": n.Dir() + "/pod-logs", "volumePluginDir": n.Dir() + "/volume-plugins",
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + n.Name, "failCgroupV1": false, "enforceNodeAllocatable": []string{},
		"failSwapOn": false, "makeIPTablesUtilChains": false, "oomScoreAdj": 0,
		"evictionHard":                map[string]string{"memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		// The kubelet renews its lease four times in this duration: often enough for the shortened grace period.
		"nodeLeaseDurationSeconds": max(4, int(c.options.NodeGrace.Seconds())),
		"maxPods":                  200,
	}
}

// taints parses kubectl's notation key=value:effect.
func taints(taint string) []map[string]string {
	if taint == "" {
		return nil
	}
	key, rest, _ := strings.Cut(taint, "=")
	value, effect, _ := strings.Cut(rest, ":")
	return []map[string]string{{"key": key, "value": value, "effect": effect}}
}

// nodeUp starts containerd and kubelet of a node, and waits until the node is Ready.
func (c *cluster) nodeUp(n topology.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := c.heal(ctx, n); err != nil {
			return err
		}
		kubelet, err := c.kubelet(n)
		if err != nil {
			return err
		}
		return c.ensure(ctx, kubelet)
	}
}
