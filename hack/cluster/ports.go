package main

import (
	"net/netip"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/topology"
)

// checkPorts fails when somebody else listens where a component that does not run yet is about to.
func (c *cluster) checkPorts() error {
	for name, ports := range c.ports() {
		if _, alive := c.procs.Alive(name); alive {
			continue
		}
		if err := host.CheckPorts(ports); err != nil {
			return err
		}
	}
	return nil
}

// ports lists where each component listens.
func (c *cluster) ports() map[string][]host.Port {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	own, o := c.plan.Host, c.options
	ports := map[string][]host.Port{
		"etcd": {
			tcp(loopback, o.EtcdPort, "etcd", "--etcd-port"), tcp(loopback, o.EtcdPort+1, "etcd's peers", "--etcd-port"),
		},
		"kube-apiserver":          {tcp(own, o.APIPort, "the API server", "--api-port")},
		"kube-controller-manager": {tcp(own, controllerManagerPort, "the controller manager", "")},
		"kube-scheduler":          {tcp(own, schedulerPort, "the scheduler", "")},
		"kube-proxy":              {tcp(own, proxyHealthPort, "kube-proxy", ""), tcp(own, proxyMetricsPort, "kube-proxy", "")},
		"postgres":                {tcp(own, o.DatabasePort, "PostgreSQL", "--database-port")},
		"coredns": {
			tcp(own, dnsPort, "the cluster's DNS", ""),
			{Network: "udp", Address: netip.AddrPortFrom(own, dnsPort), For: "the cluster's DNS"},
		},
	}
	for _, n := range c.plan.Nodes {
		ports[kubeletName(n)] = []host.Port{
			tcp(n.Address, topology.KubeletPort, "the kubelet of "+n.Name, ""),
			tcp(n.Address, kubeletHealthPort, "the kubelet of "+n.Name, ""),
		}
	}
	return ports
}

func tcp(address netip.Addr, port uint16, what, flag string) host.Port {
	return host.Port{Network: "tcp", Address: netip.AddrPortFrom(address, port), For: what, Flag: flag}
}
