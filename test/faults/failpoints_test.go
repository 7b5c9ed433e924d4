package faults

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Every failpoint is of a room whose failpoints are met.
func TestFailpointsHaveTests(t *testing.T) {
	known := failpointsOf("fence", "lifecycle", "drain", "migration")
	for _, name := range shared.failpoints {
		if !slices.Contains(known, name) {
			t.Errorf("no test meets the failpoint %s", name)
		}
	}
}

// What users get has nothing of the failpoints: neither their library nor a trace of their names.
func TestShippedBinaryHasNoFailpoints(t *testing.T) {
	if len(shared.failpoints) == 0 {
		t.Fatal("no failpoint was found in the sources")
	}
	for binary, want := range map[string]bool{shared.shipped: false, shared.brittle: true} {
		content, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range append(slices.Clone(shared.failpoints), "gofail", "GOFAIL_FAILPOINTS") {
			if got := bytes.Contains(content, []byte(word)); got != want {
				t.Errorf("%s in %s: %t", word, binary, got)
			}
		}
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		for _, module := range info.Deps {
			if !want && strings.Contains(module.Path, "gofail") {
				t.Errorf("%s is built with %s", binary, module.Path)
			}
		}
	}
}

// gofail talks to the failpoints of a brittle operator.
func (o *operator) gofail(ctx context.Context, method, path, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+o.failpoints+"/"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if response.StatusCode >= http.StatusBadRequest {
		err = errors.Join(err, fmt.Errorf("%s: %s", response.Status, text))
	}
	return string(text), err
}

// holdAt lets whoever comes to the failpoint stay there.
func (o *operator) holdAt(failpoint string, d time.Duration) {
	o.t.Helper()
	if _, err := o.gofail(o.t.Context(), http.MethodPut, failpoint, fmt.Sprintf("sleep(%d)", d.Milliseconds())); err != nil {
		o.t.Fatal(err)
	}
}

// arrives waits until somebody is there.
func (w *world) arrives(o *operator, failpoint string) {
	w.Helper()
	w.until("the operator comes to "+failpoint, func() error {
		count, err := o.gofail(w.Context(), http.MethodGet, failpoint+"/count", "")
		if err == nil && count == "0" {
			err = errors.New("not yet")
		}
		return err
	})
}

// story leads an operator to a failpoint.
type story struct {
	// before brings the Processor of the name to where the story begins.
	before func(w *world, name string)
	// then makes the operator act.
	then func(w *world, name string)
	// ends is how it ends, with or without a fault.
	ends func(w *world, name string)
}

var stories = map[string]story{
	"starts": {
		before: func(*world, string) {},
		then:   func(w *world, name string) { w.apply(name) },
		ends:   func(w *world, name string) { w.runs(name) },
	},
	"is replaced": {
		before: func(w *world, name string) { w.apply(name); w.runs(name) },
		then:   func(w *world, name string) { w.deletePod(w.runs(name)) },
		ends: func(w *world, name string) {
			w.until("the second pod is the only one", func() error {
				pod, err := w.running(name)
				if err == nil && pod.Labels[doryv1alpha1.LabelEpoch] == "1" {
					err = errors.New("it is the first")
				}
				return errors.Join(err, w.onePod(name))
			})
		},
	},
	"is suspended": {
		before: func(w *world, name string) { w.apply(name); w.runs(name) },
		then: func(w *world, name string) {
			w.modify(name, func(p *doryv1alpha1.Processor) { p.Spec.Suspend = new(true) })
		},
		ends: func(w *world, name string) {
			w.until("it is suspended, and its epoch is free", func() error {
				p, err := w.get(name)
				epoch, epochErr := w.epoch(name)
				if err == nil && epochErr == nil && (p.Status.Phase != doryv1alpha1.ProcessorSuspended || epoch.Spec.Holder != "") {
					err = fmt.Errorf("phase %s, holder %q", p.Status.Phase, epoch.Spec.Holder)
				}
				return errors.Join(err, epochErr, w.pods(name, 0))
			})
		},
	},
	"is adopted": {
		before: func(w *world, name string) {
			w.must(shared.k8s.Create(w.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "legacy-" + name, Labels: map[string]string{
					doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy, doryv1alpha1.LabelProcessorID: name,
				}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
			}))
		},
		then: func(w *world, name string) { w.apply(name) },
		ends: func(w *world, name string) {
			if pod := w.runs(name); pod.Name != "legacy-"+name {
				w.Errorf("pod %s runs instead of the one that ran before", pod.Name)
			}
		},
	},
	"is recreated": {
		before: func(w *world, name string) { w.apply(name, recreated); w.runs(name) },
		then: func(w *world, name string) {
			w.modify(name, func(p *doryv1alpha1.Processor) { p.Spec.Args = []string{"again"} })
		},
		ends: func(w *world, name string) {
			w.until("it is of the new version, and nothing else is kept", func() error {
				pod, err := w.running(name)
				if err == nil && len(pod.Spec.Containers[0].Args) == 0 {
					err = errors.New("it is the first")
				}
				return errors.Join(err, w.onePod(name), w.kept(0))
			})
		},
	},
	"comes back": {
		before: func(w *world, name string) { w.apply(name, recreated); w.runs(name) },
		then: func(w *world, name string) {
			w.modify(name, func(p *doryv1alpha1.Processor) { p.Spec.Image = crashingImage })
		},
		ends: func(w *world, name string) {
			w.until("the version that worked is back", func() error {
				pod, err := w.running(name)
				if err == nil && pod.Labels[doryv1alpha1.LabelEpoch] == "1" {
					err = errors.New("it is the first")
				}
				return errors.Join(err, w.onePod(name), w.kept(1))
			})
			w.must(shared.k8s.Delete(w.Context(), &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}))
			w.until("its pods are gone", func() error { return w.pods(name, 0) })
			w.must(shared.k8s.DeleteAllOf(w.Context(), &appsv1.ControllerRevision{}, client.InNamespace(w.namespace)))
		},
	},
	"leaves its node": {
		before: func(w *world, name string) { w.counts(name, onReserved) },
		then: func(w *world, name string) {
			w.taint(w.worksOn(name).Spec.NodeName, leaving)
		},
		ends: func(w *world, name string) {
			w.until("it has left its node", func() error {
				node, err := w.node(w.worksOn(name).Spec.NodeName)
				if err == nil && len(node.Spec.Taints) > 1 {
					err = fmt.Errorf("it is on node %s, which is drained", node.Name)
				}
				return errors.Join(err, w.allEnded(name))
			})
			w.wants(w.prove(name).whole())
		},
	},
	"may stay": {
		before: func(w *world, name string) {
			w.counts(name, onReserved)
			source := w.worksOn(name)
			w.taintOthers(source.Spec.NodeName) // First, so that there is nowhere to go from the beginning.
			w.taint(source.Spec.NodeName, leaving)
			w.until("the move waits for a node", func() error {
				all, err := w.migrations(name)
				if err == nil && (len(all) != 1 || all[0].Status.Phase != doryv1alpha1.MigrationPlacing) {
					err = fmt.Errorf("%d moves", len(all))
				}
				return err
			})
		},
		then: func(w *world, name string) { w.taint(w.worksNow(name).Spec.NodeName) },
		ends: func(w *world, name string) {
			w.until("the move was called off", func() error { return w.allEnded(name) })
			if pod := w.worksOn(name); pod.Labels[doryv1alpha1.LabelEpoch] != "1" {
				w.Errorf("pod %s of epoch %s works instead of the first", pod.Name, pod.Labels[doryv1alpha1.LabelEpoch])
			}
		},
	},
	"is sent away before its node leaves": {
		before: func(w *world, name string) {
			w.counts(name, onReserved)
			source := w.worksOn(name)
			w.taintOthers(source.Spec.NodeName)
			w.move(name, name+"-drain-1", func(m *doryv1alpha1.ProcessorMigration) {
				m.Spec.Reason, m.Spec.SourcePod = doryv1alpha1.MigrationDrain, source.Name
			})
		},
		then: func(w *world, name string) { w.taint(w.worksNow(name).Spec.NodeName, leaving) },
		ends: func(w *world, name string) {
			w.until("the move knows for the sake of which node it is", func() error {
				all, err := w.migrations(name)
				if err == nil && (len(all) != 1 || all[0].Labels[doryv1alpha1.LabelDrainedNode] == "") {
					err = fmt.Errorf("%+v", all)
				}
				return err
			})
		},
	},
}

func recreated(p *doryv1alpha1.Processor) {
	p.Spec.Update = &doryv1alpha1.ProcessorUpdate{Strategy: doryv1alpha1.UpdateRecreate}
}

// kept counts the versions that are kept.
func (w *world) kept(want int) error {
	var list appsv1.ControllerRevisionList
	err := shared.k8s.List(w.Context(), &list, client.InNamespace(w.namespace))
	if err == nil && len(list.Items) != want {
		err = fmt.Errorf("%d versions are kept", len(list.Items))
	}
	return err
}

func (w *world) node(name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	return node, shared.k8s.Get(w.Context(), client.ObjectKey{Name: name}, node)
}

// taintOthers lets every other reserved node be left.
func (w *world) taintOthers(than string) {
	w.Helper()
	for _, node := range reservedNodes {
		if node != than {
			w.taint(node, leaving)
		}
	}
}

// worksNow is the pod that holds the epoch, also while another one starts.
func (w *world) worksNow(name string) *corev1.Pod {
	w.Helper()
	epoch, err := w.epoch(name)
	w.must(err)
	pod, err := w.pod(epoch.Spec.Holder)
	w.must(err)
	return pod
}

func (w *world) allEnded(name string) error {
	all, err := w.migrations(name)
	if err == nil && len(all) == 0 {
		return errors.New("there is no move")
	}
	for i := range all {
		err = errors.Join(err, unended(&all[i]))
	}
	return err
}

func (w *world) onePod(name string) error { return w.pods(name, 1) }

// pods counts also those that have ended.
func (w *world) pods(name string, want int) error {
	var pods corev1.PodList
	err := shared.k8s.List(w.Context(), &pods, client.InNamespace(w.namespace), client.MatchingLabels{doryv1alpha1.LabelProcessor: name})
	if err == nil && len(pods.Items) != want {
		err = fmt.Errorf("%d pods", len(pods.Items))
	}
	return err
}

// storyOf says which story comes to which failpoint. A failpoint without a story fails the test below.
var storyOf = map[string]string{
	"fenceBeforeLedger":      "starts",
	"fenceBeforeRecord":      "starts",
	"fenceAfterRecord":       "starts",
	"lifecycleBeforeCreate":  "starts",
	"lifecycleAfterCreate":   "starts",
	"lifecycleBeforeStatus":  "starts",
	"lifecycleAfterStatus":   "starts",
	"lifecycleAfterUnfence":  "is replaced",
	"lifecycleBeforeRemove":  "is suspended",
	"lifecycleAfterRemove":   "is suspended",
	"lifecycleBeforeRelease": "is suspended",
	"lifecycleAfterRelease":  "is suspended",
	"lifecycleBeforeAdopt":   "is adopted",
	"lifecycleBeforeKeep":    "is recreated",
	"lifecycleAfterKeep":     "is recreated",
	"lifecycleBeforeForget":  "is recreated",
	"lifecycleBeforeRevert":  "comes back",
	"lifecycleAfterRevert":   "comes back",
	"drainBeforeMake":        "leaves its node",
	"drainAfterMake":         "leaves its node",
	"drainBeforeCallOff":     "may stay",
	"drainAfterCallOff":      "may stay",
	"drainBeforeLabel":       "is sent away before its node leaves",
	"drainAfterLabel":        "is sent away before its node leaves",
}

// failpointsOf are those whose names begin so.
func failpointsOf(rooms ...string) []string {
	return slices.DeleteFunc(slices.Clone(shared.failpoints), func(name string) bool {
		return !slices.ContainsFunc(rooms, func(room string) bool { return strings.HasPrefix(name, room) })
	})
}

// The operator is killed at every failpoint of the way from a Processor to its pod and back.
func TestOperatorKilledAtEachFailpoint(t *testing.T) {
	w := newWorld(t)
	w.watch()
	w.killAtEach(failpointsOf("fence", "lifecycle"), func(string) {})
}

// The same at every write of a drain's own. The steps of its moves are met in TestOperatorKilledAtEachStepOfAMove.
func TestOperatorKilledAtEachWriteOfADrain(t *testing.T) {
	w := newWorld(t)
	w.watchEpochs()
	w.killAtEach(failpointsOf("drain"), func(name string) {
		// What is left would be in the way of the next.
		w.must(shared.k8s.Delete(t.Context(), &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}))
		w.until("its pods are gone", func() error { return w.pods(name, 0) })
		w.welcomeAll()
	})
}

func (w *world) killAtEach(failpoints []string, tidy func(name string)) {
	w.Helper()
	if len(failpoints) == 0 {
		w.Fatal("there is no such failpoint any more")
	}
	o := w.start(shared.brittle, alone)
	for i, failpoint := range failpoints {
		story, ok := stories[storyOf[failpoint]]
		if !ok {
			w.Errorf("no story comes to the failpoint %s: add it to storyOf", failpoint)
			continue
		}
		name := fmt.Sprintf("f-%d", i)
		story.before(w, name)
		w.holdSoon(o, failpoint)
		story.then(w, name)
		w.arrives(o, failpoint)
		o.kill()
		o = w.start(shared.brittle, alone)
		story.ends(w, name)
		tidy(name)
	}
}

// holdSoon waits for the operator's start.
func (w *world) holdSoon(o *operator, failpoint string) {
	w.Helper()
	w.until("the operator listens", func() error {
		_, err := o.gofail(w.Context(), http.MethodPut, failpoint, "sleep(600000)")
		return err
	})
}

// A leader is frozen at a failpoint, wakes up when another leads and has done the work, and goes on where it was.
func TestLeaderOvertakenAtAFailpoint(t *testing.T) {
	w := newWorld(t)
	w.watch()
	r := &replicas{w: w}
	r.add(shared.brittle)
	r.add(shared.brittle)
	for i, failpoint := range []string{"fenceBeforeLedger", "fenceBeforeRecord", "lifecycleBeforeCreate"} {
		story, name := stories[storyOf[failpoint]], fmt.Sprintf("o-%d", i)
		leader := r.leader()
		story.before(w, name)
		leader.holdAt(failpoint, 500*time.Millisecond)
		story.then(w, name)
		w.arrives(leader, failpoint)
		leader.signal(syscall.SIGSTOP)
		r.without(leader)
		r.expire()
		r.leader()
		story.ends(w, name)
		leader.signal(syscall.SIGCONT)
		r.add(shared.brittle)
		w.stays("what was done meanwhile", 2*time.Second, func() error { return nil })
		leader.kill()
		story.ends(w, name)
	}
}
