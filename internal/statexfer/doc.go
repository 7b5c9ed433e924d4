// Package statexfer knows how a processor's state travels: the canonical JSON that checksums are made of, the state
// document, the ConfigMap that holds it, and the requests with which Client captures, restores and hands it over.
// It talks to processors only; its callers have the clients of Kubernetes and the database.
package statexfer

import "errors"

const (
	// MaxStateBytes is the largest state, in bytes of JSON, that any of the contract's parties accepts: 10 MiB.
	MaxStateBytes = 10485760

	// maxCanonicalBytes is what its canonical form may have: where a processor writes a character as one byte, that form
	// may take six.
	maxCanonicalBytes = 6 * MaxStateBytes
	// MaxDocumentBytes is what an encoded document may have, with what is around its payload.
	MaxDocumentBytes = maxCanonicalBytes + 64<<10

	// MaxDepth is how deeply arrays and objects may be nested. Python, which the other SDKs are written in,
	// gives up somewhat below 1000; half of that leaves room for what the state is wrapped in.
	MaxDepth = 512
)

var (
	// ErrInvalidJSON says that a text is no JSON, or holds what JSON cannot express, such as NaN.
	ErrInvalidJSON = errors.New("invalid JSON")
	// ErrTooDeep says that arrays and objects are nested more than MaxDepth deep.
	ErrTooDeep = errors.New("JSON nested too deeply")
	// ErrTooLarge says that a state does not fit where it should go.
	ErrTooLarge = errors.New("state too large")
	// ErrMalformed says that a state document lacks a part, or that a part is not what it should be.
	ErrMalformed = errors.New("malformed state document")
	// ErrChecksum says that a state document was changed after it was written.
	ErrChecksum = errors.New("checksum of the state document does not match")
)
