//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// cluster runs the program that owns the local cluster.
func cluster(ctx context.Context, args ...string) {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, filepath.Join("..", "..", "bin", "cluster"), args...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// clusterState is the directory where the local cluster keeps its files.
func clusterState() string {
	if state := os.Getenv("DORY_CLUSTER_STATE"); state != "" {
		return state
	}
	return filepath.Join("..", "..", ".run", "cluster")
}

// breakNode does that to a node, and undoes it after the test at the latest.
func breakNode(ctx context.Context, how, node string) {
	GinkgoHelper()
	DeferCleanup(func(ctx context.Context) { cluster(ctx, "node", "start", node) })
	cluster(ctx, "node", how, node)
}

// cordon keeps new pods off a node until the test ends at the latest.
func cordon(ctx context.Context, node string) {
	GinkgoHelper()
	DeferCleanup(func(ctx context.Context) { uncordon(ctx, node) })
	setUnschedulable(ctx, node, true)
}

func uncordon(ctx context.Context, node string) {
	GinkgoHelper()
	setUnschedulable(ctx, node, false)
}

func setUnschedulable(ctx context.Context, name string, value bool) {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(k8s.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
	patch := client.MergeFrom(node.DeepCopy())
	node.Spec.Unschedulable = value
	Expect(k8s.Patch(ctx, node, patch)).To(Succeed())
}

// kill ends a pod's only container as the kernel does that is out of memory: at once, and without a word to anybody.
func kill(ctx context.Context, key client.ObjectKey) {
	GinkgoHelper()
	killProcesses(containerProcesses(ctx, key))
}

func killProcesses(processes []int) {
	GinkgoHelper()
	for _, pid := range processes {
		Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
	}
}

// containerProcesses are those of a pod's only container.
func containerProcesses(ctx context.Context, key client.ObjectKey) []int {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(k8s.Get(ctx, key, pod)).To(Succeed())
	Expect(pod.Status.ContainerStatuses).To(HaveLen(1))
	_, id, found := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	Expect(found).To(BeTrue(), "%+v", pod.Status)
	processes := processesOf(id)
	Expect(processes).NotTo(BeEmpty(), "no process of container %s on this machine", id)
	return processes
}

// processesOf finds the processes whose cgroup bears the container's id.
func processesOf(container string) []int {
	GinkgoHelper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	Expect(err).NotTo(HaveOccurred())
	var found []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), container) {
			continue // it ended meanwhile, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		Expect(err).NotTo(HaveOccurred())
		found = append(found, pid)
	}
	return found
}

// stopPostgres ends the local cluster's server as an operator of it would, and brings it back after the test at the latest.
func stopPostgres(ctx context.Context) {
	GinkgoHelper()
	lock := filepath.Join(clusterState(), "postgres", "postmaster.pid")
	text, err := os.ReadFile(lock)
	Expect(err).NotTo(HaveOccurred())
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(startPostgres)
	// SIGINT is PostgreSQL's fast shutdown: it ends all sessions.
	Expect(syscall.Kill(pid, syscall.SIGINT)).To(Succeed())
	Eventually(lock).WithContext(ctx).ShouldNot(BeAnExistingFile(), "the server removes it last")
}

// startPostgres repairs the cluster.
func startPostgres(ctx context.Context) {
	GinkgoHelper()
	cluster(ctx, "up")
	Eventually(func() error { return database.Ping(ctx) }).WithContext(ctx).Should(Succeed())
}
