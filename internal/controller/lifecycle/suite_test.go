package lifecycle_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/lifecycle"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/internal/store"
)

var (
	apiServer *rest.Config
	k8s       client.Client
	tokens    = pod.NewTokens([]byte("secret"))
	scheme    = runtime.NewScheme()
)

func TestLifecycle(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(time.Second)
	RunSpecs(t, "lifecycle")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	root := filepath.Join("..", "..", "..")
	environment := &envtest.Environment{
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

// operator is one lifecycle controller, as one replica of the operator runs it.
type operator struct {
	clock *clocktesting.FakeClock
	mu    sync.Mutex
	// writes counts what it sent to the API server, by verb and kind.
	writes map[string]int
	// lateEpochs and latePods stand for a cache that has not heard of any yet.
	lateEpochs, latePods atomic.Bool

	stop context.CancelFunc
}

type operatorOptions struct {
	ledger    fence.Ledger
	discovery bool
	readiness bool
	// database is where large states are.
	database statestore.Database
}

func startOperator(options operatorOptions) *operator {
	GinkgoHelper()
	o := &operator{clock: clocktesting.NewFakeClock(time.Now()), writes: map[string]int{}}
	manager, err := ctrl.NewManager(apiServer, ctrl.Options{
		Cache:  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pod.Slim}}}, // As the operator has it.
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, NewClient: o.countingClient,
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	metrics, err := lifecycle.NewMetrics(prometheus.NewRegistry(), manager.GetCache())
	Expect(err).NotTo(HaveOccurred())
	recorder := manager.GetEventRecorder("dory-lifecycle")
	states := statestore.New(statestore.Config{Client: manager.GetClient(), Reader: manager.GetAPIReader(), Database: options.database})
	reconciler := lifecycle.New(lifecycle.Config{
		Client: manager.GetClient(), APIReader: manager.GetAPIReader(),
		Issuer: fence.NewIssuer(manager.GetClient(), options.ledger, o.clock), Clock: o.clock,
		Recorder: recorder, Metrics: metrics, States: statestore.NewPreparer(states, manager.GetClient(), recorder),
		NewSuffix: func() string { return utilrand.String(8) }, Tokens: tokens,
		Options: lifecycle.Options{ImagePullSecret: "ecr-registry-secret", ClusterWideIDs: options.ledger != nil},
	})
	Expect(reconciler.SetupWithManager(ctx, manager)).To(Succeed())
	if options.discovery {
		Expect(lifecycle.NewDiscovery(manager.GetClient(), nil).SetupWithManager(manager)).To(Succeed())
	}
	if options.readiness {
		Expect(lifecycle.NewReadiness(reconciler, nil).SetupWithManager(manager)).To(Succeed())
	}
	stopped := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(stopped)
		Expect(manager.Start(ctx)).To(Succeed())
	}()
	o.stop = func() { cancel(); <-stopped }
	DeferCleanup(o.stop)
	Expect(manager.GetCache().WaitForCacheSync(ctx)).To(BeTrue())
	return o
}

// countingClient counts writes.
func (o *operator) countingClient(config *rest.Config, options client.Options) (client.Client, error) {
	underlying, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(underlying, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*doryv1alpha1.ProcessorEpoch); ok && o.lateEpochs.Load() {
				return apierrors.NewNotFound(doryv1alpha1.GroupVersion.WithResource("processorepochs").GroupResource(), key.Name)
			}
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*corev1.PodList); ok && o.latePods.Load() {
				return nil
			}
			return c.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			o.count("create", obj)
			return c.Create(ctx, obj, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			o.count("update", obj)
			return c.Update(ctx, obj, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			o.count("patch", obj)
			return c.Patch(ctx, obj, patch, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			o.count("delete", obj)
			return c.Delete(ctx, obj, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			o.count("update "+sub, obj)
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			o.count("patch "+sub, obj)
			return c.SubResource(sub).Patch(ctx, obj, patch, opts...)
		},
	}), nil
}

func (o *operator) count(verb string, obj client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	gvk, _ := k8s.GroupVersionKindFor(obj) // only a name for a message
	o.writes[verb+" "+gvk.Kind]++
}

func (o *operator) written() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.writes)
}

func newNamespace() string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "lifecycle-"}}
	Expect(k8s.Create(context.Background(), namespace)).To(Succeed())
	DeferCleanup(clearNamespace, namespace.Name)
	return namespace.Name
}

// clearNamespace removes what later operators would take care of: envtest has no namespace controller.
func clearNamespace(namespace string) {
	ctx := context.Background()
	Expect(k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(namespace))).To(Succeed())
	clearPods(namespace)
}

func clearPods(namespace string) {
	GinkgoHelper()
	ctx := context.Background()
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

// apply creates a Processor that names only an image, but for the changes.
func apply(namespace, name string, changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	GinkgoHelper()
	p := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       doryv1alpha1.ProcessorSpec{Image: "counter:1"},
	}
	for _, change := range changes {
		change(p)
	}
	Expect(k8s.Create(context.Background(), p)).To(Succeed())
	return p
}

// modify changes a Processor, as kubectl edit would.
func modify(p *doryv1alpha1.Processor, change func(*doryv1alpha1.Processor)) {
	GinkgoHelper()
	Eventually(func() error {
		fresh := &doryv1alpha1.Processor{}
		if err := k8s.Get(context.Background(), client.ObjectKeyFromObject(p), fresh); err != nil {
			return err
		}
		change(fresh)
		return k8s.Update(context.Background(), fresh)
	}).Should(Succeed())
}

func pods(p *doryv1alpha1.Processor) func() []corev1.Pod {
	return func() []corev1.Pod {
		var list corev1.PodList
		Expect(k8s.List(context.Background(), &list, client.InNamespace(p.Namespace), client.MatchingLabels{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy})).To(Succeed())
		return list.Items
	}
}

// thePod waits until exactly one pod is there, with the epoch.
func thePod(p *doryv1alpha1.Processor, epoch string) *corev1.Pod {
	GinkgoHelper()
	var pod corev1.Pod
	Eventually(func(g Gomega) {
		all := pods(p)()
		g.Expect(all).To(HaveLen(1))
		g.Expect(all[0].Labels).To(HaveKeyWithValue(doryv1alpha1.LabelEpoch, epoch))
		pod = all[0]
	}).Should(Succeed())
	return &pod
}

func epochOf(p *doryv1alpha1.Processor) func() doryv1alpha1.ProcessorEpochSpec {
	return func() doryv1alpha1.ProcessorEpochSpec {
		var epoch doryv1alpha1.ProcessorEpoch
		if err := k8s.Get(context.Background(), client.ObjectKey{Namespace: p.Namespace, Name: doryv1alpha1.ObjectName(p.ID())}, &epoch); err != nil {
			return doryv1alpha1.ProcessorEpochSpec{}
		}
		return epoch.Spec
	}
}

func statusOf(p *doryv1alpha1.Processor) func() doryv1alpha1.ProcessorStatus {
	return func() doryv1alpha1.ProcessorStatus {
		fresh := &doryv1alpha1.Processor{}
		Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(p), fresh)).To(Succeed())
		return fresh.Status
	}
}

// bind stands in for the scheduler, and the status functions for the kubelet: envtest has neither.
func bind(pod *corev1.Pod, node string) {
	GinkgoHelper()
	Expect(k8s.SubResource("binding").Create(context.Background(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})).To(Succeed())
}

func kubeletSays(pod *corev1.Pod, status corev1.PodStatus) {
	GinkgoHelper()
	Eventually(func() error {
		fresh := &corev1.Pod{}
		if err := k8s.Get(context.Background(), client.ObjectKeyFromObject(pod), fresh); err != nil {
			return err
		}
		fresh.Status = status
		return k8s.Status().Update(context.Background(), fresh)
	}).Should(Succeed())
}

// kubeletEnds confirms that the containers ended and, as a kubelet does for a pod that somebody deleted, asks for
// the object to go.
func kubeletEnds(pod *corev1.Pod, phase corev1.PodPhase) {
	GinkgoHelper()
	kubeletSays(pod, corev1.PodStatus{Phase: phase, StartTime: new(metav1.Now())})
	Expect(client.IgnoreNotFound(k8s.Get(context.Background(), client.ObjectKeyFromObject(pod), pod))).To(Succeed())
	if pod.DeletionTimestamp != nil {
		Expect(client.IgnoreNotFound(k8s.Delete(context.Background(), pod, client.GracePeriodSeconds(0)))).To(Succeed())
	}
}

func running(ip string) corev1.PodStatus {
	return corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, StartTime: new(metav1.Now()),
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
	}
}

// node makes a Node that is ready, or silent.
func node(name string, ready corev1.ConditionStatus) {
	GinkgoHelper()
	ctx := context.Background()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := k8s.Create(ctx, n); err == nil {
		DeferCleanup(func() { Expect(client.IgnoreNotFound(k8s.Delete(ctx, n))).To(Succeed()) })
	}
	Eventually(func() error {
		if err := k8s.Get(ctx, types.NamespacedName{Name: name}, n); err != nil {
			return err
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		return k8s.Status().Update(ctx, n)
	}).Should(Succeed())
}

func migrations(p *doryv1alpha1.Processor) func() []doryv1alpha1.ProcessorMigration {
	return func() []doryv1alpha1.ProcessorMigration {
		GinkgoHelper()
		var all doryv1alpha1.ProcessorMigrationList
		Expect(k8s.List(context.Background(), &all, client.InNamespace(p.Namespace))).To(Succeed())
		return all.Items
	}
}

func updated(p *doryv1alpha1.Processor) func() *metav1.Condition {
	return func() *metav1.Condition {
		return meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionUpdated)
	}
}

// end writes what the migration controller would write when a move is over.
func end(m *doryv1alpha1.ProcessorMigration, phase doryv1alpha1.MigrationPhase, reason string) {
	GinkgoHelper()
	m.Status.Phase, m.Status.Reason, m.Status.CompletionTime = phase, reason, &metav1.Time{Time: time.Now()}
	Expect(k8s.Status().Update(context.Background(), m)).To(Succeed())
}

// recordCheckpoint writes what the checkpoint controller would write.
func recordCheckpoint(p *doryv1alpha1.Processor, checkpoint doryv1alpha1.ProcessorCheckpoint, handoff bool) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		current := &doryv1alpha1.Processor{}
		g.Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(p), current)).To(Succeed())
		current.Status.Checkpoint, current.Status.Handoff = &checkpoint, &handoff
		g.Expect(k8s.Status().Update(context.Background(), current)).To(Succeed())
	}).Should(Succeed())
}

// largeState stores a state that no single ConfigMap takes.
func largeState(p *doryv1alpha1.Processor, epoch int64) doryv1alpha1.ProcessorCheckpoint {
	GinkgoHelper()
	payload, err := json.Marshal(map[string]string{"frame": strings.Repeat("x", 2<<20)})
	Expect(err).NotTo(HaveOccurred())
	at := time.Now()
	store := statestore.New(statestore.Config{Client: k8s, Reader: k8s})
	saved, err := store.Save(context.Background(), statestore.SaveRequest{
		Key: statestore.KeyOf(p),
		Document: statexfer.Document{Payload: payload, Metadata: statexfer.Metadata{
			Position: statexfer.Position{Epoch: epoch, Sequence: 9}, Time: at, ProcessorID: p.ID(),
		}},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(saved.Storage).To(Equal(doryv1alpha1.CheckpointChunks))
	return doryv1alpha1.ProcessorCheckpoint{Time: metav1.NewTime(at), Epoch: epoch, Sequence: new(int64(9)), Checksum: saved.Checksum, Storage: saved.Storage}
}

// storeState stores a small state, as a restore from a backup does: under the epoch of another life of the processor.
func storeState(namespace, name string, epoch int64) {
	GinkgoHelper()
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	store := statestore.New(statestore.Config{Client: k8s, Reader: k8s})
	_, err := store.Save(context.Background(), statestore.SaveRequest{
		Key: statestore.KeyOf(p),
		Document: statexfer.Document{Payload: []byte(`{"n": 5}`), Metadata: statexfer.Metadata{
			Position: statexfer.Position{Epoch: epoch, Sequence: 9}, Time: time.Now(), ProcessorID: name,
		}},
	})
	Expect(err).NotTo(HaveOccurred())
}

// silentDatabase does not answer until it is back, and has nothing then.
type silentDatabase struct {
	statestore.Database
	back atomic.Bool
}

func (d *silentDatabase) CheckpointInfo(context.Context, string) (*store.CheckpointInfo, error) {
	if d.back.Load() {
		return nil, nil //nolint:nilnil // there is none
	}
	return nil, store.ErrUnavailable
}

func crashLooping(ip string) corev1.PodStatus {
	status := running(ip)
	status.Conditions[0].Status = corev1.ConditionFalse
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: pod.ContainerName, Image: "counter:1", RestartCount: 3,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s"}},
	}}
	return status
}

// eventsOf are what was told about the Processor.
func eventsOf(p *doryv1alpha1.Processor) []string {
	GinkgoHelper()
	var all eventsv1.EventList
	Expect(k8s.List(context.Background(), &all, client.InNamespace(p.Namespace))).To(Succeed())
	var told []string
	for _, event := range all.Items {
		if event.Regarding.Name == p.Name {
			told = append(told, event.Note)
		}
	}
	return told
}
