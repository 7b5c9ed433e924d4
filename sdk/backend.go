package sdk

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/dory-io/dory/internal/statexfer"
)

// The values of DORY_STATE_BACKEND.
const (
	backendConfigMap = "configmap"
	backendPVC       = "pvc"
	backendLocal     = "local"
	backendNone      = "none"
)

var (
	// ErrNoState says that no state was ever saved: the processor starts with its initial values. A backend must
	// return it only where it is sure.
	ErrNoState = errors.New("no state was saved yet")

	// ErrSuperseded says that the saved state is of a newer epoch or sequence than this instance: another one acts in
	// its place, and nothing of this one may be saved.
	ErrSuperseded = errors.New("a newer instance has taken over")
)

type (
	// Document is a state with what is needed to trust it; its method Encode writes the form that all SDKs read.
	Document = statexfer.Document
	// Position is the epoch and the sequence of a state.
	Position = statexfer.Position
)

// DecodeDocument reads what Document.Encode wrote and verifies its checksum.
func DecodeDocument(text []byte) (Document, error) { return statexfer.Decode(text) }

// Backend is where a processor's state outlives its process. Its methods are never called at the same time.
type Backend interface {
	// Load returns the verified document, ErrNoState where there is certainly none, or why it cannot be read.
	Load(ctx context.Context) (Document, error)
	// Save replaces the document and returns only when it is durable. It returns ErrSuperseded, and changes nothing,
	// where the saved document has a higher Position than doc, and ErrForeignState where it is another processor's.
	Save(ctx context.Context, doc Document) error
	// String names the place for messages.
	String() string
}

// backendOf is the backend that the environment asks for.
func backendOf(env environment) (Backend, error) {
	switch env.backend {
	case backendConfigMap:
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("DORY_STATE_BACKEND=%s needs a ServiceAccount's token in the pod; to run outside of a cluster set it to %s or %s: %w",
				backendConfigMap, backendLocal, backendNone, err)
		}
		return ConfigMapBackend(config, env.podNamespace, env.configMap)
	case backendPVC:
		return PVCBackend(env.statePath), nil
	case backendLocal:
		return LocalBackend(env.statePath), nil
	}
	return NoBackend(), nil
}

// NoBackend keeps nothing: every start is a fresh one.
func NoBackend() Backend { return noBackend{} }

type noBackend struct{}

func (noBackend) Load(context.Context) (Document, error) { return Document{}, ErrNoState }
func (noBackend) Save(context.Context, Document) error   { return nil }
func (noBackend) String() string                         { return "nowhere (DORY_STATE_BACKEND=none)" }

// refuseToReplace is ErrForeignState where saved is another processor's, and ErrSuperseded where it is newer than doc.
func refuseToReplace(saved statexfer.Metadata, doc Document) error {
	if owner, mine := saved.ProcessorID, doc.Metadata.ProcessorID; owner != "" && mine != "" && owner != mine {
		return fmt.Errorf("%w: it is the state of processor %q, written by pod %q, and is not replaced by that of %q: give one of the two another place",
			ErrForeignState, owner, saved.PodName, mine)
	}
	if saved.Compare(doc.Metadata.Position) > 0 {
		return fmt.Errorf("%w: the saved state has %s, written by pod %q; this one has %s",
			ErrSuperseded, saved.Position, saved.PodName, doc.Metadata.Position)
	}
	return nil
}
