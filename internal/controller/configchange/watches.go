package configchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// watches follow the metadata of the kinds that Processors refer to, in the namespaces where they do.
type watches struct {
	metadata metadata.Interface
	granter  granter
	// changed notes a change before the Processor is woken.
	changed func(types.NamespacedName)

	mu   sync.Mutex
	wake func(types.NamespacedName)
	// lifetime is the controller's; informers end with it, or when they are not needed any more.
	lifetime context.Context
	running  map[scope]context.CancelFunc
	of       map[types.NamespacedName][]object
	by       map[object]map[types.NamespacedName]bool
	grants   map[string]int
}

// scope is what one informer covers.
type scope struct {
	kind      doryv1alpha1.ConfigKind
	namespace string
}

type object struct {
	scope
	name string
}

func newWatches(client metadata.Interface, g granter, changed func(types.NamespacedName)) *watches {
	return &watches{
		metadata: client, granter: g, changed: changed, running: map[scope]context.CancelFunc{}, grants: map[string]int{},
		of: map[types.NamespacedName][]object{}, by: map[object]map[types.NamespacedName]bool{},
	}
}

func (w *watches) start(ctx context.Context, wake func(types.NamespacedName)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifetime, w.wake = ctx, wake
}

// follow sees to it that changes of the objects wake the Processor, and names the kinds that the operator may not watch.
func (w *watches) follow(ctx context.Context, key types.NamespacedName, references []pod.Reference) ([]doryv1alpha1.ConfigKind, error) {
	w.index(key, references)
	var refused []doryv1alpha1.ConfigKind
	for _, kind := range []doryv1alpha1.ConfigKind{doryv1alpha1.ConfigKindConfigMap, doryv1alpha1.ConfigKindSecret} {
		if !slices.ContainsFunc(references, func(r pod.Reference) bool { return r.Kind == kind }) {
			continue
		}
		switch err := w.ensure(ctx, scope{kind, key.Namespace}); {
		case apierrors.IsForbidden(err):
			refused = append(refused, kind)
		case err != nil:
			return nil, err
		}
	}
	w.sweep()
	return refused, nil
}

func (w *watches) forget(key types.NamespacedName) {
	w.index(key, nil)
	w.sweep()
}

// index notes who refers to what.
func (w *watches) index(key types.NamespacedName, references []pod.Reference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.of[key] {
		delete(w.by[o], key)
		if len(w.by[o]) == 0 {
			delete(w.by, o)
		}
	}
	delete(w.of, key)
	for _, r := range references {
		o := object{scope{r.Kind, key.Namespace}, r.Name}
		w.of[key] = append(w.of[key], o)
		if w.by[o] == nil {
			w.by[o] = map[types.NamespacedName]bool{}
		}
		w.by[o][key] = true
	}
}

// ensure starts the informer of a scope, if the operator may list what is in it.
func (w *watches) ensure(ctx context.Context, s scope) error {
	w.mu.Lock()
	_, runs := w.running[s]
	w.mu.Unlock()
	if runs {
		return nil
	}
	if err := w.try(ctx, s); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, runs := w.running[s]; runs || w.lifetime == nil {
		return nil
	}
	informer := metadatainformer.NewFilteredMetadataInformer(w.metadata, resourceOf(s.kind), s.namespace, 0, cache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(slim); err != nil {
		return fmt.Errorf("watching the %ss of namespace %s: %w", s.kind, s.namespace, err)
	}
	if _, err := informer.AddEventHandler(w.handler(s)); err != nil {
		return fmt.Errorf("watching the %ss of namespace %s: %w", s.kind, s.namespace, err)
	}
	lifetime, stop := context.WithCancel(w.lifetime)
	w.running[s] = stop
	delete(w.grants, s.namespace)
	go informer.RunWithContext(lifetime) //nolint:contextcheck // It outlives the look that found out that it is needed.
	return nil
}

// try answers with an error that is Forbidden where there is no right and none can be had, and with errTooSoon where one
// was given that does not hold yet.
func (w *watches) try(ctx context.Context, s scope) error {
	_, err := w.metadata.Resource(resourceOf(s.kind)).Namespace(s.namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err == nil {
		return nil
	}
	if apierrors.IsForbidden(err) && s.kind == doryv1alpha1.ConfigKindConfigMap && w.mayTry(s.namespace) {
		if err := w.granter.grant(ctx, s.namespace); err != nil {
			return err
		}
		return errTooSoon
	}
	return fmt.Errorf("looking whether the %ss of namespace %s can be watched: %w", s.kind, s.namespace, err)
}

const (
	// grantDelay is about what the API server takes to heed a new RoleBinding, and maxGrants how often that is waited for.
	grantDelay = 200 * time.Millisecond
	maxGrants  = 10
)

var errTooSoon = errors.New("the right to watch was granted just now")

// mayTry counts how often a namespace's right was waited for. After it was in vain, askAgain is soon enough.
func (w *watches) mayTry(namespace string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grants[namespace]++
	if w.grants[namespace] <= maxGrants {
		return true
	}
	delete(w.grants, namespace)
	return false
}

// sweep ends the informers that are not needed any more.
func (w *watches) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	needed := map[scope]bool{}
	for o := range w.by {
		needed[o.scope] = true
	}
	for s, stop := range w.running {
		if !needed[s] {
			stop()
			delete(w.running, s)
		}
	}
}

// handler wakes those that refer to what changed. Most news is of states, which are never referred to: one look into a map.
// What is gone is no news: nothing is ended for an instance that could not start.
func (w *watches) handler(s scope) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) { w.notify(s, o, initial) },
		UpdateFunc: func(before, after any) {
			was, isOld := before.(*metav1.PartialObjectMetadata)
			if is, isNew := after.(*metav1.PartialObjectMetadata); isOld && isNew && was.ResourceVersion != is.ResourceVersion {
				w.notify(s, after, false)
			}
		},
	}
}

// notify takes what is there at the start of a watch for nothing new, but has it looked at once more: it may be newer than
// what was read before the watch began.
func (w *watches) notify(s scope, o any, initial bool) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.by[object{s, m.Name}] {
		if !initial {
			w.changed(key)
		}
		w.wake(key)
	}
}

// slim keeps what tells one version of an object from another.
func slim(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
	}}, nil
}

func resourceOf(kind doryv1alpha1.ConfigKind) schema.GroupVersionResource {
	if kind == doryv1alpha1.ConfigKindSecret {
		return corev1.SchemeGroupVersion.WithResource("secrets")
	}
	return corev1.SchemeGroupVersion.WithResource("configmaps")
}
