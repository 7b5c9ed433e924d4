package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// deletePods does what a user does today to move a stateful singleton: delete the pod of a StatefulSet of one replica.
// It is the same counter, in the same pod as a processor's, and saves its state in the ConfigMap when it is told to end.
func (b *bench) deletePods(ctx context.Context, s *story) error {
	set, err := b.statefulSet(s)
	if err != nil {
		return err
	}
	if err := b.k8s.Create(ctx, set); err != nil {
		return err
	}
	before := types.UID("")
	for range s.moves {
		if before, err = b.readyAfter(ctx, set, before); err != nil {
			return err
		}
		began := b.clock.Now()
		if err := b.k8s.Delete(ctx, podOf(set), client.Preconditions{UID: &before}); err != nil {
			return err
		}
		if _, err := b.readyAfter(ctx, set, before); err != nil {
			return err
		}
		s.ended = append(s.ended, move{phase: doryv1alpha1.MigrationSucceeded, duration: b.clock.Since(began)})
	}
	return b.k8s.Delete(ctx, set, client.PropagationPolicy(metav1.DeletePropagationForeground))
}

func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: set.Name + "-0"}}
}

// readyAfter waits for a ready pod other than that one, and answers its UID.
func (b *bench) readyAfter(ctx context.Context, set *appsv1.StatefulSet, before types.UID) (types.UID, error) {
	found := podOf(set)
	err := b.until(ctx, "the next ready pod", func(ctx context.Context) (bool, string, error) {
		if err := b.k8s.Get(ctx, client.ObjectKeyFromObject(found), found); err != nil {
			return false, err.Error(), client.IgnoreNotFound(err)
		}
		return found.UID != before && found.DeletionTimestamp == nil && ready(found), fmt.Sprintf("%+v", found.Status), nil
	})
	return found.UID, err
}

func ready(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// statefulSet runs a processor's pod without what makes it Dory's.
func (b *bench) statefulSet(s *story) (*appsv1.StatefulSet, error) {
	processor := b.counter(s)
	processor.UID = "00000000-0000-4000-8000-000000000000"
	processor.Spec.Port = contractPort
	processor.Spec.Probes = doryv1alpha1.ProcessorProbes{InitialDelaySeconds: ptr.To[int32](60), PeriodSeconds: 10, TimeoutSeconds: 3, FailureThreshold: 3}
	processor.Spec.TerminationGracePeriodSeconds = 35
	processor.Spec.Location = doryv1alpha1.LocationManaged
	processor.Spec.ServiceAccountName = "dory-processor" // The operator has made it: there are Processors here.
	built, err := pod.Build(pod.Input{Processor: processor, Name: s.name + "-0", Epoch: 1})
	if err != nil {
		return nil, fmt.Errorf("building the pod that both sides run: %w", err)
	}
	labels := map[string]string{"app": s.name}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: s.name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1), ServiceName: s.name, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: built.Spec},
		},
	}, nil
}
