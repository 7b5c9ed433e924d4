package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/test/processkubelet"
)

// counterPort is where all counters listen, each at an address of its own.
var counterPort struct {
	once sync.Once
	port int32
}

func (w *world) port() int32 {
	counterPort.once.Do(func() { counterPort.port = processkubelet.Port(w.T) })
	return counterPort.port
}

// counts makes a Processor that counts, and waits until it does.
func (w *world) counts(name string, change ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	w.Helper()
	p := w.apply(name, append([]func(*doryv1alpha1.Processor){w.counter}, change...)...)
	w.worksOn(name)
	return p
}

// counter makes a counter of a Processor.
func (w *world) counter(p *doryv1alpha1.Processor) {
	p.Spec.Image, p.Spec.Port = counterImage, w.port()
	p.Spec.Env = []corev1.EnvVar{{Name: "COUNTER_INTERVAL", Value: "20ms"}}
	p.Spec.TerminationGracePeriodSeconds = 10
	p.Spec.State = &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: time.Second}}
	p.Spec.Migration = &doryv1alpha1.ProcessorMigrationPolicy{StartTimeoutSeconds: 60, HandoffTimeoutSeconds: 60, HistoryLimit: new(int32(1))}
}

func by(strategy doryv1alpha1.MigrationStrategy) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = strategy }
}

// move asks for one.
func (w *world) move(processor, name string, change ...func(*doryv1alpha1.ProcessorMigration)) *doryv1alpha1.ProcessorMigration {
	w.Helper()
	m := &doryv1alpha1.ProcessorMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: doryv1alpha1.ProcessorMigrationSpec{Processor: processor},
	}
	for _, c := range change {
		c(m)
	}
	w.must(shared.k8s.Create(w.Context(), m))
	return m
}

// migration is the move as it is now.
func (w *world) migration(m *doryv1alpha1.ProcessorMigration) *doryv1alpha1.ProcessorMigration {
	w.Helper()
	fresh := m.DeepCopy()
	w.must(w.read(fresh))
	return fresh
}

func (w *world) read(m *doryv1alpha1.ProcessorMigration) error {
	return shared.k8s.Get(w.Context(), client.ObjectKeyFromObject(m), m)
}

func (w *world) migrations(processor string) ([]doryv1alpha1.ProcessorMigration, error) {
	var all doryv1alpha1.ProcessorMigrationList
	err := shared.k8s.List(w.Context(), &all, client.InNamespace(w.namespace))
	return slices.DeleteFunc(all.Items, func(m doryv1alpha1.ProcessorMigration) bool { return m.Spec.Processor != processor }), err
}

// ends waits for the end of a move.
func (w *world) ends(m *doryv1alpha1.ProcessorMigration) doryv1alpha1.ProcessorMigrationStatus {
	w.Helper()
	var fresh *doryv1alpha1.ProcessorMigration
	w.until("the end of "+m.Name, func() error {
		fresh = w.migration(m)
		return unended(fresh)
	})
	return fresh.Status
}

func unended(m *doryv1alpha1.ProcessorMigration) error {
	if !m.Ended() || len(m.Finalizers) > 0 {
		return fmt.Errorf("%s is %s: %s: %s, finalizers %v", m.Name, m.Status.Phase, m.Status.Reason, m.Status.Message, m.Finalizers)
	}
	return nil
}

// reaches waits until a move has come to a phase.
func (w *world) reaches(m *doryv1alpha1.ProcessorMigration, phase doryv1alpha1.MigrationPhase) {
	w.Helper()
	w.until(fmt.Sprint(m.Name, " is ", phase), func() error {
		if is := w.migration(m).Status; is.Phase != phase {
			return fmt.Errorf("%s: %s: %s", is.Phase, is.Reason, is.Message)
		}
		return nil
	})
}

func (w *world) pod(name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, shared.k8s.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, pod)
}

func (w *world) lines(processor string) []processkubelet.Line {
	return shared.kubelet.Lines(w.namespace, map[string]string{doryv1alpha1.LabelProcessor: processor})
}

// worksOn waits until one pod alone is left, which holds the epoch, is told to act, and acts from now on. It answers the pod.
func (w *world) worksOn(processor string) *corev1.Pod {
	w.Helper()
	since := time.Now()
	var pod *corev1.Pod
	w.until(processor+" works on", func() error {
		pods, err := w.livePods(processor)
		if err != nil {
			return err
		}
		if len(pods) != 1 {
			return fmt.Errorf("%d live pods", len(pods))
		}
		pod = &pods[0]
		return w.acts(processor, pod, since)
	})
	return pod
}

func (w *world) acts(processor string, pod *corev1.Pod, since time.Time) error {
	p, err := w.get(processor)
	if err != nil {
		return err
	}
	epoch, err := w.epoch(p.ID())
	if err != nil {
		return err
	}
	role := pod.Annotations[doryv1alpha1.AnnotationRole]
	if epoch.Spec.Holder != pod.Name || role != doryv1alpha1.RolePrimary || pod.Labels[doryv1alpha1.LabelEpoch] != strconv.FormatInt(epoch.Spec.Epoch, 10) {
		return fmt.Errorf("pod %s is %s of epoch %s; the ProcessorEpoch says %+v", pod.Name, role, pod.Labels[doryv1alpha1.LabelEpoch], epoch.Spec)
	}
	if !since.IsZero() && !w.hasWorked(processor, pod.Name, since) {
		return fmt.Errorf("pod %s has not worked since %s", pod.Name, since)
	}
	return nil
}

// actsOn waits until this pod holds the epoch and acts, whatever other pods there are.
func (w *world) actsOn(processor, name string) {
	w.Helper()
	since := time.Now()
	w.until(name+" works on", func() error {
		pod, err := w.pod(name)
		if err != nil {
			return err
		}
		return w.acts(processor, pod, since)
	})
}

func (w *world) hasWorked(processor, pod string, since time.Time) bool {
	for _, line := range slices.Backward(w.lines(processor)) {
		if line.At.Before(since) {
			return false
		}
		if line.Pod == pod && strings.HasPrefix(line.Text, "{") {
			return true
		}
	}
	return false
}

// proof is what "counter verify" says of all that the pods of a processor have printed; see examples/counter.
type proof struct {
	Lines        int64 `json:"lines"`
	Lost         int64 `json:"lost"`
	Repeated     int64 `json:"repeated"`
	Broken       int64 `json:"broken"`
	Unlogged     int64 `json:"unlogged"`
	EpochFell    int64 `json:"epochFell"`
	Overlaps     int64 `json:"overlaps"`
	SharedEpochs int64 `json:"sharedEpochs"`
	SequenceFell int64 `json:"sequenceFell"`
	Pods         int   `json:"pods"`
}

func (w *world) prove(processor string) proof {
	w.Helper()
	var input strings.Builder
	for _, line := range w.lines(processor) {
		input.WriteString(line.Text + "\n")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(w.Context(), shared.counter, "verify", "--sort")
	cmd.Stdin, cmd.Stderr = strings.NewReader(input.String()), &stderr
	output, err := cmd.Output()
	var said proof
	if parsed := json.Unmarshal(output, &said); parsed != nil {
		w.Fatalf("counter verify: %v, %v\n%s", err, parsed, &stderr)
	}
	return said
}

// onePrimary is nil where no two instances ever acted at once, and no epoch fell.
func (p proof) onePrimary() error {
	if p.Lines == 0 || p.EpochFell+p.Overlaps+p.SharedEpochs+p.Broken != 0 {
		return fmt.Errorf("two PRIMARYs: %+v", p)
	}
	return nil
}

// whole is nil where, moreover, every iteration was done once.
func (p proof) whole() error {
	err := p.onePrimary()
	if p.Lost+p.Repeated+p.Unlogged+p.SequenceFell != 0 {
		err = errors.Join(err, fmt.Errorf("the chain is not whole: %+v", p))
	}
	return err
}

// atLeastOnce is nil where no iteration was left out.
func (p proof) atLeastOnce() error {
	if p.Lines == 0 || p.Lost+p.Broken+p.Unlogged != 0 {
		return fmt.Errorf("an iteration is missing: %+v", p)
	}
	return nil
}

func (w *world) wants(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

// vanishes waits until a pod has ended.
func (w *world) vanishes(pod string) {
	w.Helper()
	w.until(pod+" has ended", func() error {
		found, err := w.pod(pod)
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && isLive(found):
			return fmt.Errorf("phase %s", found.Status.Phase)
		}
		return err
	})
}
