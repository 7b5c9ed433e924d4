//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The installation", func() {
	It("has two ready operators on two nodes, of which one leads", func(ctx context.Context) {
		operatorsAreWell(ctx)
		Eventually(func(g Gomega) {
			var leading []string
			for _, pod := range operators(ctx, g) {
				if leads(ctx, g, &pod) {
					leading = append(leading, pod.Name)
				}
			}
			g.Expect(leading).To(ConsistOf(leader(ctx, g)))
		}).WithContext(ctx).Should(Succeed())
	})

	It("has admission policies that the API server finds nothing wrong with", func(ctx context.Context) {
		policies := list[admissionregistrationv1.ValidatingAdmissionPolicyList](ctx, Default, "").Items
		Expect(policies).NotTo(BeEmpty())
		for _, policy := range policies {
			Eventually(func(g Gomega) {
				g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(&policy), &policy)).To(Succeed())
				g.Expect(policy.Status.ObservedGeneration).To(Equal(policy.Generation))
				g.Expect(policy.Status.TypeChecking).NotTo(BeNil())
				g.Expect(policy.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), policy.Name)
			}).WithContext(ctx).Should(Succeed())
		}
	})

	It("lets a person with the role edit write Processors in their namespace and move them, and epochs nowhere", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		Expect(k8s.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "editor", Namespace: namespace},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "jane"}},
		})).To(Succeed())
		may := func(namespace, verb, resource string) bool {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User:               "jane",
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: "dory.io", Resource: resource},
			}}
			Expect(k8s.Create(ctx, review)).To(Succeed())
			return review.Status.Allowed
		}
		Eventually(func() bool { return may(namespace, "create", "processors") }).WithContext(ctx).Should(BeTrue())
		Expect(may(namespace, "create", "processormigrations")).To(BeTrue())
		Expect(may("default", "create", "processormigrations")).To(BeFalse())
		Expect(may(namespace, "get", "processorepochs")).To(BeTrue())
		Expect(may(namespace, "update", "processorepochs")).To(BeFalse())
		Expect(may("default", "create", "processors")).To(BeFalse())
	})
})

// operators are the operator's pods that are to stay.
func operators(ctx context.Context, g Gomega) []corev1.Pod {
	var found []corev1.Pod
	for _, pod := range list[corev1.PodList](ctx, g, operatorNamespace).Items {
		if pod.DeletionTimestamp == nil {
			found = append(found, pod)
		}
	}
	return found
}

// operatorsAreWell waits until both are ready, and apart.
func operatorsAreWell(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		nodes := map[string]bool{}
		for _, pod := range operators(ctx, g) {
			g.Expect(podReady(&pod)).To(BeTrue(), "%s: %+v", pod.Name, pod.Status)
			nodes[pod.Spec.NodeName] = true
		}
		g.Expect(nodes).To(HaveLen(2))
	}).WithContext(ctx).WithTimeout(timeToRun).Should(Succeed())
}

// leader is the name of the pod that holds the operators' lease.
func leader(ctx context.Context, g Gomega) string {
	lease := &coordinationv1.Lease{}
	g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: leaseName}, lease)).To(Succeed())
	g.Expect(lease.Spec.HolderIdentity).To(HaveValue(Not(BeEmpty())))
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return name
}

// leads asks an operator itself, by its metrics, whether it takes itself for the leader.
func leads(ctx context.Context, g Gomega, pod *corev1.Pod) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Status.PodIP+":8080/metrics", http.NoBody)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	text, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	const metric = `leader_election_master_status{name="%s"} %d`
	g.Expect(string(text)).To(ContainSubstring(`leader_election_master_status{name="` + leaseName + `"}`))
	return strings.Contains(string(text), fmt.Sprintf(metric, leaseName, 1))
}
