package placement

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/scheduler"
)

// yieldTimeout is how long a processor may take to make room, and for how long nobody else is asked on behalf of the
// same pod.
const yieldTimeout = 2 * time.Minute

// roomFor finds who has to move for a refused pod, at most once per yieldTimeout. A pod of priority 0, the usual one, asks
// nobody: the search looks at every node.
func (l *loop) roomFor(w *waiter, how scheduler.How, now time.Time) []scheduler.Move {
	if w.pod.Priority <= 0 || now.Sub(w.roomAskedAt) < yieldTimeout {
		return nil
	}
	w.roomAskedAt = now
	_, moves, _ := l.snapshot.MakeRoom(w.pod, how)
	return moves
}

// askToMove makes the ProcessorMigrations. The source works until the target does, so nobody is killed for anybody.
func (c *clerks) askToMove(ctx context.Context, object *corev1.Pod, moves []scheduler.Move) {
	var errs []error
	for _, move := range moves {
		errs = append(errs, c.askOneToMove(ctx, object, move))
	}
	if err := errors.Join(errs...); err != nil {
		log.FromContext(ctx).Error(err, "not everybody was asked to make room", "pod", client.ObjectKeyFromObject(object))
	}
}

func (c *clerks) askOneToMove(ctx context.Context, object *corev1.Pod, move scheduler.Move) error {
	namespace, name, err := toolscache.SplitMetaNamespaceKey(move.Pod)
	if err != nil {
		return fmt.Errorf("reading the key of a pod that is to move: %w", err)
	}
	var source corev1.Pod
	if err := c.cached.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &source); err != nil {
		return client.IgnoreNotFound(err)
	}
	processor := source.Labels[doryv1alpha1.LabelProcessor]
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: yieldName(processor, object.UID, source.UID),
			Labels: map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy},
		},
		Spec: doryv1alpha1.ProcessorMigrationSpec{
			Processor: processor, Reason: doryv1alpha1.MigrationPreemption, SourcePod: name, TargetNode: move.To,
			ActiveDeadlineSeconds: new(int64(yieldTimeout / time.Second)),
		},
	}
	if err := c.config.Client.Create(ctx, m); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("creating ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	narrator{record.New(c.config.Recorder)}.yields(object, &source, move)
	return nil
}

// yieldName is the same for every try to have the one pod make room for the other.
func yieldName(processor string, pod, source types.UID) string {
	return doryv1alpha1.MigrationName(processor, "yields-"+doryv1alpha1.Hash(string(pod)+string(source)), 1)
}
