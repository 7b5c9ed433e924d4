package v1alpha1

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxNameLength is the bound for the name of a Processor, by the CEL rule of its type.
	maxNameLength = 45
	// hashLength is how many characters of 5 bits tell two ids with the same readable part from each other.
	hashLength = 10
	// namelessSlug stands in where an id has no character that a name may hold.
	namelessSlug = "id"
)

// ObjectName is the name of the object that stands for an id: the id itself where it is a legal name, else what
// is readable of it plus a part of its hash. It depends on nothing but the id. The way back is spec.processorID
// (spec.edgeNodeID), which holds the id itself.
func ObjectName(id string) string {
	if len(id) <= maxNameLength && len(validation.IsDNS1123Label(id)) == 0 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:hashLength]
	return slug(id, maxNameLength-1-hashLength) + "-" + hash
}

// slug keeps the letters and digits that a name may hold, and one dash for each run of anything else.
func slug(id string, limit int) string {
	var b strings.Builder
	for _, r := range strings.ToLower(id) {
		if b.Len() == limit {
			break
		}
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	if trimmed := strings.TrimSuffix(b.String(), "-"); trimmed != "" {
		return trimmed
	}
	return namelessSlug
}
