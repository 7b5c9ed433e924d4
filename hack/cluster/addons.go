package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const (
	proxyHealthPort  = 10256
	proxyMetricsPort = 10249
	dnsPort          = 53
)

// manifests are what a cluster has before anybody installs anything.
const manifests = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/host-path
`

func (c *cluster) applyManifests(ctx context.Context) error {
	_, err := host.RunAs(ctx, nil, manifests, c.binary("kubectl"), "--kubeconfig", c.statePath("kubeconfig"),
		"apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (c *cluster) coredns() (component, error) {
	corefile := c.statePath("Corefile")
	if err := writeFile(corefile, []byte(c.corefile()), 0o644); err != nil {
		return component{}, err
	}
	kubeconfig := c.kubeconfigOf("coredns")
	return component{
		Spec: process.Spec{
			Name: "coredns", Path: c.binary("coredns"), Args: []string{"-conf", corefile}, Files: []string{corefile, kubeconfig},
		},
		healthy: resolves(net.JoinHostPort(c.plan.Host.String(), "53")),
	}, nil
}

// corefile answers for the cluster's domain and denies every other name: no query leaves the machine.
func (c *cluster) corefile() string {
	return fmt.Sprintf(`%[2]s:53 in-addr.arpa:53 ip6.arpa:53 {
	bind %[1]s
	errors
	kubernetes %[2]s in-addr.arpa ip6.arpa {
		kubeconfig %[3]s
		ttl 5
	}
	cache 5
}
.:53 {
	bind %[1]s
	errors
	template ANY ANY {
		rcode NXDOMAIN
	}
}
`, c.plan.Host, topology.Domain, c.kubeconfigOf("coredns"))
}

func resolves(server string) func(context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	return func(ctx context.Context) error {
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+topology.Domain+".")
		return err
	}
}

// proxy is one for the whole machine, where all nodes and their pods share the rules. It needs some node's name.
func (c *cluster) proxy() (component, error) {
	config, kubeconfig := c.statePath("kube-proxy.json"), c.kubeconfigOf("proxy")
	data, err := json.MarshalIndent(c.proxyConfig(kubeconfig), "", "  ")
	if err != nil {
		return component{}, err
	}
	if err := writeFile(config, data, 0o644); err != nil {
		return component{}, err
	}
	return component{
		Spec: process.Spec{
			Name: "kube-proxy", Path: c.binary("kube-proxy"), Files: []string{config, kubeconfig},
			Args: []string{"--config=" + config, "--hostname-override=" + c.plan.Nodes[0].Name},
		},
		healthy: func(ctx context.Context) error {
			if err := c.get(ctx, c.healthURL("http", proxyHealthPort), nil); err != nil {
				return err
			}
			// The Service of the API server itself shows that rules are in place.
			return c.get(ctx, fmt.Sprintf("https://%s/readyz", c.plan.KubernetesService()), nil)
		},
	}, nil
}

func (c *cluster) proxyConfig(kubeconfig string) map[string]any {
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "nftables", "clientConnection": map[string]any{"kubeconfig": kubeconfig},
		"healthzBindAddress": fmt.Sprintf("%s:%d", c.plan.Host, proxyHealthPort),
		"metricsBindAddress": fmt.Sprintf("%s:%d", c.plan.Host, proxyMetricsPort),
		// Two pods on one bridge answer each other past the host; only a masqueraded packet's answer comes back through
		// the rules that must undo the rewriting.
		"nftables":  map[string]any{"masqueradeAll": true, "minSyncPeriod": "100ms"},
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		// Like the kubelets, it may lack the right to lower its score.
		"oomScoreAdj": 0,
	}
}
