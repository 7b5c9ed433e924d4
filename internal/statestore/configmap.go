package statestore

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// AnnotationFresh is on a state ConfigMap: the SHA-256 of the state with which the processor started when there was
	// none. It tells a process that lost its state from one that has it, where the SDK counts no iterations.
	AnnotationFresh = "dory.io/fresh-checksum"

	// maxRemembered bounds what a Slot keeps of a ConfigMap beside the state. Few have anything else in them.
	maxRemembered = 4 << 10

	// hopelessBytes of a state as its processor writes it do not fit into a ConfigMap in whatever form.
	hopelessBytes = statexfer.MaxConfigMapBytes * 3 / 2
)

// Slot remembers a processor's state ConfigMap without its state, so that the next write need not read it first. The
// zero value remembers nothing.
type Slot struct {
	object *corev1.ConfigMap
	// absent: there was no ConfigMap.
	absent bool
	// version of the state in it, and whether there is one that can be read.
	version Version
	known   bool
	podName string
	// written is the resourceVersion after our last write. Where somebody else wrote since, he will probably do so again,
	// and reading first is cheaper than a write that fails: contended, until nobody did.
	written   string
	contended bool
}

// Fresh is what the ConfigMap's annotation says; empty if it says nothing.
func (s *Slot) Fresh() string {
	if s.object == nil {
		return ""
	}
	return s.object.Annotations[AnnotationFresh]
}

// Forget makes the next write read first.
func (s *Slot) Forget() { *s = Slot{} }

// remember keeps what an Update must send again.
func (s *Slot) remember(cm *corev1.ConfigMap, c *Copy) {
	s.object = &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cm.Namespace, Name: cm.Name, UID: cm.UID, ResourceVersion: cm.ResourceVersion,
			Labels: cm.Labels, Annotations: cm.Annotations, Finalizers: cm.Finalizers, OwnerReferences: cm.OwnerReferences,
		},
		Immutable: cm.Immutable, BinaryData: cm.BinaryData, Data: withoutState(cm.Data),
	}
	if s.object.Size() > maxRemembered {
		s.object = nil
	}
	s.absent, s.version, s.known, s.podName = false, Version{}, c != nil, ""
	if c != nil {
		s.version, s.podName = c.Version, c.PodName
	}
}

func withoutState(data map[string]string) map[string]string {
	var others map[string]string
	for key, value := range data {
		if key == statexfer.ConfigMapKey {
			continue
		}
		if others == nil {
			others = make(map[string]string, len(data))
		}
		others[key] = value
	}
	return others
}

// lookInConfigMap reads and verifies the state ConfigMap.
func (s *Store) lookInConfigMap(ctx context.Context, key Key, found *Inventory) error {
	cm, err := s.get(ctx, key.Namespace, key.ConfigMap)
	if err != nil || cm == nil {
		found.Slot.absent = err == nil
		return err
	}
	found.Fresh = cm.Annotations[AnnotationFresh]
	c, problem := fromConfigMap(cm, key)
	switch {
	case c != nil:
		found.Copies = append(found.Copies, c)
	case problem != nil:
		found.Problems = append(found.Problems, *problem)
		if errors.Is(problem.Err, ErrForeign) {
			return nil // Nothing is remembered, so that no write can follow without another look.
		}
	}
	found.Slot.remember(cm, c)
	return nil
}

// lookInFormer reads the ConfigMap of before. It counts only where it says that it is this processor's: most of the time
// it is another's own.
func (s *Store) lookInFormer(ctx context.Context, key Key, found *Inventory) error {
	if key.Former == "" {
		return nil
	}
	cm, err := s.get(ctx, key.Namespace, key.Former)
	if err != nil || cm == nil {
		return err
	}
	metadata, err := statexfer.DecodeMetadata([]byte(cm.Data[statexfer.ConfigMapKey]))
	if err != nil || metadata.ProcessorID != key.ProcessorID {
		return nil //nolint:nilerr // What cannot be read says not whose it is.
	}
	c, problem := fromConfigMap(cm, key)
	if problem != nil {
		found.Problems = append(found.Problems, *problem)
		return nil
	}
	c.former = true
	found.Copies = append(found.Copies, c)
	if found.Fresh == "" {
		found.Fresh = cm.Annotations[AnnotationFresh]
	}
	return nil
}

// fromConfigMap answers neither copy nor problem for a ConfigMap that holds no state at all.
func fromConfigMap(cm *corev1.ConfigMap, key Key) (*Copy, *Problem) {
	text, ok := cm.Data[statexfer.ConfigMapKey]
	if !ok {
		return nil, nil
	}
	problem := &Problem{Storage: doryv1alpha1.CheckpointConfigMap}
	metadata, err := statexfer.DecodeMetadata([]byte(text))
	if err == nil {
		problem.Known, problem.Version = true, Version{Position: metadata.Position, Time: metadata.Time}
		err = foreign(metadata, key)
	}
	var document statexfer.Document
	if err == nil {
		document, err = statexfer.FromConfigMap(cm)
	}
	if err != nil {
		problem.Err = fmt.Errorf("ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
		return nil, problem
	}
	return &Copy{
		Storage: doryv1alpha1.CheckpointConfigMap, Version: problem.Version, PodName: metadata.PodName,
		Checksum: statexfer.Checksum(document.Payload), Size: int64(len(document.Payload)), document: &document,
	}, nil
}

func foreign(m statexfer.Metadata, key Key) error {
	if m.ProcessorID == "" || m.ProcessorID == key.ProcessorID {
		return nil
	}
	return fmt.Errorf("%w: of %q, not of %q; give one of the two another id, or move that state away", ErrForeign, m.ProcessorID, key.ProcessorID)
}

// saveInConfigMap writes the state where the SDK finds it. fits is false where it is too large for that.
func (s *Store) saveInConfigMap(ctx context.Context, req SaveRequest) (saved Saved, fits bool, err error) {
	if len(req.Document.Payload) > hopelessBytes {
		return Saved{}, false, nil
	}
	slot := req.Slot
	if slot == nil {
		slot = &Slot{}
	}
	for range writeTries {
		saved, err = s.writeConfigMap(ctx, req, slot)
		switch {
		case err == nil:
			return saved, true, nil
		case errors.Is(err, statexfer.ErrTooLarge), apierrors.IsRequestEntityTooLargeError(err):
			return Saved{}, false, nil
		case !lost(err):
			slot.Forget()
			return Saved{}, true, err
		}
		slot.object, slot.absent, slot.contended = nil, false, true
	}
	return Saved{}, true, fmt.Errorf("%w: ConfigMap %s/%s: %w", ErrContended, req.Key.Namespace, req.Key.ConfigMap, err)
}

// writeConfigMap tries once: with what is remembered, or else after a look. The resourceVersion of what was looked at
// goes with the write, so that nothing newer can arrive unseen in between.
func (s *Store) writeConfigMap(ctx context.Context, req SaveRequest, slot *Slot) (Saved, error) {
	if (slot.object == nil && !slot.absent) || slot.contended {
		if err := s.refresh(ctx, req, slot); err != nil {
			return Saved{}, err
		}
	}
	mine := Version{Position: req.Document.Metadata.Position, Time: req.Document.Metadata.Time}
	stored := slot.stored(req.Lineage)
	if slot.known && stored.Compare(mine) >= 0 {
		return s.keep(ctx, req, slot)
	}
	cm := slot.next(req)
	if err := statexfer.IntoConfigMap(cm, req.Document, 0); err != nil {
		return Saved{}, err
	}
	target, err := copyOf(req, []byte(cm.Data[statexfer.ConfigMapKey]))
	if err != nil {
		return Saved{}, err
	}
	if err := s.put(ctx, cm); err != nil {
		return Saved{}, err
	}
	saved := Saved{Copy: target, Written: true}
	saved.Storage = doryv1alpha1.CheckpointConfigMap
	if slot.contended && slot.known && slot.podName != target.PodName {
		saved.Undone = slot.podName
	}
	slot.remember(cm, &target)
	slot.written = cm.ResourceVersion
	return saved, nil
}

// refresh reads the ConfigMap. That of another processor is an error; an unreadable one is as good as none, because the
// document in hand is known to be good.
func (s *Store) refresh(ctx context.Context, req SaveRequest, slot *Slot) error {
	slot.object, slot.absent, slot.known = nil, false, false
	cm, err := s.get(ctx, req.Key.Namespace, req.Key.ConfigMap)
	if err != nil || cm == nil {
		return err
	}
	slot.contended = slot.written != "" && slot.written != cm.ResourceVersion
	c, problem := fromConfigMap(cm, req.Key)
	if problem != nil && errors.Is(problem.Err, ErrForeign) {
		return problem.Err
	}
	slot.remember(cm, c)
	if slot.object == nil {
		slot.object = cm // Too much to be remembered beyond this write.
	}
	return nil
}

// stored is the version in the ConfigMap, with the epoch that its document does not tell.
func (s *Slot) stored(lineage Lineage) Version {
	v := s.version
	if v.Position == (statexfer.Position{}) {
		v.uncounted = true
		v.Epoch = lineage.epochOf(s.podName, nil)
	}
	return v
}

// next is the object to write, but for the state.
func (s *Slot) next(req SaveRequest) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: req.Key.Namespace, Name: req.Key.ConfigMap}}
	if s.object != nil {
		cm = s.object.DeepCopy()
	}
	if req.Fresh != "" {
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, AnnotationFresh, req.Fresh)
	}
	return cm
}

// keep says what is stored already.
func (s *Store) keep(ctx context.Context, req SaveRequest, slot *Slot) (Saved, error) {
	cm, err := s.get(ctx, req.Key.Namespace, req.Key.ConfigMap)
	if err != nil {
		return Saved{}, err
	}
	if cm == nil || (slot.object != nil && cm.ResourceVersion != slot.object.ResourceVersion) {
		return Saved{}, apierrors.NewConflict(corev1.Resource("configmaps"), req.Key.ConfigMap, errors.New("it has changed since it was looked at"))
	}
	c, problem := fromConfigMap(cm, req.Key)
	if problem != nil {
		return Saved{}, problem.Err
	}
	if c == nil {
		return Saved{}, fmt.Errorf("ConfigMap %s/%s: %w: no state", cm.Namespace, cm.Name, statexfer.ErrMalformed)
	}
	c.Version = slot.stored(req.Lineage)
	return Saved{Copy: c.Bare()}, nil
}

func (s *Store) put(ctx context.Context, cm *corev1.ConfigMap) error {
	var err error
	if cm.ResourceVersion == "" {
		err = s.client.Create(ctx, cm)
	} else {
		err = s.client.Update(ctx, cm)
	}
	if err != nil {
		return fmt.Errorf("writing the state into ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
	}
	return nil
}
