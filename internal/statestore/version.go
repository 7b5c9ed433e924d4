package statestore

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// Key says whose state is meant.
type Key struct {
	// Namespace of the processor.
	Namespace string
	// Processor is the name of the object, which the names of chunks are made from.
	Processor string
	// ProcessorID is the identity that the state belongs to.
	ProcessorID string
	// ConfigMap is where the SDK looks for the state.
	ConfigMap string
	// Former is another ConfigMap where the state may be, though that may also be another processor's; or empty.
	Former string
}

// KeyOf is the Key of a Processor.
func KeyOf(p *doryv1alpha1.Processor) Key {
	return Key{
		Namespace: p.Namespace, Processor: p.Name, ProcessorID: p.ID(),
		ConfigMap: pod.StateConfigMapName(p), Former: pod.FormerStateConfigMapName(p),
	}
}

// KeyOfInstance is the Key of a Processor whose instance may have been made by an operator of before, and looks where that said.
// One that was told today's place has no other: what was elsewhere was copied there before it started, and what arrives elsewhere
// later is of an instance of before, and older.
func KeyOfInstance(p *doryv1alpha1.Processor, instance *corev1.Pod) Key {
	key := KeyOf(p)
	if key.Former == "" || instance == nil {
		return key
	}
	switch pod.StateConfigMapOf(instance) {
	case key.ConfigMap:
		key.Former = ""
	case key.Former:
		key.ConfigMap, key.Former = key.Former, key.ConfigMap
	}
	return key
}

// Current is the Key of where this instance's own saves go, without the place of before.
func (k Key) Current() Key {
	k.Former = ""
	return k
}

// clockGrain is by what two times must differ to be different. A document tells its time as a fraction of seconds,
// which loses a microsecond on the way.
const clockGrain = time.Millisecond

// Version says which of two copies of a processor's state is newer: that of the higher epoch, then that of the higher
// sequence. Where the processor's SDK counts nothing, the sequence is 0 in all of its copies, and the time decides,
// which is the clock of one and the same pod within an epoch.
type Version struct {
	statexfer.Position
	// Time of the capture.
	Time time.Time
	// uncounted: the document tells no position at all, as SDKs save that know none. The epoch was found out, and the
	// sequence is not known, also where the operator's own copies of the same instance tell it.
	uncounted bool
}

// Compare is negative where v is older than w, positive where it is newer, and 0 where they are the same.
func (v Version) Compare(w Version) int {
	if v.uncounted || w.uncounted {
		v.Sequence, w.Sequence = 0, 0
	}
	return cmp.Or(v.Position.Compare(w.Position), compareTimes(v.Time, w.Time))
}

func compareTimes(a, b time.Time) int {
	if d := a.Sub(b); d > -clockGrain && d < clockGrain {
		return 0
	}
	return a.Compare(b)
}

// String is for messages.
func (v Version) String() string {
	at := v.Time.UTC().Format(time.RFC3339)
	if v.Sequence == 0 {
		return fmt.Sprintf("epoch %d of %s", v.Epoch, at)
	}
	return fmt.Sprintf("epoch %d sequence %d of %s", v.Epoch, v.Sequence, at)
}

// Recorded is the version that a Processor's status tells of, and whether it tells of one. The status knows whole
// seconds only.
func Recorded(p *doryv1alpha1.Processor) (Version, bool) {
	c := p.Status.Checkpoint
	if c == nil {
		return Version{}, false
	}
	v := Version{Position: statexfer.Position{Epoch: c.Epoch}, Time: c.Time.Time}
	if c.Sequence != nil {
		v.Sequence = *c.Sequence
	}
	return v, true
}

// Lineage knows under which epoch a pod acted. Not every SDK writes the epoch into the state that it saves, but all
// of them write the name of their pod.
type Lineage struct {
	// Epoch is the current one, and Holder its pod; empty once that pod is proven gone.
	Epoch  int64
	Holder string
	// Instance is the pod of the last instance that the Processor's status tells of, and InstanceEpoch its epoch.
	Instance      string
	InstanceEpoch int64
}

// LineageOf reads it off a Processor and its epoch, which may be nil.
func LineageOf(p *doryv1alpha1.Processor, epoch *doryv1alpha1.ProcessorEpoch) Lineage {
	var l Lineage
	if epoch != nil {
		l.Epoch, l.Holder = epoch.Spec.Epoch, epoch.Spec.Holder
	}
	if instance := p.Status.Instance; instance != nil {
		l.Instance, l.InstanceEpoch = instance.Pod, instance.Epoch
	}
	return l
}

// knows says whether it is known which pod acted under the epoch.
func (l Lineage) knows(epoch int64) bool {
	return (l.Holder != "" && l.Epoch == epoch) || (l.Instance != "" && l.InstanceEpoch == epoch)
}

// epochOf is under which epoch a pod acted, as far as is known; others are pods that documents name with their epoch.
// A pod that nobody knows was there before the holder, so its late save counts as older than everything. Only while
// there is no holder, it is taken for the last one: all pods are proven gone then, and the last to go was the last to
// save.
func (l Lineage) epochOf(pod string, others map[string]int64) int64 {
	switch {
	case pod != "" && pod == l.Holder:
		return l.Epoch
	case pod != "" && pod == l.Instance:
		return l.InstanceEpoch
	}
	if epoch, ok := others[pod]; ok && pod != "" {
		return epoch
	}
	if l.Holder == "" {
		return l.Epoch
	}
	return 0
}
