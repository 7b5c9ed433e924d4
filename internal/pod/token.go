package pod

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

const (
	// TokenSecret is the Secret that holds the state token of its namespace.
	TokenSecret = "dory-state-token"
	// TokenKey is the key of the token in the Secret.
	TokenKey = "token"
)

// Tokens makes the tokens that let the operator, and nobody outside of the namespace, read and write the state of its
// processors. A token belongs to a namespace and not to a processor, because whoever may read one there may read the
// state ConfigMaps, too. It is derived from a key, so that the operator need not read any namespace's Secrets.
type Tokens struct{ key string }

// NewTokens derives tokens from a secret key of 32 random bytes or more.
func NewTokens(key []byte) Tokens { return Tokens{string(key)} }

// For is the token of a namespace.
func (t Tokens) For(namespace string) string {
	return base64.RawURLEncoding.EncodeToString(t.mac("namespace " + namespace))
}

// KeyID tells one key from another and gives neither away.
func (t Tokens) KeyID() string {
	const length = 4
	return hex.EncodeToString(t.mac("key id")[:length])
}

// sealing says whether there is a key to seal with.
func (t Tokens) sealing() bool { return t.key != "" }

// seal proves that it was the operator who wrote what a pod of this very Processor was made from. It cannot be moved to
// another Processor, namespace or revision.
func (t Tokens) seal(p *doryv1alpha1.Processor, revision, content string) string {
	return base64.RawURLEncoding.EncodeToString(t.mac("origin " + p.Namespace + "/" + string(p.UID) + " " + revision + " " + content))
}

func (t Tokens) mac(message string) []byte {
	mac := hmac.New(sha256.New, []byte(t.key))
	mac.Write([]byte(message))
	return mac.Sum(nil)
}
