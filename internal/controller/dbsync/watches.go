package dbsync

import (
	"context"
	"fmt"
	"maps"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// watch adds the handlers to the informers, and returns what takes them off again.
func (s *Syncer) watch(ctx context.Context, informers cache.Informers) (func(), error) {
	var undo []func()
	stop := func() {
		for _, f := range undo {
			f()
		}
	}
	for _, w := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&doryv1alpha1.Processor{}, s.onProcessor()},
		{&doryv1alpha1.EdgeNode{}, s.onEdgeNode()},
		{newNamespace(), s.onNamespace()},
	} {
		informer, err := informers.GetInformer(ctx, w.object)
		if err != nil {
			stop()
			return nil, fmt.Errorf("watching %T: %w", w.object, err)
		}
		registration, err := informer.AddEventHandler(w.handler)
		if err != nil {
			stop()
			return nil, fmt.Errorf("watching %T: %w", w.object, err)
		}
		undo = append(undo, func() {
			if err := informer.RemoveEventHandler(registration); err != nil {
				log.FromContext(ctx).V(1).Info("Taking a handler off an informer failed", "cause", err.Error())
			}
		})
	}
	return stop, nil
}

// onProcessor feeds the sync of rows, the registrar, and the writer of statuses. What is there at the start
// needs no rows read: the first pass does that.
func (s *Syncer) onProcessor() toolscache.ResourceEventHandler {
	return handler{
		added: func(o client.Object, initially bool) {
			p := asProcessor(o)
			s.statuses.mark(p.ID(), false)
			if !initially {
				s.processors.added(p)
				s.register(p)
			}
		},
		updated: func(before, after client.Object) {
			old, p := asProcessor(before), asProcessor(after)
			s.processors.updated(old, p)
			if StatusOf(old) != StatusOf(p) || owned(old) != owned(p) {
				s.statuses.mark(p.ID(), false)
			}
			if old.Generation != p.Generation || onceOwned(old) != onceOwned(p) {
				s.register(p)
			}
		},
		deleted: func(o client.Object) {
			p := asProcessor(o)
			if s.statuses.speaks(p) {
				s.statuses.mark(p.ID(), false)
			}
			s.processors.deleted(p)
			s.register(p)
		},
	}
}

// register queues a Processor of people.
func (s *Syncer) register(p *doryv1alpha1.Processor) {
	if !owned(p) || s.registrar.has(p) {
		s.registrar.queue.AddWithOpts(priorityqueue.AddOpts{}, entryOf(p))
	}
}

func (s *Syncer) onEdgeNode() toolscache.ResourceEventHandler {
	return handler{
		added: func(o client.Object, initially bool) {
			if !initially {
				s.edgeNodes.added(o)
			}
		},
		updated: s.edgeNodes.updated,
		deleted: s.edgeNodes.deleted,
	}
}

// onNamespace brings back the rows that waited for a namespace.
func (s *Syncer) onNamespace() toolscache.ResourceEventHandler {
	return handler{added: func(o client.Object, initially bool) {
		if !initially {
			s.processors.hint(s.processors.book.inNamespace(o.GetName())...)
		}
	}}
}

// added: an object that appears may be one that no row asks for, or that differs from its row.
func (s *rowSync) added(o client.Object) {
	if ours := s.view.seen(o); !ours && owned(o) {
		s.hint(s.kind.idOf(o))
	}
}

// updated: an object of ours that others changed goes back to what its row says.
func (s *rowSync) updated(before, after client.Object) {
	if ours := s.view.seen(after); ours || (!onceOwned(before) && !onceOwned(after)) {
		return
	}
	if before.GetGeneration() != after.GetGeneration() || !maps.Equal(before.GetLabels(), after.GetLabels()) ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations()) {
		s.hint(s.kind.idOf(after))
	}
}

// deleted: an object comes back if its row is there, and its name is free for a row that waited for it.
func (s *rowSync) deleted(o client.Object) {
	s.view.seenGone(o)
	if id := s.kind.idOf(o); onceOwned(o) || s.book.has(id) {
		s.hint(id)
	}
	if s.guard.isHolding() {
		s.pass.request(deletionsOnly) // With one less, the others may be free to go.
	}
	s.hint(s.book.waitingFor(client.ObjectKeyFromObject(o))...)
}

// handler makes an informer's handler of three functions, each of which may be nil.
type handler struct {
	added   func(o client.Object, initially bool)
	updated func(before, after client.Object)
	deleted func(o client.Object)
}

// OnAdd implements toolscache.ResourceEventHandler.
func (h handler) OnAdd(obj any, initially bool) {
	if o, ok := obj.(client.Object); ok && h.added != nil {
		h.added(o, initially)
	}
}

// OnUpdate implements toolscache.ResourceEventHandler.
func (h handler) OnUpdate(before, after any) {
	old, wasObject := before.(client.Object)
	if o, ok := after.(client.Object); ok && wasObject && h.updated != nil {
		h.updated(old, o)
	}
}

// OnDelete implements toolscache.ResourceEventHandler.
func (h handler) OnDelete(obj any) {
	if missed, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = missed.Obj
	}
	if o, ok := obj.(client.Object); ok && h.deleted != nil {
		h.deleted(o)
	}
}
