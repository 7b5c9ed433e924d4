package dbsync

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// runPass compares the whole table with all objects. It only queues what differs, and never writes a spec itself:
// what it has read may be old by the time it has read it all.
func (s *rowSync) runPass(ctx context.Context, what scope) error {
	start := s.options.Clock.Now()
	found, err := s.kind.list(ctx)
	s.health.report(ctx, err)
	if err != nil {
		return err
	}
	inv, err := takeInventory(ctx, s.reader, s.kind)
	if err != nil {
		return err
	}
	s.book.keepOnly(found.wanted)
	s.view.forgetOld()
	if what >= contents {
		if err := s.compare(ctx, found, inv); err != nil {
			return err
		}
	}
	err = s.sweep(ctx, found, inv, what)
	s.metrics.passDuration.WithLabelValues(s.kind.table()).Observe(s.options.Clock.Since(start).Seconds())
	return err
}

// compare queues the rows whose objects, conditions or sync_errors are not as they should be.
func (s *rowSync) compare(ctx context.Context, found listing, inv *inventory) error {
	namespaces, err := s.namespaces(ctx)
	if err != nil {
		return err
	}
	var differing []string
	for row := range found.each {
		if s.unsettled(row, inv, namespaces) {
			differing = append(differing, row.id)
		}
	}
	s.later(differing...)
	s.countTroubles()
	if s.kind.table() == (processors{}).table() {
		s.metrics.applications.Set(float64(found.owning))
	}
	return nil
}

// unsettled says whether there is anything to do about a row, and notes a row in error.
func (s *rowSync) unsettled(row desired, inv *inventory, namespaces map[string]bool) bool {
	at := situation{row: row, refusal: s.book.refusal(row.id, row.revision), noNamespace: row.key.Namespace != "" && !namespaces[row.key.Namespace]}
	if cached, ok := inv.byKey[row.key]; ok {
		at.current = cached
	}
	if at.current = s.view.latest(row.key, at.current); at.current == nil && s.kind.staysPut() {
		at.current = settlement(row, inv.withID(row.id))
	}
	if at.current != nil {
		at.compare(s.kind)
	}
	d := decide(at)
	s.book.set(row.id, trouble{problem: d.problem, key: row.key, revision: row.revision, refused: d.problem != "" && d.problem == at.refusal})
	if s.unlisted != nil && at.same && row.knownName != at.current.GetName() {
		s.unlisted(row.id)
	}
	return !d.settled(at)
}

// namespaces has the names of the namespaces that objects can be made in.
func (s *rowSync) namespaces(ctx context.Context) (map[string]bool, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := s.reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the namespaces from the cache: %w", err)
	}
	names := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		names[list.Items[i].Name] = list.Items[i].DeletionTimestamp == nil
	}
	return names, nil
}
