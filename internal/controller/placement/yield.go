package placement

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/scheduler"
)

const (
	// yieldTimeout is how long a processor may take to make room, and for how long nobody else is asked on behalf of the
	// same pod.
	yieldTimeout = 2 * time.Minute
	// longestProcessor leaves a migration's name room for what follows.
	longestProcessor = 230
)

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
	asked := fnv.New32a()
	asked.Write([]byte(string(object.UID) + string(source.UID)))
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("%s-yields-%08x", processor[:min(len(processor), longestProcessor)], asked.Sum32()),
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
	narrator{c.config.Recorder}.yields(object, &source, move)
	return nil
}
