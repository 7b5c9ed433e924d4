package statestore

import (
	"math"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNamesOfTheLongestProcessorAreLegal(t *testing.T) {
	key := Key{Processor: strings.Repeat("p", 45)}
	for _, name := range []string{indexName(key), chunkName(key, math.MaxInt64, math.MaxInt32)} {
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			t.Errorf("ConfigMap %q: %v", name, problems)
		}
	}
}
