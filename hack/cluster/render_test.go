package main

import (
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dory-io/dory/hack/internal/topology"
)

func testCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	c, err := newCluster(options{
		State: filepath.Join(dir, "state"), Bin: filepath.Join(dir, "bin"), Subnet: "10.90.0.0/16",
		APIPort: 7443, EtcdPort: 2000, DatabasePort: 5555, NodeGrace: 12 * time.Second,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKubeletConfigKeepsNodesApart(t *testing.T) {
	c := testCluster(t)
	edge, err := c.plan.Node("dory-edge-1")
	if err != nil {
		t.Fatal(err)
	}
	config := c.kubeletConfig(edge, "/resolv.conf")
	for key, want := range map[string]string{
		"address": `"10.90.0.13"`, "cgroupRoot": `"/dory-edge-1"`, "clusterDNS": `["10.90.0.1"]`,
		"registerWithTaints": `[{"effect":"NoSchedule","key":"edge-node","value":"true"}]`, "nodeLeaseDurationSeconds": "12",
		// An absent list would be the default, which needs cgroup version 2.
		"enforceNodeAllocatable": "[]",
	} {
		got, err := json.Marshal(config[key])
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, want %s (%v)", key, got, want, err)
		}
	}
	if got := labelFlag(map[string]string{"b": "2", "a": "1"}); got != "a=1,b=2" {
		t.Errorf("labels %q", got)
	}
}

func TestTaints(t *testing.T) {
	if got := taints(""); got != nil {
		t.Errorf("no taint: %v", got)
	}
	if got := taints("k=v:NoExecute"); len(got) != 1 || got[0]["key"] != "k" || got[0]["value"] != "v" || got[0]["effect"] != "NoExecute" {
		t.Errorf("got %v", got)
	}
}

func TestRenderedFilesNameTheirNode(t *testing.T) {
	n := testCluster(t).plan.Nodes[1]
	var cni struct {
		Name    string           `json:"name"`
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(cniConfig(n)), &cni); err != nil {
		t.Fatal(err)
	}
	if cni.Name != n.Name || len(cni.Plugins) != 1 || cni.Plugins[0]["bridge"] != n.Name {
		t.Errorf("CNI configuration %+v", cni)
	}
	config := containerdConfig(n)
	for _, part := range []string{`address = "/run/dory-cluster/nodes/dory-cloud-2/containerd.sock"`, topology.PauseImage, "restrict_oom_score_adj = true"} {
		if !strings.Contains(config, part) {
			t.Errorf("containerd's configuration lacks %s:\n%s", part, config)
		}
	}
	for line := range strings.Lines(config) {
		if strings.Contains(line, "dory-cloud-1") {
			t.Errorf("names another node: %s", line)
		}
	}
}

func TestAddressesAndPortsAreAsChosen(t *testing.T) {
	c := testCluster(t)
	args := strings.Join(c.apiserverArgs(), " ")
	for _, part := range []string{
		"--bind-address=10.90.0.1", "--secure-port=7443", "--etcd-servers=http://127.0.0.1:2000",
		"--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.90.128.0/20",
	} {
		if !strings.Contains(args, part) {
			t.Errorf("the API server's arguments lack %s", part)
		}
	}
	if rules := c.apiRules(); !strings.Contains(rules, "ip daddr 10.90.0.22 tcp dport 7443 dnat to 10.90.0.1") {
		t.Errorf("rules:\n%s", rules)
	}
	if hba := c.accessRules(); !strings.Contains(hba, "host all all 10.90.0.0/16 scram-sha-256") || strings.Contains(hba, "trust") {
		t.Errorf("access rules:\n%s", hba)
	}
	if !slices.Contains(c.controllerManager().Args, "--node-monitor-grace-period=12s") {
		t.Error("the grace period does not reach the controller manager")
	}
}

func TestEveryCertificateIsIssued(t *testing.T) {
	c := testCluster(t)
	issued := map[string]bool{"ca": true, "service-accounts": true}
	for _, r := range c.certificates() {
		issued[r.File] = true
	}
	named := 0
	for _, arg := range slices.Concat(c.apiserverArgs(), c.controllerManager().Args, c.scheduler().Args) {
		_, file, found := strings.Cut(arg, "="+c.pkiFile("")+"/")
		if !found {
			continue
		}
		named++
		if !issued[strings.TrimSuffix(file, filepath.Ext(file))] {
			t.Errorf("%s names a certificate that nobody issues", arg)
		}
	}
	if named == 0 {
		t.Error("no component names a certificate: this test looks in the wrong place")
	}
}

func TestPartitionLetsProbesThrough(t *testing.T) {
	c := testCluster(t)
	n := c.plan.Nodes[2]
	rules := c.partitionRules(n)
	for _, part := range []string{
		"ct original ip daddr 10.90.0.23 drop", // the kubelet's way to the API server
		"ip saddr 10.90.3.0/24 ip daddr != 10.90.3.0/24 drop",
		"ip saddr 10.90.3.0/24 ip daddr != 10.90.3.1 drop", // probes come from 10.90.3.1
	} {
		if !strings.Contains(rules, part) {
			t.Errorf("rules lack %q:\n%s", part, rules)
		}
	}
	if dead := c.deadRules(n); !strings.HasPrefix(dead, rules) || !strings.Contains(dead, "ip daddr 10.90.3.0/24 drop") {
		t.Errorf("rules of a dead node:\n%s", dead)
	}
}

func TestOwnTables(t *testing.T) {
	list := "table ip kube-proxy\ntable ip6 kube-proxy\ntable ip filter\ntable ip dory-cluster\ntable ip dory-cluster-dory-edge-1\ntable inet fw\n"
	want := []string{"ip kube-proxy", "ip6 kube-proxy", "ip dory-cluster", "ip dory-cluster-dory-edge-1"}
	if got := ownTables(list); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestPostgresVersionIsANumber(t *testing.T) {
	if postgresVersion("/usr/lib/postgresql/9/bin/postgres") > postgresVersion("/usr/lib/postgresql/15/bin/postgres") {
		t.Error("9 is not newer than 15")
	}
}

func TestNodeReady(t *testing.T) {
	for input, want := range map[string]string{
		`{"metadata":{"name":"n"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`:                        "",
		`{"metadata":{"name":"n"},"status":{"conditions":[{"type":"Ready","status":"Unknown","message":"silence"}]}}`: "node n is not Ready: silence",
		`{"metadata":{"name":"n"}}`: "node n has not reported yet",
	} {
		var n nodeObject
		if err := json.Unmarshal([]byte(input), &n); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := n.ready(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", input, got, want)
		}
	}
}
