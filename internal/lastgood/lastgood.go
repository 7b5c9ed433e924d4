// Package lastgood keeps what an instance was made from that worked, while another version has yet to show that it does. It is
// written before the instance is ended, and gone once the new version has proven itself.
package lastgood

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// Record is the version that worked last, and what became of the one after it.
type Record struct {
	// Origin is what its instances are made from.
	Origin *pod.Origin
	// Epoch is the one under which it worked.
	Epoch int64
	// Trial is the revision that took its place, since Since.
	Trial string
	Since time.Time
	// Reverted is the revision that was given up for it, and Because why. Empty: none.
	Reverted, Because string

	object *appsv1.ControllerRevision
	// moving is the record of a version that only changes its place, see keepMoving.
	moving bool
}

// Name is that of the record's ControllerRevision.
func (r *Record) Name() string {
	if r.object == nil {
		return ""
	}
	return r.object.Name
}

// Same says whether two looks found the same.
func (r *Record) Same(other *Record) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.object.UID == other.object.UID && r.object.ResourceVersion == other.object.ResourceVersion
}

// Store keeps records as ControllerRevisions, which the Processors own.
type Store struct {
	Client client.Client
	// Reader reads past the cache.
	Reader client.Reader
	Tokens pod.Tokens
}

// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=get;list;watch;create;patch;delete

// Cached is the record of a Processor as a cache has it; nil where there is none that the operator wrote.
func (s Store) Cached(ctx context.Context, p *doryv1alpha1.Processor) (*Record, error) {
	return s.of(ctx, p, s.Client)
}

// Live is the same, past the cache.
func (s Store) Live(ctx context.Context, p *doryv1alpha1.Processor) (*Record, error) {
	return s.of(ctx, p, s.Reader)
}

func (s Store) of(ctx context.Context, p *doryv1alpha1.Processor, from client.Reader) (*Record, error) {
	all, err := s.all(ctx, p, from)
	if err != nil {
		return nil, err
	}
	var newest *Record
	for _, found := range all {
		if !found.moving && (newest == nil || found.Epoch > newest.Epoch) {
			newest = found
		}
	}
	return newest, nil
}

func (s Store) all(ctx context.Context, p *doryv1alpha1.Processor, from client.Reader) ([]*Record, error) {
	list, err := list(ctx, from, p.Namespace, p.Name)
	if err != nil {
		return nil, err
	}
	var all []*Record
	for i := range list {
		if found := s.read(p, &list[i]); found != nil {
			all = append(all, found)
		}
	}
	return all, nil
}

func list(ctx context.Context, from client.Reader, namespace, processor string) ([]appsv1.ControllerRevision, error) {
	var list appsv1.ControllerRevisionList
	err := from.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{
		doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessor: processor,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the ControllerRevisions of Processor %s/%s: %w", namespace, processor, err)
	}
	return list.Items, nil
}

// read is nil for what is not the operator's word, or is being deleted.
func (s Store) read(p *doryv1alpha1.Processor, object *appsv1.ControllerRevision) *Record {
	if object.DeletionTimestamp != nil {
		return nil
	}
	a := object.Annotations
	origin := pod.ReadOrigin(p, s.Tokens, a[doryv1alpha1.AnnotationRevision], contentOf(object), a[doryv1alpha1.AnnotationSeal])
	if origin == nil {
		return nil
	}
	since, err := time.Parse(time.RFC3339, a[doryv1alpha1.AnnotationTrialSince])
	if err != nil {
		since = object.CreationTimestamp.Time
	}
	return &Record{
		Origin: origin, Epoch: object.Revision, Trial: a[doryv1alpha1.AnnotationTrial], Since: since,
		Reverted: a[doryv1alpha1.AnnotationRevertedFrom], Because: a[doryv1alpha1.AnnotationRevertedBecause], object: object,
		moving: a[doryv1alpha1.AnnotationMoving] != "",
	}
}

// data is what a ControllerRevision holds, which cannot be changed any more. The content is a text in it, byte for byte as it
// was sealed.
type data struct {
	Content string `json:"content"`
}

// contentOf is empty where there is none.
func contentOf(object *appsv1.ControllerRevision) string {
	var held data
	if err := json.Unmarshal(object.Data.Raw, &held); err != nil {
		return ""
	}
	return held.Content
}

// Keep makes durable what the instance was made from that is to end, before it does, and which revision is tried instead; none
// where the next instance is of the same. A version that has not proven itself takes no place of one that has: a record that is
// there stays, and only learns what is tried, and what moves meanwhile is kept beside it. It is nil where it is unknown what the instance was made from.
func (s Store) Keep(ctx context.Context, p *doryv1alpha1.Processor, origin *pod.Origin, epoch int64, trial string, now time.Time) (*Record, error) {
	there, err := s.Live(ctx, p)
	switch {
	case err != nil:
		return nil, err
	case there != nil && trial == "" && origin != nil && origin.Revision != there.Origin.Revision:
		return there, s.keepMoving(ctx, p, origin, epoch, now)
	case there != nil && (trial == "" || there.Origin.Revision == trial):
		return there, nil
	case there != nil:
		return there, s.Try(ctx, there, trial, now)
	case origin == nil:
		return nil, nil //nolint:nilnil // absence is an answer here, and the caller checks for it
	}
	object, err := objectOf(p, p.Name+"-"+origin.Revision, origin, epoch, now)
	if err != nil {
		return nil, err
	}
	if trial != "" {
		object.Annotations[doryv1alpha1.AnnotationTrial] = trial
	}
	if err := s.Client.Create(ctx, object); err != nil {
		if apierrors.IsAlreadyExists(err) { // Of another key, or of an earlier Processor of the name.
			return nil, s.replace(ctx, p, object)
		}
		return nil, fmt.Errorf("keeping what the pod of Processor %s/%s was made from: %w", p.Namespace, p.Name, err)
	}
	return s.read(p, object), nil
}

// objectOf is what holds the origin.
func objectOf(p *doryv1alpha1.Processor, name string, origin *pod.Origin, epoch int64, now time.Time) (*appsv1.ControllerRevision, error) {
	held, err := json.Marshal(data{origin.Content})
	if err != nil {
		return nil, fmt.Errorf("encoding what a pod of Processor %s/%s was made from: %w", p.Namespace, p.Name, err)
	}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: name,
			Labels: map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessor: p.Name},
			Annotations: map[string]string{
				doryv1alpha1.AnnotationRevision: origin.Revision, doryv1alpha1.AnnotationSeal: origin.Seal,
				doryv1alpha1.AnnotationTrialSince: now.UTC().Format(time.RFC3339),
			},
			OwnerReferences: []metav1.OwnerReference{pod.OwnerReference(p)},
		},
		Revision: epoch,
		Data:     runtime.RawExtension{Raw: held},
	}, nil
}

// replace takes away what is in the way and bears no seal of ours. What does, another leader wrote since this one looked, and it
// stays. The pass is tried again.
func (s Store) replace(ctx context.Context, p *doryv1alpha1.Processor, object *appsv1.ControllerRevision) error {
	there, err := lookup.Get[appsv1.ControllerRevision](ctx, s.Reader, client.ObjectKeyFromObject(object))
	if err != nil {
		return err
	}
	if there != nil && s.read(p, there) == nil {
		if err := s.remove(ctx, there); err != nil {
			return err
		}
	}
	return apierrors.NewConflict(appsv1.Resource("controllerrevisions"), object.Name, errors.New("another one of the name was in the way"))
}

// Try notes that another revision takes its turn. What was given up before is forgotten.
func (s Store) Try(ctx context.Context, r *Record, trial string, now time.Time) error {
	err := s.annotate(ctx, r, map[string]string{
		doryv1alpha1.AnnotationTrial: trial, doryv1alpha1.AnnotationTrialSince: now.UTC().Format(time.RFC3339),
		doryv1alpha1.AnnotationRevertedFrom: "", doryv1alpha1.AnnotationRevertedBecause: "",
	})
	if err == nil {
		r.Trial, r.Since, r.Reverted, r.Because = trial, now, "", ""
	}
	return err
}

// longestCause is how much of a cause is kept: an event about it has room for little more.
const longestCause = 600

// Revert notes that the revision is given up for the one that worked, and why.
func (s Store) Revert(ctx context.Context, r *Record, from, because string) error {
	if len(because) > longestCause {
		because = strings.ToValidUTF8(because[:longestCause], "") + "…"
	}
	err := s.annotate(ctx, r, map[string]string{doryv1alpha1.AnnotationRevertedFrom: from, doryv1alpha1.AnnotationRevertedBecause: because})
	if err == nil {
		r.Reverted, r.Because = from, because
	}
	return err
}

func (s Store) annotate(ctx context.Context, r *Record, changes map[string]string) error {
	changed := r.object.DeepCopy()
	for key, value := range changes {
		if value == "" {
			delete(changed.Annotations, key)
			continue
		}
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, key, value)
	}
	if err := s.Client.Patch(ctx, changed, client.MergeFromWithOptions(r.object, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing ControllerRevision %s/%s: %w", r.object.Namespace, r.object.Name, err)
	}
	r.object = changed
	return nil
}

// Forget removes a record that is not needed any more.
func (s Store) Forget(ctx context.Context, r *Record) error {
	if err := s.remove(ctx, r.object); err != nil {
		return err
	}
	return s.forgetMoving(ctx, r.object.Namespace, r.object.Labels[doryv1alpha1.LabelProcessor], "")
}

// remove deletes the object as it was seen, and none that has changed since: it may have become the record of something else.
func (s Store) remove(ctx context.Context, object *appsv1.ControllerRevision) error {
	seen := client.Preconditions{UID: new(object.UID), ResourceVersion: new(object.ResourceVersion)}
	if err := s.Client.Delete(ctx, object, seen); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ControllerRevision %s/%s: %w", object.Namespace, object.Name, err)
	}
	return nil
}
