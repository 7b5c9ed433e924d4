package statestore

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// writeTries is how often a write that met another writer's is tried again at once.
const writeTries = 5

// Config is what a Store works with.
type Config struct {
	// Client writes ConfigMaps. It is never asked to read one: a cache of all ConfigMaps would hold all states.
	Client client.Client
	// Reader reads past the cache, by name.
	Reader client.Reader
	// Database takes states that are too large for a ConfigMap. Nil: there is none, and they go into several.
	Database Database
}

// Store keeps checkpoints. It is safe for concurrent use, also by several operators at once.
type Store struct {
	client   client.Client
	reader   client.Reader
	database Database
	packer   packer
}

// New makes a Store.
func New(c Config) *Store {
	return &Store{client: c.Client, reader: c.Reader, database: c.Database, packer: newPacker()}
}

// SaveRequest asks for a checkpoint.
type SaveRequest struct {
	Key Key
	// Document is the state. Its Metadata carry position, time and pod.
	Document statexfer.Document
	// Lineage tells which of the stored documents are older.
	Lineage Lineage
	// Previous is where the last checkpoint went, or empty. A large copy is removed once a newer one is elsewhere.
	Previous doryv1alpha1.CheckpointStorage
	// Fresh is recorded with the state: the raw checksum of the state with which the processor starts where it finds
	// none. Empty: leave what is recorded.
	Fresh string
	// Slot is what the caller remembers of its last save or look, which can spare a read. Save keeps it current.
	Slot *Slot
}

// Saved says what is stored after a Save.
type Saved struct {
	// Copy is the newest: the saved one or, where Written is false, one that was there already and is as new or newer.
	Copy
	// Written says whether anything was written.
	Written bool
	// Undone is the pod whose late save was replaced, or empty.
	Undone string
}

// Save makes a state durable, unless what is stored is as new or newer.
func (s *Store) Save(ctx context.Context, req SaveRequest) (Saved, error) {
	saved, fits, err := s.saveInConfigMap(ctx, req)
	if err == nil && !fits {
		saved, err = s.saveLarge(ctx, req)
	}
	if err != nil {
		return Saved{}, err
	}
	return saved, s.removePrevious(ctx, req, saved)
}

// saveLarge prefers the database. While that is away the promise to lose no more than an interval is kept by chunks.
func (s *Store) saveLarge(ctx context.Context, req SaveRequest) (Saved, error) {
	text, err := req.Document.Encode()
	if err != nil {
		return Saved{}, err
	}
	target, err := copyOf(req, text)
	if err != nil {
		return Saved{}, err
	}
	packed, err := s.packer.pack(text)
	if err != nil {
		return Saved{}, err
	}
	if s.database != nil {
		saved, err := s.saveInDatabase(ctx, req, target, packed)
		if !away(err) {
			return saved, err
		}
	}
	return s.saveInChunks(ctx, req, target, packed)
}

func copyOf(req SaveRequest, text []byte) (Copy, error) {
	checksum, size, err := sealOf(text)
	if err != nil {
		return Copy{}, err
	}
	m := req.Document.Metadata
	return Copy{Version: Version{Position: m.Position, Time: m.Time}, PodName: m.PodName, Checksum: checksum, Size: size}, nil
}

// removePrevious removes the large copy that a save elsewhere made obsolete.
func (s *Store) removePrevious(ctx context.Context, req SaveRequest, saved Saved) error {
	if req.Previous == saved.Storage || !saved.Written {
		return nil
	}
	switch req.Previous {
	case doryv1alpha1.CheckpointDatabase:
		return s.removeFromDatabase(ctx, req.Key, saved.Version)
	case doryv1alpha1.CheckpointChunks:
		return s.removeChunks(ctx, req.Key, saved.Version)
	case doryv1alpha1.CheckpointConfigMap: // Stays where the SDK looks for it; it is known to be older.
	}
	return nil
}

// get reads a ConfigMap live; nil if there is none.
func (s *Store) get(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	if err := s.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, cm); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // absence is an answer here, and every caller checks for it
		}
		return nil, fmt.Errorf("reading ConfigMap %s/%s: %w", namespace, name, err)
	}
	return cm, nil
}

// lost says that another writer was faster: look again.
func lost(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}
