// Package quantity bounds the text of a quantity before anything parses it. Kubernetes' parser writes the power of ten of an
// exponent out: 1e-999999999 takes it hours and hundreds of megabytes. So what a tenant, a row or an older CRD let in is looked
// at here first. The rules of the CRD and config/admission/quantities.yaml say the same in CEL.
package quantity

import (
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/api/resource"
)

// maxLength is in bytes. The largest quantity, 2^63-1, has 19 digits; 1e99 is far beyond any node.
const maxLength = 32

// endless is an exponent of three digits or more.
var endless = regexp.MustCompile(`[eE][+-]?[0-9]{3}`)

// Check refuses what must not be parsed. What it lets through may still be no quantity.
func Check(text string) error {
	switch {
	case len(text) > maxLength:
		return fmt.Errorf("%q… is too long for a quantity: write it in at most %d characters", text[:maxLength], maxLength)
	case endless.MatchString(text):
		return fmt.Errorf("the exponent of %q is too large: write it in at most 2 digits", text)
	}
	return nil
}

// Parse is resource.ParseQuantity for text from outside.
func Parse(text string) (resource.Quantity, error) {
	if err := Check(text); err != nil {
		return resource.Quantity{}, err
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return q, fmt.Errorf("%q is no quantity: %w", text, err)
	}
	return q, nil
}
