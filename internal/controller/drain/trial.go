package drain

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

const (
	// trialSuffix is the unique part of the name of a pod that is only tried. It is the same each time, so that a refusal which
	// names the pod reads the same each time.
	trialSuffix = "trial"
	// trialPace is how many trials begin in a row; each is one request to the API server.
	trialPace = 200 * time.Millisecond
	// trialDoubt is after how long a trial that failed is repeated: nothing tells that a quota has room again. As long as the answer
	// stays the same, that doubles up to trialRefresh.
	trialDoubt = 2 * time.Minute
	// trialFresh is for how long one is believed that went well, if there is reason to look: the node is being left, or anything
	// else is news. Without news it is repeated every trialRefresh, because a new quota or policy is none.
	trialFresh, trialFreshest, trialRefresh = 10 * time.Minute, 30 * time.Second, time.Hour
	// trialLimit bounds how long one takes.
	trialLimit = 10 * time.Second
)

// trial is what the API server said about a second pod of a processor.
type trial struct {
	// generation is that of the Processor, and revision that of the pod that works. A trial of others says nothing.
	generation int64
	revision   string
	// at is when, or when its turn comes.
	at time.Time
	// done says that it was made.
	done bool
	// turn is when it is to be made once more; zero is not before it is due.
	turn time.Time
	// pause is after how long it is, where it failed.
	pause time.Duration
	// quota, refused and unknown are why the pod cannot be made: a quota in which the pod that works may stand in its way, any
	// other refusal, or trouble that says nothing about the pod.
	quota, refused, unknown string
	// claim is the name of a claim that only one pod may use.
	claim string
}

func (t *trial) failed() bool { return t.quota != "" || t.refused != "" || t.unknown != "" }

// same says that two trials had the same answer.
func (t *trial) same(other *trial) bool {
	return t.quota == other.quota && t.refused == other.refused && t.unknown == other.unknown && t.claim == other.claim
}

// doubt is how long a trial that failed is believed after the one before.
func (t *trial) doubt(before *trial) time.Duration {
	if before == nil || !before.done || !t.same(before) {
		return trialDoubt
	}
	return min(2*max(before.pause, trialDoubt), trialRefresh)
}

// attempted is what is tried.
type attempted struct {
	// processor is the Processor as it was when the pod that works was made, and revision that pod's.
	processor *doryv1alpha1.Processor
	revision  string
	// others names a move of another Processor whose target may take the room in a quota meanwhile; empty is none.
	others func(context.Context) (string, error)
}

// trials remember what was tried: once for a spec, and again where it failed. They begin one after another, however many
// Processors there are to look at after a start.
type trials struct {
	client client.Client
	// reader reads past the cache.
	reader client.Reader

	mu    sync.Mutex
	known map[types.NamespacedName]*trial
	// next is when the next one may begin.
	next time.Time
}

func newTrials(c client.Client, reader client.Reader) *trials {
	return &trials{client: c, reader: reader, known: map[types.NamespacedName]*trial{}}
}

// of answers what is known about the processor's next pod, and when to ask again. It tries at most once; what is known is
// believed for as long as said.
func (t *trials) of(ctx context.Context, what attempted, believed time.Duration, now time.Time) (found *trial, again time.Duration) {
	p, revision := what.processor, what.revision
	key := client.ObjectKeyFromObject(p)
	due, wait := t.reserve(key, p.Generation, revision, believed, now)
	if wait > 0 {
		return due, wait
	}
	made := t.make(ctx, p)
	if made.quota != "" {
		made = made.crowded(ctx, what, due)
	}
	made.pause = made.doubt(due)
	made.generation, made.revision, made.at, made.done = p.Generation, revision, now, true
	t.mu.Lock()
	t.known[key] = made
	t.mu.Unlock()
	if made.failed() {
		return made, min(made.pause, believed)
	}
	return made, trialRefresh
}

// crowded is what a quota without room means while another target takes the room: nothing. What was known before counts.
func (t *trial) crowded(ctx context.Context, what attempted, before *trial) *trial {
	other, err := what.others(ctx)
	switch {
	case err != nil:
		return &trial{unknown: err.Error()}
	case other == "":
		return t
	case before != nil && before.done:
		return &trial{quota: before.quota, refused: before.refused, unknown: before.unknown, claim: before.claim}
	}
	return &trial{claim: t.claim, unknown: fmt.Sprintf("there is no room for it as long as ProcessorMigration %s is under way, which has a second pod, too: %s", other, t.quota)}
}

// reserve answers the trial of the generation and the revision, and how long the next has to wait.
func (t *trials) reserve(key types.NamespacedName, generation int64, revision string, believed time.Duration, now time.Time) (*trial, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.known[key]
	if found == nil || found.generation != generation || found.revision != revision {
		found = &trial{generation: generation, revision: revision, at: t.slot(now)}
		t.known[key] = found
	}
	if !found.done {
		return found, found.at.Sub(now)
	}
	left := found.at.Add(believed).Sub(now)
	if found.failed() {
		left = found.at.Add(min(found.pause, believed)).Sub(now)
	}
	switch {
	case left > 0 && found.failed():
		return found, left
	case left > 0:
		return found, trialRefresh
	case found.turn.IsZero():
		found.turn = t.slot(now)
	}
	return found, found.turn.Sub(now)
}

// slot is when the next trial may begin.
func (t *trials) slot(now time.Time) time.Time {
	if t.next.Before(now) {
		t.next = now
	}
	next := t.next
	t.next = next.Add(trialPace)
	return next
}

func (t *trials) forget(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, key)
}

// make asks the API server for the pod that a drain would make, with all of admission, and for the claims that it uses.
func (t *trials) make(ctx context.Context, p *doryv1alpha1.Processor) *trial {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	node := instanceNode(p)
	next, err := pod.Build(pod.Input{
		Processor: p, Name: pod.Name(p.Name, trialSuffix), Standby: true,
		Move: &pod.Move{Migration: doryv1alpha1.MigrationName(p.Name, trialSuffix, 1), From: pod.Name(p.Name, trialSuffix), AvoidNode: node, Leave: node != ""},
	})
	if err != nil {
		return &trial{} // The condition says so without a trial.
	}
	made := verdictOn(t.client.Create(ctx, next.DeepCopy(), client.DryRunAll))
	claim, err := t.heldClaim(ctx, next)
	if err != nil && made.unknown == "" {
		made.unknown = err.Error()
	}
	made.claim = claim
	return made
}

// verdictOn tells a refusal from trouble, and a full quota from any other.
func verdictOn(err error) *trial {
	var status apierrors.APIStatus
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		return &trial{}
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota: "):
		return &trial{quota: err.Error()}
	case errors.As(err, &status) && (status.Status().Code == http.StatusForbidden || status.Status().Code == http.StatusUnprocessableEntity):
		return &trial{refused: err.Error()}
	}
	return &trial{unknown: err.Error()}
}

// heldClaim is one that the pod uses and that Kubernetes gives to one pod at a time.
func (t *trials) heldClaim(ctx context.Context, next *corev1.Pod) (string, error) {
	for _, volume := range next.Spec.Volumes {
		if volume.PersistentVolumeClaim == nil {
			continue
		}
		name := volume.PersistentVolumeClaim.ClaimName
		claim, err := lookup.Get[corev1.PersistentVolumeClaim](ctx, t.reader, types.NamespacedName{Namespace: next.Namespace, Name: name})
		if err != nil {
			return "", err
		}
		if claim != nil && exclusive(claim) {
			return name, nil
		}
	}
	return "", nil
}

func exclusive(claim *corev1.PersistentVolumeClaim) bool {
	modes := claim.Status.AccessModes // What it got counts, once it has got it.
	if len(modes) == 0 {
		modes = claim.Spec.AccessModes
	}
	return len(modes) == 1 && modes[0] == corev1.ReadWriteOncePod
}

// said is what the trial means for the condition: nil where nothing is in the way.
func (t *trial) said(o outlook) *obstacle {
	switch {
	case t == nil || !t.done:
		return nil
	case t.refused != "":
		return &obstacle{reason: doryv1alpha1.ReasonPodRejected, message: "the API server refuses a second pod of the processor: " + t.refused}
	case t.quota != "":
		return &obstacle{
			reason: doryv1alpha1.ReasonQuotaExceeded, restart: true,
			message: fmt.Sprintf("there is no room for a second pod beside pod %s: %s", o.instanceName(), t.quota),
		}
	case t.claim != "":
		return &obstacle{
			reason: doryv1alpha1.ReasonRestartOnly, restart: true,
			message: fmt.Sprintf("PersistentVolumeClaim %s is ReadWriteOncePod: no second pod starts while pod %s uses it", t.claim, o.instanceName()),
		}
	}
	return nil
}
