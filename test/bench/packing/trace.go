// Package packing replays a trace of pods that come and go on as few nodes as a scheduler manages with, and compares that
// with a lower bound.
package packing

import (
	"fmt"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The trace is a synthetic one. Its sizes follow what is published of the Azure VM trace of 2017 (AzurePublicDataset V1,
// described in "Resource Central", SOSP 2017): most VMs have 1 or 2 cores and little memory, in fixed steps of 0.75, 1.75,
// 3.5 and 7 GB a core, and a VM has 2.28 cores on average (237.8 million core hours in 104.4 million VM hours). Lifetimes
// are of two kinds, many short and fewer that are ten times as long; they are our own choice, as is that they are
// exponential. The shares below are chosen to give these averages, not taken from the trace.
var (
	cores = choice{{1, 0.51}, {2, 0.30}, {4, 0.12}, {8, 0.05}, {16, 0.02}}
	// memoryMiB for each core.
	memoryMiB = choice{{768, 0.10}, {1792, 0.45}, {3584, 0.35}, {7168, 0.10}}
	// lifetimes are in arrivals: how many others come until a pod goes, on average.
	lifetimes = choice{{300, 0.6}, {3000, 0.4}}
)

// A node has 32 CPUs and 96 GiB, less what the system keeps.
const (
	nodeMilliCPU  = 31850
	nodeMemoryMiB = 93 << 10
	nodePods      = 234
)

// mostMemoryMiB keeps the few largest to what fits on a node.
const mostMemoryMiB = 64 << 10

// choice draws values by their share.
type choice []struct{ value, share float64 }

func (c choice) draw(random *rand.Rand) float64 {
	at := random.Float64()
	for _, option := range c {
		if at -= option.share; at < 0 {
			return option.value
		}
	}
	return c[len(c)-1].value
}

// Item is a pod of the trace.
type Item struct {
	MilliCPU, MemoryMiB int64
	// Arrives and Leaves are moments; an item that leaves when another arrives is gone before.
	Arrives, Leaves float64
	Pod             *corev1.Pod
}

// Trace draws items that arrive one after another. The same seed gives the same.
func Trace(count int, seed uint64) []*Item {
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // to be the same every time
	items := make([]*Item, 0, count)
	for i := range count {
		size := cores.draw(random)
		item := &Item{
			MilliCPU: int64(size * 1000), MemoryMiB: min(int64(size*memoryMiB.draw(random)), mostMemoryMiB),
			Arrives: float64(i), Leaves: float64(i) + random.ExpFloat64()*lifetimes.draw(random),
		}
		item.Pod = item.pod(fmt.Sprintf("item-%06d", i))
		items = append(items, item)
	}
	return items
}

func (i *Item) pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			SchedulerName: corev1.DefaultSchedulerName,
			Containers: []corev1.Container{{Name: "main", Image: "image", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(i.MilliCPU, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(i.MemoryMiB<<20, resource.BinarySI),
			}}}},
		},
	}
}

// Node makes a node.
func Node(name string) *corev1.Node {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(nodeMilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(nodeMemoryMiB<<20, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(nodePods, resource.DecimalSI),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Allocatable: amounts, Capacity: amounts,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

// departures are the items in the order in which they leave.
func departures(items []*Item) []*Item {
	return slices.SortedStableFunc(slices.Values(items), func(a, b *Item) int {
		if a.Leaves < b.Leaves {
			return -1
		}
		return 1
	})
}
