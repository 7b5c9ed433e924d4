package rehearsal

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/lookup"
)

// makesRoom says whether every quota of the namespace would take next once old is gone. The API server names only the first
// that does not.
func (r Rehearsal) makesRoom(ctx context.Context, next, old *corev1.Pod) (bool, error) {
	whole, err := lookup.Get[corev1.Pod](ctx, r.Reader, client.ObjectKeyFromObject(old)) // Caches leave its resources out.
	if err != nil {
		return false, err
	}
	var quotas corev1.ResourceQuotaList
	if err := r.Reader.List(ctx, &quotas, client.InNamespace(next.Namespace)); err != nil {
		return false, fmt.Errorf("listing the quotas of namespace %s: %w", next.Namespace, err)
	}
	for i := range quotas.Items {
		if !fits(&quotas.Items[i], next, whole) {
			return false, nil
		}
	}
	return true, nil
}

// fits reckons as the quota controller does. Where a quota is for some pods only, the old one frees what the next one needs
// only if nothing tells the two apart.
func fits(quota *corev1.ResourceQuota, next, old *corev1.Pod) bool {
	needs, frees := usage(next), corev1.ResourceList{}
	scoped := len(quota.Spec.Scopes) > 0 || quota.Spec.ScopeSelector != nil
	if old != nil && (!scoped || alike(next, old)) {
		frees = usage(old)
	}
	for name, hard := range quota.Spec.Hard {
		need, asks := needs[name]
		if !asks || need.IsZero() {
			continue
		}
		total := quota.Status.Used[name].DeepCopy()
		total.Sub(frees[name])
		total.Add(need)
		if total.Cmp(hard) > 0 {
			return false
		}
	}
	return true
}

// alike pods match the same scopes of quotas.
func alike(a, b *corev1.Pod) bool {
	return a.Spec.PriorityClassName == b.Spec.PriorityClassName && bestEffort(a) == bestEffort(b) &&
		(a.Spec.ActiveDeadlineSeconds == nil) == (b.Spec.ActiveDeadlineSeconds == nil)
}

func bestEffort(p *corev1.Pod) bool {
	return len(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})) == 0 &&
		len(resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{})) == 0
}

// unprefixed are the resources whose requests a quota may name as they are.
var unprefixed = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// usage is what a pod counts for, by the names that quotas use.
func usage(p *corev1.Pod) corev1.ResourceList {
	one := resource.MustParse("1")
	used := corev1.ResourceList{corev1.ResourcePods: one, "count/pods": one}
	for name, quantity := range resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{}) {
		used[corev1.DefaultResourceRequestsPrefix+name] = quantity
		if slices.Contains(unprefixed, name) {
			used[name] = quantity
		}
	}
	for name, quantity := range resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{}) {
		used["limits."+name] = quantity
	}
	return used
}
