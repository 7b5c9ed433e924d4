package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// ListProcessors reads the whole desired set: every row, of both sources, that is neither terminated nor
// failed, ordered by id. It fails as a whole or is complete: a row with a value that cannot be read is there, with its Err.
func (s *Store) ListProcessors(ctx context.Context) ([]ProcessorRow, error) {
	var found processorScan
	err := s.list(ctx, "list_processors", s.cfg.ListTimeout, found.row, listProcessorsSQL)
	if err != nil {
		return nil, err
	}
	return found.rows, nil
}

// GetProcessors reads those of the ids that are in the desired set; others are simply absent.
func (s *Store) GetProcessors(ctx context.Context, ids []string) ([]ProcessorRow, error) {
	ids = cleanIDs(ids)
	if len(ids) == 0 {
		return nil, nil
	}
	var found processorScan
	err := s.list(ctx, "get_processors", s.cfg.QueryTimeout, found.row, getProcessorsSQL, ids)
	if err != nil {
		return nil, err
	}
	return found.rows, nil
}

// CountProcessors counts the rows of processors.
func (s *Store) CountProcessors(ctx context.Context) (ProcessorCounts, error) {
	var counts ProcessorCounts
	err := s.run(ctx, "count_processors", s.cfg.QueryTimeout, func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, countProcessorsSQL).
			Scan(&counts.Database, &counts.DatabaseDesired, &counts.Kubernetes)
	})
	return counts, err
}

// processorScan collects the rows of one listing. A listing is one snapshot, so rows that join the same
// version, sensor or edge node can share it: with 10,000 processors on a few templates this is most of
// the memory.
type processorScan struct {
	rows      []ProcessorRow
	configs   map[string]json.RawMessage
	sensors   map[string]*Sensor
	edgeNodes map[string]*EdgeNodeRef
}

func (c *processorScan) row(rows pgx.Rows) error {
	var r ProcessorRow
	var config, sensorConfig pgtype.DriverBytes
	var sensor Sensor
	var edge EdgeNodeRef
	err := scanColumns(rows,
		&r.ID, &r.Namespace, &r.NodeType, &r.Status, &r.Source, &r.Revision,
		&r.TemplateID, &r.TemplateSlug, &r.VersionID, &r.ImageURI, &r.Digest, &r.Version, &config,
		&r.SensorID, &sensor.ID, &sensor.Name, &sensor.Type, &sensor.Location, &sensorConfig,
		&edge.ID, &edge.Name, &edge.KubernetesNode,
		&r.NodeSelector, &r.SyncError, &r.K8sName,
	)
	if r.Err, err = aboutRow(r.ID, err); err != nil {
		return fmt.Errorf("processor %q: %w", r.ID, err)
	}
	r.RuntimeConfig = intern(&c.configs, r.VersionID, func() json.RawMessage { return append(json.RawMessage(nil), config...) })
	r.Sensor = intern(&c.sensors, sensor.ID, func() *Sensor {
		sensor.Config = append(json.RawMessage(nil), sensorConfig...)
		return &sensor
	})
	r.EdgeNode = intern(&c.edgeNodes, edge.ID, func() *EdgeNodeRef { return &edge })
	c.rows = append(c.rows, r)
	return nil
}

// intern answers the value kept under a key, made on first sight; without a key there is no value.
func intern[V any](kept *map[string]V, key string, create func() V) V {
	if key == "" {
		var none V
		return none
	}
	if value, ok := (*kept)[key]; ok {
		return value
	}
	if *kept == nil {
		*kept = map[string]V{}
	}
	value := create()
	(*kept)[key] = value
	return value
}
