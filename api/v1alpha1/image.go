package v1alpha1

import (
	"regexp"
	"strings"
)

// ImagePattern is the grammar of image references that kubelets go by (github.com/distribution/reference). The rule of
// spec.image is made of it; a test holds the two together.
const ImagePattern = "^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:[.][A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|[[][0-9a-fA-F:]+[]])(?::[0-9]+)?/)?" +
	"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*" +
	"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"

var (
	imageReference = regexp.MustCompile(ImagePattern)
	imageID        = regexp.MustCompile(`^[a-f0-9]{64}$`)
	sha256Digest   = regexp.MustCompile(`@sha256:[a-f0-9]{64}$`)
)

// IsImage says whether a kubelet would take the reference. The rule of spec.image says the same in CEL.
func IsImage(reference string) bool {
	return imageReference.MatchString(reference) && !imageID.MatchString(reference) &&
		(!strings.Contains(reference, "@sha256:") || sha256Digest.MatchString(reference))
}
