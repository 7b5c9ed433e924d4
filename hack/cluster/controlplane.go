package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

const (
	controllerManagerPort = 10257
	schedulerPort         = 10259
	frontProxy            = "front-proxy-client"
	// CAP_DAC_READ_SEARCH of capabilities(7).
	capDACReadSearch = 2
)

// etcd listens on loopback only: it has no authentication, and pods reach every other address of this machine.
func (c *cluster) etcd() component {
	url := fmt.Sprintf("http://127.0.0.1:%d", c.options.EtcdPort)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", c.options.EtcdPort+1)
	return component{
		Spec: process.Spec{
			Name: "etcd", Path: c.binary("etcd"),
			Args: []string{
				"--name=dory", "--data-dir=" + c.statePath("etcd"), "--log-level=warn",
				"--listen-client-urls=" + url, "--advertise-client-urls=" + url,
				"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL,
				"--initial-cluster=dory=" + peerURL,
			},
		},
		healthy: c.answers(url + "/health"),
	}
}

func (c *cluster) apiserver() component {
	return component{
		Spec:    process.Spec{Name: "kube-apiserver", Path: c.binary("kube-apiserver"), Args: c.apiserverArgs()},
		healthy: c.answers(c.apiServer() + "/readyz"),
	}
}

func (c *cluster) apiserverArgs() []string {
	return []string{
		"--advertise-address=" + c.plan.Host.String(), "--bind-address=" + c.plan.Host.String(),
		fmt.Sprintf("--secure-port=%d", c.options.APIPort),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.options.EtcdPort),
		"--cert-dir=" + c.statePath("apiserver"),
		"--tls-cert-file=" + c.pkiFile("apiserver.crt"), "--tls-private-key-file=" + c.pkiFile("apiserver.key"),
		"--client-ca-file=" + c.pkiFile("ca.crt"),
		"--kubelet-certificate-authority=" + c.pkiFile("ca.crt"),
		"--kubelet-client-certificate=" + c.pkiFile("kubelet-client.crt"),
		"--kubelet-client-key=" + c.pkiFile("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		// Lets extension API servers such as the metrics server in.
		"--requestheader-client-ca-file=" + c.pkiFile("ca.crt"), "--requestheader-allowed-names=" + frontProxy,
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true",
		"--proxy-client-cert-file=" + c.pkiFile("front-proxy.crt"), "--proxy-client-key-file=" + c.pkiFile("front-proxy.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pkiFile("service-accounts.pub"),
		"--service-account-signing-key-file=" + c.pkiFile("service-accounts.key"),
		"--service-cluster-ip-range=" + c.plan.ServiceRange.String(),
	}
}

func (c *cluster) controllerManager() component {
	config := c.kubeconfigOf("controller-manager")
	return component{
		Spec: process.Spec{
			Name: "kube-controller-manager", Path: c.binary("kube-controller-manager"), Files: []string{config},
			// It makes the directories of volumes for its own user only, so that it runs as the user who is to write to
			// them; the capability lets it read keys that are root's.
			Credential:   &syscall.Credential{Uid: topology.NonRoot, Gid: topology.NonRoot},
			Capabilities: []uintptr{capDACReadSearch},
			Args: append(c.servingArgs(config, controllerManagerPort),
				"--service-account-private-key-file="+c.pkiFile("service-accounts.key"),
				"--root-ca-file="+c.pkiFile("ca.crt"), "--use-service-account-credentials=true",
				"--cluster-signing-cert-file="+c.pkiFile("ca.crt"), "--cluster-signing-key-file="+c.pkiFile("ca.key"),
				"--node-monitor-period=2s", "--node-monitor-grace-period="+c.options.NodeGrace.String(),
				"--flex-volume-plugin-dir="+c.statePath("volume-plugins"),
				// All nodes share this machine's disk, so that its directories can stand in for network volumes.
				"--enable-hostpath-provisioner=true",
			),
		},
		healthy: c.answers(c.healthURL("https", controllerManagerPort)),
	}
}

func (c *cluster) scheduler() component {
	config := c.kubeconfigOf("scheduler")
	return component{
		Spec: process.Spec{
			Name: "kube-scheduler", Path: c.binary("kube-scheduler"), Files: []string{config},
			Args: c.servingArgs(config, schedulerPort),
		},
		healthy: c.answers(c.healthURL("https", schedulerPort)),
	}
}

// servingArgs are common to controller manager and scheduler. Each is alone, so that leader election would only delay it.
func (c *cluster) servingArgs(kubeconfig string, port int) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=" + c.plan.Host.String(), fmt.Sprintf("--secure-port=%d", port), "--leader-elect=false",
		"--tls-cert-file=" + c.pkiFile("control-plane.crt"), "--tls-private-key-file=" + c.pkiFile("control-plane.key"),
	}
}

func (c *cluster) healthURL(scheme string, port int) string {
	return fmt.Sprintf("%s://%s:%d/healthz", scheme, c.plan.Host, port)
}

func (c *cluster) controlPlane(ctx context.Context) error {
	return sequence(c.run(c.etcd()), c.run(c.apiserver()))(ctx)
}

// run makes a function of a component, for sequence and parallel.
func (c *cluster) run(k component) func(context.Context) error {
	return func(ctx context.Context) error { return c.ensure(ctx, k) }
}
