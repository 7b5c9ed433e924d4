package topology

import (
	"strings"
	"testing"
)

func TestNewCutsDisjointRanges(t *testing.T) {
	plan, err := New("10.83.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	ranges := []string{plan.HostRange.String(), plan.ServiceRange.String()}
	for i, n := range plan.Nodes {
		if !plan.HostRange.Contains(n.Address) || !plan.HostRange.Contains(n.APIAddress) {
			t.Errorf("%s: addresses %s and %s are not in %s", n.Name, n.Address, n.APIAddress, plan.HostRange)
		}
		if n.PodRange.Overlaps(plan.HostRange) || n.PodRange.Overlaps(plan.ServiceRange) {
			t.Errorf("%s: pods %s overlap one of %v", n.Name, n.PodRange, ranges)
		}
		for _, other := range plan.Nodes[i+1:] {
			if n.PodRange.Overlaps(other.PodRange) || n.Address == other.Address {
				t.Errorf("%s and %s share addresses", n.Name, other.Name)
			}
		}
		// Linux cuts a link's name at 15 characters, and sockets at 108.
		if len(n.Name) > 15 || len(n.ContainerdSocket()) > 90 {
			t.Errorf("%s: name or socket too long", n.Name)
		}
	}
	if got := plan.KubernetesService().String(); got != "10.83.128.1" {
		t.Errorf("kubernetes Service at %s", got)
	}
	if got := plan.Host.String(); got != "10.83.0.1" {
		t.Errorf("host at %s", got)
	}
}

func TestNewRefusesUnusableSubnets(t *testing.T) {
	for subnet, want := range map[string]string{
		"":              "not a network",
		"10.83.0.0":     "not a network",
		"10.83.0.0/24":  "private IPv4 /16",
		"10.83.1.0/16":  "private IPv4 /16",
		"8.8.0.0/16":    "private IPv4 /16",
		"fd00::/16":     "private IPv4 /16",
		"10.83.0.0/160": "not a network",
	} {
		_, err := New(subnet)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), subnet) {
			t.Errorf("New(%q) = %v, want an error about %q", subnet, err, want)
		}
	}
}

func TestNodeNamesTheNodesThereAre(t *testing.T) {
	plan, err := New("10.83.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := plan.Node("dory-edge-1"); err != nil || n.Taint != "edge-node=true:NoSchedule" {
		t.Errorf("dory-edge-1 = %+v, %v", n, err)
	}
	if _, err := plan.Node("x"); err == nil || !strings.Contains(err.Error(), "dory-cloud-2") {
		t.Errorf("unknown node: %v", err)
	}
}
