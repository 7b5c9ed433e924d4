package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// journal is what watches of Processors and pods showed, and when. They are of metadata alone, so that watching takes
// little from what is measured.
type journal struct {
	clock clock.PassiveClock

	mu         sync.Mutex
	processors map[string][]processorEvent
	// pods has the times at which new pods of a Processor were seen.
	pods   map[string][]time.Time
	broken error
}

type processorEvent struct {
	at       time.Time
	revision int64
}

// watchAll starts both watches; they end with ctx.
func watchAll(ctx context.Context, config *rest.Config, clk clock.PassiveClock) (*journal, error) {
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	j := &journal{clock: clk, processors: map[string][]processorEvent{}, pods: map[string][]time.Time{}}
	for _, w := range []struct {
		resource schema.GroupVersionResource
		selector string
		note     func(watch.EventType, *metav1.PartialObjectMetadata)
	}{
		{doryv1alpha1.GroupVersion.WithResource("processors"), "", j.processor},
		{corev1.SchemeGroupVersion.WithResource("pods"), doryv1alpha1.LabelProcessor, j.pod},
	} {
		if err := j.watch(ctx, client.Resource(w.resource), w.selector, w.note); err != nil {
			return nil, fmt.Errorf("watching %s: %w", w.resource.Resource, err)
		}
	}
	return j, nil
}

func (j *journal) watch(ctx context.Context, client metadata.ResourceInterface, selector string, note func(watch.EventType, *metav1.PartialObjectMetadata)) error {
	list, err := client.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	watching, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: selector})
	if err != nil {
		return err
	}
	go func() {
		for event := range watching.ResultChan() {
			if object, ok := event.Object.(*metav1.PartialObjectMetadata); ok {
				note(event.Type, object)
			}
		}
		if ctx.Err() == nil {
			j.mu.Lock()
			j.broken = fmt.Errorf("a watch with the selector %q broke off", selector)
			j.mu.Unlock()
		}
	}()
	return nil
}

func (j *journal) processor(kind watch.EventType, o *metav1.PartialObjectMetadata) {
	now := j.clock.Now()
	if kind == watch.Deleted {
		return
	}
	revision, err := strconv.ParseInt(o.Annotations[doryv1alpha1.AnnotationRowRevision], 10, 64)
	if err != nil {
		return // not made from a row
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.processors[o.Name] = append(j.processors[o.Name], processorEvent{now, revision})
}

func (j *journal) pod(kind watch.EventType, o *metav1.PartialObjectMetadata) {
	now := j.clock.Now()
	if kind != watch.Added {
		return
	}
	name := o.Labels[doryv1alpha1.LabelProcessor]
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pods[name] = append(j.pods[name], now)
}

// answers says how long after a change its Processor and its pod followed; a negative time means not yet.
func (j *journal) answers(c change) (processor, pod time.Duration, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	processor, pod = -1, -1
	for _, event := range j.processors[c.id] {
		if event.revision >= c.revision {
			processor = event.at.Sub(c.at)
			break
		}
	}
	for _, at := range j.pods[c.id] {
		if at.After(c.at) {
			pod = at.Sub(c.at)
			break
		}
	}
	return processor, pod, j.broken
}
