package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"

	"github.com/dory-io/dory/internal/statexfer"
)

// copies counts what was stored, while it is to be counted.
type copies struct {
	mu      sync.Mutex
	counted bool
	stored  int
	// ages are those that copies had reached when newer ones replaced them.
	ages []time.Duration
}

func (c *copies) count(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counted = on
}

func (c *copies) add(age time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counted {
		c.stored++
		c.ages = append(c.ages, age)
	}
}

// watchStored notes when the state of which processor is stored. It goes by the state ConfigMaps themselves and not by
// the operator's word, and asks for their metadata alone, so that watching costs little of what is measured.
func (b *bench) watchStored(ctx context.Context) error {
	client, err := metadata.NewForConfig(b.rig.Admin)
	if err != nil {
		return err
	}
	maps := client.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace)
	watching, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: statexfer.LabelStateOwner + "=true"})
	if err != nil {
		return fmt.Errorf("watching state ConfigMaps: %w", err)
	}
	go func() {
		defer watching.Stop()
		b.report(b.noteStored(ctx, watching.ResultChan()))
	}()
	return nil
}

var errWatchEnded = errors.New("the watch of the state ConfigMaps broke off")

func (b *bench) noteStored(ctx context.Context, events <-chan watch.Event) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-events:
			object, isMetadata := event.Object.(*metav1.PartialObjectMetadata)
			if !ok || !isMetadata {
				return fmt.Errorf("%w: %v", errWatchEnded, event.Object)
			}
			p := b.fleet.of(strings.TrimPrefix(object.Name, statexfer.ConfigMapPrefix))
			if p == nil || (event.Type != watch.Added && event.Type != watch.Modified) {
				continue
			}
			if age := p.keep(b.clock.Now()); age > 0 {
				b.copies.add(age)
			}
		}
	}
}
