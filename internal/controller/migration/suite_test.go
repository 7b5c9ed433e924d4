package migration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
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
	"github.com/dory-io/dory/internal/controller/checkpoint"
	"github.com/dory-io/dory/internal/controller/lifecycle"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/test/processkubelet"
)

var (
	environment *envtest.Environment
	apiServer   *rest.Config
	k8s         client.Client
	kubelet     *processkubelet.Kubelet
	counter     string
	port        int32
	tokens      = pod.NewTokens([]byte("secret"))
	scheme      = runtime.NewScheme()
)

func TestMigration(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(60 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(500 * time.Millisecond)
	RunSpecs(t, "migration")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	root := filepath.Join("..", "..", "..")
	environment = &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
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
	Expect(k8s.Create(context.Background(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: lifecycle.ServiceAccount},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create", "update", "patch"}}},
	})).To(Succeed())
	counter, err = processkubelet.Build(processkubelet.CounterPackage)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(processkubelet.RemoveBuilds)
	port = processkubelet.Port(GinkgoT())
	kubelet = startKubelet()
})

func startKubelet() *processkubelet.Kubelet {
	var nodes []processkubelet.Node
	for _, name := range []string{"n1", "n2", "n3"} {
		nodes = append(nodes, processkubelet.Node{Name: name, Labels: map[string]string{"workload-type": "application"}})
	}
	k, err := processkubelet.New(processkubelet.Config{
		REST: apiServer, Nodes: nodes, ProbePeriod: 20 * time.Millisecond, RestartDelay: 20 * time.Millisecond,
		Programs: map[string]processkubelet.Program{"counter:1": {Path: counter}, "counter:2": {Path: counter}, "crashing:1": {Path: "/bin/false"}},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		k.Close()
		if CurrentSpecReport().Failed() {
			GinkgoWriter.Println(k.Logs())
		}
	})
	return k
}

// operator is one replica, with all that has to do with moves.
type operator struct {
	stop func()
	*wiretap
}

// wiretap is between the operator and the processors, and lets something happen around a call.
type wiretap struct {
	migration.Processors

	mu     sync.Mutex
	before map[string]func() error
	after  map[string]func()
	calls  []string
}

// on lets something happen once before a call, which fails if it returns an error.
func (t *wiretap) on(call string, happens func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before[call] = happens
}

// once lets something happen once, when the call has been answered.
func (t *wiretap) once(call string, happens func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.after[call] = happens
}

func (t *wiretap) enter(call string) error {
	t.mu.Lock()
	t.calls = append(t.calls, call)
	happens := t.before[call]
	delete(t.before, call)
	t.mu.Unlock()
	if happens == nil {
		return nil
	}
	return happens()
}

func (t *wiretap) leave(call string, err error) {
	if err != nil {
		return
	}
	t.mu.Lock()
	happens := t.after[call]
	delete(t.after, call)
	t.mu.Unlock()
	if happens != nil {
		happens()
	}
}

func (t *wiretap) Quiesce(ctx context.Context, of statexfer.Endpoint, epoch int64) (state *statexfer.State, err error) {
	if err := t.enter("quiesce"); err != nil {
		return nil, err
	}
	defer func() { t.leave("quiesce", err) }()
	return t.Processors.Quiesce(ctx, of, epoch)
}

func (t *wiretap) Capture(ctx context.Context, from statexfer.Endpoint) (state *statexfer.State, err error) {
	if err := t.enter("capture"); err != nil {
		return nil, err
	}
	defer func() { t.leave("capture", err) }()
	return t.Processors.Capture(ctx, from)
}

func (t *wiretap) Restore(ctx context.Context, to statexfer.Endpoint, state *statexfer.State) (restored *statexfer.Restored, err error) {
	if err := t.enter("restore"); err != nil {
		return nil, err
	}
	defer func() { t.leave("restore", err) }()
	return t.Processors.Restore(ctx, to, state)
}

func (t *wiretap) Verify(ctx context.Context, of statexfer.Endpoint, state *statexfer.State, restored *statexfer.Restored) (err error) {
	if err := t.enter("verify"); err != nil {
		return err
	}
	defer func() { t.leave("verify", err) }()
	return t.Processors.Verify(ctx, of, state, restored)
}

func (t *wiretap) Promote(ctx context.Context, who statexfer.Endpoint, epoch int64) (err error) {
	if err := t.enter("promote"); err != nil {
		return err
	}
	defer func() { t.leave("promote", err) }()
	return t.Processors.Promote(ctx, who, epoch)
}

func startOperator() *operator {
	GinkgoHelper()
	manager, err := ctrl.NewManager(apiServer, ctrl.Options{
		Cache:  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pod.Slim}}}, // As the operator has it.
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	o := &operator{wiretap: &wiretap{Processors: statexfer.NewClient(statexfer.ClientConfig{}), before: map[string]func() error{}, after: map[string]func(){}}}
	o.add(ctx, manager)
	stopped := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(stopped)
		Expect(manager.Start(ctx)).To(Succeed())
	}()
	o.stop = sync.OnceFunc(func() { cancel(); <-stopped })
	DeferCleanup(o.stop)
	Expect(manager.GetCache().WaitForCacheSync(ctx)).To(BeTrue())
	return o
}

func (o *operator) add(ctx context.Context, manager ctrl.Manager) {
	GinkgoHelper()
	c, reader, clk := manager.GetClient(), manager.GetAPIReader(), clock.RealClock{}
	registry := prometheus.NewRegistry()
	issuer := fence.NewIssuer(c, nil, clk)
	states := statestore.New(statestore.Config{Client: c, Reader: reader})
	suffix := func() string { return utilrand.String(8) }

	lifecycleMetrics, err := lifecycle.NewMetrics(registry, manager.GetCache())
	Expect(err).NotTo(HaveOccurred())
	preparer := statestore.NewPreparer(states, c, manager.GetEventRecorder("dory-lifecycle"))
	starts := lifecycle.New(lifecycle.Config{
		Client: c, APIReader: reader, Issuer: issuer, Clock: clk, Recorder: manager.GetEventRecorder("dory-lifecycle"),
		Metrics: lifecycleMetrics, NewSuffix: suffix, Tokens: tokens, States: preparer,
	})
	Expect(starts.SetupWithManager(ctx, manager)).To(Succeed())

	checkpointMetrics, err := checkpoint.NewMetrics(registry)
	Expect(err).NotTo(HaveOccurred())
	Expect(checkpoint.New(checkpoint.Config{
		Client: c, APIReader: reader, Store: states, Processors: statexfer.NewClient(statexfer.ClientConfig{}), Issuer: issuer,
		Token: tokens.For, Clock: clk, Recorder: manager.GetEventRecorder("dory-checkpoint"), Metrics: checkpointMetrics,
	}).SetupWithManager(ctx, manager)).To(Succeed())

	migrationMetrics, err := migration.NewMetrics(registry)
	Expect(err).NotTo(HaveOccurred())
	Expect(migration.New(migration.Config{
		Client: c, APIReader: reader, Processors: o.wiretap, Issuer: issuer, Checkpoints: migration.StateStore{Store: states}, Clock: clk,
		Recorder: manager.GetEventRecorder("dory-migration"), Metrics: migrationMetrics, NewSuffix: suffix, Token: tokens.For, Tokens: tokens,
		Prepare: starts.PreparePod, States: preparer,
	}).SetupWithManager(ctx, manager)).To(Succeed())
}

func newNamespace() string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "migration-"}}
	Expect(k8s.Create(context.Background(), namespace)).To(Succeed())
	return namespace.Name
}

// apply creates a counter and waits until it counts.
func apply(namespace string, changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	GinkgoHelper()
	p := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cam"},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Port: port, Env: []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "2ms"}},
			TerminationGracePeriodSeconds: 5,
			State:                         &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: time.Second}},
			Migration:                     &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 30, HandoffTimeoutSeconds: 5},
		},
	}
	for _, change := range changes {
		change(p)
	}
	Expect(k8s.Create(context.Background(), p)).To(Succeed())
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(k8s.Delete(context.Background(), p))).To(Succeed())
	})
	counts(p, "")
	// An instance that nobody has seen ready is not moved to a changed spec, but replaced.
	Eventually(func(g Gomega) {
		fresh := &doryv1alpha1.Processor{}
		g.Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(p), fresh)).To(Succeed())
		g.Expect(fresh.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning))
	}).Should(Succeed())
	return p
}

// move asks for a move.
func move(p *doryv1alpha1.Processor, name string, changes ...func(*doryv1alpha1.ProcessorMigration)) *doryv1alpha1.ProcessorMigration {
	GinkgoHelper()
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name},
		Spec:       doryv1alpha1.ProcessorMigrationSpec{Processor: p.Name},
	}
	for _, change := range changes {
		change(m)
	}
	Expect(k8s.Create(context.Background(), m)).To(Succeed())
	return m
}

// ends waits for the end of a move.
func ends(m *doryv1alpha1.ProcessorMigration) doryv1alpha1.ProcessorMigrationStatus {
	GinkgoHelper()
	fresh := &doryv1alpha1.ProcessorMigration{}
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(m), fresh)).To(Succeed())
		g.Expect(fresh.Ended()).To(BeTrue(), "%s: %s: %s", fresh.Status.Phase, fresh.Status.Reason, fresh.Status.Message)
		g.Expect(fresh.Finalizers).To(BeEmpty())
	}).Should(Succeed())
	return fresh.Status
}

func reaches(m *doryv1alpha1.ProcessorMigration, phase doryv1alpha1.MigrationPhase) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		fresh := &doryv1alpha1.ProcessorMigration{}
		g.Expect(k8s.Get(context.Background(), client.ObjectKeyFromObject(m), fresh)).To(Succeed())
		g.Expect(fresh.Status.Phase).To(Equal(phase))
	}).Should(Succeed())
}

// holder is the pod that holds the epoch; empty before there is one.
func holder(p *doryv1alpha1.Processor) string {
	epoch := &doryv1alpha1.ProcessorEpoch{}
	if err := k8s.Get(context.Background(), client.ObjectKey{Namespace: p.Namespace, Name: p.Name}, epoch); err != nil {
		return ""
	}
	return epoch.Spec.Holder
}

// counts waits until a holder other than the pod counts on.
func counts(p *doryv1alpha1.Processor, not string) string {
	GinkgoHelper()
	var name string
	Eventually(func(g Gomega) {
		name = holder(p)
		g.Expect(name).NotTo(Or(BeEmpty(), Equal(not)))
		instance := &corev1.Pod{}
		g.Expect(k8s.Get(context.Background(), client.ObjectKey{Namespace: p.Namespace, Name: name}, instance)).To(Succeed())
		g.Expect(instance.Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRole, doryv1alpha1.RolePrimary))
		g.Expect(countsOn(p, name)).To(Succeed())
	}).Should(Succeed())
	return name
}

// countsOn compares two looks at what a pod has written.
func countsOn(p *doryv1alpha1.Processor, name string) error {
	before := lastOf(p, name)
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		if lastOf(p, name) > before {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("pod %s has stopped at %d", name, before)
}

func lastOf(p *doryv1alpha1.Processor, name string) int64 {
	var last int64
	for _, line := range linesOf(p) {
		var iteration struct {
			N int64 `json:"n"`
		}
		if line.Pod == name && json.Unmarshal([]byte(line.Text), &iteration) == nil {
			last = max(last, iteration.N)
		}
	}
	return last
}

func linesOf(p *doryv1alpha1.Processor) []processkubelet.Line {
	return kubelet.Lines(p.Namespace, map[string]string{doryv1alpha1.LabelProcessor: p.Name})
}

// chain is what the counter's own binary says of all that was ever counted.
func chain(p *doryv1alpha1.Processor) processkubelet.Chain {
	GinkgoHelper()
	verdict, err := processkubelet.VerifyChain(context.Background(), counter, linesOf(p))
	Expect(err).NotTo(HaveOccurred())
	return verdict
}

var errCut = errors.New("the wire is cut")
