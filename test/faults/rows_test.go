package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Rows that nobody thought of, each beside good ones: from the row to the pod.
func TestOddRows(t *testing.T) {
	w := newWorld(t)
	witness := w.watch()
	w.start(shared.shipped, alone)
	odd := []string{
		"UPPER_Case", "line 4 east", "目标 ✓", strings.Repeat("x", 300), strings.Repeat("é", 300), strings.Repeat("x", 299) + "y",
		"-dash-", "a.b", "it's \"quoted\"", "$(POD_NAME)", "tab\there",
	}
	for _, id := range odd {
		w.row(id)
	}
	w.largeEnvironment("large")
	w.row("good")
	err := w.try(`UPDATE processor_template_versions SET runtime_config_template = '{"container": ' WHERE processor_template_id = 't'`)
	if err == nil || !strings.Contains(err.Error(), "invalid input syntax for type json") {
		t.Errorf("broken JSON in a template: %v", err)
	}
	for _, id := range append(odd, "large", "good") {
		pod := w.runs(doryv1alpha1.ObjectName(id))
		if got := pod.Annotations[doryv1alpha1.AnnotationProcessorID]; got != id {
			t.Errorf("the pod of %q says that it is %q", id, got)
		}
		for _, env := range pod.Spec.Containers[0].Env {
			if env.Name == "PROCESSOR_ID" && strings.ReplaceAll(env.Value, "$$", "$") != id {
				t.Errorf("the process of %q is told that it is %q", id, env.Value)
			}
		}
	}
	witness.agrees(append(odd, "large", "good"))
}

// A row of a namespace that does not exist waits, says so, and becomes a pod when the namespace comes, long before the next
// resync.
func TestNamespaceThatComesLater(t *testing.T) {
	w := newWorld(t)
	w.watch()
	w.start(shared.shipped, alone, "--resync-interval=1h")
	w.runsRow("good")
	later := w.namespace + "-later"
	w.sql(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ('lost', 't', $1)`, later)
	told := func() error {
		message, err := ask[string](w, `SELECT coalesce(sync_error, '') FROM processors WHERE id = 'lost'`)
		if err == nil && !strings.Contains(message, later) {
			err = fmt.Errorf("sync_error is %q", message)
		}
		return err
	}
	w.until("the row is told", told)
	w.stays("it waits, when all passes of the start are over", 3*time.Second, told)

	w.must(shared.k8s.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: later}}))
	first := w.namespace
	w.namespace = later
	t.Cleanup(func() { w.wipe(); w.namespace = first })
	w.runs("lost")
	w.until("the row is told that all is well", func() error {
		if told() == nil {
			return errors.New("not yet")
		}
		return nil
	})
}

// largeEnvironment is a row with 1 MB of variables: as much as an object can hold.
func (w *world) largeEnvironment(id string) {
	w.Helper()
	variables := map[string]string{}
	for i := range 10 {
		variables[fmt.Sprint("BIG_", i)] = strings.Repeat("x", 100_000)
	}
	config, err := json.Marshal(map[string]any{"env_vars": variables})
	w.must(err)
	w.sql(`INSERT INTO processor_templates (id, slug) VALUES ($1, $1)`, "t-"+id)
	w.sql(`INSERT INTO processor_template_versions (processor_template_id, image_uri, version, is_active, runtime_config_template)
		VALUES ($1, $2, '1', true, $3)`, "t-"+id, image, string(config))
	w.sql(`INSERT INTO processors (id, processor_template_id, k8s_namespace) VALUES ($1, $2, $3)`, id, "t-"+id, w.namespace)
}

// Two ids that map to one object name: the second one is refused or waits, with words, and does not touch the first.
func TestTwoIDsOfOneName(t *testing.T) {
	const id = "Proc_6"
	w := newWorld(t)
	witness := w.watch()
	w.start(shared.shipped, alone)
	name := doryv1alpha1.ObjectName(id)
	w.apply("first", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = id })
	first := w.runs("first").UID
	w.apply("second", func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = name })
	w.until("the second one says why it does not run", func() error {
		p, err := w.get("second")
		if err != nil {
			return err
		}
		for _, condition := range p.Status.Conditions {
			if condition.Type == doryv1alpha1.ConditionReady && strings.Contains(condition.Message, id) {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", p.Status.Conditions)
	})
	w.stays("the first one runs on", time.Second, func() error {
		now, err := w.running("first")
		if err == nil && now.UID != first {
			err = errors.New("it was replaced")
		}
		return errors.Join(err, w.pods("second", 0))
	})
	witness.agrees([]string{id})
}
