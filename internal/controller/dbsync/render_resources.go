package dbsync

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/quantity"
)

// The contract's defaults of the section resources.
const (
	defaultCPURequest    = "500m"
	defaultMemoryRequest = "512Mi"
	defaultCPULimit      = "2000m"
	defaultMemoryLimit   = "2Gi"
	// defaultGPUs is what gpu_required asks for where gpu_limit says nothing.
	defaultGPUs = "1"
)

// resourceGPU is what gpu_required and gpu_limit are about.
const resourceGPU corev1.ResourceName = "nvidia.com/gpu"

// readResources reads the section resources.
func readResources(s *section) *doryv1alpha1.ProcessorResources {
	r := &doryv1alpha1.ProcessorResources{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    s.quantity("cpu_request", defaultCPURequest),
			corev1.ResourceMemory: s.quantity("memory_request", defaultMemoryRequest),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU:    s.quantity("cpu_limit", defaultCPULimit),
			corev1.ResourceMemory: s.quantity("memory_limit", defaultMemoryLimit),
		},
	}
	s.ordered("cpu", r.Requests[corev1.ResourceCPU], r.Limits[corev1.ResourceCPU])
	s.ordered("memory", r.Requests[corev1.ResourceMemory], r.Limits[corev1.ResourceMemory])
	if gpus := s.gpus(); gpus != nil {
		r.Limits[resourceGPU] = *gpus
	}
	return r
}

// ordered refuses a request above its limit. Either may be a default, which is why both values are told.
func (s *section) ordered(name string, request, limit resource.Quantity) {
	if request.Cmp(limit) > 0 {
		s.problem("%s is %s, above %s, which is %s: lower the one or raise the other",
			s.at(name+"_request"), request.String(), s.at(name+"_limit"), limit.String())
	}
}

// gpus reads gpu_required and gpu_limit together; the limit alone asks for nothing.
func (s *section) gpus() *resource.Quantity {
	required := s.flag("gpu_required", false)
	given := s.text("gpu_limit", "")
	switch {
	case !required && given != "" && given != "0":
		s.warn("%s is %q and is ignored, because %s is false", s.at("gpu_limit"), shorten(given), s.at("gpu_required"))
		return nil
	case !required:
		return nil
	case given == "":
		given = defaultGPUs
	}
	gpus, err := quantity.Parse(given)
	if whole, exact := gpus.AsInt64(); err != nil || !exact || whole < 1 {
		s.problem("%s is %q, expected a whole number of GPUs, 1 or more", s.at("gpu_limit"), shorten(given))
		return nil
	}
	return &gpus
}
