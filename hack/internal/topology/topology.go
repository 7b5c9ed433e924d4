// Package topology says which nodes, addresses and names the local cluster has. It is pure: nothing here touches the machine.
package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Fixed names and places. Sockets are limited to 108 characters, which is why they do not live in the state directory.
const (
	RunDir      = "/run/dory-cluster"
	StateMount  = RunDir + "/state"
	HostBridge  = "dory-host"
	Domain      = "cluster.local"
	NFTable     = "dory-cluster"
	PauseImage  = "docker.io/library/dory-pause:1"
	KubeletPort = 10250
	// HostVolumes is where the controller manager makes the directories of persistent volumes; it cannot be told another place.
	HostVolumes = "/tmp/hostpath_pv"
	// NonRoot is the user that images conventionally run as, and the owner of the persistent volumes.
	NonRoot = 65532
)

// Node is one kubelet with a containerd and a bridge of its own; bridge and cgroup bear its name.
type Node struct {
	Name   string
	Labels map[string]string
	// Taint is in kubectl's notation key=value:effect, empty for none.
	Taint string
	// Address is the kubelet's, APIAddress the one under which this kubelet alone reaches the API server, so that the
	// node can be cut off without cutting off its neighbours.
	Address    netip.Addr
	APIAddress netip.Addr
	PodRange   netip.Prefix
}

// Gateway is the host's address on the node's bridge.
func (n Node) Gateway() netip.Addr { return n.PodRange.Addr().Next() }

// Dir is the node's persistent directory, RunDir its sockets and runtime state.
func (n Node) Dir() string { return StateMount + "/nodes/" + n.Name }

// RunDir is where the node's sockets and its containerd's runtime state live.
func (n Node) RunDir() string { return RunDir + "/nodes/" + n.Name }

// ContainerdSocket is the address of the node's containerd.
func (n Node) ContainerdSocket() string { return n.RunDir() + "/containerd.sock" }

// Topology is the whole cluster's plan of addresses, cut from one /16.
type Topology struct {
	Range        netip.Prefix
	HostRange    netip.Prefix
	ServiceRange netip.Prefix
	// Host is the address of the API server, of DNS and of PostgreSQL.
	Host  netip.Addr
	Nodes []Node
}

// New plans the cluster in the given /16: .0.0/24 for host and kubelets, .N.0/24 for the pods of node N, .128.0/20 for Services.
func New(subnet string) (Topology, error) {
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil {
		return Topology{}, fmt.Errorf("subnet %q is not a network such as 10.83.0.0/16: %w", subnet, err)
	}
	if prefix.Masked() != prefix || prefix.Bits() != 16 || !prefix.Addr().Is4() || !prefix.Addr().IsPrivate() {
		return Topology{}, fmt.Errorf("subnet %q must be a private IPv4 /16 such as 10.83.0.0/16", subnet)
	}
	t := Topology{
		Range:        prefix,
		HostRange:    netip.PrefixFrom(at(prefix, 0, 0), 24),
		ServiceRange: netip.PrefixFrom(at(prefix, 128, 0), 20),
		Host:         at(prefix, 0, 1),
	}
	application := map[string]string{"workload-type": "application"}
	t.add("dory-cloud-1", application, "")
	t.add("dory-cloud-2", application, "")
	t.add("dory-edge-1", map[string]string{"node-type": "edge"}, "edge-node=true:NoSchedule")
	return t, nil
}

func (t *Topology) add(name string, labels map[string]string, taint string) {
	n := byte(1)
	for range t.Nodes {
		n++
	}
	t.Nodes = append(t.Nodes, Node{
		Name: name, Labels: labels, Taint: taint,
		Address:    at(t.Range, 0, 10+n),
		APIAddress: at(t.Range, 0, 20+n),
		PodRange:   netip.PrefixFrom(at(t.Range, n, 0), 24),
	})
}

// Node finds a node by name, and says which there are when there is none.
func (t Topology) Node(name string) (Node, error) {
	names := make([]string, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Node{}, fmt.Errorf("no node %q: the nodes are %v", name, names)
}

// Bridges are the names of all links that the cluster makes; veths hang from these.
func (t Topology) Bridges() []string {
	names := []string{HostBridge}
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// KubernetesService is the first address of the service range, which the API server gives itself.
func (t Topology) KubernetesService() netip.Addr { return t.ServiceRange.Addr().Next() }

func at(prefix netip.Prefix, third, fourth byte) netip.Addr {
	b := prefix.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(third)<<8 | uint32(fourth)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
