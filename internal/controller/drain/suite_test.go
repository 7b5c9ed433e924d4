package drain_test

import (
	"context"
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
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	"github.com/dory-io/dory/internal/controller/drain"
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
	counter     string
	port        int32
	tokens      = pod.NewTokens([]byte("secret"))
	scheme      = runtime.NewScheme()
	ctx         = context.Background()
)

func TestDrain(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(60 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(time.Second)
	RunSpecs(t, "drain")
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
	DeferCleanup(environment.Stop) // Also of what a start that fails leaves behind.
	apiServer, err = environment.Start()
	Expect(err).NotTo(HaveOccurred(), "envtest needs kube-apiserver and etcd: make envtest-binaries")
	apiServer.QPS = -1
	k8s, err = client.New(apiServer, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(k8s.Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: lifecycle.ServiceAccount},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create", "update", "patch"}}},
	})).To(Succeed())
	counter, err = processkubelet.Build(processkubelet.CounterPackage)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(processkubelet.RemoveBuilds)
	port = processkubelet.Port(GinkgoT())
})

// cluster is a spec's own: nodes, a namespace, and an operator.
type cluster struct {
	kubelet   *processkubelet.Kubelet
	namespace string
	desk      *drain.Desk
}

// settings of the operator. Zero is what production has, but for patience.
type settings struct {
	proactive bool
	patience  time.Duration
	limits    drain.Limits
	// idle leaves the drain controller out: nothing but the desk acts.
	idle bool
}

// start makes a cluster with nodes n1, n2, and so on, which nobody else uses.
func start(nodes int, s settings) *cluster {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "drain-"}}
	Expect(k8s.Create(ctx, namespace)).To(Succeed())
	c := &cluster{namespace: namespace.Name}
	var played []processkubelet.Node
	for i := range nodes {
		played = append(played, processkubelet.Node{Name: fmt.Sprint("n", i+1), Labels: map[string]string{"workload-type": "application"}})
	}
	var err error
	c.kubelet, err = processkubelet.New(processkubelet.Config{
		REST: apiServer, Nodes: played, ProbePeriod: 20 * time.Millisecond, RestartDelay: 20 * time.Millisecond,
		Programs: map[string]processkubelet.Program{"counter:1": {Path: counter}, "counter:2": {Path: counter}},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		if CurrentSpecReport().Failed() {
			c.report()
			GinkgoWriter.Println(c.kubelet.Logs())
		}
		c.kubelet.Close()
		for _, node := range played {
			Expect(client.IgnoreNotFound(k8s.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}))).To(Succeed())
		}
	})
	c.run(s)
	return c
}

func (c *cluster) report() {
	var migrations doryv1alpha1.ProcessorMigrationList
	if err := k8s.List(ctx, &migrations, client.InNamespace(c.namespace)); err == nil {
		for _, m := range migrations.Items {
			GinkgoWriter.Printf("%s %s: %s %s: %s (%s -> %s)\n", m.Name, m.Spec.Reason, m.Status.Phase, m.Status.Reason, m.Status.Message, m.Status.SourceNode, m.Status.TargetNode)
		}
	}
	var pods corev1.PodList
	if err := k8s.List(ctx, &pods, client.InNamespace(c.namespace)); err == nil {
		for _, p := range pods.Items {
			GinkgoWriter.Printf("%s on %q: %s deleted %v labels %v\n", p.Name, p.Spec.NodeName, p.Status.Phase, p.DeletionTimestamp, p.Labels)
		}
	}
}

// run starts an operator, with all that has to do with drains.
func (c *cluster) run(s settings) {
	GinkgoHelper()
	manager, err := ctrl.NewManager(apiServer, ctrl.Options{
		Cache:  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pod.Slim}}}, // As the operator has it.
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	running, cancel := context.WithCancel(ctx)
	c.add(running, manager, s)
	stopped := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(stopped)
		Expect(manager.Start(running)).To(Succeed())
	}()
	DeferCleanup(sync.OnceFunc(func() { cancel(); <-stopped }))
	Eventually(c.desk.Ready).Should(Succeed())
}

func (c *cluster) add(running context.Context, manager ctrl.Manager, s settings) {
	GinkgoHelper()
	cached, reader, clk := manager.GetClient(), manager.GetAPIReader(), clock.RealClock{}
	registry := prometheus.NewRegistry()
	recorder := manager.GetEventRecorder("dory")
	issuer := fence.NewIssuer(cached, nil, clk)
	states := statestore.New(statestore.Config{Client: cached, Reader: reader})
	suffix := func() string { return utilrand.String(8) }
	preparer := statestore.NewPreparer(states, cached, recorder)

	lifecycleMetrics, err := lifecycle.NewMetrics(registry, manager.GetCache())
	Expect(err).NotTo(HaveOccurred())
	starts := lifecycle.New(lifecycle.Config{
		Client: cached, APIReader: reader, Issuer: issuer, Clock: clk, Recorder: recorder, Metrics: lifecycleMetrics,
		NewSuffix: suffix, Tokens: tokens, States: preparer,
	})
	Expect(starts.SetupWithManager(running, manager)).To(Succeed())

	drainMetrics, err := drain.NewMetrics(registry)
	Expect(err).NotTo(HaveOccurred())
	options := drain.Options{Patience: s.patience, Proactive: s.proactive}
	versions := drain.NewVersions(cached, reader, tokens)
	c.desk = drain.NewDesk(drain.DeskConfig{Client: cached, Versions: versions, Clock: clk, Recorder: recorder, Metrics: drainMetrics, Options: options})
	Expect(c.desk.SetupWithManager(running, manager)).To(Succeed())
	turns := drain.NewTurns(cached, clk, s.limits)
	if !s.idle {
		Expect(drain.New(drain.Config{Client: cached, Versions: versions, Clock: clk, Recorder: recorder, Turns: turns, Options: options}).SetupWithManager(manager)).To(Succeed())
		Expect(drain.NewMigratable(drain.MigratableConfig{Client: cached, Versions: versions, APIReader: reader, Clock: clk, Settle: 100 * time.Millisecond}).SetupWithManager(manager)).To(Succeed())
	}

	migrationMetrics, err := migration.NewMetrics(registry)
	Expect(err).NotTo(HaveOccurred())
	Expect(migration.New(migration.Config{
		Client: cached, APIReader: reader, Processors: statexfer.NewClient(statexfer.ClientConfig{}), Issuer: issuer,
		Checkpoints: migration.StateStore{Store: states}, Clock: clk, Recorder: recorder, Metrics: migrationMetrics, NewSuffix: suffix,
		Token: tokens.For, Tokens: tokens, Prepare: starts.PreparePod, States: preparer, Turn: turns.Turn, Wake: turns.Wake(),
	}).SetupWithManager(running, manager)).To(Succeed())
}

// apply creates a counter and waits until it counts on the node.
func (c *cluster) apply(name, node string, changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	GinkgoHelper()
	p := &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: "counter:1", Port: port, Env: []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "2ms"}},
			TerminationGracePeriodSeconds: 5,
			Migration:                     &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 30, HandoffTimeoutSeconds: 5},
		},
	}
	for _, change := range changes {
		change(p)
	}
	others := c.nodesBut(node)
	for _, other := range others {
		c.cordon(other, true)
	}
	Expect(k8s.Create(ctx, p)).To(Succeed())
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, p))).To(Succeed())
		Eventually(func(g Gomega) { // The next spec has nodes of the same names.
			var pods corev1.PodList
			g.Expect(k8s.List(ctx, &pods, client.InNamespace(p.Namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: p.Name})).To(Succeed())
			g.Expect(pods.Items).To(BeEmpty())
		}).Should(Succeed())
	})
	c.worksOn(p, node)
	for _, other := range others {
		c.cordon(other, false)
	}
	return p
}

func (c *cluster) nodesBut(name string) []string {
	GinkgoHelper()
	var nodes corev1.NodeList
	Expect(k8s.List(ctx, &nodes)).To(Succeed())
	var found []string
	for i := range nodes.Items {
		if nodes.Items[i].Name != name {
			found = append(found, nodes.Items[i].Name)
		}
	}
	return found
}

func (c *cluster) cordon(name string, yes bool) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, yes)
	Expect(k8s.Patch(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// taint sets the keys as the node's only taints.
func (c *cluster) taint(name string, keys ...string) {
	GinkgoHelper()
	Eventually(func() error {
		node := &corev1.Node{}
		if err := k8s.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		node.Spec.Taints = nil
		for _, key := range keys {
			node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
		return k8s.Update(ctx, node)
	}).Should(Succeed())
}

// instance is the pod that holds the epoch; nil before there is one.
func (c *cluster) instance(p *doryv1alpha1.Processor) *corev1.Pod {
	epoch := &doryv1alpha1.ProcessorEpoch{}
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(p), epoch); err != nil || epoch.Spec.Holder == "" {
		return nil
	}
	found := &corev1.Pod{}
	if err := k8s.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: epoch.Spec.Holder}, found); err != nil {
		return nil
	}
	return found
}

// worksOn waits until the processor counts on one of the nodes, with nothing of it anywhere else.
func (c *cluster) worksOn(p *doryv1alpha1.Processor, nodes ...string) *corev1.Pod {
	GinkgoHelper()
	var found *corev1.Pod
	Eventually(func(g Gomega) {
		found = c.instance(p)
		g.Expect(found).NotTo(BeNil())
		g.Expect(nodes).To(ContainElement(found.Spec.NodeName))
		g.Expect(found.DeletionTimestamp).To(BeNil())
		g.Expect(found.Annotations).To(HaveKeyWithValue(doryv1alpha1.AnnotationRole, doryv1alpha1.RolePrimary))
		var pods corev1.PodList
		g.Expect(k8s.List(ctx, &pods, client.InNamespace(p.Namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: p.Name})).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(1))
		before := c.lines(p, found.Name)
		g.Eventually(func() int { return c.lines(p, found.Name) }).WithTimeout(2*time.Second).Should(BeNumerically(">", before), "pod %s has stopped", found.Name)
	}).Should(Succeed())
	return found
}

func (c *cluster) lines(p *doryv1alpha1.Processor, pod string) int {
	found := 0
	for _, line := range c.kubelet.Lines(p.Namespace, map[string]string{doryv1alpha1.LabelProcessor: p.Name}) {
		if line.Pod == pod {
			found++
		}
	}
	return found
}

// whole says that nothing was ever lost or done twice.
func (c *cluster) whole(p *doryv1alpha1.Processor) {
	GinkgoHelper()
	chain, err := processkubelet.VerifyChain(ctx, counter, c.kubelet.Lines(p.Namespace, map[string]string{doryv1alpha1.LabelProcessor: p.Name}))
	Expect(err).NotTo(HaveOccurred())
	Expect(chain.Whole).To(BeTrue(), "%+v", chain)
}

func (c *cluster) migrations(p *doryv1alpha1.Processor) []doryv1alpha1.ProcessorMigration {
	GinkgoHelper()
	var list doryv1alpha1.ProcessorMigrationList
	Expect(k8s.List(ctx, &list, client.InNamespace(p.Namespace))).To(Succeed())
	var found []doryv1alpha1.ProcessorMigration
	for _, m := range list.Items {
		if m.Spec.Processor == p.Name {
			found = append(found, m)
		}
	}
	return found
}

// drainOf waits for a drain of the processor.
func (c *cluster) drainOf(p *doryv1alpha1.Processor, is ...func(*doryv1alpha1.ProcessorMigration) bool) *doryv1alpha1.ProcessorMigration {
	GinkgoHelper()
	var found *doryv1alpha1.ProcessorMigration
	Eventually(func() bool {
		for _, m := range c.migrations(p) {
			matches := m.Spec.Reason == doryv1alpha1.MigrationDrain
			for _, is := range is {
				matches = matches && is(&m)
			}
			if matches {
				found = &m
				return true
			}
		}
		return false
	}).Should(BeTrue())
	return found
}

func in(phase doryv1alpha1.MigrationPhase) func(*doryv1alpha1.ProcessorMigration) bool {
	return func(m *doryv1alpha1.ProcessorMigration) bool { return m.Status.Phase == phase }
}

func because(reason string) func(*doryv1alpha1.ProcessorMigration) bool {
	return func(m *doryv1alpha1.ProcessorMigration) bool { return m.Status.Reason == reason }
}

// ask is one try of somebody who evicts.
func (c *cluster) ask(key client.ObjectKey) drain.Answer {
	GinkgoHelper()
	answer, err := c.desk.Ask(ctx, drain.Request{Pod: key, By: "eviction"})
	Expect(err).NotTo(HaveOccurred())
	return answer
}

// evict asks until the pod is gone, and deletes it if that is allowed, as the API server does after an eviction.
func (c *cluster) evict(p *corev1.Pod) []drain.Answer {
	GinkgoHelper()
	key := client.ObjectKeyFromObject(p)
	var answers []drain.Answer
	Eventually(func() error {
		answer := c.ask(key)
		if len(answers) == 0 || answers[len(answers)-1].Reason != answer.Reason {
			answers = append(answers, answer)
		}
		if answer.Allowed {
			if err := k8s.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}); client.IgnoreNotFound(err) != nil {
				return err
			}
		}
		err := k8s.Get(ctx, key, &corev1.Pod{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(fmt.Errorf("pod %s is there: %+v", key, answer), err)
	}).WithPolling(200 * time.Millisecond).Should(Succeed())
	return answers
}

// told waits for an event about an object of the kind.
func (c *cluster) told(kind, name, reason, says string) {
	GinkgoHelper()
	namespace := c.namespace
	if kind == "Node" {
		namespace = metav1.NamespaceDefault
	}
	Eventually(func() []string {
		var list eventsv1.EventList
		Expect(k8s.List(ctx, &list, client.InNamespace(namespace))).To(Succeed())
		var found []string
		for _, e := range list.Items {
			if e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason {
				found = append(found, e.Note)
			}
		}
		return found
	}).Should(ContainElement(ContainSubstring(says)))
}
