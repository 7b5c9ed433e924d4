package configchange_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/configchange"
	"github.com/dory-io/dory/internal/controller/lifecycle"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
)

var (
	environment *envtest.Environment
	apiServer   *rest.Config
	k8s         client.Client
	scheme      = runtime.NewScheme()
)

func TestFlow(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(time.Second)
	RunSpecs(t, "configchange")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	root := filepath.Join("..", "..", "..")
	environment = &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join(root, "bin", "k8s")
	}
	var err error
	apiServer, err = environment.Start()
	Expect(err).NotTo(HaveOccurred(), "envtest needs kube-apiserver and etcd: make envtest-binaries")
	DeferCleanup(environment.Stop)
	apiServer.QPS = -1
	k8s, err = client.New(apiServer, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
})

// startOperator runs lifecycle and what watches configuration, as the account that is given, and answers how to stop them.
func startOperator(watchAs *rest.Config) (stop func()) {
	GinkgoHelper()
	manager, err := ctrl.NewManager(apiServer, ctrl.Options{
		Cache:  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pod.Slim}}}, // As the operator has it.
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	metrics, err := lifecycle.NewMetrics(prometheus.NewRegistry(), manager.GetCache())
	Expect(err).NotTo(HaveOccurred())
	tokens := pod.NewTokens([]byte("secret"))
	Expect(lifecycle.New(lifecycle.Config{
		Client: manager.GetClient(), APIReader: manager.GetAPIReader(), Issuer: fence.NewIssuer(manager.GetClient(), nil, clock.RealClock{}),
		Clock: clock.RealClock{}, Recorder: manager.GetEventRecorder("dory-lifecycle"), Metrics: metrics,
		NewSuffix: func() string { return utilrand.String(8) }, Tokens: tokens,
	}).SetupWithManager(ctx, manager)).To(Succeed())
	watcher, err := metadata.NewForConfig(metadata.ConfigFor(watchAs))
	Expect(err).NotTo(HaveOccurred())
	self, err := client.New(watchAs, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(configchange.New(configchange.Config{
		Client: manager.GetClient(), APIReader: manager.GetAPIReader(), Metadata: watcher, Self: self, Clock: clock.RealClock{},
		Recorder: manager.GetEventRecorder("dory-configchange"), SecretKey: tokens.For, Settle: 200 * time.Millisecond,
	}).SetupWithManager(manager)).To(Succeed())
	stopped := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(stopped)
		Expect(manager.Start(ctx)).To(Succeed())
	}()
	stop = func() { cancel(); <-stopped }
	DeferCleanup(stop)
	Expect(manager.GetCache().WaitForCacheSync(ctx)).To(BeTrue())
	return stop
}

func newNamespace() string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "config-"}}
	Expect(k8s.Create(context.Background(), namespace)).To(Succeed())
	DeferCleanup(func() { clearNamespace(namespace.Name) })
	return namespace.Name
}

// clearNamespace removes what later operators would take care of: envtest has no namespace controller.
func clearNamespace(namespace string) {
	ctx := context.Background()
	Expect(k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(namespace))).To(Succeed())
	Eventually(func(g Gomega) {
		var left corev1.PodList
		g.Expect(k8s.List(ctx, &left, client.InNamespace(namespace))).To(Succeed())
		for _, pod := range left.Items {
			pod.Finalizers = nil
			g.Expect(client.IgnoreNotFound(k8s.Update(ctx, &pod))).To(Succeed())
			g.Expect(client.IgnoreNotFound(k8s.Delete(ctx, &pod, client.GracePeriodSeconds(0)))).To(Succeed())
		}
	}).Should(Succeed())
}

// runs waits for the pod and makes a kubelet's word of it: it is ready.
func runs(p *doryv1alpha1.Processor) *corev1.Pod {
	GinkgoHelper()
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	_ = k8s.Create(ctx, node) // It may be there already.
	Eventually(func() error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		return k8s.Status().Update(ctx, node)
	}).Should(Succeed())
	found := &corev1.Pod{}
	Eventually(func(g Gomega) {
		var list corev1.PodList
		g.Expect(k8s.List(ctx, &list, client.InNamespace(p.Namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: p.Name})).To(Succeed())
		g.Expect(list.Items).To(HaveLen(1))
		*found = list.Items[0]
	}).Should(Succeed())
	Expect(k8s.SubResource("binding").Create(ctx, found, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node.Name}})).To(Succeed())
	Eventually(func() error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(found), found); err != nil {
			return err
		}
		found.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, StartTime: new(metav1.Now()),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
		}
		return k8s.Status().Update(ctx, found)
	}).Should(Succeed())
	Eventually(func() doryv1alpha1.ProcessorPhase { return fresh(p).Status.Phase }).Should(Equal(doryv1alpha1.ProcessorRunning))
	return found
}

func fresh(p *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	GinkgoHelper()
	found := &doryv1alpha1.Processor{}
	Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(p), found)).To(Succeed())
	return found
}
