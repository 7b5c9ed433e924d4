package drain

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Those who change a spec and wait for a condition wait for one about that spec, whichever controller writes it. The one
// condition that is missing here is DatabaseSynced, which needs a database.
func TestEveryConditionIsAboutTheSpecThatThereIs(t *testing.T) {
	w := newWorld(t)
	w.start(alone).ready()
	w.counter("cam", "n1")
	w.follow("cam")
	w.change("cam", func(p *doryv1alpha1.Processor) { p.Spec.Env[0].Value = "3ms" })
	w.follow("cam")
	w.change("cam", func(p *doryv1alpha1.Processor) { p.Spec.Migration.HistoryLimit = new(int32(9)) }) // Which moves nothing.
	w.follow("cam")
	for _, condition := range []string{doryv1alpha1.ConditionCheckpointed, doryv1alpha1.ConditionProgressing, doryv1alpha1.ConditionMigratable} {
		output, err := shared.kubectl(t.Context(), "wait", "--for=condition="+condition, "--timeout=1s", "-n", w.namespace, "processor/cam")
		if err != nil {
			t.Errorf("%v: %s", err, output)
		}
	}
	w.cancelledAfterItsEnd()
}

// change edits a Processor, as a person does.
func (w *world) change(name string, change func(*doryv1alpha1.Processor)) {
	w.Helper()
	w.until("the change of "+name, func() error {
		p := &doryv1alpha1.Processor{}
		if err := shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, p); err != nil {
			return err
		}
		change(p)
		return shared.k8s.Update(w.Context(), p)
	})
}

// follow waits until every condition is there, and about the present generation.
func (w *world) follow(name string) {
	w.Helper()
	kinds := []string{
		doryv1alpha1.ConditionReady, doryv1alpha1.ConditionUpdated, doryv1alpha1.ConditionCheckpointed,
		doryv1alpha1.ConditionProgressing, doryv1alpha1.ConditionMigratable,
	}
	w.until("every condition is about the present generation", func() error {
		p := &doryv1alpha1.Processor{}
		if err := shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, p); err != nil {
			return err
		}
		for _, kind := range kinds {
			at := slices.IndexFunc(p.Status.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
			if at < 0 || p.Status.Conditions[at].Status != metav1.ConditionTrue {
				return fmt.Errorf("%s is missing in %+v", kind, p.Status.Conditions)
			}
		}
		return about(p.Status.Conditions, p.Generation)
	})
}

func about(conditions []metav1.Condition, generation int64) error {
	for _, c := range conditions {
		if c.ObservedGeneration != generation {
			return fmt.Errorf("%s is about generation %d, and %d is the present one: %+v", c.Type, c.ObservedGeneration, generation, c)
		}
	}
	return nil
}

// cancelledAfterItsEnd: a move that is called off too late keeps its condition, about the spec that calls it off.
func (w *world) cancelledAfterItsEnd() {
	w.Helper()
	var list doryv1alpha1.ProcessorMigrationList
	w.until("the update has ended", func() error {
		w.must(shared.k8s.List(w.Context(), &list, client.InNamespace(w.namespace)))
		if len(list.Items) == 0 || !list.Items[0].Ended() {
			return fmt.Errorf("%+v", list.Items)
		}
		return about(list.Items[0].Status.Conditions, list.Items[0].Generation)
	})
	m := &list.Items[0]
	w.until("a cancel that comes too late", func() error {
		if err := shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(m), m); err != nil {
			return err
		}
		m.Spec.Cancel = new(true)
		return shared.k8s.Update(w.Context(), m)
	})
	w.until("it is acknowledged", func() error {
		w.must(shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(m), m))
		return about(m.Status.Conditions, m.Generation)
	})
	if m.Status.Phase != doryv1alpha1.MigrationSucceeded || len(m.Status.Conditions) != 1 {
		w.Errorf("status %+v", m.Status)
	}
}
