package placement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/scheduler"
)

// claimPatience is how long the claims of a pod may take to be bound: as long as kube-scheduler waits.
const claimPatience = 10 * time.Minute

var (
	errClaimsLate = fmt.Errorf("its claims were not bound within %s", claimPatience)
	errClaimsLost = errors.New("no volume was made for its claims")
	errNoVolume   = errors.New("no PersistentVolume is left")
)

// claiming is a pod's wait for its claims to be bound for the node that it is assumed on.
type claiming struct {
	attempt  int
	choices  []choice
	promises []promise // nil until they are written
}

// promise is what was written so that a claim is bound: a volume was given to it, or, without one, a node was selected.
type promise struct {
	claim   *corev1.PersistentVolumeClaim
	volume  string
	node    string
	version string // of the object where it stands
}

// broken says whether somebody took back what was written.
func (p promise) broken(ctx context.Context, reader client.Reader) bool {
	var claim corev1.PersistentVolumeClaim
	switch err := reader.Get(ctx, client.ObjectKeyFromObject(p.claim), &claim); {
	case apierrors.IsNotFound(err), err == nil && claim.UID != p.claim.UID:
		return true
	case err != nil, claim.Spec.VolumeName != "":
		return false
	case p.volume == "":
		return !older(&claim, p.version) && claim.Annotations[volume.AnnSelectedNode] != p.node
	}
	var given corev1.PersistentVolume
	err := reader.Get(ctx, client.ObjectKey{Name: p.volume}, &given)
	return apierrors.IsNotFound(err) || (err == nil && !older(&given, p.version) && !volume.IsVolumeBoundToClaim(&given, &claim))
}

// older says whether an object is from before a version.
func older(object client.Object, version string) bool {
	order, err := resourceversion.CompareResourceVersion(object.GetResourceVersion(), version)
	return err == nil && order < 0
}

// volumesOf a pod, which are not to be where they were not had, unless they can be nowhere else.
func (l *loop) volumesOf(object *corev1.Pod) volumes {
	v := volumesOf(l.ctx, l.reader, object)
	w, known := l.waiting.pods[scheduler.Key(object.Namespace, object.Name)]
	if known && w.object.UID == object.UID && len(w.failedOn) > 0 && len(v.unbound) > 0 && !v.fixed {
		v.reach(notFrom(w.failedOn))
	}
	return v
}

// readVolumes reads again who waits for volumes of which there is news.
func (l *loop) readVolumes() {
	if len(l.volumeNews) == 0 {
		return
	}
	news := l.volumeNews
	l.volumeNews = volumeNews{}
	for _, w := range l.waiting.pods {
		switch {
		case !news.concerns(w.object, &w.volumes):
		case w.claiming != nil:
			l.claimsChanged(w)
		default:
			l.podChanged(w.object)
		}
	}
}

// claimsChanged goes on with a pod when its claims are bound, or when somebody has taken back what was to bind them, as a
// provisioner does that can make no volume.
func (l *loop) claimsChanged(w *waiter) {
	v := l.volumesOf(w.object)
	if v.problem == "" && len(v.unbound) == 0 {
		w.claiming, w.failures = nil, 0
		w.pod, w.volumes = l.podWith(w.object, v), v
		l.waiting.wake(w)
		return
	}
	if slices.ContainsFunc(w.claiming.promises, func(p promise) bool { return p.broken(l.ctx, l.reader) }) {
		l.unclaim(w, errClaimsLost)
	}
}

// claimed is how an attempt to have the claims of a pod bound went.
func (l *loop) claimed(p *scheduler.Pod, attempt int, promises []promise, err error) {
	w, found := l.waiting.pods[p.Key]
	switch {
	case !found || w.pod.UID != p.UID: // It is bound, or gone.
	case w.claiming == nil || w.claiming.attempt != attempt: // Its claims are bound, or it has given them up.
	case err != nil:
		l.unclaim(w, err)
	default:
		w.claiming.promises = promises
		l.claimsChanged(w)
	}
}

// unclaim places a pod anew whose claims are not bound for the node that it was to have: elsewhere if it can, unless others were
// only faster, or nobody has said no.
func (l *loop) unclaim(w *waiter, why error) {
	if node, assumed := l.snapshot.Assumed(w.pod.Key); assumed && !expected(why) && !errors.Is(why, errClaimsLate) {
		w.failedOn = append(w.failedOn, node)
		w.failure = fmt.Sprintf("on %s: %v", node, why)
	}
	l.changed(l.snapshot.Forget(w.pod))
	w.claiming, w.hasRoom = nil, false
	w.pod, w.volumes = l.read(w.object)
	l.waiting.putOff(w, l.clock.Now())
	l.readAgain(w.pod)
}

// forgiveNodes lets a pod that fits nowhere else try again where its claims were not bound.
func (l *loop) forgiveNodes(w *waiter) {
	if len(w.failedOn) == 0 {
		return
	}
	w.failedOn, w.failure = nil, ""
	w.pod, w.volumes = l.read(w.object)
	l.waiting.putOff(w, l.clock.Now())
}

// claim has the claims of a pod bound for its node.
func (c *clerks) claim(ctx context.Context, object *corev1.Pod, p *scheduler.Pod, wait *claiming, node string) {
	attempt, choices := wait.attempt, wait.choices
	c.do(func() letter {
		promises, err := c.promise(ctx, choices, node)
		switch {
		case err == nil && len(promises) > 0:
			narrator{record.New(c.config.Recorder)}.claims(object, promises, node)
		case err != nil && !expected(err):
			c.config.Metrics.failed()
			log.FromContext(ctx).Error(err, "the claims of a pod were not bound and it will be placed again", "pod", p.Key, "node", node)
		}
		return func(l *loop) { l.claimed(p, attempt, promises, err) }
	})
}

func (c *clerks) promise(ctx context.Context, choices []choice, node string) ([]promise, error) {
	var promises []promise
	for _, chosen := range choices {
		var promised promise
		var err error
		if chosen.volume != nil {
			promised, err = c.giveVolume(ctx, chosen.volume, chosen.claim)
		} else {
			promised, err = c.selectNode(ctx, chosen.claim, node)
		}
		if err != nil {
			return nil, err
		}
		promises = append(promises, promised)
	}
	return promises, nil
}

// choice is how a claim gets its volume: one that is there, or else one that is provisioned for the node.
type choice struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// taken are the claims that volumes are chosen for, by the volume's name.
type taken map[string]types.UID

func (t taken) add(chosen choice) {
	if chosen.volume != nil {
		t[chosen.volume.Name] = chosen.claim.UID
	}
}

func (t taken) byAnother(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	owner, found := t[v.Name]
	return found && owner != claim.UID
}

// choose how the claims of a pod get their volumes, none of which others are about to get.
func (l *loop) choose(w *waiter, node string) ([]choice, error) {
	others := taken{}
	for _, other := range l.waiting.pods {
		if other.claiming != nil {
			for _, chosen := range other.claiming.choices {
				others.add(chosen)
			}
		}
	}
	return choose(l.ctx, l.reader, w.object.Namespace, w.volumes.unbound, node, others)
}

// choose takes the smallest volume that suits, and none twice.
func choose(ctx context.Context, reader client.Reader, namespace string, claims []string, name string, gone taken) ([]choice, error) {
	var node corev1.Node
	if err := reader.Get(ctx, client.ObjectKey{Name: name}, &node); err != nil {
		return nil, fmt.Errorf("looking for node %s: %w", name, err)
	}
	var choices []choice
	for _, name := range claims {
		claim := &corev1.PersistentVolumeClaim{}
		if err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, claim); err != nil {
			return nil, fmt.Errorf("reading PersistentVolumeClaim %s: %w", name, err)
		}
		chosen, err := chooseOne(ctx, reader, claim, &node, gone)
		if err != nil {
			return nil, err
		}
		gone.add(chosen)
		choices = append(choices, chosen)
	}
	return choices, nil
}

// chooseOne leaves a claim alone for which another node was selected meanwhile: a volume may be on its way there.
func chooseOne(ctx context.Context, reader client.Reader, claim *corev1.PersistentVolumeClaim, node *corev1.Node, gone taken) (choice, error) {
	class, err := classOf(ctx, reader, claim)
	if err != nil {
		return choice{}, err
	}
	selected, err := selectedNode(ctx, reader, claim)
	switch {
	case err != nil:
		return choice{}, err
	case selected == node.Name:
		return choice{claim: claim}, nil
	case selected != "":
		return choice{}, fmt.Errorf("node %s is selected for claim %s: %w", selected, claim.Name, errNews)
	}
	suitable, err := suitableVolumes(ctx, reader, claim)
	if err != nil {
		return choice{}, err
	}
	i := slices.IndexFunc(suitable, func(v *corev1.PersistentVolume) bool { return !gone.byAnother(v, claim) && within(reachOf(v), node) })
	switch {
	case i >= 0:
		return choice{claim: claim, volume: suitable[i]}, nil
	case provisions(class) && within(topologiesOf(class), node):
		return choice{claim: claim}, nil
	default:
		return choice{}, fmt.Errorf("%w for claim %s", errNoVolume, claim.Name)
	}
}

// giveVolume promises a volume to a claim; Kubernetes' controller of volumes does the rest.
func (c *clerks) giveVolume(ctx context.Context, v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (promise, error) {
	given, changed, err := volume.GetBindVolumeToClaim(v, claim)
	if err == nil && changed {
		err = c.config.Client.Patch(ctx, given, ifUnchanged(v))
	}
	if err != nil {
		return promise{}, fmt.Errorf("giving PersistentVolume %s to claim %s: %w", v.Name, claim.Name, err)
	}
	return promise{claim: claim, volume: v.Name, version: given.ResourceVersion}, nil
}

// selectNode asks the provisioner of a claim's class for a volume that the node reaches.
func (c *clerks) selectNode(ctx context.Context, claim *corev1.PersistentVolumeClaim, node string) (promise, error) {
	selected := claim.DeepCopy()
	if claim.Annotations[volume.AnnSelectedNode] != node {
		metav1.SetMetaDataAnnotation(&selected.ObjectMeta, volume.AnnSelectedNode, node)
		if err := c.config.Client.Patch(ctx, selected, ifUnchanged(claim)); err != nil {
			return promise{}, fmt.Errorf("selecting node %s for claim %s: %w", node, claim.Name, err)
		}
	}
	return promise{claim: claim, node: node, version: selected.ResourceVersion}, nil
}

func ifUnchanged(object client.Object) client.Patch {
	return client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{})
}
