package dbsync

import (
	"encoding/json"
	"fmt"

	"github.com/dory-io/dory/internal/store"
)

// rowWith makes a good row, and changes it.
func rowWith(changes ...func(*store.ProcessorRow)) store.ProcessorRow {
	row := store.ProcessorRow{
		ID: "cam-1", Namespace: "default", NodeType: store.NodeTypeManaged, Status: store.StatusActive,
		Source: store.SourceDatabase, Revision: 7, TemplateID: "t1", TemplateSlug: "camera", VersionID: "v1",
		ImageURI: "registry.example/camera:1.0", Version: "1.0", RuntimeConfig: json.RawMessage(`{}`), K8sName: "cam-1",
	}
	for _, change := range changes {
		change(&row)
	}
	return row
}

func config(text string) func(*store.ProcessorRow) {
	return func(r *store.ProcessorRow) { r.RuntimeConfig = json.RawMessage(text) }
}

// typicalConfig has what templates of the original have.
const typicalConfig = `{
	"resources": {"cpu_request": "250m", "memory_request": "256Mi", "cpu_limit": "1000m", "memory_limit": "1Gi",
		"gpu_required": false, "gpu_limit": ""},
	"container": {"port": 8080, "command": ["/app/run"], "args": ["--loop", "fast"], "image_pull_policy": "IfNotPresent"},
	"health_probes": {"initial_delay_sec": 5, "period_sec": 10, "timeout_sec": 3, "failure_threshold": 3},
	"env_vars": {"LOG_LEVEL": "info", "A": "1", "B": "2", "C": "3", "D": "4", "E": "5", "F": "6", "G": "7", "H": "8",
		"BROKER": "tcp://broker.example:1883", "TOPIC": "factory/line/4", "WINDOW": "30s"}}`

// manyRows are n processors of a few templates, every other one with a sensor.
func manyRows(n int) []store.ProcessorRow {
	rows := make([]store.ProcessorRow, n)
	for i := range rows {
		rows[i] = rowWith(config(typicalConfig), func(r *store.ProcessorRow) {
			r.ID = fmt.Sprintf("processor-%05d", i)
			r.VersionID = fmt.Sprintf("v%d", i%10)
			r.K8sName = r.ID
			if i%2 == 0 {
				r.Sensor = &store.Sensor{ID: fmt.Sprintf("s%d", i), Name: "Sensor", Type: "camera", Location: "hall", Config: json.RawMessage(`{"rate": 30}`)}
				r.SensorID = r.Sensor.ID
			}
		})
	}
	return rows
}
