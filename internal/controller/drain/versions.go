package drain

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lastgood"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// Versions know what the pods were made from that are not of their Processors' present spec: what a drain moves is the version that
// runs, and what stands in its way is what stands in that version's way.
type Versions struct {
	// reader reads past the cache, which leaves out what a pod was made from.
	reader  client.Reader
	records lastgood.Store
	tokens  pod.Tokens

	mu sync.Mutex
	// known are by the UIDs of pods. What a pod was made from never changes.
	known map[types.UID]*pod.Origin
}

// versionsKnown is how many are remembered: each costs as much memory as a Processor does in a cache.
const versionsKnown = 1024

// NewVersions makes Versions. The client reads from caches, the reader past them.
func NewVersions(c client.Client, reader client.Reader, tokens pod.Tokens) *Versions {
	return &Versions{
		reader: reader, records: lastgood.Store{Client: c, Reader: reader, Tokens: tokens}, tokens: tokens, known: map[types.UID]*pod.Origin{},
	}
}

// of is the Processor as it was when the pod was made; the Processor itself where the pod is of the present spec, or where nothing
// tells what it is of: then the present spec is what moves.
func (s *Versions) of(ctx context.Context, p *doryv1alpha1.Processor, works *corev1.Pod) (*doryv1alpha1.Processor, error) {
	revision := pod.RevisionOf(works)
	if s == nil || revision == "" || revision == pod.Revision(p, "") {
		return p, nil
	}
	s.mu.Lock()
	origin := s.known[works.UID]
	s.mu.Unlock()
	if origin != nil {
		return origin.Processor(p), nil
	}
	whole, err := lookup.Get[corev1.Pod](ctx, s.reader, client.ObjectKeyFromObject(works))
	if err != nil {
		return nil, err
	}
	if origin = pod.OriginOf(whole, p, s.tokens); origin == nil || origin.Revision != revision {
		if origin, err = s.records.Version(ctx, p, revision); err != nil || origin == nil {
			return p, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= versionsKnown {
		clear(s.known)
	}
	s.known[works.UID] = origin
	return origin.Processor(p), nil
}

// ofAnother says of a hindrance that it is not the present spec's.
const ofAnother = " (this is about the version that runs, which is not that of the present spec)"
