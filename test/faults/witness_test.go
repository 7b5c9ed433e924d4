package faults

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/fence"
)

// witness sees every version of every pod and every epoch of a namespace, and remembers what may never be: two live pods of
// one id, a pod with an epoch that is not above that of the pod before it, an epoch that falls, and one with two holders.
type witness struct {
	w *world

	mu    sync.Mutex
	live  map[string]map[types.UID]string // names of live pods, by id
	born  map[types.UID]bool
	last  map[string]int64 // epoch of the last pod, by id
	epoch map[string]doryv1alpha1.ProcessorEpochSpec
	wrong []string
	gaps  int
}

// watch begins to see. What it saw is judged at the test's end.
func (w *world) watch() *witness {
	w.Helper()
	return w.watchAll(func() client.ObjectList { return &corev1.PodList{} }, func() client.ObjectList { return &doryv1alpha1.ProcessorEpochList{} })
}

// watchEpochs is for tests of moves, in which a processor has two live pods: which of them acted when, their own lines say.
func (w *world) watchEpochs() {
	w.Helper()
	w.watchAll(func() client.ObjectList { return &doryv1alpha1.ProcessorEpochList{} })
}

func (w *world) watchAll(lists ...func() client.ObjectList) *witness {
	w.Helper()
	s := &witness{
		w: w, live: map[string]map[types.UID]string{}, born: map[types.UID]bool{}, last: map[string]int64{},
		epoch: map[string]doryv1alpha1.ProcessorEpochSpec{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var seeing sync.WaitGroup
	for _, list := range lists {
		started := make(chan struct{})
		seeing.Go(func() { s.follow(ctx, list, sync.OnceFunc(func() { close(started) })) })
		<-started
	}
	w.Cleanup(func() {
		cancel()
		seeing.Wait()
		s.judge()
	})
	return s
}

// judge fails the test for all that was wrong.
func (s *witness) judge() {
	s.w.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, wrong := range s.wrong {
		s.w.Error(wrong)
	}
	s.wrong = nil
}

// births is how many pods have ever been.
func (s *witness) births() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.born)
}

// follow lists, and then sees every change; where the API server has forgotten some, it lists again.
func (s *witness) follow(ctx context.Context, newList func() client.ObjectList, started func()) {
	for version := ""; ctx.Err() == nil; {
		if version == "" {
			var err error
			if version, err = s.list(ctx, newList()); err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
		}
		events, err := shared.k8s.Watch(ctx, newList(), &client.ListOptions{Namespace: s.w.namespace, Raw: &metav1.ListOptions{ResourceVersion: version}})
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				version = ""
				s.gap()
			}
			continue
		}
		started()
		version = s.see(events, version)
		events.Stop()
	}
}

func (s *witness) gap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps++
}

func (s *witness) list(ctx context.Context, list client.ObjectList) (string, error) {
	if err := shared.k8s.List(ctx, list, client.InNamespace(s.w.namespace)); err != nil {
		return "", err
	}
	switch all := list.(type) {
	case *corev1.PodList:
		s.forget()
		for i := range all.Items {
			s.pod(watch.Added, &all.Items[i])
		}
	case *doryv1alpha1.ProcessorEpochList:
		for i := range all.Items {
			s.fence(watch.Added, &all.Items[i])
		}
	}
	return list.GetResourceVersion(), nil
}

// forget leaves the live pods to be listed anew.
func (s *witness) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.live)
}

// see answers from where to see on; empty if that is not known.
func (s *witness) see(events watch.Interface, version string) string {
	for event := range events.ResultChan() {
		switch object := event.Object.(type) {
		case *corev1.Pod:
			s.pod(event.Type, object)
			version = object.ResourceVersion
		case *doryv1alpha1.ProcessorEpoch:
			s.fence(event.Type, object)
			version = object.ResourceVersion
		default:
			s.gap()
			return ""
		}
	}
	return version
}

func isLive(pod *corev1.Pod) bool { return !fence.Ended(pod) }

func (s *witness) pod(event watch.EventType, pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := pod.Annotations[doryv1alpha1.AnnotationProcessorID]
	if id == "" {
		id = pod.Labels[doryv1alpha1.LabelProcessorID]
	}
	if s.live[id] == nil {
		s.live[id] = map[types.UID]string{}
	}
	delete(s.live[id], pod.UID)
	if event != watch.Deleted && isLive(pod) {
		s.live[id][pod.UID] = pod.Name
	}
	if len(s.live[id]) > 1 {
		s.wrong = append(s.wrong, fmt.Sprintf("two live pods of processor %q: %v", id, s.live[id]))
	}
	if !s.born[pod.UID] {
		s.born[pod.UID] = true
		s.birth(id, pod)
	}
}

func (s *witness) birth(id string, pod *corev1.Pod) {
	text, hasEpoch := pod.Labels[doryv1alpha1.LabelEpoch]
	if !hasEpoch {
		return // Not made by the operator.
	}
	epoch, err := strconv.ParseInt(text, 10, 64)
	if err != nil || epoch <= s.last[id] {
		s.wrong = append(s.wrong, fmt.Sprintf("pod %s of processor %q was made with epoch %q, after one with epoch %d", pod.Name, id, text, s.last[id]))
	}
	s.last[id] = max(s.last[id], epoch)
}

func (s *witness) fence(event watch.EventType, epoch *doryv1alpha1.ProcessorEpoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.epoch[epoch.Name], epoch.Spec
	if now.Epoch < before.Epoch {
		s.wrong = append(s.wrong, fmt.Sprintf("the epoch of %s fell from %d to %d", epoch.Name, before.Epoch, now.Epoch))
	}
	if event != watch.Deleted && now.Epoch == before.Epoch && before.Holder != now.Holder && now.Holder != "" {
		s.wrong = append(s.wrong, fmt.Sprintf("epoch %d of %s went from %q to %q", now.Epoch, epoch.Name, before.Holder, now.Holder))
	}
	s.epoch[epoch.Name] = now
}

// agrees sees that the end is as it should be: one live pod for each of the ids, and a database that knows every epoch.
func (s *witness) agrees(ids []string) {
	s.w.Helper()
	for _, id := range ids {
		epoch, err := s.w.epoch(id)
		s.w.must(err)
		s.w.until("the witness has seen all of "+id, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.live[id]) != 1 || s.last[id] != epoch.Spec.Epoch {
				return fmt.Errorf("live pods %v, last epoch %d; the ProcessorEpoch says %+v", s.live[id], s.last[id], epoch.Spec)
			}
			return nil
		})
		inDatabase, err := ask[int64](s.w, `SELECT epoch FROM processor_epochs WHERE processor_id = $1`, id)
		s.w.must(err)
		if inDatabase < epoch.Spec.Epoch {
			s.w.Errorf("the database knows epoch %d of %s, the ProcessorEpoch %d", inDatabase, id, epoch.Spec.Epoch)
		}
	}
}
