package placement

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/scheduler"
)

// cacheOptions keep of all the nodes and pods of the cluster only what placement reads.
func cacheOptions(scheme *runtime.Scheme) cache.Options {
	return cache.Options{
		Scheme: scheme,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                   {Transform: slimPod},
			&corev1.Node{}:                  {Transform: slimNode},
			&corev1.Namespace{}:             {Transform: cache.TransformStripManagedFields()},
			&corev1.PersistentVolume{}:      {Transform: cache.TransformStripManagedFields()},
			&corev1.PersistentVolumeClaim{}: {Transform: cache.TransformStripManagedFields()},
			&storagev1.StorageClass{}:       {Transform: cache.TransformStripManagedFields()},
		},
	}
}

func slimMeta(o metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels,
		CreationTimestamp: o.CreationTimestamp, DeletionTimestamp: o.DeletionTimestamp,
	}
}

func slimNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Node{
		ObjectMeta: slimMeta(node.ObjectMeta),
		Spec:       corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints},
		Status:     corev1.NodeStatus{Allocatable: node.Status.Allocatable},
	}
	for _, c := range node.Status.Conditions {
		slim.Status.Conditions = append(slim.Status.Conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
	}
	return slim, nil
}

func slimPod(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	spec := &pod.Spec
	slim := &corev1.Pod{
		ObjectMeta: slimMeta(pod.ObjectMeta),
		Spec: corev1.PodSpec{
			NodeName: spec.NodeName, SchedulerName: spec.SchedulerName, Priority: spec.Priority, PreemptionPolicy: spec.PreemptionPolicy, Overhead: spec.Overhead,
			Resources: spec.Resources, ResourceClaims: spec.ResourceClaims, SchedulingGates: spec.SchedulingGates,
			NodeSelector: spec.NodeSelector, Affinity: spec.Affinity, Tolerations: spec.Tolerations,
			TopologySpreadConstraints: spec.TopologySpreadConstraints,
			Containers:                slimContainers(spec.Containers), InitContainers: slimContainers(spec.InitContainers),
			Volumes: claimsOf(spec.Volumes),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, ContainerStatuses: slimStatuses(pod.Status.ContainerStatuses),
			InitContainerStatuses: slimStatuses(pod.Status.InitContainerStatuses),
		},
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled || c.Type == corev1.PodResizePending {
			slim.Status.Conditions = append(slim.Status.Conditions, c)
		}
	}
	return slim, nil
}

func slimContainers(containers []corev1.Container) []corev1.Container {
	slim := make([]corev1.Container, 0, len(containers))
	for i := range containers {
		c := &containers[i]
		slim = append(slim, corev1.Container{
			Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy, Resources: corev1.ResourceRequirements{Requests: c.Resources.Requests},
		})
	}
	return slim
}

// slimStatuses keep what a container was granted that is being resized in place.
func slimStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var slim []corev1.ContainerStatus
	for i := range statuses {
		if s := &statuses[i]; s.Resources != nil || s.AllocatedResources != nil {
			slim = append(slim, corev1.ContainerStatus{Name: s.Name, Resources: s.Resources, AllocatedResources: s.AllocatedResources})
		}
	}
	return slim
}

// claimsOf leaves out volumes that can be had everywhere.
func claimsOf(volumes []corev1.Volume) []corev1.Volume {
	var claims []corev1.Volume
	for i := range volumes {
		if volumes[i].PersistentVolumeClaim != nil || volumes[i].Ephemeral != nil {
			claims = append(claims, volumes[i])
		}
	}
	return claims
}

// listen sends a letter for whatever happens, and returns what tells that those for all that is there were sent.
func (l *loop) listen(ctx context.Context, watched cache.Cache) (sent []toolscache.InformerSynced, err error) {
	if err := watched.IndexField(ctx, &corev1.PersistentVolume{}, indexFor, forWhom); err != nil {
		return nil, fmt.Errorf("indexing PersistentVolumes: %w", err)
	}
	for _, source := range []struct {
		object  client.Object
		changed func(any) letter
		gone    func(client.Object) letter
	}{
		{&corev1.Pod{}, podChanged, podGone},
		{&corev1.Node{}, nodeChanged, nodeGone},
		{&corev1.Namespace{}, namespaceChanged, namespaceGone},
		{&corev1.PersistentVolumeClaim{}, claimChanged, claimGone},
		{&corev1.PersistentVolume{}, volumeChanged, volumeGone},
		{&storagev1.StorageClass{}, classChanged, classGone},
	} {
		informer, err := watched.GetInformer(ctx, source.object)
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", source.object, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { l.inbox.send(source.changed(o)) },
			UpdateFunc: func(_, o any) { l.inbox.send(source.changed(o)) },
			DeleteFunc: func(o any) { l.inbox.send(source.gone(lastKnown(o))) },
		})
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", source.object, err)
		}
		sent = append(sent, registration.HasSynced)
	}
	return sent, nil
}

// lastKnown is the object of a deletion, also where only the fact was seen. Nil: neither.
func lastKnown(o any) client.Object {
	if unseen, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = unseen.Obj
	}
	object, ok := o.(client.Object)
	if !ok {
		return nil
	}
	return object
}

func podChanged(o any) letter {
	return func(l *loop) {
		if pod, ok := o.(*corev1.Pod); ok {
			l.podChanged(pod)
		}
	}
}

func podGone(o client.Object) letter {
	return func(l *loop) {
		if o != nil {
			l.podGone(scheduler.Key(o.GetNamespace(), o.GetName()))
		}
	}
}

func nodeChanged(o any) letter {
	return func(l *loop) {
		if node, ok := o.(*corev1.Node); ok {
			l.changed(l.snapshot.SetNode(node))
		}
	}
}

func nodeGone(o client.Object) letter {
	return func(l *loop) {
		if o != nil {
			l.changed(l.snapshot.DeleteNode(o.GetName()))
		}
	}
}

func namespaceChanged(o any) letter {
	return func(l *loop) {
		if namespace, ok := o.(*corev1.Namespace); ok {
			l.changed(l.snapshot.SetNamespace(namespace.Name, namespace.Labels))
		}
	}
}

func namespaceGone(o client.Object) letter {
	return func(l *loop) {
		if o != nil {
			l.changed(l.snapshot.DeleteNamespace(o.GetName()))
		}
	}
}

func claimChanged(o any) letter {
	return func(l *loop) {
		if claim, ok := o.(*corev1.PersistentVolumeClaim); ok {
			l.volumeNews[claimKey(claim.Namespace, claim.Name)] = true
		}
	}
}

func claimGone(o client.Object) letter { return claimChanged(o) }

// volumeChanged is news for whom a volume is promised to, or else for those who could have it.
func volumeChanged(o any) letter {
	return func(l *loop) {
		v, ok := o.(*corev1.PersistentVolume)
		switch {
		case !ok:
		case v.Spec.ClaimRef != nil:
			l.volumeNews[claimKey(v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name)] = true
		default:
			l.volumeNews[classKey(volume.GetPersistentVolumeClass(v))] = true
		}
	}
}

func volumeGone(o client.Object) letter { return volumeChanged(o) }

func classChanged(o any) letter {
	return func(l *loop) {
		if class, ok := o.(*storagev1.StorageClass); ok {
			l.volumeNews[classKey(class.Name)] = true
		}
	}
}

func classGone(o client.Object) letter { return classChanged(o) }
