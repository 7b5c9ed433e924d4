package scheduler_test

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dory-io/dory/internal/scheduler"
)

func madeAt(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(seconds, 0)) }
}

func TestTheQueueGoesByPriorityThenAgeThenName(t *testing.T) {
	q := scheduler.NewQueue()
	for _, p := range []*corev1.Pod{
		aPod("young", madeAt(9)), aPod("b", madeAt(5)), aPod("a", madeAt(5)), aPod("low", priority(-1)),
		aPod("high", priority(7), madeAt(99)), aPod("gone", priority(9)), aPod("raised", madeAt(1)),
	} {
		q.Push(read(p))
	}
	q.Remove(scheduler.Key("default", "gone"))
	q.Remove(scheduler.Key("default", "never there"))
	q.Push(read(aPod("raised", priority(8))))
	if !q.Has("default/raised") || q.Has("default/gone") || q.Len() != 6 {
		t.Errorf("%d pods wait", q.Len())
	}
	var got []string
	for p, found := q.Pop(); found; p, found = q.Pop() {
		got = append(got, p.Key)
	}
	want := []string{"default/raised", "default/high", "default/a", "default/b", "default/young", "default/low"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// Ten thousand pods at once fill the nodes and no more, and twice the same. Whoever is refused fits nowhere.
func TestTenThousandPodsAtOnce(t *testing.T) {
	const pods, cores, most = 10_000, 16, 40
	milli := func(i int) int { return 100 * (1 + i%13) } // 700 on average, 7,000 cores in all
	for name, test := range map[string]struct {
		hosts int
		// placed is how many pods at least, and used how much of the cores.
		placed int
		used   float64
	}{
		"with room for nearly all": {500, pods * 99 / 100, 0},
		"with room for fewer":      {400, 0, 0.99},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*corev1.Node
			for i := range test.hosts {
				all = append(all, aNode(fmt.Sprintf("n%03d", i), func(n *corev1.Node) {
					n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse(strconv.Itoa(cores))
					n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse(strconv.Itoa(most))
				}))
			}
			place := func() (map[string]string, *scheduler.Snapshot) {
				s, q := cluster(all), scheduler.NewQueue()
				for i := range pods {
					q.Push(read(aPod(strconv.Itoa(i), cpu(fmt.Sprintf("%dm", milli(i))), madeAt(int64(i%100)), priority(int32(i%3)))))
				}
				placed := map[string]string{}
				for p, found := q.Pop(); found; p, found = q.Pop() {
					node, fits := s.Decide(p, scheduler.How{})
					if !fits {
						continue
					}
					if err := s.Assume(p, node); err != nil {
						t.Fatal(err)
					}
					placed[p.Key] = node
				}
				return placed, s
			}
			placed, s := place()
			used, count, total := map[string]int{}, map[string]int{}, 0
			for i := range pods {
				key := scheduler.Key("default", strconv.Itoa(i))
				node, found := placed[key]
				if !found {
					wantNode(t, s, read(aPod("again", cpu(fmt.Sprintf("%dm", milli(i))))), "")
					continue
				}
				used[node] += milli(i)
				total += milli(i)
				count[node]++
			}
			for node, sum := range used {
				if sum > 1000*cores || count[node] > most {
					t.Errorf("node %s has %d pods with %d m of %d", node, count[node], sum, 1000*cores)
				}
			}
			if share := float64(total) / float64(1000*cores*test.hosts); len(placed) < test.placed || share < test.used {
				t.Errorf("only %d of %d were placed, on %.3f of the cores", len(placed), pods, share)
			}
			if again, _ := place(); !maps.Equal(placed, again) {
				t.Error("the same pods and nodes gave other decisions")
			}
		})
	}
}
