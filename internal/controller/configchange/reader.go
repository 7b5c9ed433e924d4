package configchange

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/lookup"
	"github.com/dory-io/dory/internal/pod"
)

// reader reads content and keeps its hash alone.
type reader struct {
	api       client.Reader
	secretKey func(namespace string) string
}

// look reads every object but those of the kinds that the operator may not watch.
func (r reader) look(ctx context.Context, namespace string, references []pod.Reference, refused []doryv1alpha1.ConfigKind) ([]sight, error) {
	seen := make([]sight, 0, len(references))
	for _, reference := range references {
		s := sight{Reference: reference, unwatched: slices.Contains(refused, reference.Kind)}
		if !s.unwatched {
			if err := r.read(ctx, namespace, &s); err != nil {
				return nil, err
			}
		}
		seen = append(seen, s)
	}
	return seen, nil
}

func (r reader) read(ctx context.Context, namespace string, s *sight) error {
	key := types.NamespacedName{Namespace: namespace, Name: s.Name}
	sum := sha256.New()
	var content map[string][]byte
	switch s.Kind {
	case doryv1alpha1.ConfigKindSecret:
		secret, err := lookup.Get[corev1.Secret](ctx, r.api, key)
		if apierrors.IsForbidden(err) {
			s.unwatched = true
			return nil
		}
		if err != nil || secret == nil {
			return err
		}
		sum, content = hmac.New(sha256.New, []byte("configuration "+r.secretKey(namespace))), secret.Data
	case doryv1alpha1.ConfigKindConfigMap:
		config, err := lookup.Get[corev1.ConfigMap](ctx, r.api, key)
		if err != nil || config == nil {
			return err
		}
		content = contentOf(config)
	default:
		return fmt.Errorf("%q is no kind of configuration", s.Kind)
	}
	s.hash = digest(sum, content)
	for _, key := range s.Keys {
		if _, has := content[key]; !has {
			s.lacks = append(s.lacks, key)
		}
	}
	return nil
}

// contentOf: no key is in both parts, by the API server's rules.
func contentOf(config *corev1.ConfigMap) map[string][]byte {
	content := maps.Clone(config.BinaryData)
	if content == nil {
		content = map[string][]byte{}
	}
	for key, value := range config.Data {
		content[key] = []byte(value)
	}
	return content
}

// digest puts lengths between the parts, so that no two contents read the same.
func digest(sum hash.Hash, content map[string][]byte) string {
	for _, key := range slices.Sorted(maps.Keys(content)) {
		for _, part := range [][]byte{[]byte(key), content[key]} {
			var length [8]byte
			binary.BigEndian.PutUint64(length[:], uint64(len(part)))
			sum.Write(length[:])
			sum.Write(part)
		}
	}
	const bytes = 8
	return hex.EncodeToString(sum.Sum(nil)[:bytes])
}
