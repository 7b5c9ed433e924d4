package v1alpha1

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxNameLength is the bound for the name of a Processor, by the CEL rule of its type.
	maxNameLength = 45
	// hashLength is how many characters of 5 bits tell two ids with the same readable part from each other.
	hashLength = 10
	// numberLength is the room for the number of an attempt: one a second would last for a lifetime.
	numberLength = 10
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
	return slug(id, maxNameLength-1-hashLength) + "-" + Hash(id)
}

// Hash is what tells two texts from each other where a name has no room for them: a few letters and digits.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:hashLength]
}

// MigrationName is the name of a ProcessorMigration that the operator makes: for which Processor, what for (a word or two
// of lower-case letters, digits and dashes, 24 characters at most), and which attempt it is. The label of its target's pod
// can hold it.
func MigrationName(processor, purpose string, number int) string {
	return MigrationPrefix(processor, purpose) + strconv.Itoa(number)
}

// MigrationPrefix is what the names of all attempts have in common. What is cut off a long Processor's name, a hash stands for,
// so that two Processors never share it.
func MigrationPrefix(processor, purpose string) string {
	const most = validation.LabelValueMaxLength - numberLength
	suffix := "-" + purpose + "-"
	if len(processor)+len(suffix) <= most {
		return processor + suffix
	}
	room := max(0, most-len(suffix)-1-hashLength)
	return strings.TrimRight(processor[:min(len(processor), room)], "-.") + "-" + Hash(processor) + suffix
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
