package oracle

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	"pgregory.net/rapid"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// TestImages compares the rule of spec.image with the parser that kubelets use: nothing that a kubelet takes may be refused.
func TestImages(t *testing.T) {
	parts := []string{
		"a", "B", "0", "app", "My", ".", "_", "__", "-", "--", "/", ":", ":5000", "@", " ", "localhost", "[::1]", "registry.example",
		"@sha256:", "@sha512:", "@md5:", strings.Repeat("0123456789abcdef", 2), strings.Repeat("0123456789abcdef", 4), strings.Repeat("a", 127),
	}
	taken, refused := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		image := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 1, 7).Draw(r, "parts"), "")
		_, err := reference.ParseNormalizedNamed(image)
		if err == nil {
			taken++
			if !doryv1alpha1.IsImage(image) {
				r.Fatalf("%q is refused, and a kubelet takes it", image)
			}
			return
		}
		if !doryv1alpha1.IsImage(image) {
			refused++
			return
		}
		// The grammar knows neither every algorithm nor how long a name may be all in all.
		if unknown := strings.Contains(err.Error(), "digest") || strings.Contains(err.Error(), "must not be more than"); !unknown {
			r.Fatalf("%q is taken, and a kubelet refuses it: %v", image, err)
		}
	})
	if taken < 10 || refused < 10 {
		t.Errorf("%d images taken and %d refused: too few to tell", taken, refused)
	}
}
