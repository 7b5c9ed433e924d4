// Package statestore keeps a durable copy of every processor's state where it outlives the processor's pod: its
// checkpoint. It knows three places, and which copy of several is the newest:
//   - the state ConfigMap that the SDKs read when they start, up to 1 MiB;
//   - PostgreSQL, for what is larger;
//   - a row of ConfigMaps, for what is larger where there is no database, or while it is away.
//
// An older copy never replaces a newer one. No copy has an owner: like the ConfigMap that an SDK writes, it stays when
// its Processor is deleted, so that a Processor which was deleted by mistake finds its state when it is made again.
// Whoever wants the state gone deletes the ConfigMaps, by name or by label, and the row of processor_checkpoints.
package statestore

import "errors"

var (
	// ErrForeign says that a place holds the state of another processor. It is not touched.
	ErrForeign = errors.New("the state of another processor")
	// ErrContended says that others wrote in between, again and again.
	ErrContended = errors.New("others write at the same time")
)
