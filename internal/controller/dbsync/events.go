package dbsync

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/record"
)

// The reasons of events that no condition has.
const (
	reasonRowMended = "RowMended"
	reasonRowGone   = "RowGone"
	reasonAdopted   = "OwnedByDatabase"
	reasonReleased  = "OwnedByKubernetes"
	reasonExpired   = "ApprovalExpired"
)

// narrator is the list of everything this package says in events.
type narrator struct{ recorder record.Recorder }

func (n narrator) rowInvalid(about runtime.Object, table, id, problem string) {
	n.warn(about, doryv1alpha1.ReasonRowInvalid, "Apply", "Row %q of %s cannot be applied: %s", message.Shorten(id, 100), table, problem)
}

func (n narrator) rowMended(about runtime.Object, table string) {
	n.tell(about, reasonRowMended, "Apply", "The row in %s can be applied again", table)
}

func (n narrator) templateKeysIgnored(about runtime.Object, message string) {
	n.warn(about, doryv1alpha1.ReasonTemplateKeysIgnored, "Render", "%s", message)
}

func (n narrator) deletionHeld(about runtime.Object, message string) {
	n.warn(about, doryv1alpha1.ReasonDeletionHeld, "Delete", "%s", message)
}

func (n narrator) rowGone(about runtime.Object, table string, approved bool) {
	if approved {
		n.tell(about, reasonRowGone, "Delete", "Deleted: its row in %s is gone, and a person approved", table)
		return
	}
	n.tell(about, reasonRowGone, "Delete", "Deleted: its row in %s is gone or ended", table)
}

func (n narrator) adopted(about runtime.Object, table string) {
	n.tell(about, reasonAdopted, "Adopt", "The row in %s says source = database and owns the spec from now on", table)
}

func (n narrator) released(about runtime.Object, table string) {
	n.tell(about, reasonReleased, "Release", "The row in %s says source = kubernetes: the spec belongs to Kubernetes from now on", table)
}

func (n narrator) approvalExpired(about runtime.Object, table string) {
	n.tell(about, reasonExpired, "Apply", "The approval of the deletion is taken off, because the row in %s is there", table)
}

func (n narrator) rowConflict(about runtime.Object, message string) {
	n.warn(about, doryv1alpha1.ReasonRowConflict, "List", "%s", message)
}

func (n narrator) tell(about runtime.Object, reason, action, note string, args ...any) {
	n.recorder.Eventf(about, nil, corev1.EventTypeNormal, reason, action, note, args...)
}

func (n narrator) warn(about runtime.Object, reason, action, note string, args ...any) {
	n.recorder.Eventf(about, nil, corev1.EventTypeWarning, reason, action, note, args...)
}

// missingObject is what an event is about where a row has no object. The recorder takes events about one
// reference for repetitions, whatever they say, so the revision tells one state of the row from the next.
func missingObject(kind string, key types.NamespacedName, revision int64) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: doryv1alpha1.GroupVersion.String(), Kind: kind, Namespace: key.Namespace, Name: key.Name,
		ResourceVersion: strconv.FormatInt(revision, 10),
	}
}

// subject is what an event about a row is about: its object, or where that would be.
func subject(kind string, row desired, object client.Object) runtime.Object {
	if object != nil {
		return object
	}
	return missingObject(kind, row.key, row.revision)
}
