package processkubelet

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A counter that is moved by deleting its pod keeps its state in a ConfigMap, by its own ServiceAccount's rights.
func TestCounterKeepsItsChain(t *testing.T) {
	w := newWorld(t, Node{Name: "count-1"}, Node{Name: "count-2"})
	counter, err := Build(CounterPackage)
	w.must(err)
	w.k.SetProgram("counter", Program{Path: counter})
	_, err = client.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "state"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create", "update"}}},
	}, metav1.CreateOptions{})
	w.must(err)
	_, err = client.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "state"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "state"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "runner"}},
	}, metav1.CreateOptions{})
	w.must(err)
	for epoch := 1; epoch <= 3; epoch++ {
		name := fmt.Sprint("counter-", epoch)
		w.run(name, func(pod *corev1.Pod) {
			pod.Labels = map[string]string{"app": "counter", "dory.io/epoch": strconv.Itoa(epoch)}
			c := &pod.Spec.Containers[0]
			c.Image = "counter"
			c.Lifecycle.PreStop.HTTPGet.Port = intstr.FromInt32(w.port)
			c.Env = append(c.Env, corev1.EnvVar{Name: "DORY_HEALTH_PORT", Value: strconv.Itoa(int(w.port))}, corev1.EnvVar{Name: "PROCESSOR_ID", Value: "counter"},
				corev1.EnvVar{Name: "POD_NAME", Value: name}, corev1.EnvVar{Name: "POD_NAMESPACE", Value: w.namespace},
				corev1.EnvVar{Name: "COUNTER_INTERVAL", Value: "5ms"})
		})
		w.until("ready", name, ready)
		w.must(client.CoreV1().Pods(w.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
		w.until("gone", name, func(pod *corev1.Pod) bool { return pod == nil })
	}
	chain, err := VerifyChain(t.Context(), counter, w.k.Lines(w.namespace, map[string]string{"app": "counter"}))
	w.must(err)
	if !chain.Whole || chain.Pods != 3 || chain.First != 1 {
		t.Errorf("%+v", chain)
	}
}
