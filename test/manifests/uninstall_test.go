package manifests

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

var _ = Describe("make uninstall", func() {
	It("refuses while there are Processors, and says what to do", func(ctx context.Context) {
		create(ctx, processor("works", "image: a"))
		out, err := script("hack/install/install uninstall")
		Expect(err).To(HaveOccurred())
		Expect(out).To(And(ContainSubstring("default/works"), ContainSubstring("PROCESSORS=delete ends them"), ContainSubstring("PROCESSORS=keep")))
		isInstalled(ctx)
	})

	It("refuses to delete Processors of rows, which would be made again", func(ctx context.Context) {
		create(ctx, ownedProcessor("of-a-row"))
		out, err := script("PROCESSORS=delete hack/install/install uninstall")
		Expect(err).To(HaveOccurred())
		Expect(out).To(And(ContainSubstring("default/of-a-row"), ContainSubstring("SET status = 'terminated'"), ContainSubstring("dory.io/deletion-approved=true")))
		isInstalled(ctx)
	})

	DescribeTable("ends no processor that would lose work", func(ctx context.Context, interval string, storage doryv1alpha1.CheckpointStorage, checkpointed metav1.ConditionStatus, says string) {
		o := create(ctx, processor("large", "image: a\nstate: {checkpointInterval: "+interval+"}"))
		p := &doryv1alpha1.Processor{}
		Expect(typed.Get(ctx, client.ObjectKeyFromObject(o), p)).To(Succeed())
		p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: "dory-large-1", Epoch: 1}
		if storage != "" {
			p.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Storage: storage, Time: metav1.Now(), Epoch: 1, Checksum: strings.Repeat("a", 64), SizeBytes: 2 << 20}
		}
		if checkpointed != "" {
			p.Status.Conditions = []metav1.Condition{{Type: doryv1alpha1.ConditionCheckpointed, Status: checkpointed, Reason: "R", LastTransitionTime: metav1.Now()}}
		}
		Expect(typed.Status().Update(ctx, p)).To(Succeed())
		out, err := script("TIMEOUT=1 PROCESSORS=delete hack/install/install uninstall")
		Expect(err).To(HaveOccurred())
		Expect(out).To(And(ContainSubstring("default/large"), ContainSubstring(says)))
		Expect(typed.Get(ctx, client.ObjectKeyFromObject(p), p)).To(Succeed())
		Expect(p.DeletionTimestamp).To(BeNil())
		isInstalled(ctx)
	},
		Entry("because its state is too large for its SDK to save, in the database", "30s", doryv1alpha1.CheckpointDatabase, metav1.ConditionTrue, "suspend them, wait until their pods are gone"),
		Entry("because its state is too large for its SDK to save, in ConfigMaps", "30s", doryv1alpha1.CheckpointChunks, metav1.ConditionTrue, "suspend them"),
		Entry("because it is never copied", "0s", doryv1alpha1.CheckpointStorage(""), metav1.ConditionStatus(""), "are never copied"),
		Entry("because copies fail", "30s", doryv1alpha1.CheckpointConfigMap, metav1.ConditionFalse, "Their state cannot be copied"),
		Entry("because there was no copy yet", "30s", doryv1alpha1.CheckpointStorage(""), metav1.ConditionStatus(""), "Their state cannot be copied"),
	)

	It("stops the operator between two moves", func(ctx context.Context) {
		DeferCleanup(func(ctx context.Context) {
			out, err := kubectl("apply", "--server-side", "-k", filepath.Join(configDir, "default"))
			Expect(err).NotTo(HaveOccurred(), out)
			waitForPolicies(ctx)
		})
		p := create(ctx, processor("moves", "image: a"))
		m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Namespace: p.GetNamespace(), Name: "late"}, Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: "moves"}}
		Expect(typed.Create(ctx, m)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(typed.Delete(ctx, m))).To(Succeed()) })
		// A kubectl beside which a move begins just when the operator is stopped, and ends when it is there again.
		directory := GinkgoT().TempDir()
		calls := filepath.Join(directory, "calls")
		shim := `#!/usr/bin/env bash
root=$PWD/bin/k8s/kubectl
phase() { "$root" patch processormigration -n default late --subresource=status --type=merge -p "{\"status\":{\"phase\":\"$1\"}}" >/dev/null || exit; }
case "$*" in
*--replicas=0) if [ ! -s ` + calls + ` ]; then phase HandingOff; fi ;;
*--replicas=2) phase Succeeded ;;
esac
case "$*" in *" scale "* | "delete -k "*) echo "$*" >>` + calls + ` ;; esac
exec "$root" "$@"
`
		Expect(os.WriteFile(filepath.Join(directory, "kubectl"), []byte(shim), 0o700)).To(Succeed())
		out, err := script("PATH=" + directory + ":$PATH TIMEOUT=20 PROCESSORS=keep hack/install/install uninstall")
		Expect(err).NotTo(HaveOccurred(), out)
		seen, err := os.ReadFile(calls)
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Split(strings.TrimSpace(string(seen)), "\n")).To(HaveExactElements(ContainSubstring("--replicas=0"), ContainSubstring("--replicas=2"),
			ContainSubstring("--replicas=0"), ContainSubstring("delete -k config/default")))
	})

	It("purges nothing that must be kept, and takes no other words", func(ctx context.Context) {
		out, err := script("PROCESSORS=keep PURGE=1 hack/install/install uninstall")
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("does not go with PROCESSORS=keep"))
		out, err = script("PROCESSORS=yes hack/install/install uninstall")
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("say keep or delete"))
		isInstalled(ctx)
	})
})

var _ = Describe("make demo-down", func() {
	It("leaves Dory and everybody's processors alone where Dory was before the demo", func(ctx context.Context) {
		theirs := create(ctx, processor("theirs", "image: a"))
		out, err := script("DORY_USE_CLUSTER=1 DORY_DATABASE_URL= hack/demo/demo down")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(ContainSubstring("Dory was here before the demo"))
		isInstalled(ctx)
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(theirs), theirs)).To(Succeed())
	})

	It("leaves Dory alone where others have begun to use it", func(ctx context.Context) {
		out, err := kubectl("annotate", "namespace", "dory-system", "demo.dory.io/installed=true")
		Expect(err).NotTo(HaveOccurred(), out)
		DeferCleanup(func() { _, _ = kubectl("annotate", "namespace", "dory-system", "demo.dory.io/installed-") })
		create(ctx, processor("theirs", "image: a"))
		out, err = script("DORY_USE_CLUSTER=1 DORY_DATABASE_URL= hack/demo/demo down")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(ContainSubstring("there are Processors that are not the demo's"))
		isInstalled(ctx)
	})
})

var _ = Describe("A backup of a namespace's ConfigMaps", func() {
	It("is restored by the commands of docs/install.md, and the next epoch is above it", func(ctx context.Context) {
		p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Name: "cam"}}
		for _, namespace := range []string{"from", "to"} {
			Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
			Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kube-root-ca.crt"}})).To(Succeed(),
				"a real cluster has one in each namespace")
		}
		store := statestore.New(statestore.Config{Client: admin, Reader: admin})
		p.Namespace = "from"
		for epoch, payload := range map[int64]any{107: map[string]int{"n": 5}, 108: map[string]string{"frame": strings.Repeat("x", 2<<20)}} {
			text, err := json.Marshal(payload)
			Expect(err).NotTo(HaveOccurred())
			_, err = store.Save(ctx, statestore.SaveRequest{Key: statestore.KeyOf(p), Document: statexfer.Document{Payload: text, Metadata: statexfer.Metadata{
				Position: statexfer.Position{Epoch: epoch, Sequence: 5}, ProcessorID: "cam", Time: time.Now(),
			}}})
			Expect(err).NotTo(HaveOccurred())
		}
		out, err := script("kubectl get configmaps -n from --field-selector metadata.name!=kube-root-ca.crt -o yaml | sed 's/namespace: from/namespace: to/' >states.yaml && kubectl create -f states.yaml; code=$?; rm -f states.yaml; exit $code")
		Expect(err).NotTo(HaveOccurred(), out)

		p.Namespace = "to"
		result, err := statestore.NewPreparer(store, typed, events.NewFakeRecorder(10)).Prepare(ctx, p)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.Found).To(HaveValue(HaveField("Storage", doryv1alpha1.CheckpointChunks)))
		Expect(result.Epoch).To(Equal(int64(108)))
	})
})

// isInstalled checks that nothing of Dory was touched.
func isInstalled(ctx context.Context) {
	GinkgoHelper()
	deployment := &appsv1.Deployment{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: "dory-system", Name: "dory-operator"}, deployment)).To(Succeed())
	Expect(deployment.DeletionTimestamp).To(BeNil())
	out, err := kubectl("get", "crd", "-o", "jsonpath={.items[*].metadata.annotations.dory\\.io/deletion-approved}{.items[*].metadata.deletionTimestamp}")
	Expect(err).NotTo(HaveOccurred(), out)
	Expect(out).To(BeEmpty())
}

// script runs a line of a shell in the repository as an admin of the API server under test would.
func script(line string) (string, error) {
	GinkgoHelper()
	user, err := testEnv.AddUser(envtest.User{Name: "shell", Groups: []string{"system:masters"}}, nil)
	Expect(err).NotTo(HaveOccurred())
	kubeconfig, err := user.KubeConfig()
	Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(os.WriteFile(path, kubeconfig, 0o600)).To(Succeed())
	root, err := filepath.Abs("../..")
	Expect(err).NotTo(HaveOccurred())
	cmd := exec.CommandContext(GinkgoT().Context(), "bash", "-c", line)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+path, "PATH="+filepath.Join(root, "bin", "k8s")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
