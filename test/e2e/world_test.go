//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	counterImage    = "dory-counter:dev"
	namespacePrefix = "e2e-"
)

// newNamespace makes a namespace that is empty again before the next test starts; the suite waits for its end.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: namespacePrefix}}
	Expect(k8s.Create(ctx, namespace)).To(Succeed())
	namespaces = append(namespaces, namespace.Name)
	DeferCleanup(func(ctx context.Context) {
		forgetRows(ctx, namespace.Name)
		Expect(client.IgnoreNotFound(k8s.DeleteAllOf(ctx, &doryv1alpha1.Processor{}, client.InNamespace(namespace.Name)))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(list[doryv1alpha1.ProcessorList](ctx, g, namespace.Name).Items).To(BeEmpty())
			g.Expect(list[corev1.PodList](ctx, g, namespace.Name).Items).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, namespace))).To(Succeed())
		// The operator has terminated them; a person clears them up.
		execute(ctx, `DELETE FROM processors WHERE k8s_namespace = $1`, namespace.Name)
	})
	return namespace.Name
}

// objects is a pointer to T that is a list of Kubernetes objects.
type objects[T any] interface {
	*T
	client.ObjectList
}

// list reads all objects of a kind in a namespace.
func list[T any, P objects[T]](ctx context.Context, g Gomega, namespace string) P {
	found := P(new(T))
	g.Expect(k8s.List(ctx, found, client.InNamespace(namespace))).To(Succeed())
	return found
}

// counter is a processor that counts ten times a second, small enough that many fit on the local cluster. Ids, and so
// names, belong to one processor of the whole cluster, whose epochs the database remembers: every test has its own.
func counter(namespace, prefix string) *doryv1alpha1.Processor {
	return &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: unique(prefix)},
		Spec: doryv1alpha1.ProcessorSpec{
			Image: counterImage,
			Env:   []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "100ms"}},
			Resources: &doryv1alpha1.ProcessorResources{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("20m"), "memory": resource.MustParse("32Mi")},
				Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi")},
			},
		},
	}
}

// on pins a processor to a node.
func on(node string, p *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	p.Spec.Placement = &doryv1alpha1.ProcessorPlacement{NodeSelector: map[string]string{"kubernetes.io/hostname": node}}
	return p
}

// get reads a Processor, for use in Eventually.
func get(ctx context.Context, g Gomega, key client.ObjectKey) *doryv1alpha1.Processor {
	p := &doryv1alpha1.Processor{}
	g.Expect(k8s.Get(ctx, key, p)).To(Succeed())
	return p
}

// start creates the Processor and waits until it runs.
func start(ctx context.Context, p *doryv1alpha1.Processor) doryv1alpha1.ProcessorInstance {
	GinkgoHelper()
	Expect(k8s.Create(ctx, p)).To(Succeed())
	return runsAfter(ctx, client.ObjectKeyFromObject(p), 0)
}

// runsAfter waits until the processor runs under a higher epoch than that.
func runsAfter(ctx context.Context, key client.ObjectKey, epoch int64) doryv1alpha1.ProcessorInstance {
	GinkgoHelper()
	var instance doryv1alpha1.ProcessorInstance
	Eventually(func(g Gomega) {
		p := get(ctx, g, key)
		g.Expect(p.Status.Instance).NotTo(BeNil(), "%+v", p.Status.Conditions)
		g.Expect(p.Status.Instance.Epoch).To(BeNumerically(">", epoch), "%+v", p.Status)
		g.Expect(p.Status.Phase).To(Equal(doryv1alpha1.ProcessorRunning), "%+v", p.Status)
		g.Expect(p.Status.ObservedGeneration).To(Equal(p.Generation))
		instance = *p.Status.Instance
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
	return instance
}

// change updates the Processor's spec, over conflicts.
func change(ctx context.Context, key client.ObjectKey, mutate func(*doryv1alpha1.Processor)) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		p := get(ctx, g, key)
		mutate(p)
		g.Expect(k8s.Update(ctx, p)).To(Succeed())
	}).WithContext(ctx).Should(Succeed())
}

// readyCondition is the Ready condition, or an empty one.
func readyCondition(p *doryv1alpha1.Processor) metav1.Condition {
	if condition := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady); condition != nil {
		return *condition
	}
	return metav1.Condition{}
}

// pods are the names of a processor's pods, whatever their state.
func pods(ctx context.Context, g Gomega, key client.ObjectKey) []string {
	found := &corev1.PodList{}
	g.Expect(k8s.List(ctx, found, client.InNamespace(key.Namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: key.Name})).To(Succeed())
	names := make([]string, 0, len(found.Items))
	for _, pod := range found.Items {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

// epochOf is the fence of a processor.
func epochOf(ctx context.Context, g Gomega, key client.ObjectKey) doryv1alpha1.ProcessorEpochSpec {
	epoch := &doryv1alpha1.ProcessorEpoch{}
	g.Expect(k8s.Get(ctx, key, epoch)).To(Succeed())
	return epoch.Spec
}

// isGone waits until there is no such object.
func isGone(ctx context.Context, object client.Object) {
	GinkgoHelper()
	Eventually(func() error { return k8s.Get(ctx, client.ObjectKeyFromObject(object), object) }).
		WithContext(ctx).WithTimeout(timeToRun).Should(MatchError(apierrors.IsNotFound, "IsNotFound"))
}

// events are what was told about an object, one sentence each.
func events(ctx context.Context, g Gomega, namespace, kind, name string) []string {
	var told []string
	for _, event := range list[corev1.EventList](ctx, g, namespace).Items {
		if event.InvolvedObject.Kind == kind && event.InvolvedObject.Name == name {
			told = append(told, event.Reason+": "+event.Message)
		}
	}
	return told
}

// execute runs SQL that must succeed.
func execute(ctx context.Context, sql string, args ...any) {
	GinkgoHelper()
	_, err := database.Exec(ctx, sql, args...)
	Expect(err).NotTo(HaveOccurred(), sql)
}

// ask is the one value that SQL answers.
func ask[T any](ctx context.Context, g Gomega, sql string, args ...any) T {
	var value T
	g.Expect(database.QueryRow(ctx, sql, args...).Scan(&value)).To(Succeed(), sql)
	return value
}

// newTemplate inserts a template whose one active version runs the counter, and forgets it after the test.
func newTemplate(ctx context.Context, id string) {
	GinkgoHelper()
	execute(ctx, `INSERT INTO processor_templates (id, slug) VALUES ($1, $1)`, id)
	DeferCleanup(func(ctx context.Context) {
		execute(ctx, `DELETE FROM processors WHERE processor_template_id = $1`, id)
		execute(ctx, `DELETE FROM processor_templates WHERE id = $1`, id)
	})
	newVersion(ctx, id, "1", counterConfig("200ms"))
	execute(ctx, `UPDATE processor_template_versions SET is_active = true WHERE processor_template_id = $1`, id)
}

func newVersion(ctx context.Context, template, version, config string) {
	GinkgoHelper()
	execute(ctx, `INSERT INTO processor_template_versions (processor_template_id, image_uri, version, runtime_config_template)
		VALUES ($1, $2, $3, $4::jsonb)`, template, counterImage, version, config)
}

// counterConfig is the runtime_config_template of a counter. The image is on the nodes and nowhere else.
func counterConfig(interval string) string {
	return fmt.Sprintf(`{"env_vars": {"COUNTER_INTERVAL": %q}, "container": {"image_pull_policy": "IfNotPresent"},
		"resources": {"cpu_request": "20m", "memory_request": "32Mi", "cpu_limit": "1", "memory_limit": "128Mi"}}`, interval)
}

// newRow inserts a processor.
func newRow(ctx context.Context, namespace, template, id string) {
	GinkgoHelper()
	execute(ctx, `INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ($1, $2, $3)`, id, template, namespace)
}

// forgetRows ends a namespace's processors in the database. They are few of few, so a person approves it.
func forgetRows(ctx context.Context, namespace string) {
	GinkgoHelper()
	approveDeletions(ctx, namespace)
	execute(ctx, `DELETE FROM processors WHERE k8s_namespace = $1 AND source = 'database'`, namespace)
}

// approveDeletions says of every database-owned Processor that it may go if its row is gone.
func approveDeletions(ctx context.Context, namespace string) {
	GinkgoHelper()
	for _, p := range list[doryv1alpha1.ProcessorList](ctx, Default, namespace).Items {
		if !p.DatabaseOwned() {
			continue
		}
		patch := client.MergeFrom(p.DeepCopy())
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, doryv1alpha1.AnnotationDeletionApproved, "true")
		Expect(client.IgnoreNotFound(k8s.Patch(ctx, &p, patch))).To(Succeed())
	}
}

// unique makes an id that no other test uses.
func unique(prefix string) string { return prefix + "-" + rand.String(6) }
