package lifecycle_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var _ = Describe("An instance that stays unready", func() {
	// unready is what a kubelet says of a process that runs for long and whose probe fails.
	unready := func(ip string) corev1.PodStatus {
		status := running(ip)
		long := metav1.NewTime(time.Now().Add(-time.Hour))
		status.StartTime = &long
		status.Conditions[0].Status, status.Conditions[0].LastTransitionTime = corev1.ConditionFalse, long
		status.ContainerStatuses = []corev1.ContainerStatus{{Name: "processor", Image: "counter:1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}
		return status
	}

	It("is quoted in the condition, and once it says the same nothing is written any more", func() {
		namespace := newNamespace()
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ready" {
				asked.Add(1)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("{\"status\":\"not ready\",\"reason\":\"state not restored:\\n bind the ClusterRole " + strings.Repeat("ä", 1000) + "\"}"))
		}))
		DeferCleanup(server.Close)
		address, err := netip.ParseAddrPort(server.Listener.Addr().String())
		Expect(err).NotTo(HaveOccurred())
		o := startOperator(operatorOptions{readiness: true})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.Port = int32(address.Port()) })
		node("n1", corev1.ConditionTrue)
		instance := thePod(p, "1")
		bind(instance, "n1")
		kubeletSays(instance, unready(address.Addr().String()))
		ready := func() metav1.Condition {
			if c := meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady); c != nil {
				return *c
			}
			return metav1.Condition{}
		}
		Eventually(ready).Should(And(
			HaveField("Reason", doryv1alpha1.ReasonNotReady),
			HaveField("Message", ContainSubstring("pod "+instance.Name+" on node n1 answers GET /ready with 503: state not restored: bind the ClusterRole ää")),
			HaveField("Message", HaveSuffix("ä…")),
		))
		before := o.written()
		modify(p, func(p *doryv1alpha1.Processor) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, "look", "again") })
		Consistently(o.written).Should(Equal(before))
		Expect(asked.Load()).To(BeNumerically("==", 1))
		kubeletSays(instance, running(address.Addr().String()))
		Eventually(ready).Should(HaveField("Reason", doryv1alpha1.ReasonRunning))
	})

	It("that does not listen is said to", func() {
		namespace := newNamespace()
		startOperator(operatorOptions{readiness: true})
		p := apply(namespace, "cam", func(p *doryv1alpha1.Processor) { p.Spec.Port = 1 })
		node("n1", corev1.ConditionTrue)
		instance := thePod(p, "1")
		bind(instance, "n1")
		kubeletSays(instance, unready("127.0.0.1"))
		Eventually(func() string {
			return meta.FindStatusCondition(statusOf(p)().Conditions, doryv1alpha1.ConditionReady).Message
		}).
			Should(ContainSubstring("does not listen on port 1, where it is asked GET /ready"))
	})
})
