//go:build e2e

// Package e2e tests Dory as its users have it: the shipped manifests on a cluster with real kubelets. It needs KUBECONFIG
// and DORY_DATABASE_URL of the local cluster, where Dory is installed: test/e2e/run sees to it.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	operatorNamespace = "dory-system"
	leaseName         = "dory-operator.dory.io"

	cloudNode      = "dory-cloud-1"
	otherCloudNode = "dory-cloud-2"
	edgeNode       = "dory-edge-1"

	// A pod's way through scheduler, kubelet and probes on two busy cores, after one that may take its whole grace period.
	timeToRun = 2 * time.Minute
	// What the operator should notice at once.
	timeToReact = 30 * time.Second
)

var (
	// k8s is the cluster's administrator.
	k8s       client.Client
	clientset *kubernetes.Clientset
	database  *pgxpool.Pool
	// operatorLogs are those of all operators that ran during the suite.
	operatorLogs *logbook
	// namespaces are all that the tests have made.
	namespaces []string
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(timeToReact)
	EnforceDefaultTimeoutsWhenUsingContexts()
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	SetDefaultConsistentlyPollingInterval(250 * time.Millisecond)
	RunSpecs(t, "Dory on real kubelets")
}

var _ = BeforeSuite(func(ctx context.Context) {
	config, err := ctrl.GetConfig()
	Expect(err).NotTo(HaveOccurred(), "no cluster: run `make test-e2e`, or set KUBECONFIG")
	config.QPS = -1
	Expect(clientgoscheme.AddToScheme(clientgoscheme.Scheme)).To(Succeed())
	Expect(doryv1alpha1.AddToScheme(clientgoscheme.Scheme)).To(Succeed())
	k8s, err = client.New(config, client.Options{Scheme: clientgoscheme.Scheme})
	Expect(err).NotTo(HaveOccurred())
	clientset, err = kubernetes.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())

	url := os.Getenv("DORY_DATABASE_URL")
	Expect(url).NotTo(BeEmpty(), "no database: run `make test-e2e`, or set DORY_DATABASE_URL")
	database, err = pgxpool.New(context.WithoutCancel(ctx), url)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(database.Close)
	Expect(database.Ping(ctx)).To(Succeed())
	operatorLogs = keepLogs(operatorNamespace)
	operatorsAreWell(ctx)
})

var _ = AfterSuite(func(ctx context.Context) {
	if operatorLogs == nil {
		return // it did not begin
	}
	By("no operator was refused anything by RBAC, or panicked")
	pods, read := map[string]bool{}, 0
	for _, log := range operatorLogs.of("dory-operator-") {
		for _, line := range log.lines() {
			if uninstalled[log.pod] && strings.Contains(line, "forbidden: User") {
				continue
			}
			Expect(line).NotTo(Or(ContainSubstring("forbidden: User"), ContainSubstring("panic"), ContainSubstring("DATA RACE")), log.pod)
			read++
		}
		pods[log.pod] = true
	}
	Expect(len(pods)).To(BeNumerically(">=", 2))
	Expect(read).To(BeNumerically(">", len(pods)), "the operators' logs")

	By("all namespaces go")
	for _, name := range namespaces {
		isGone(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
})

var _ = ReportAfterEach(func(ctx SpecContext, report SpecReport) {
	if report.Failed() && operatorLogs != nil {
		AddReportEntry("where to look first", diagnosis(context.WithoutCancel(ctx)))
	}
})

// diagnosis is what one would look at first after a failure: the processors of the test, and what the operators said.
func diagnosis(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, timeToReact)
	defer cancel()
	var text strings.Builder
	var processors doryv1alpha1.ProcessorList
	if err := k8s.List(ctx, &processors); err != nil {
		return err.Error()
	}
	for _, p := range processors.Items {
		if strings.HasPrefix(p.Namespace, namespacePrefix) {
			status, _ := yaml.Marshal(p.Status)
			fmt.Fprintf(&text, "--- Processor %s/%s\n%s", p.Namespace, p.Name, status)
		}
	}
	var pods corev1.PodList
	if err := k8s.List(ctx, &pods); err != nil {
		return text.String() + err.Error()
	}
	for _, pod := range pods.Items {
		fmt.Fprintf(&text, "--- Pod %s/%s on %s: %s %s\n", pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Status.Phase, pod.Status.Reason)
	}
	for _, log := range operatorLogs.of("dory-operator-") {
		lines := log.lines()
		fmt.Fprintf(&text, "--- Log of %s\n%s\n", log.pod, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return text.String()
}
