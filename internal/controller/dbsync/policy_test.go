package dbsync

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const policyName = "dbsync-test"

// quota makes the API server refuse new Processors in the world's namespace, and waits until it does.
func quota(w *world) {
	ctx := context.Background()
	Expect(direct.Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: policyName},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{doryv1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"processors"}},
				},
			}}},
			Validations: []admissionv1.Validation{{
				Expression: "request.namespace != '" + w.namespace + "'", Message: "no processors here", Reason: ptr.To(metav1.StatusReasonForbidden),
			}},
		},
	})).To(Succeed())
	Expect(direct.Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policyName},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: policyName, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	})).To(Succeed())
	DeferCleanup(removePolicy)
	probe := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: w.namespace}, Spec: doryv1alpha1.ProcessorSpec{Image: "i"}}
	Eventually(func() bool {
		err := direct.Create(ctx, probe.DeepCopy(), client.DryRunAll)
		return apierrors.IsForbidden(err) || apierrors.IsInvalid(err)
	}).Should(BeTrue())
}

// removePolicy lifts it, and waits until that is so.
func removePolicy() {
	ctx := context.Background()
	for _, o := range []client.Object{
		&admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policyName}},
		&admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: policyName}},
	} {
		Expect(client.IgnoreNotFound(direct.Delete(ctx, o))).To(Succeed())
	}
	GinkgoWriter.Println("policy removed")
}
