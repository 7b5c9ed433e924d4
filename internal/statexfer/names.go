package statexfer

import (
	"crypto/sha256"
	"encoding/base32"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// aliasMark stands before the hash in an alias. A dot is legal in an object's name and rare in an id.
	aliasMark = ".id-"
	// aliasHash is how many characters of 5 bits of an id's hash are in its alias: enough that no two ids are found alike.
	aliasHash = 26
	// aliasReadable bounds what is readable of the id.
	aliasReadable = 63
)

// aliasForm is what every alias looks like, and no id that stands for itself.
var aliasForm = regexp.MustCompile(`^[a-z0-9-]+\.id-[a-z2-7]{26}$`)

// ConfigMapName is the name of a processor's state ConfigMap: the contract's dory-state-<id> wherever the id allows it. No two
// ids have the same one.
func ConfigMapName(processorID string) string { return ConfigMapPrefix + Alias(processorID) }

// Alias is the id itself where it may stand in an object's name, else what is readable of it and its hash. An id that looks
// like an alias has one, too: otherwise it could be that of another id.
func Alias(processorID string) string {
	legal := processorID != "" && len(validation.IsDNS1123Subdomain(ConfigMapPrefix+processorID)) == 0
	if legal && !aliasForm.MatchString(processorID) {
		return processorID
	}
	sum := sha256.Sum256([]byte(processorID))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:aliasHash]
	return readable(processorID) + aliasMark + hash
}

// readable keeps the letters and digits that a label of a name may hold, and one dash for each run of anything else.
func readable(id string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(id) {
		if b.Len() == aliasReadable {
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
	return "id"
}
