package leftaside

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/record"
	"github.com/dory-io/dory/internal/undecodable"
)

// teller is the list of everything this package says in events.
type teller struct{ recorder record.Recorder }

func (t teller) leftAside(o client.Object, cause string) {
	t.recorder.Eventf(o, nil, corev1.EventTypeWarning, "Undecodable", "Read",
		"The operator cannot decode this object and leaves it as it is, and what runs for it: %s. %s", cause, undecodable.Remedy(o))
}

func (t teller) mended(o client.Object) {
	t.recorder.Eventf(o, nil, corev1.EventTypeNormal, "Decodable", "Read", "The operator can decode this object again, and goes on with it")
}
