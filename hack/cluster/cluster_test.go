//go:build cluster

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCluster brings up a real cluster, uses it, breaks its nodes, takes it down and looks whether the machine is as before. It has
// a build tag because it needs root, built binaries and no other cluster; make test-cluster runs it.
func TestCluster(t *testing.T) {
	s := newSuite(t)
	before := s.machine()
	t.Cleanup(func() { _, _ = s.try("", s.program, "down", "--bin", s.bin, "--state", s.state) })
	s.cluster("up")
	if out := s.cluster("up"); !strings.Contains(out, "was up and well already") {
		t.Errorf("the second up:\n%s", out)
	}
	t.Run("pods", s.pods)
	t.Run("repair", s.repair)
	t.Run("nodes", s.nodes)
	s.cluster("down")
	if out, err := s.try("", s.program, "status", "--bin", s.bin, "--state", s.state); err == nil || !strings.Contains(out, "nothing of one is left") {
		t.Errorf("status after down: %v\n%s", err, out)
	}
	for what, after := range s.machine() {
		if added, gone := difference(after, before[what]), difference(before[what], after); len(added)+len(gone) > 0 {
			t.Errorf("%s: new %q, gone %q", what, added, gone)
		}
	}
}

type suite struct {
	*testing.T
	bin, state, program, image string
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &suite{T: t, bin: bin, state: filepath.Join(dir, "state"), program: filepath.Join(dir, "cluster"), image: filepath.Join(dir, "probe.tar")}
	probe := filepath.Join(dir, "probe")
	s.must("", "go", "build", "-o", s.program, ".")
	s.must("", "env", "CGO_ENABLED=0", "go", "build", "-o", probe, "./testdata/probe")
	s.must("", "go", "run", "../image", "-binary", probe, "-name", "dory-probe:dev", "-output", s.image)
	return s
}

func (s *suite) try(stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // also in a cleanup, where the test's own has ended
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(s.state, "kubeconfig"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (s *suite) must(stdin, name string, args ...string) string {
	s.Helper()
	out, err := s.try(stdin, name, args...)
	if err != nil {
		s.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// cluster runs the program's command with this suite's directories.
func (s *suite) cluster(command string, args ...string) string {
	s.Helper()
	return s.must("", s.program, append([]string{command, "--bin", s.bin, "--state", s.state}, args...)...)
}

func (s *suite) kubectl(stdin string, args ...string) string {
	s.Helper()
	return s.must(stdin, filepath.Join(s.bin, "k8s", "kubectl"), args...)
}

const probeManifests = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: probe}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: probe
        image: dory-probe:dev
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: probe}
spec: {selector: {app: probe}, ports: [{port: 80, targetPort: 8080}]}
`

func (s *suite) pods(t *testing.T) {
	s = &suite{T: t, bin: s.bin, state: s.state, program: s.program, image: s.image}
	s.cluster("load-image", s.image)
	s.kubectl(probeManifests, "apply", "-f", "-")
	s.kubectl("", "rollout", "status", "daemonset/probe", "--timeout=60s")
	service := strings.TrimSpace(s.kubectl("", "get", "service", "probe", "-o", "jsonpath={.spec.clusterIP}"))
	if out := s.must("", "go", "run", "./testdata/probe", "get", "http://"+service+"/"); !strings.HasPrefix(out, "probe-") {
		t.Errorf("the Service from the host: %s", out)
	}
	pods := strings.Fields(s.kubectl("", "get", "pods", "-l", "app=probe", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(pods) != 3 {
		t.Fatalf("pods %q, want one on each node", pods)
	}
	for _, pod := range pods {
		// Several times: the Service picks a pod at random, the asking one and its neighbours on the bridge included.
		for range 5 {
			if out := s.kubectl("", "exec", pod, "--", "/probe", "get", "http://probe.default.svc/"); !strings.HasPrefix(out, "probe-") {
				t.Errorf("the Service from %s: %s", pod, out)
			}
		}
		if out := s.kubectl("", "logs", pod); !strings.Contains(out, "serving as "+pod) {
			t.Errorf("logs of %s: %s", pod, out)
		}
	}
	for _, bridge := range []string{"dory-cloud-1", "dory-cloud-2", "dory-edge-1"} {
		// 3 is NET_ADDR_SET: the address is the bridge's own, and no port's that may go while another pod remembers it.
		if kind, err := os.ReadFile("/sys/class/net/" + bridge + "/addr_assign_type"); err != nil || strings.TrimSpace(string(kind)) != "3" {
			t.Errorf("the hardware address of bridge %s is of kind %q, %v, want 3", bridge, kind, err)
		}
	}
	url := strings.TrimSpace(s.cluster("database-url"))
	if out := s.must("", "psql", url, "-tAc", "SELECT current_user"); strings.TrimSpace(out) != "dory" {
		t.Errorf("the database's user: %s", out)
	}
}

// repair kills some processes behind the cluster's back.
func (s *suite) repair(t *testing.T) {
	s = &suite{T: t, bin: s.bin, state: s.state, program: s.program}
	c, err := newCluster(options{State: s.state, Bin: s.bin}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd", "kube-apiserver", "postgres", "kubelet-dory-cloud-1", "containerd-dory-edge-1"} {
		if err := c.procs.Signal(name, 9); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.try("", s.program, "status", "--bin", s.bin, "--state", s.state); err == nil || !strings.Contains(out, "etcd") {
		t.Errorf("status of a broken cluster: %v\n%s", err, out)
	}
	s.cluster("up")
	s.cluster("status")
	s.kubectl("", "rollout", "status", "daemonset/probe", "--timeout=60s")
}

func (s *suite) nodes(t *testing.T) {
	s = &suite{T: t, bin: s.bin, state: s.state, program: s.program}
	for _, fault := range []string{"stop", "kill", "partition"} {
		s.cluster("node", fault, "dory-edge-1")
		s.kubectl("", "wait", "--for=condition=Ready=Unknown", "node/dory-edge-1", "--timeout=60s")
		s.cluster("node", "start", "dory-edge-1")
		s.kubectl("", "wait", "--for=condition=Ready", "node/dory-edge-1", "--timeout=30s")
	}
	s.kubectl("", "rollout", "status", "daemonset/probe", "--timeout=60s")
}

// machine lists what a cluster makes and must take away again.
func (s *suite) machine() map[string][]string {
	s.Helper()
	lines := func(command string) []string {
		out := strings.Split(s.must("", "/bin/sh", "-c", command), "\n")
		slices.Sort(out)
		return out
	}
	return map[string][]string{
		"links":     lines("ip -o link | cut -d: -f2"),
		"routes":    lines("ip route show table all"),
		"mounts":    lines("cut -d' ' -f5 /proc/self/mountinfo"),
		"cgroups":   lines("find /sys/fs/cgroup -type d"),
		"nftables":  lines("nft list tables"),
		"sockets":   lines("ls /run/containerd/s 2>/dev/null || true"),
		"files":     lines("find /run /var/lib/cni /var/lib/kubelet /var/log/containers /usr/libexec/kubernetes /tmp/hostpath_pv -maxdepth 2 2>/dev/null || true"),
		"forward":   lines("cat /proc/sys/net/ipv4/ip_forward"),
		"processes": lines(fmt.Sprintf("ps -eo args | grep -E '%s|/run/dory-cluster' | grep -v -e grep -e 'sh -c' || true", filepath.Join(s.bin, "k8s"))),
	}
}

func difference(a, b []string) []string {
	var only []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			only = append(only, s)
		}
	}
	return only
}
