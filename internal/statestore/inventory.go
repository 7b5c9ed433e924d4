package statestore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// Copy is one stored copy of a state.
type Copy struct {
	// Storage is where it is.
	Storage doryv1alpha1.CheckpointStorage
	// Version orders it.
	Version Version
	// PodName of the instance whose state it is.
	PodName string
	// Checksum is the contract's, and Size the length of the canonical JSON.
	Checksum string
	Size     int64

	// former says that it is where no instance of today looks.
	former bool
	// document is nil where it was not read yet.
	document *statexfer.Document
	chunks   *generation
}

// Bare is the copy without the document that was read, which may be large, for those who remember it.
func (c Copy) Bare() Copy {
	c.document, c.chunks = nil, nil
	return c
}

// Problem is a place whose copy cannot be had.
type Problem struct {
	// Storage is where it is.
	Storage doryv1alpha1.CheckpointStorage
	// Version of the copy, where Known.
	Version Version
	Known   bool
	// Away says that the place did not answer, so that there may be no copy at all. Otherwise the copy is damaged.
	Away bool
	// Err says what is wrong.
	Err error
}

// Inventory is what is stored of one processor's state.
type Inventory struct {
	// Copies, the newest first. Those in the ConfigMap were read and verified, the others are only known of.
	Copies []*Copy
	// Problems are places whose copies are not among them.
	Problems []Problem
	// Fresh is the raw checksum of the state with which the processor starts where it finds none; empty if unknown.
	Fresh string
	// Slot remembers the ConfigMap as it was seen.
	Slot Slot

	lineage Lineage
}

// Newest is the newest copy, or nil.
func (i *Inventory) Newest() *Copy {
	if len(i.Copies) == 0 {
		return nil
	}
	return i.Copies[0]
}

// In is the copy of a place, or nil.
func (i *Inventory) In(storage doryv1alpha1.CheckpointStorage) *Copy {
	for _, c := range i.Copies {
		if c.Storage == storage {
			return c
		}
	}
	return nil
}

// Look says what is stored of a processor's state, without reading large documents. It fails only where the API server
// does; that the database is away is a Problem.
func (s *Store) Look(ctx context.Context, key Key, lineage Lineage) (*Inventory, error) {
	found := &Inventory{}
	for _, look := range []func(context.Context, Key, *Inventory) error{s.lookInChunks, s.lookInDatabase, s.lookInConfigMap, s.lookInFormer} {
		if err := look(ctx, key, found); err != nil {
			return nil, err
		}
	}
	found.resolve(lineage)
	return found, nil
}

// resolve finds out the epochs of documents that do not tell it, and orders the copies.
func (i *Inventory) resolve(lineage Lineage) {
	i.lineage = lineage
	known := map[string]int64{}
	for _, c := range i.Copies {
		if c.Version.Position != (statexfer.Position{}) {
			known[c.PodName] = c.Version.Epoch
		}
	}
	for _, c := range i.Copies {
		if c.Version.Position == (statexfer.Position{}) {
			c.Version.uncounted = true
			c.Version.Epoch = lineage.epochOf(c.PodName, known)
		}
	}
	slices.SortStableFunc(i.Copies, func(a, b *Copy) int { return b.Version.Compare(a.Version) })
}

// Newest says what is stored, and reads the newest copy that can be read; those that cannot are moved to the Problems.
// The document's epoch is set, also where its SDK did not write it.
func (s *Store) Newest(ctx context.Context, key Key, lineage Lineage) (*Inventory, *statexfer.Document, error) {
	found, err := s.Look(ctx, key, lineage)
	if err != nil {
		return nil, nil, err
	}
	for len(found.Copies) > 0 {
		newest := found.Copies[0]
		document, err := s.read(ctx, key, newest)
		if err == nil {
			document.Metadata.Position = newest.Version.Position
			return found, document, nil
		}
		if !unreadable(err) {
			return nil, nil, err
		}
		found.Copies = found.Copies[1:]
		found.Problems = append(found.Problems, Problem{Storage: newest.Storage, Version: newest.Version, Known: true, Away: away(err), Err: err})
	}
	return found, nil, nil
}

func (s *Store) read(ctx context.Context, key Key, c *Copy) (*statexfer.Document, error) {
	if c.document != nil {
		return c.document, nil
	}
	var packed []byte
	var err error
	if c.Storage == doryv1alpha1.CheckpointDatabase {
		packed, err = s.readDatabase(ctx, key)
	} else {
		packed, err = s.readChunks(ctx, key, c.chunks)
	}
	if err != nil {
		return nil, err
	}
	document, err := s.packer.unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint of processor %q in %s: %w", key.ProcessorID, where(key, c.Storage), err)
	}
	if document.Metadata.ProcessorID != "" && document.Metadata.ProcessorID != key.ProcessorID {
		return nil, damaged(fmt.Errorf("%s: %w: %q", where(key, c.Storage), ErrForeign, document.Metadata.ProcessorID))
	}
	c.document = document
	return document, nil
}

// damagedError is for what is there and cannot be used.
type damagedError struct{ error }

func (e *damagedError) Unwrap() error { return e.error }

func damaged(err error) error { return &damagedError{err} }

// unreadable errors say that one copy cannot be had, and nothing about the others.
func unreadable(err error) bool {
	_, isDamaged := errors.AsType[*damagedError](err)
	return isDamaged || away(err)
}

// where names the place of the copy.
func (c Copy) where(key Key) string {
	if c.former {
		key.ConfigMap = key.Former
	}
	return where(key, c.Storage)
}

func where(key Key, storage doryv1alpha1.CheckpointStorage) string {
	switch storage {
	case doryv1alpha1.CheckpointConfigMap:
		return "ConfigMap " + key.Namespace + "/" + key.ConfigMap
	case doryv1alpha1.CheckpointDatabase:
		return "the database"
	case doryv1alpha1.CheckpointChunks:
		return "ConfigMaps " + key.Namespace + "/" + indexName(key) + ".*"
	}
	return string(storage)
}
