package statestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// LabelCheckpoint is on the ConfigMaps of a large checkpoint: the name of the Processor.
	LabelCheckpoint = "dory.io/checkpoint"

	indexKey = "index"
	chunkKey = "chunk"
	// chunkBytes leaves room for the rest of the object within the API server's 1 MiB.
	chunkBytes = 900 << 10
)

// index is the small object that says which chunks hold the checkpoint. A save
//  1. writes into the index which generation of chunks it is about to make,
//  2. makes them,
//  3. points the index to them, and
//  4. removes the generation before.
//
// So the index names every chunk that exists, wherever an operator dies, and what it calls current is complete. Each
// write of it carries the resourceVersion that was read, and no chunk is removed before such a write has succeeded: of
// two operators that save at once, one fails, and takes nothing from the other.
type index struct {
	// ProcessorID is whose the checkpoint is. The object's name is that of the Processor, which another id may have had.
	// Empty in those that were written before it was noted.
	ProcessorID string `json:"processorID,omitempty"`
	// Last is the highest generation that was ever begun.
	Last int64 `json:"last"`
	// Current is what to read.
	Current *generation `json:"current,omitempty"`
	// Others may exist, too: one that is being made, and those that are to be removed.
	Others []span `json:"others,omitempty"`
}

// span is which chunks belong to a generation.
type span struct {
	Number int64 `json:"generation"`
	Chunks int   `json:"chunks"`
}

// generation is one row of chunks.
type generation struct {
	span

	// Bytes and SHA256 are of all chunks in a row.
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	// What follows is about the state within.
	Epoch      int64     `json:"epoch"`
	Sequence   int64     `json:"sequence"`
	CapturedAt time.Time `json:"capturedAt"`
	PodName    string    `json:"podName"`
	Checksum   string    `json:"checksum"`
	SizeBytes  int64     `json:"sizeBytes"`
}

func (g *generation) copy() *Copy {
	return &Copy{
		Storage: doryv1alpha1.CheckpointChunks,
		Version: Version{Position: statexfer.Position{Epoch: g.Epoch, Sequence: g.Sequence}, Time: g.CapturedAt},
		PodName: g.PodName, Checksum: g.Checksum, Size: g.SizeBytes, chunks: g,
	}
}

// indexName and chunkName are joined by dots, which no Processor's name has: with dashes, the chunks of Processor "a"
// could be the index of Processor "a-1-0".
func indexName(key Key) string { return "dory-checkpoint-" + key.Processor }

func chunkName(key Key, generation int64, n int) string {
	return indexName(key) + "." + strconv.FormatInt(generation, 10) + "." + strconv.Itoa(n)
}

// chunkWriter is the index in hand of one save.
type chunkWriter struct {
	store  *Store
	key    Key
	object *corev1.ConfigMap
	index  index
}

// openIndex answers a nil object where there is no index.
func (s *Store) openIndex(ctx context.Context, key Key) (*chunkWriter, error) {
	w := &chunkWriter{store: s, key: key}
	var err error
	if w.object, err = s.get(ctx, key.Namespace, indexName(key)); err != nil || w.object == nil {
		return w, err
	}
	if err := json.Unmarshal([]byte(w.object.Data[indexKey]), &w.index); err != nil {
		return w, damaged(fmt.Errorf("ConfigMap %s/%s: its index cannot be read: %w", key.Namespace, indexName(key), err))
	}
	if owner := w.index.ProcessorID; owner != "" && owner != key.ProcessorID {
		return w, damaged(fmt.Errorf("ConfigMap %s/%s: %w: of %q, not of %q; delete it and those labelled %s=%s if that processor is gone for good, or give this Processor another name",
			key.Namespace, indexName(key), ErrForeign, owner, key.ProcessorID, LabelCheckpoint, key.Processor))
	}
	return w, nil
}

func (s *Store) lookInChunks(ctx context.Context, key Key, found *Inventory) error {
	w, err := s.openIndex(ctx, key)
	switch {
	case errors.Is(err, ErrForeign): // Of a Processor that had this one's name.
		return nil
	case err != nil && unreadable(err):
		found.Problems = append(found.Problems, Problem{Storage: doryv1alpha1.CheckpointChunks, Err: err})
		return nil
	case err != nil:
		return err
	case w.index.Current != nil:
		found.Copies = append(found.Copies, w.index.Current.copy())
	}
	return nil
}

// readChunks reads a generation. Where it vanishes under our hands, because a newer one has come, that one is read.
func (s *Store) readChunks(ctx context.Context, key Key, g *generation) ([]byte, error) {
	for {
		packed, err := s.assemble(ctx, key, g)
		if err == nil || !unreadable(err) {
			return packed, err
		}
		w, indexErr := s.openIndex(ctx, key)
		if indexErr != nil {
			return nil, indexErr
		}
		if w.index.Current == nil || w.index.Current.Number <= g.Number {
			return nil, err
		}
		g = w.index.Current
	}
}

func (s *Store) assemble(ctx context.Context, key Key, g *generation) ([]byte, error) {
	packed := make([]byte, 0, min(max(g.Bytes, 0), 2*statexfer.MaxStateBytes))
	for n := range g.Chunks {
		name := chunkName(key, g.Number, n)
		chunk, err := s.get(ctx, key.Namespace, name)
		if err != nil {
			return nil, err
		}
		if chunk == nil {
			return nil, damaged(fmt.Errorf("ConfigMap %s/%s is missing: it is part %d of %d of a checkpoint", key.Namespace, name, n+1, g.Chunks))
		}
		packed = append(packed, chunk.BinaryData[chunkKey]...)
	}
	if got := hexSum(packed); got != g.SHA256 {
		return nil, damaged(fmt.Errorf("%w: the %d ConfigMaps %s/%s.* have %d bytes with SHA-256 %s, their index says %d with %s",
			statexfer.ErrChecksum, g.Chunks, key.Namespace, chunkName(key, g.Number, 0), len(packed), got, g.Bytes, g.SHA256))
	}
	return packed, nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// saveInChunks follows the steps that index describes.
func (s *Store) saveInChunks(ctx context.Context, req SaveRequest, target Copy, packed []byte) (Saved, error) {
	w, err := s.openIndex(ctx, req.Key)
	if errors.Is(err, ErrForeign) {
		return Saved{}, err
	}
	if _, isDamaged := errors.AsType[*damagedError](err); isDamaged {
		w.index, err = index{}, nil // The state in hand is good; what the index said is lost either way.
	}
	if err != nil {
		return Saved{}, err
	}
	if err := w.refuseUnknownOwner(ctx); err != nil {
		return Saved{}, err
	}
	if current := w.index.Current; current != nil && current.copy().Version.Compare(target.Version) >= 0 {
		return Saved{Copy: *current.copy()}, nil
	}
	next := &generation{
		span:  span{Number: w.index.Last + 1, Chunks: (len(packed) + chunkBytes - 1) / chunkBytes},
		Bytes: len(packed), SHA256: hexSum(packed),
		Epoch: target.Version.Epoch, Sequence: target.Version.Sequence, CapturedAt: target.Version.Time,
		PodName: target.PodName, Checksum: target.Checksum, SizeBytes: target.Size,
	}
	if err := w.replace(ctx, next, packed); err != nil {
		return Saved{}, fmt.Errorf("saving a checkpoint in ConfigMaps: %w", err)
	}
	return Saved{Copy: *next.copy(), Written: true}, nil
}

// refuseUnknownOwner asks the document itself whose it is, where the index was written before it noted that.
func (w *chunkWriter) refuseUnknownOwner(ctx context.Context) error {
	if w.index.ProcessorID != "" || w.index.Current == nil {
		return nil
	}
	if _, err := w.store.read(ctx, w.key, w.index.Current.copy()); errors.Is(err, ErrForeign) {
		return err
	}
	return nil
}

func (w *chunkWriter) replace(ctx context.Context, next *generation, packed []byte) error {
	garbage := w.index.Others
	w.index.Last, w.index.Others = next.Number, append(slices.Clone(garbage), next.span)
	if err := w.put(ctx); err != nil {
		return err
	}
	if err := w.removeAll(ctx, garbage); err != nil {
		return err
	}
	for n := range next.Chunks {
		if err := w.putChunk(ctx, next.Number, n, packed[n*chunkBytes:min((n+1)*chunkBytes, len(packed))]); err != nil {
			return err
		}
	}
	garbage = nil
	if w.index.Current != nil {
		garbage = []span{w.index.Current.span}
	}
	w.index.Current, w.index.Others = next, garbage
	if err := w.put(ctx); err != nil {
		if lost(err) { // The other operator has removed what it knew of, and we may have made more since.
			err = errors.Join(err, w.removeAll(ctx, []span{next.span}))
		}
		return err
	}
	return w.removeAll(ctx, garbage)
}

func (w *chunkWriter) removeAll(ctx context.Context, garbage []span) error {
	for _, g := range garbage {
		for n := range g.Chunks {
			if err := w.remove(ctx, chunkName(w.key, g.Number, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *chunkWriter) remove(ctx context.Context, name string, options ...client.DeleteOption) error {
	err := w.store.client.Delete(ctx, &corev1.ConfigMap{ObjectMeta: w.meta(name)}, options...)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing ConfigMap %s/%s: %w", w.key.Namespace, name, err)
	}
	return nil
}

func (w *chunkWriter) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: w.key.Namespace, Name: name, Labels: map[string]string{LabelCheckpoint: w.key.Processor}}
}

// put writes the index.
func (w *chunkWriter) put(ctx context.Context) error {
	w.index.ProcessorID = w.key.ProcessorID
	text, err := json.Marshal(w.index)
	if err != nil {
		return fmt.Errorf("writing the index of a checkpoint: %w", err)
	}
	if w.object == nil {
		w.object = &corev1.ConfigMap{ObjectMeta: w.meta(indexName(w.key))}
	}
	w.object.Data = map[string]string{indexKey: string(text)}
	return w.store.put(ctx, w.object)
}

// putChunk replaces a chunk that is there already: its generation is ours alone, so nobody reads it, and it can only
// have come from before somebody removed the index by hand.
func (w *chunkWriter) putChunk(ctx context.Context, generation int64, n int, data []byte) error {
	name := chunkName(w.key, generation, n)
	chunk := func() *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: w.meta(name), BinaryData: map[string][]byte{chunkKey: data}}
	}
	err := w.store.put(ctx, chunk())
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := w.remove(ctx, name); err != nil {
		return err
	}
	return w.store.put(ctx, chunk())
}

// removeChunks removes what is not newer than the version, which is kept elsewhere. The index goes last, so that a
// crash leaves no chunk that nobody knows of.
func (s *Store) removeChunks(ctx context.Context, key Key, kept Version) error {
	w, err := s.openIndex(ctx, key)
	if errors.Is(err, ErrForeign) {
		return nil
	}
	if err != nil && unreadable(err) { // What it said is lost either way; its chunks stay, for whoever can make something of them.
		return w.remove(ctx, indexName(key), client.Preconditions{ResourceVersion: &w.object.ResourceVersion})
	}
	if err != nil || w.object == nil {
		return err
	}
	if err := w.refuseUnknownOwner(ctx); err != nil {
		return nil //nolint:nilerr // It is another's, and not to be removed.
	}
	if current := w.index.Current; current != nil && current.copy().Version.Compare(kept) > 0 {
		return nil
	}
	if w.index.Current != nil {
		w.index.Others = append(w.index.Others, w.index.Current.span)
	}
	w.index.Current = nil
	if err := w.put(ctx); err != nil {
		return err
	}
	if err := w.removeAll(ctx, w.index.Others); err != nil {
		return err
	}
	return w.remove(ctx, indexName(key), client.Preconditions{ResourceVersion: &w.object.ResourceVersion})
}
