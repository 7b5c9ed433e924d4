package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/dory-io/dory/internal/scheduler"
)

func TestAbsurdQuantitiesRefuseThePod(t *testing.T) {
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"negative cpu":    {aPod("p", cpu("-1")), "no node is tried: it requests -1 of a resource: use 0 or more"},
		"negative memory": {aPod("p", memory("-1Gi")), "no node is tried: it requests -1Gi of a resource: use 0 or more"},
		"hidden by a sum": {
			aPod("p", cpu("1"), func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("-500m")},
				}})
			}),
			"no node is tried: it requests -500m of a resource: use 0 or more",
		},
		"more memory than there is": {
			aPod("p", memory("1Ei")), "no node is tried: it requests 1Ei of memory, more than any node has: use less than 1125899906842624",
		},
		"more cpu than a number holds": {
			aPod("p", cpu("9223372036854775807")), "no node is tried: it requests 9223372036854775807 of cpu, more than any node has: use less than 1125899906842624m",
		},
		"a sum that overflows": {
			aPod("p", memory("9223372036854775807"), func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
			}),
			"no node is tried: it requests 18446744073709551614 of memory, more than any node has: use less than 1125899906842624",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster(nodes(aNode("a")))
			wantNode(t, s, read(c.pod), "")
			if got := s.Explain(read(c.pod), scheduler.How{}).String(); got != c.want {
				t.Errorf("refusal:\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAbsurdPodsInPlaceFillTheirNode(t *testing.T) {
	s := cluster(nodes(aNode("a"), aNode("b")))
	for _, amount := range []string{"9223372036854775807", "1Ei", "-5"} {
		s.SetPod(read(aPod("o"+amount, on("a"), cpu(amount), memory(amount))))
	}
	wantNode(t, s, read(aPod("p", cpu("1"))), "b")
	for _, amount := range []string{"9223372036854775807", "1Ei", "-5"} {
		s.DeletePod(scheduler.Key("default", "o"+amount))
	}
	wantNode(t, s, read(aPod("p", cpu("4"))), "a")
}

// FuzzQuantities looks for amounts that panic, overflow, or let a pod onto a node that has less than it wants.
func FuzzQuantities(f *testing.F) {
	for _, seed := range []string{"1", "-1", "0", "1Ei", "9223372036854775807", "1e100", "0.0000001", "-9223372036854775808", "100m", "1e-9"} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, wanted, taken, allocatable string) {
		amounts := map[string]resource.Quantity{}
		for _, text := range []string{wanted, taken, allocatable} {
			quantity, err := resource.ParseQuantity(text)
			if err != nil {
				t.Skip()
			}
			amounts[text] = quantity
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/gpu"} {
			s := cluster(nodes(aNode("a", has(name, allocatable))), aPod("o", on("a"), asks(name, taken)))
			p := read(aPod("p", asks(name, wanted)))
			_, found := s.Decide(p, scheduler.How{})
			_ = s.Explain(p, scheduler.How{}).String()
			want, have := amounts[wanted], amounts[allocatable]
			if found && (want.Sign() < 0 || (want.Sign() > 0 && want.Cmp(have) > 0)) {
				t.Errorf("a pod that wants %s of %s goes to a node that has %s", wanted, name, allocatable)
			}
		}
	})
}
