package placement

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
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

// roomFor finds who has to make room for a refused pod, at most once per yieldTimeout, because the search looks at every
// node. Placeholders that went, and whose room somebody else was given, are no reason to wait.
func (l *loop) roomFor(w *waiter, how scheduler.How, now time.Time) []scheduler.Move {
	if !l.snapshot.MayAsk(w.pod) || (now.Sub(w.roomAskedAt) < yieldTimeout && !l.allEnded(w.ending)) {
		return nil
	}
	_, moves, _ := l.snapshot.MakeRoom(w.pod, how)
	w.roomAskedAt, w.ending = now, nil
	for _, move := range moves {
		if !goesOn(move) {
			l.snapshot.End(move.Pod) // So that nobody else counts on it.
			w.ending = append(w.ending, move.Pod)
		}
	}
	if len(w.ending) < len(moves) {
		w.ending = nil
	}
	return moves
}

// allEnded says whether there were some, and none is left.
func (l *loop) allEnded(pods []string) bool {
	return len(pods) > 0 && !slices.ContainsFunc(pods, l.snapshot.Has)
}

// goesOn says that a move is not the end of a placeholder.
func goesOn(move scheduler.Move) bool { return move.To != "" }

// makeRoom asks processors to move, whose sources work until their targets do, and ends placeholders, which do nothing.
func (c *clerks) makeRoom(ctx context.Context, object *corev1.Pod, moves []scheduler.Move) letter {
	var errs []error
	var stayed []string
	for _, move := range moves {
		if goesOn(move) {
			errs = append(errs, c.askOneToMove(ctx, object, move))
			continue
		}
		if err := c.endPlaceholder(ctx, object, move); err != nil {
			errs, stayed = append(errs, err), append(stayed, move.Pod)
		}
	}
	if err := errors.Join(errs...); err != nil {
		log.FromContext(ctx).Error(err, "not everybody made room", "pod", client.ObjectKeyFromObject(object))
	}
	return func(l *loop) { l.readAgain(stayed) }
}

// readAgain takes back what was noted of pods.
func (l *loop) readAgain(pods []string) {
	for _, key := range pods {
		if object, err := l.clerks.podOf(l.ctx, key); err == nil {
			l.podChanged(object)
		}
	}
}

func (c *clerks) podOf(ctx context.Context, key string) (*corev1.Pod, error) {
	namespace, name, err := toolscache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil, fmt.Errorf("reading the key of a pod that is to make room: %w", err)
	}
	var pod corev1.Pod
	if err := c.cached.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
		return nil, fmt.Errorf("reading pod %s, which is to make room: %w", key, err)
	}
	return &pod, nil
}

func (c *clerks) endPlaceholder(ctx context.Context, object *corev1.Pod, move scheduler.Move) error {
	placeholder, err := c.podOf(ctx, move.Pod)
	if err != nil || !c.config.Options.placeholder(placeholder) {
		return client.IgnoreNotFound(err)
	}
	if err := c.config.Client.Delete(ctx, placeholder, client.Preconditions{UID: &placeholder.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting placeholder %s: %w", move.Pod, err)
	}
	narrator{c.config.Recorder}.displaces(object, placeholder, move)
	return nil
}

// placeholder says whether somebody made the pod to keep room for others, and left it to this placement.
func (o *Options) placeholder(p *corev1.Pod) bool {
	return p.Labels[doryv1alpha1.LabelPlaceholder] == "true" && p.Spec.SchedulerName == o.SchedulerName && !o.Movable(p)
}

func (c *clerks) askOneToMove(ctx context.Context, object *corev1.Pod, move scheduler.Move) error {
	source, err := c.podOf(ctx, move.Pod)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	processor := source.Labels[doryv1alpha1.LabelProcessor]
	asked := fnv.New32a()
	asked.Write([]byte(string(object.UID) + string(source.UID)))
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: source.Namespace, Name: fmt.Sprintf("%s-yields-%08x", processor[:min(len(processor), longestProcessor)], asked.Sum32()),
			Labels: map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy},
		},
		Spec: doryv1alpha1.ProcessorMigrationSpec{
			Processor: processor, Reason: doryv1alpha1.MigrationPreemption, SourcePod: source.Name, TargetNode: move.To,
			ActiveDeadlineSeconds: new(int64(yieldTimeout / time.Second)),
		},
	}
	if err := c.config.Client.Create(ctx, m); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("creating ProcessorMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	narrator{c.config.Recorder}.yields(object, source, move)
	return nil
}
