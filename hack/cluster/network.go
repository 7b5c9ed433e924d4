package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/topology"
)

// sysctls are all kernel parameters that the cluster's components change; they are put back by "down".
var sysctls = []string{
	"net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet", "net.ipv4.vs.conntrack",
	"net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_tcp_be_liberal",
	"net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
	"vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops",
	"kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes",
}

// network makes bridges, routes and the rules that give each kubelet its own way to the API server.
func (c *cluster) network(ctx context.Context) error {
	saved := host.Sysctls{File: topology.RunDir + "/sysctls.json"}
	if err := saved.Save(sysctls...); err != nil {
		return err
	}
	if err := host.SetSysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	if err := c.bridges(ctx); err != nil {
		return err
	}
	_, err := host.RunAs(ctx, nil, c.apiRules(), "nft", "-f", "-")
	return err
}

func (c *cluster) bridges(ctx context.Context) error {
	addresses := []netip.Prefix{netip.PrefixFrom(c.plan.Host, c.plan.HostRange.Bits())}
	for _, n := range c.plan.Nodes {
		addresses = append(addresses, netip.PrefixFrom(n.Address, c.plan.HostRange.Bits()))
		if err := host.EnsureBridge(ctx, n.Name, netip.PrefixFrom(n.Gateway(), n.PodRange.Bits())); err != nil {
			return err
		}
	}
	if err := host.EnsureBridge(ctx, topology.HostBridge, addresses...); err != nil {
		return err
	}
	return host.EnsureRoute(ctx, c.plan.ServiceRange, topology.HostBridge)
}

// apiRules sends what a kubelet sends to its own address of the API server to the API server.
func (c *cluster) apiRules() string {
	var b strings.Builder
	// Declaring the table before deleting it makes the script work whether it is there or not.
	fmt.Fprintf(&b, "table ip %[1]s\ndelete table ip %[1]s\ntable ip %[1]s {\n\tchain output {\n", topology.NFTable)
	b.WriteString("\t\ttype nat hook output priority -100;\n")
	for _, n := range c.plan.Nodes {
		fmt.Fprintf(&b, "\t\tip daddr %s tcp dport %d dnat to %s\n", n.APIAddress, c.options.APIPort, c.plan.Host)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func partitionTable(n topology.Node) string { return topology.NFTable + "-" + n.Name }

// partitionRules cut a node off: kubelet and API server from each other, and its pods from everything outside the node.
// The kubelet's probes come from the bridge's own address and still reach the pods, as they would on a real node.
func (c *cluster) partitionRules(n topology.Node) string {
	return fmt.Sprintf(`table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain output {
		type filter hook output priority -150;
		ct original ip daddr %[2]s drop
		ct original ip daddr %[3]s tcp dport %[4]d drop
		ct original ip daddr %[3]s tcp sport %[4]d drop
	}
	chain forward {
		type filter hook forward priority -150;
		ip saddr %[5]s ip daddr != %[5]s drop
		ip daddr %[5]s ip saddr != %[5]s drop
	}
	chain input {
		type filter hook input priority -150;
		ip saddr %[5]s ip daddr != %[6]s drop
	}
}
`, partitionTable(n), n.APIAddress, n.Address, topology.KubeletPort, n.PodRange, n.Gateway())
}

// deadRules are those of a node without power: its pods are not reached from the host either.
func (c *cluster) deadRules(n topology.Node) string {
	return c.partitionRules(n) + fmt.Sprintf("table ip %s {\n\tchain output {\n\t\tip daddr %s drop\n\t}\n}\n",
		partitionTable(n), n.PodRange)
}

// tables lists the nftables tables of the cluster and its kube-proxy that exist, as "family name".
func (c *cluster) tables(ctx context.Context) ([]string, error) {
	out, err := host.Run(ctx, "nft", "list", "tables")
	if err != nil {
		return nil, err
	}
	return ownTables(out), nil
}

func ownTables(list string) []string {
	var own []string
	for line := range strings.SplitSeq(list, "\n") {
		table, ok := strings.CutPrefix(strings.TrimSpace(line), "table ")
		_, name, _ := strings.Cut(table, " ")
		if ok && (name == "kube-proxy" || strings.HasPrefix(name, topology.NFTable)) {
			own = append(own, table)
		}
	}
	return own
}

func (c *cluster) deleteTables(ctx context.Context, tables []string) error {
	for _, table := range tables {
		family, name, _ := strings.Cut(table, " ")
		if _, err := host.Run(ctx, "nft", "delete", "table", family, name); err != nil {
			return err
		}
	}
	return nil
}
