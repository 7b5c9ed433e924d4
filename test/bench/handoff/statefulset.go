package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/bench/cluster"
)

// deletePods does what a user does today to move a stateful singleton: delete the pod of a StatefulSet of one replica.
// It is the same counter, in the same pod as a processor's, and saves its state in the ConfigMap when it is told to end.
func (b *bench) deletePods(ctx context.Context, s *story) error {
	set, err := b.counter(s).StatefulSet()
	if err != nil {
		return err
	}
	if err := b.cluster.Client.Create(ctx, set); err != nil {
		return err
	}
	before := types.UID("")
	for range s.moves {
		if before, err = b.readyAfter(ctx, set, before); err != nil {
			return err
		}
		began := b.clock.Now()
		if err := b.cluster.Client.Delete(ctx, podOf(set), client.Preconditions{UID: &before}); err != nil {
			return err
		}
		if _, err := b.readyAfter(ctx, set, before); err != nil {
			return err
		}
		s.ended = append(s.ended, move{phase: doryv1alpha1.MigrationSucceeded, duration: b.clock.Since(began)})
	}
	return b.cluster.Client.Delete(ctx, set, client.PropagationPolicy(metav1.DeletePropagationForeground))
}

func podOf(set *appsv1.StatefulSet) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: set.Name + "-0"}}
}

// readyAfter waits for a ready pod other than that one, and answers its UID.
func (b *bench) readyAfter(ctx context.Context, set *appsv1.StatefulSet, before types.UID) (types.UID, error) {
	found := podOf(set)
	err := cluster.Until(ctx, "the next ready pod", func(ctx context.Context) (bool, string, error) {
		if err := b.cluster.Client.Get(ctx, client.ObjectKeyFromObject(found), found); err != nil {
			return false, err.Error(), client.IgnoreNotFound(err)
		}
		return found.UID != before && found.DeletionTimestamp == nil && cluster.Ready(found), fmt.Sprintf("%+v", found.Status), nil
	})
	return found.UID, err
}
