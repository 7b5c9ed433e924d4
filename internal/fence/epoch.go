// Package fence issues epochs, and says when the holder of one is proven gone. An epoch is what makes an
// instance the one PRIMARY; nothing else in Dory may write a ProcessorEpoch.
package fence

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

var (
	// ErrUnavailable says that no epoch can be issued now, because the last one is nowhere to be read.
	ErrUnavailable = errors.New("no epoch can be issued")
	// ErrConflict says that somebody else issued an epoch since the caller looked. Look again.
	ErrConflict = errors.New("another epoch was issued meanwhile")
)

// Ledger is the second, independent record of epochs: the database.
type Ledger interface {
	// IssueEpoch makes and returns max(recorded, floor)+1 in one step.
	IssueEpoch(ctx context.Context, processorID string, floor int64, holder string) (int64, error)
}

// Issuer hands out epochs. It is safe for concurrent use, also by several operators at once.
type Issuer struct {
	client client.Client
	ledger Ledger
	clock  clock.PassiveClock
}

// NewIssuer makes an Issuer. A nil ledger stands for an operator without a database.
func NewIssuer(c client.Client, ledger Ledger, clk clock.PassiveClock) *Issuer {
	return &Issuer{client: c, ledger: ledger, clock: clk}
}

// Request asks for the next epoch of a processor.
type Request struct {
	// Namespace and ProcessorID say whose epoch: every Processor of a namespace that claims the id shares it.
	Namespace, ProcessorID string
	// Holder is the pod that will act under the epoch.
	Holder string
	// Instance is the process of the holder that the epoch is issued for, where that is known; see InstanceOf.
	Instance string
	// Reason is for people.
	Reason doryv1alpha1.EpochReason
	// Current is the ProcessorEpoch that the caller decided by, or nil if it saw none. The write is refused
	// if another has come meanwhile.
	Current *doryv1alpha1.ProcessorEpoch
	// Floor is the highest epoch seen elsewhere, such as on a pod's label.
	Floor int64
	// Drawn is a number that Draw returned for the same holder, or 0. It is used if it is still above all others.
	Drawn int64
}

// Draw takes the next number off the ledger, for an Issue that must not wait for the database. The number is nobody's epoch
// until it is issued, and a gap if it never is. It fails as Issue does.
func (i *Issuer) Draw(ctx context.Context, req Request) (int64, error) {
	// gofail: var fenceBeforeLedger struct{}
	return i.next(ctx, req, req.above())
}

// above is what the next number has to be above of.
func (req Request) above() int64 {
	if req.Current == nil {
		return req.Floor
	}
	return max(req.Floor, req.Current.Spec.Epoch)
}

// Issue writes the next epoch, higher than any recorded one, and returns it once it is durable. It fails with
// ErrConflict if somebody was faster, and with ErrUnavailable if the last epoch cannot be known: a database is
// configured and does not answer, and there is no ProcessorEpoch that could stand for it.
func (i *Issuer) Issue(ctx context.Context, req Request) (*doryv1alpha1.ProcessorEpoch, error) {
	number := req.Drawn
	if number <= req.above() {
		var err error
		if number, err = i.Draw(ctx, req); err != nil {
			return nil, err
		}
	}
	// gofail: var fenceBeforeRecord struct{}
	return i.record(ctx, req, number)
}

// next takes the number from the ledger, which then knows it before anybody uses it. A gap is left if the
// record fails afterwards; epochs need to rise, not to be dense.
func (i *Issuer) next(ctx context.Context, req Request, floor int64) (int64, error) {
	if i.ledger == nil {
		return floor + 1, nil
	}
	number, err := i.ledger.IssueEpoch(ctx, req.ProcessorID, floor, req.Holder)
	switch {
	case err == nil && number <= floor:
		return 0, fmt.Errorf("the database issued epoch %d for processor %q, not above %d: %w", number, req.ProcessorID, floor, ErrUnavailable)
	case err == nil:
		return number, nil
	case req.Current != nil:
		// The ProcessorEpoch can be read, and names the last epoch that anybody acts under. What the ledger has beyond it was
		// drawn and never issued.
		return floor + 1, nil
	default:
		return 0, fmt.Errorf("%w: processor %q has no ProcessorEpoch and its last epoch cannot be read from the database: %w", ErrUnavailable, req.ProcessorID, err)
	}
}

// record is the compare-and-swap: a create fails if the object exists, an update fails if it has changed.
func (i *Issuer) record(ctx context.Context, req Request, number int64) (*doryv1alpha1.ProcessorEpoch, error) {
	spec := doryv1alpha1.ProcessorEpochSpec{
		ProcessorID: req.ProcessorID,
		Epoch:       number,
		Holder:      req.Holder,
		Reason:      req.Reason,
		IssuedAt:    metav1.NewTime(i.clock.Now()),
	}
	var epoch *doryv1alpha1.ProcessorEpoch
	var err error
	if req.Current == nil {
		epoch = &doryv1alpha1.ProcessorEpoch{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: doryv1alpha1.ObjectName(req.ProcessorID)}, Spec: spec}
		setInstance(epoch, req.Instance)
		err = i.client.Create(ctx, epoch)
	} else {
		epoch = req.Current.DeepCopy()
		epoch.Spec = spec
		setInstance(epoch, req.Instance)
		err = i.client.Update(ctx, epoch)
	}
	// gofail: var fenceAfterRecord struct{}
	return epoch, writeError(err, epoch)
}

// annotationInstance says for which process of its holder the epoch was issued.
const annotationInstance = "dory.io/instance"

func setInstance(epoch *doryv1alpha1.ProcessorEpoch, instance string) {
	delete(epoch.Annotations, annotationInstance)
	if instance != "" {
		metav1.SetMetaDataAnnotation(&epoch.ObjectMeta, annotationInstance, instance)
	}
}

// InstanceOf is the process of its holder that the epoch was issued for; empty where nobody said so.
func InstanceOf(epoch *doryv1alpha1.ProcessorEpoch) string {
	return epoch.Annotations[annotationInstance]
}

// annotationBarred says for what the ProcessorEpoch was last written without a new epoch.
const annotationBarred = "dory.io/barred-by"

// Bar lets fail with ErrConflict whoever decided by an older look at the ProcessorEpoch and is about to issue one, though it
// be frozen in the middle of that. The epoch stays as it is. Reason names the occasion; for the same one, nothing is written
// again.
func (i *Issuer) Bar(ctx context.Context, current *doryv1alpha1.ProcessorEpoch, reason string) (*doryv1alpha1.ProcessorEpoch, error) {
	if Barred(current, reason) {
		return current, nil
	}
	epoch := current.DeepCopy()
	metav1.SetMetaDataAnnotation(&epoch.ObjectMeta, annotationBarred, reason)
	return epoch, writeError(i.client.Update(ctx, epoch), epoch)
}

// Barred says whether that was done already on the occasion.
func Barred(epoch *doryv1alpha1.ProcessorEpoch, reason string) bool {
	return epoch.Annotations[annotationBarred] == reason
}

// Release clears the holder, once it is proven gone and no successor is wanted. The number stays.
func (i *Issuer) Release(ctx context.Context, current *doryv1alpha1.ProcessorEpoch) error {
	if current.Spec.Holder == "" {
		return nil
	}
	epoch := current.DeepCopy()
	epoch.Spec.Holder = ""
	return writeError(i.client.Update(ctx, epoch), epoch)
}

func writeError(err error, epoch *doryv1alpha1.ProcessorEpoch) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return fmt.Errorf("%w: ProcessorEpoch %s/%s", ErrConflict, epoch.Namespace, epoch.Name)
	default:
		return fmt.Errorf("writing ProcessorEpoch %s/%s: %w", epoch.Namespace, epoch.Name, err)
	}
}
