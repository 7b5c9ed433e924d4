package configchange

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/record"
)

// tell is everything that this package says in events.
func tell(recorder record.Recorder, p *doryv1alpha1.Processor, next outcome) {
	if len(next.changed) > 0 {
		const few = 5
		more := ""
		if len(next.changed) > few {
			next.changed, more = next.changed[:few], " and others"
		}
		recorder.Eventf(p, nil, corev1.EventTypeNormal, "ConfigChanged", "Observe", "%s%s changed, which spec.update.onConfigChange restarts for",
			strings.Join(next.changed, ", "), more)
	}
	said := ""
	if p.Status.Config != nil {
		said = p.Status.Config.Message
	}
	if next.config != nil && next.config.Message != "" && next.config.Message != said {
		recorder.Eventf(p, nil, corev1.EventTypeWarning, "ConfigNotWatched", "Observe", "%s", next.config.Message)
	}
}
