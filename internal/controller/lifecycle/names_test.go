package lifecycle

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// A label of the target's pod holds the name of its ProcessorMigration: one that does not fit is refused, and so would be
// every later one.
func TestEveryUpdateOfTheLongestNameHasOneThatFits(t *testing.T) {
	long := strings.Repeat("c", 45)
	o := given(epoch(7, "a"), instancePod("a", 7))
	o.key.Name, o.processor.Name = long, long
	revision := pod.Revision(o.processor, "")
	var names []string
	for range 12 {
		name := updateName(o, revision)
		if problems := validation.IsValidLabelValue(name); len(problems) > 0 {
			t.Errorf("update %d is called %q: %v", len(names)+1, name, problems)
		}
		names = append(names, name)
		o.migrations = append(o.migrations, &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	slices.Sort(names)
	if distinct := len(slices.Compact(names)); distinct != 12 {
		t.Errorf("%d names for 12 updates: %v", distinct, names)
	}
	other := strings.Repeat("c", 44) + "d"
	o.key.Name, o.migrations = other, nil
	if slices.Contains(names, updateName(o, revision)) {
		t.Errorf("the updates of two Processors of one spec are both called %s", updateName(o, revision))
	}
}
