package migration

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
	"github.com/dory-io/dory/internal/pod"
)

// action takes one step and adds what it learned to the observation. Its error ends the pass, which is tried again; what a
// processor answers is no error of the pass but a trouble for decide to judge.
type action func(ctx context.Context, o *observation, d decision) error

func (r *Reconciler) actions() map[step]action {
	return map[step]action{
		stepLook: r.look, stepAskTurn: r.askTurn, stepHold: r.hold, stepRelease: r.release, stepCollect: r.collect, stepNote: r.write,
		stepEnterPlacing: r.write, stepEnterStarting: r.write, stepEnterWarming: r.write, stepEnterHandingOff: r.write,
		stepEnterRetiring: r.write, stepEnterSucceeded: r.write, stepEnterRollingBack: r.write, stepEnterRolledBack: r.write,
		stepEnterFailed: r.write,

		stepRecall: r.recall, stepRehearse: r.rehearse, stepForesee: r.foresee, stepKeep: r.keepSource, stepCreateTarget: r.createTarget, stepDeleteTarget: r.deleteTarget, stepDeleteSource: r.deleteSource,
		stepAside: r.stepAside, stepBack: r.stepBack, stepAdopt: r.adopt, stepDraw: r.draw, stepCommit: r.commit, stepReviveIssue: r.reviveIssue,
		stepBar: r.bar,

		stepAskSource: r.askSource, stepAskTarget: r.askTarget, stepCheckSource: r.checkSource, stepCheckTarget: r.checkTarget,
		stepCapture: r.capture, stepWarm: r.warm, stepReserve: r.reserve, stepQuiesce: r.quiesce, stepRestore: r.restore,
		stepVerify: r.verify, stepConfirm: r.confirm, stepPromote: r.promote, stepResume: r.resume, stepGather: r.gather,
		stepSave: r.save, stepReviveRestore: r.reviveRestore, stepRevivePromote: r.revivePromote,
	}
}

// look reads past the cache what the decisions from the handoff on rely on.
func (r *Reconciler) look(ctx context.Context, o *observation, d decision) error {
	if d.migration != nil && d.migration.Active() {
		fresh, err := r.cluster.migration(ctx, client.ObjectKeyFromObject(d.migration))
		switch {
		case err != nil:
			return err
		case fresh == nil || fresh.UID != d.migration.UID:
			o.drop(d.migration)
		default:
			o.replace(fresh)
		}
	} else if err := r.lookAtAll(ctx, o); err != nil {
		return err
	}
	if err := r.observePods(ctx, o, live); err != nil {
		return err
	}
	o.live = true
	return nil
}

func (r *Reconciler) lookAtAll(ctx context.Context, o *observation) error {
	var err error
	if o.processor, err = r.cluster.processor(ctx, o.key, live); err != nil {
		return err
	}
	if o.migrations, err = r.cluster.migrations(ctx, o.key, live); err != nil {
		return err
	}
	o.sort()
	o.revise()
	return nil
}

func (r *Reconciler) askTurn(ctx context.Context, o *observation, d decision) error {
	waitsFor, err := r.turn(ctx, d.migration)
	if err != nil {
		return fmt.Errorf("asking whether ProcessorMigration %s/%s may begin: %w", d.migration.Namespace, d.migration.Name, err)
	}
	o.know.turnAsked, o.know.waitsFor = true, waitsFor
	return nil
}

// hold puts the finalizer on, and lets the migration go with its Processor.
func (r *Reconciler) hold(ctx context.Context, o *observation, d decision) error {
	held := d.migration.DeepCopy()
	held.Finalizers = append(held.Finalizers, Finalizer)
	p := o.processor
	owned := slices.ContainsFunc(held.OwnerReferences, func(owner metav1.OwnerReference) bool { return owner.UID == p.UID })
	if !owned {
		held.OwnerReferences = append(held.OwnerReferences, metav1.OwnerReference{
			APIVersion: doryv1alpha1.GroupVersion.String(), Kind: "Processor", Name: p.Name, UID: p.UID,
		})
	}
	if err := r.cluster.updateMigration(ctx, held); err != nil {
		return err
	}
	o.replace(held)
	return nil
}

func (r *Reconciler) release(ctx context.Context, o *observation, d decision) error {
	released := d.migration.DeepCopy()
	released.Finalizers = slices.DeleteFunc(released.Finalizers, func(f string) bool { return f == Finalizer })
	err := r.cluster.updateMigration(ctx, released)
	switch {
	case err == nil && released.DeletionTimestamp == nil:
		o.replace(released)
	case client.IgnoreNotFound(err) == nil:
		o.drop(released)
	}
	return client.IgnoreNotFound(err)
}

func (r *Reconciler) collect(ctx context.Context, o *observation, d decision) error {
	if err := r.cluster.deleteMigration(ctx, d.migration); err != nil {
		return err
	}
	o.drop(d.migration)
	return nil
}

// write writes the status. It is refused where the migration has changed.
func (r *Reconciler) write(ctx context.Context, o *observation, d decision) error {
	written := d.migration.DeepCopy()
	written.Status = *d.status
	if err := r.cluster.updateStatus(ctx, written); err != nil {
		return err
	}
	o.replace(written)
	o.know.trouble = nil
	o.know.said = d.step == stepNote
	if d.migration.Ended() {
		return nil // It was only acknowledged what has changed since.
	}
	if written.Ended() {
		o.know.ended = true
		r.metrics.ended(written)
	}
	r.events.entered(o, d.migration, written)
	logEntered(ctx, o, d.migration, written)
	return nil
}

func (r *Reconciler) targetOf(ctx context.Context, o *observation, m *doryv1alpha1.ProcessorMigration) (*corev1.Pod, error) {
	origin := o.originOf(m)
	pullSecret, err := r.prepare(ctx, origin.ProcessorOr(o.processor))
	if err != nil {
		return nil, fmt.Errorf("preparing namespace %s for the target: %w", o.key.Namespace, err)
	}
	in := pod.Input{
		Processor: o.processor, Name: m.Status.TargetPod, EdgeNode: o.edgeNode, ImagePullSecret: pullSecret,
		EvictionResponders: r.options.EvictionResponders, Tokens: r.tokens, Origin: origin,
		Standby: m.Status.Strategy == doryv1alpha1.MigrationLive,
		Move:    &pod.Move{Migration: m.Name, From: m.Status.SourcePod, Node: m.Spec.TargetNode},
	}
	if m.Spec.Reason != doryv1alpha1.MigrationUpdate {
		in.Move.AvoidNode = m.Status.SourceNode
		in.Move.Leave = m.Spec.Reason == doryv1alpha1.MigrationDrain && m.Status.SourceNode != ""
	}
	if o.committed(m) {
		in.Epoch = o.epoch.Spec.Epoch
		if in.Standby, err = r.placeState(ctx, o); err != nil {
			return nil, err
		}
	}
	target, err := pod.Build(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnbuildable, err)
	}
	return target, nil
}

// placeState answers whether the target is to wait for its state: it is too large for where the SDK looks, and the
// checkpoint controller will hand it over.
func (r *Reconciler) placeState(ctx context.Context, o *observation) (standby bool, err error) {
	if r.states == nil {
		return false, nil
	}
	result, err := r.states.Prepare(ctx, o.processor)
	switch {
	case err != nil:
		return false, err
	case result.Refused():
		return false, fmt.Errorf("%w: %s", errStateMissing, result.Message)
	case result.Epoch > o.epoch.Spec.Epoch:
		return false, fmt.Errorf("%w: it was written under epoch %d, above the target's %d", errStateMissing, result.Epoch, o.epoch.Spec.Epoch)
	}
	return result.Elsewhere && ptr.Deref(o.processor.Status.Handoff, false), nil
}

// rehearse asks all that can be known beforehand about the target, before the source is ended for it.
func (r *Reconciler) rehearse(ctx context.Context, o *observation, d decision) error {
	target, err := r.targetOf(ctx, o, d.migration)
	if err == nil {
		err = r.cluster.rehearse(ctx, target, o.source)
	}
	if err != nil {
		return o.troubled(d.step, err)
	}
	o.know.rehearsed, o.know.trouble = true, nil
	return nil
}

// foresee asks whether the target would find its state once the source has ended. It comes after the source's copy was made
// durable, which mends what may have been missing until then.
func (r *Reconciler) foresee(ctx context.Context, o *observation, d decision) error {
	if r.states != nil {
		result, err := r.states.Foresee(ctx, o.processor)
		if err == nil && result.Refused() {
			err = fmt.Errorf("%w: %s", errStateMissing, result.Message)
		}
		if err != nil {
			return o.troubled(d.step, err)
		}
	}
	o.know.foreseen, o.know.trouble = true, nil
	return nil
}

func (r *Reconciler) createTarget(ctx context.Context, o *observation, d decision) error {
	target, err := r.targetOf(ctx, o, d.migration)
	if err == nil {
		err = r.cluster.createPod(ctx, target)
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("pod %s/%s: %w", target.Namespace, target.Name, errStale)
	case err != nil:
		return o.troubled(d.step, err)
	}
	o.target = target
	r.events.created(d.migration, target)
	return nil
}

func (r *Reconciler) deleteTarget(ctx context.Context, o *observation, _ decision) error {
	return r.remove(ctx, o, o.target)
}

func (r *Reconciler) deleteSource(ctx context.Context, o *observation, _ decision) error {
	return r.remove(ctx, o, o.source)
}

// remove asks the kubelet to end the pod with its full grace period, and looks what is left.
func (r *Reconciler) remove(ctx context.Context, o *observation, p *corev1.Pod) error {
	if err := r.cluster.deletePod(ctx, p); err != nil {
		return err
	}
	left, err := r.cluster.pod(ctx, client.ObjectKeyFromObject(p), live)
	if err != nil {
		return err
	}
	o.replacePod(p.Name, left)
	return nil
}

func (r *Reconciler) stepAside(ctx context.Context, o *observation, _ decision) error {
	return r.mark(ctx, o, o.source, doryv1alpha1.RoleStandby, 0)
}

// stepBack also writes the epoch, which a source that was revived has got anew.
func (r *Reconciler) stepBack(ctx context.Context, o *observation, d decision) error {
	if err := r.mark(ctx, o, o.source, doryv1alpha1.RolePrimary, o.epoch.Spec.Epoch); err != nil {
		return err
	}
	// A process that was started before that is a standby, so it is asked once more.
	o.know.sourceIs, o.know.awake, o.know.revived, o.know.back = nil, false, false, true
	if d.migration == nil {
		r.events.rescued(o)
	}
	return nil
}

// adopt is followed by another look at the process, which may have been started anew before.
func (r *Reconciler) adopt(ctx context.Context, o *observation, _ decision) error {
	k := &o.know
	if k.targetIs != nil && k.targetIs.Role != roleUnknown {
		k.targetIs, k.promoted, k.held, k.delivered, k.restored = nil, false, false, false, nil
	}
	return r.mark(ctx, o, o.target, doryv1alpha1.RolePrimary, o.epoch.Spec.Epoch)
}

// mark writes as what a process of the pod is to start.
func (r *Reconciler) mark(ctx context.Context, o *observation, p *corev1.Pod, role string, epoch int64) error {
	marked := p.DeepCopy()
	metav1.SetMetaDataAnnotation(&marked.ObjectMeta, doryv1alpha1.AnnotationRole, role)
	if epoch != 0 {
		metav1.SetMetaDataLabel(&marked.ObjectMeta, doryv1alpha1.LabelEpoch, strconv.FormatInt(epoch, 10))
	}
	if err := r.cluster.patchPod(ctx, marked, p); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("pod %s/%s is gone: %w", p.Namespace, p.Name, errStale)
		}
		return err
	}
	o.replacePod(p.Name, marked)
	return nil
}

// commit issues the epoch to the target: from here on there is no way back. Whoever read the migration before another leader
// rolled it back, and the epoch after that, sees the bar in it.
func (r *Reconciler) commit(ctx context.Context, o *observation, d decision) error {
	if o.barred(d.migration) {
		return fmt.Errorf("ProcessorMigration %s/%s is rolled back already: %w", d.migration.Namespace, d.migration.Name, errStale)
	}
	reason := doryv1alpha1.EpochPromote
	if d.migration.Status.Strategy == doryv1alpha1.MigrationStopAndCopy {
		reason = doryv1alpha1.EpochReplace
	}
	request := o.request(d.migration.Status.TargetPod, reason)
	request.Drawn = o.know.drawn
	if o.know.targetIs != nil {
		request.Instance = o.know.targetIs.Instance
	}
	return r.issue(ctx, o, request)
}

func (r *Reconciler) draw(ctx context.Context, o *observation, d decision) error {
	number, err := r.issuer.Draw(ctx, o.request(d.migration.Status.TargetPod, doryv1alpha1.EpochPromote))
	o.know.drawn = number
	return err
}

func (r *Reconciler) bar(ctx context.Context, o *observation, d decision) error {
	epoch, err := r.issuer.Bar(ctx, o.epoch, o.occasion(d.migration))
	if err != nil {
		return err
	}
	o.epoch = epoch
	return nil
}

func (r *Reconciler) reviveIssue(ctx context.Context, o *observation, _ decision) error {
	return r.issue(ctx, o, o.request(o.source.Name, doryv1alpha1.EpochPromote))
}

func (r *Reconciler) issue(ctx context.Context, o *observation, request fence.Request) error {
	epoch, err := r.issuer.Issue(ctx, request)
	if err != nil {
		return err
	}
	o.epoch = epoch
	return nil
}

// request asks for an epoch above every other that was seen.
func (o *observation) request(holder string, reason doryv1alpha1.EpochReason) fence.Request {
	return fence.Request{Namespace: o.key.Namespace, ProcessorID: o.id(), Holder: holder, Reason: reason, Current: o.epoch, Floor: o.floor()}
}
