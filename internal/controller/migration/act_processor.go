package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// Processors is what this package asks of processors; a *statexfer.Client.
type Processors interface {
	Capabilities(ctx context.Context, of statexfer.Endpoint) (statexfer.Capabilities, error)
	Capture(ctx context.Context, from statexfer.Endpoint) (*statexfer.State, error)
	Restore(ctx context.Context, to statexfer.Endpoint, state *statexfer.State) (*statexfer.Restored, error)
	Verify(ctx context.Context, of statexfer.Endpoint, state *statexfer.State, restored *statexfer.Restored) error
	Status(ctx context.Context, of statexfer.Endpoint) (statexfer.HandoffStatus, error)
	Quiesce(ctx context.Context, of statexfer.Endpoint, epoch int64) (*statexfer.State, error)
	Promote(ctx context.Context, who statexfer.Endpoint, epoch int64) error
	Resume(ctx context.Context, who statexfer.Endpoint, epoch int64) error
}

// endpoint is where the pod's processor listens.
func (r *Reconciler) endpoint(p *corev1.Pod) (statexfer.Endpoint, error) {
	if p == nil || p.Status.PodIP == "" {
		return statexfer.Endpoint{}, errUnaddressed
	}
	url := "http://" + net.JoinHostPort(p.Status.PodIP, strconv.Itoa(int(pod.Port(p, 0))))
	return statexfer.Endpoint{URL: url, Token: r.token(p.Namespace)}, nil
}

// ask calls a processor, and turns its failure into a trouble.
func (r *Reconciler) ask(o *observation, d decision, p *corev1.Pod, call func(statexfer.Endpoint) error) error {
	at, err := r.endpoint(p)
	if err == nil {
		err = call(at)
	}
	if err != nil {
		return o.troubled(d.step, err)
	}
	o.know.trouble = nil
	return nil
}

func (r *Reconciler) askSource(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.holder, func(at statexfer.Endpoint) error {
		can, err := r.processors.Capabilities(ctx, at)
		if err == nil {
			o.know.sourceCan = &can
		}
		return err
	})
}

func (r *Reconciler) askTarget(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		can, err := r.processors.Capabilities(ctx, at)
		if err == nil {
			o.know.targetCan = &can
		}
		return err
	})
}

func (r *Reconciler) checkSource(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		is, err := r.identify(ctx, at, o.source)
		if err == nil {
			o.know.sourceIs = &is
		}
		return err
	})
}

func (r *Reconciler) checkTarget(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		is, err := r.identify(ctx, at, o.target)
		if err == nil {
			o.know.targetIs = &is
		}
		return err
	})
}

// identify asks a process who it is. Where the SDK does not tell, the kubelet does, a little later.
func (r *Reconciler) identify(ctx context.Context, at statexfer.Endpoint, p *corev1.Pod) (statexfer.HandoffStatus, error) {
	is, err := r.processors.Status(ctx, at)
	if !errors.Is(err, statexfer.ErrRefused) {
		return is, err
	}
	fresh, err := r.cluster.pod(ctx, client.ObjectKeyFromObject(p), live)
	if err != nil {
		return is, err
	}
	if fresh == nil || pod.ContainerStatus(fresh) == nil {
		return is, fmt.Errorf("pod %s has no container: %w", p.Name, errUnaddressed)
	}
	container := pod.ContainerStatus(fresh)
	return statexfer.HandoffStatus{Role: roleUnknown, Epoch: pod.EpochOf(fresh), Instance: fmt.Sprintf("%s#%d", container.ContainerID, container.RestartCount)}, nil
}

// capture takes the state of a source that works on. In Overlap that is the state to go on from.
func (r *Reconciler) capture(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		state, err := r.processors.Capture(ctx, at)
		if err != nil {
			return err
		}
		o.know.copy = state
		if d.migration.Status.Strategy == doryv1alpha1.MigrationOverlap {
			o.know.final = state
		}
		return nil
	})
}

func (r *Reconciler) warm(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		_, err := r.processors.Restore(ctx, at, o.know.copy)
		o.know.warmed = err == nil
		return outrun(err, o.know.copy)
	})
}

// reserve makes the copy durable. No error is passed over: the copy is what is left if the source does not save its state.
func (r *Reconciler) reserve(ctx context.Context, o *observation, d decision) error {
	if err := r.checkpoints.Save(ctx, o.processor, o.epoch, o.know.copy); err != nil {
		return o.troubled(d.step, err)
	}
	o.know.reserved = true
	return nil
}

// quiesce stops the source between two iterations. The state of a process that was started meanwhile never takes the place
// of a newer one.
func (r *Reconciler) quiesce(ctx context.Context, o *observation, d decision) error {
	k := &o.know
	if k.pauseFrom.IsZero() {
		k.pauseFrom = r.clock.Now()
		if k.sourceIs.Role == roleQuiesced && d.migration.Status.PhaseTime != nil {
			k.pauseFrom = d.migration.Status.PhaseTime.Time // It has stood still since some moment after that.
		}
	}
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		state, err := r.processors.Quiesce(ctx, at, k.sourceIs.Epoch)
		if refusal, ok := errors.AsType[*statexfer.Refusal](err); ok && refusal.Role == roleStandby {
			k.sourceIs = &statexfer.HandoffStatus{Role: roleStandby, Epoch: k.sourceIs.Epoch}
			return nil
		}
		if err != nil {
			return err
		}
		is := *k.sourceIs
		is.Role = roleQuiesced
		k.sourceIs = &is
		if k.final == nil || newer(state, k.final) {
			k.final, k.restored, k.delivered, k.held, k.confirmed = state, nil, false, false, false
			k.newest, k.newestIn, k.quiesced, k.saved = state, "", true, false
		}
		return nil
	})
}

func (r *Reconciler) restore(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		restored, err := r.processors.Restore(ctx, at, o.know.final)
		o.know.restored, o.know.delivered = restored, err == nil
		return outrun(err, o.know.final)
	})
}

// verify is strict where the target stands by. One that runs has worked on by the time it is asked.
func (r *Reconciler) verify(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		err := r.processors.Verify(ctx, at, o.know.final, o.know.restored)
		if errors.Is(err, statexfer.ErrMismatch) && d.migration.Status.Strategy == doryv1alpha1.MigrationOverlap {
			r.events.unverified(o, d.migration, err)
			err = nil
		}
		o.know.held = err == nil
		return err
	})
}

// confirm asks both who they are once more. Whoever is not the process that it was has to be dealt with anew.
func (r *Reconciler) confirm(ctx context.Context, o *observation, d decision) error {
	k := &o.know
	overlap := d.migration.Status.Strategy == doryv1alpha1.MigrationOverlap
	k.confirmed = true
	if !overlap && !over(o.source) {
		is, err := r.identifyPod(ctx, o.source)
		if err != nil {
			return o.troubled(stepCheckSource, err)
		}
		if !sameSilence(k.sourceIs, &is) {
			k.sourceIs, k.confirmed = &is, false
		}
	}
	is, err := r.identifyPod(ctx, o.target)
	if err != nil {
		return o.troubled(stepCheckTarget, err)
	}
	if is.Instance != k.targetIs.Instance || (!overlap && !standsBy(is.Role)) {
		k.targetIs, k.restored, k.delivered, k.held, k.confirmed = &is, nil, false, false, false
	}
	return nil
}

func (r *Reconciler) identifyPod(ctx context.Context, p *corev1.Pod) (statexfer.HandoffStatus, error) {
	at, err := r.endpoint(p)
	if err != nil {
		return statexfer.HandoffStatus{}, err
	}
	return r.identify(ctx, at, p)
}

// sameSilence says that the source still does not act. A process that does not tell its role must be the same.
func sameSilence(before, now *statexfer.HandoffStatus) bool {
	return now.Role == roleStandby || (now.Instance == before.Instance && (now.Role == roleQuiesced || now.Role == roleUnknown))
}

func (r *Reconciler) promote(ctx context.Context, o *observation, d decision) error {
	k := &o.know
	return r.ask(o, d, o.target, func(at statexfer.Endpoint) error {
		if err := r.processors.Promote(ctx, at, o.epoch.Spec.Epoch); err != nil {
			return err
		}
		k.promoted = true
		if !k.pauseFrom.IsZero() {
			k.pause = r.clock.Since(k.pauseFrom)
		}
		return nil
	})
}

// resume lets the source act. One that does not tell its role and refuses is taken for a process that knows nothing.
func (r *Reconciler) resume(ctx context.Context, o *observation, d decision) error {
	k := &o.know
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		err := r.processors.Resume(ctx, at, k.sourceIs.Epoch)
		refusal, refused := errors.AsType[*statexfer.Refusal](err)
		switch {
		case err == nil:
			k.awake = true
		case refused && (refusal.Role == roleStandby || k.sourceIs.Role == roleUnknown):
			k.sourceIs = &statexfer.HandoffStatus{Role: roleStandby, Epoch: k.sourceIs.Epoch}
			return nil
		case refused:
			k.forsaken = true
			return nil
		}
		return err
	})
}

func (r *Reconciler) reviveRestore(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		state := under(o.know.newest, o.know.sourceIs.Epoch)
		restored, err := r.processors.Restore(ctx, at, state)
		if err == nil {
			err = r.processors.Verify(ctx, at, state, restored)
		}
		o.know.revived = err == nil
		o.know.forsaken = hopeless(err)
		return err
	})
}

func (r *Reconciler) revivePromote(ctx context.Context, o *observation, d decision) error {
	return r.ask(o, d, o.source, func(at statexfer.Endpoint) error {
		err := r.processors.Promote(ctx, at, o.epoch.Spec.Epoch)
		o.know.awake = err == nil
		o.know.forsaken = hopeless(err)
		return err
	})
}

// hopeless errors are a processor's final word.
func hopeless(err error) bool {
	v := verdict{}
	v.classify(err, ReasonStateRefused)
	return err != nil && v.final
}
