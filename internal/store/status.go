package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxTextLength bounds what is written back, in characters: long enough for any message that a person will
// read, short enough to keep the row in its page.
const maxTextLength = 4000

// SetSyncErrors writes processors.sync_error by id; an empty message clears it. Only rows that differ are
// written, and ids without a row are ignored. It returns how many rows changed.
func (s *Store) SetSyncErrors(ctx context.Context, messages map[string]string) (int, error) {
	return s.setSyncErrors(ctx, "set_sync_errors", setSyncErrorsSQL, messages)
}

// SetEdgeNodeSyncErrors is SetSyncErrors for edge_nodes.
func (s *Store) SetEdgeNodeSyncErrors(ctx context.Context, messages map[string]string) (int, error) {
	return s.setSyncErrors(ctx, "set_edge_node_sync_errors", setEdgeNodeSyncErrorsSQL, messages)
}

func (s *Store) setSyncErrors(ctx context.Context, query, sql string, messages map[string]string) (int, error) {
	if len(messages) == 0 {
		return 0, nil
	}
	ids := slices.Sorted(maps.Keys(messages))
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = cleanText(messages[id])
		ids[i] = cleanText(id)
	}
	return s.exec(ctx, query, sql, ids, texts)
}

// UpdateStatuses writes the batch back in one statement. A row is written only if something other than
// last_health_check_at differs; no revision rises and nobody is notified. Of several entries for one id the
// last counts. It returns how many rows changed.
func (s *Store) UpdateStatuses(ctx context.Context, statuses []ProcessorStatus) (int, error) {
	if len(statuses) == 0 {
		return 0, nil
	}
	var c statusColumns
	for _, status := range lastByID(statuses) {
		c.add(status)
	}
	return s.exec(ctx, "update_statuses", updateStatusesSQL,
		c.ids, c.health, c.checked, c.pods, c.ips, c.nodes, c.phases, c.epochs, c.names)
}

// statusColumns is a batch turned into one array for each column, as unnest takes it.
type statusColumns struct {
	ids, health, pods, ips, nodes, phases, names []string
	checked                                      []*time.Time
	epochs                                       []int64
}

func (c *statusColumns) add(s ProcessorStatus) {
	var checked *time.Time
	if !s.CheckedAt.IsZero() {
		checked = &s.CheckedAt
	}
	c.ids = append(c.ids, cleanText(s.ID))
	c.health = append(c.health, cleanText(s.HealthStatus))
	c.checked = append(c.checked, checked)
	c.pods = append(c.pods, cleanText(s.Pod))
	c.ips = append(c.ips, cleanText(s.PodIP))
	c.nodes = append(c.nodes, cleanText(s.Node))
	c.phases = append(c.phases, cleanText(s.Phase))
	c.epochs = append(c.epochs, s.Epoch)
	c.names = append(c.names, cleanText(s.K8sName))
}

// lastByID drops all but the last entry of each id, because an UPDATE with two candidates for one row takes
// either.
func lastByID(statuses []ProcessorStatus) []ProcessorStatus {
	last := make(map[string]ProcessorStatus, len(statuses))
	for _, s := range statuses {
		last[s.ID] = s
	}
	return slices.SortedFunc(maps.Values(last), func(a, b ProcessorStatus) int { return strings.Compare(a.ID, b.ID) })
}

// cleanText makes a string one that PostgreSQL accepts as text, so that one odd message from a pod does not
// fail the whole batch: valid UTF-8, no NUL, bounded.
func cleanText(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= maxTextLength {
		return s
	}
	if runes := []rune(s); len(runes) > maxTextLength {
		return string(runes[:maxTextLength-1]) + "…"
	}
	return s
}

// cleanIDs is cleanText for ids to look up: what cannot be stored is not found, instead of an error.
func cleanIDs(ids []string) []string {
	cleaned := make([]string, len(ids))
	for i, id := range ids {
		cleaned[i] = cleanText(id)
	}
	return cleaned
}
