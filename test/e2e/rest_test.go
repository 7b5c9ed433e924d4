//go:build e2e

package e2e

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("At rest", Serial, func() {
	It("the operator writes nothing to the API server and nothing to the database", func(ctx context.Context) {
		Expect(list[doryv1alpha1.ProcessorList](ctx, Default, "").Items).To(BeEmpty(),
			"checkpoints of processors that work are writes: make demo-down, and start again")
		namespace, template, id := newNamespace(ctx), unique("counter"), unique("rests")
		newTemplate(ctx, template)
		// Their state is to rest, too: one iteration, and no other.
		execute(ctx, `UPDATE processor_template_versions SET runtime_config_template = $2::jsonb WHERE processor_template_id = $1`, template, counterConfig("1h"))
		newRow(ctx, namespace, template, id)
		ofRow := client.ObjectKeyFromObject(processorOfRow(ctx, namespace, id))
		runsAfter(ctx, ofRow, 0)
		applied, large := counter(namespace, "rests"), counter(namespace, "large")
		for _, p := range []*doryv1alpha1.Processor{applied, large} {
			p.Spec.Env[0].Value = "1h"
			p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: 5 * time.Second}}
		}
		large.Spec.Env = append(large.Spec.Env, corev1.EnvVar{Name: "COUNTER_PAYLOAD_BYTES", Value: "2000000"})
		start(ctx, applied)
		start(ctx, large)
		unhappy := counter(namespace, "unhappy")
		unhappy.Spec.Image, unhappy.Spec.ImagePullPolicy = "dory-nowhere:1", corev1.PullNever
		Expect(k8s.Create(ctx, unhappy)).To(Succeed())
		broken := unique("broken")
		newTemplate(ctx, broken)
		execute(ctx, `UPDATE processor_template_versions SET runtime_config_template = '{"resources": 7}' WHERE processor_template_id = $1`, broken)
		newRow(ctx, namespace, broken, unique("broken"))

		By("every state is in a checkpoint")
		for _, key := range []client.ObjectKey{ofRow, client.ObjectKeyFromObject(applied), client.ObjectKeyFromObject(large)} {
			checkpointed(ctx, key, 1)
		}

		By("everything comes to rest")
		var before map[string]string
		Eventually(func(g Gomega) {
			now := everythingWritten(ctx, g, namespace)
			unchanged := before != nil && len(differences(before, now)) == 0
			before = now
			g.Expect(unchanged).To(BeTrue())
		}).WithContext(ctx).WithTimeout(timeToRun).WithPolling(5 * time.Second).Should(Succeed())

		By("a full comparison of everything changes nothing")
		Consistently(func(g Gomega) {
			g.Expect(differences(before, everythingWritten(ctx, g, namespace))).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(restTime).WithPolling(3 * time.Second).Should(Succeed())
	})
})

// restTime has a full comparison of all rows and objects in it, which come every 30 s.
const restTime = 35 * time.Second

// everythingWritten changes with every write of the operator: to objects, even if it changed nothing in them, and to rows.
// Leases are left out, and events that others tell.
func everythingWritten(ctx context.Context, g Gomega, namespace string) map[string]string {
	seen := writeRequests(ctx, g)
	for _, kind := range []schema.GroupVersionKind{
		doryv1alpha1.GroupVersion.WithKind("Processor"), doryv1alpha1.GroupVersion.WithKind("ProcessorEpoch"),
		doryv1alpha1.GroupVersion.WithKind("EdgeNode"), doryv1alpha1.GroupVersion.WithKind("ProcessorMigration"),
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("Secret"),
		corev1.SchemeGroupVersion.WithKind("ConfigMap"), corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
	} {
		versions(ctx, g, kind, seen)
	}
	for _, event := range list[eventsv1.EventList](ctx, g, namespace).Items {
		if strings.HasPrefix(event.ReportingController, "dory-") {
			seen["Event "+event.Name] = event.ResourceVersion
		}
	}
	for _, table := range []string{"processors", "processor_epochs", "edge_nodes", "processor_templates", "processor_template_versions", "sensors", "processor_checkpoints"} {
		// xmin is the transaction that wrote the row.
		seen["table "+table] = ask[string](ctx, g, `SELECT coalesce(string_agg(t.xmin::text || ':' || t.ctid::text, ' ' ORDER BY t.ctid), '') FROM `+table+` t`)
	}
	return seen
}

// versions adds the resourceVersions of all objects of a kind.
func versions(ctx context.Context, g Gomega, kind schema.GroupVersionKind, into map[string]string) {
	found := &metav1.PartialObjectMetadataList{}
	found.SetGroupVersionKind(kind)
	g.Expect(k8s.List(ctx, found)).To(Succeed())
	for _, object := range found.Items {
		into[kind.Kind+" "+object.Namespace+"/"+object.Name] = object.ResourceVersion
	}
}

var (
	requestMetric = regexp.MustCompile(`(?m)^apiserver_request_total\{.*$`)
	metricLabel   = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// writeRequests counts writes, those that changed nothing as well, by what was written.
func writeRequests(ctx context.Context, g Gomega) map[string]string {
	text, err := clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	g.Expect(err).NotTo(HaveOccurred())
	counts := map[string]string{}
	for _, line := range requestMetric.FindAllString(string(text), -1) {
		name, count, _ := strings.Cut(line, "} ")
		if ofOperator(labels(name)) {
			counts[name] = count
		}
	}
	g.Expect(counts).NotTo(BeEmpty())
	return counts
}

// labels of a line of metrics.
func labels(line string) map[string]string {
	found := map[string]string{}
	for _, pair := range metricLabel.FindAllStringSubmatch(line, -1) {
		found[pair[1]] = pair[2]
	}
	return found
}

func ofOperator(request map[string]string) bool {
	if !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}, request["verb"]) {
		return false
	}
	switch request["group"] {
	case "dory.io", "rbac.authorization.k8s.io":
		return true
	case "":
		return slices.Contains([]string{"pods", "secrets", "configmaps", "serviceaccounts", "namespaces"}, request["resource"]) && request["subresource"] != "token"
	}
	return false
}

// differences names what was written between two looks.
func differences(before, after map[string]string) []string {
	var found []string
	for what, version := range after {
		if was, known := before[what]; !known || was != version {
			found = append(found, what+": "+was+" -> "+version)
		}
	}
	for what := range before {
		if _, known := after[what]; !known {
			found = append(found, what+": gone")
		}
	}
	return found
}
