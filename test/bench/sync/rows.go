package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// namespaces share the rows.
	namespaces = 10
	// templates share the rows too.
	templates = 20
	// populateTimeout is generous: two cores bring 20 to 40 processors a second all the way to Running.
	populateTimeout = 30 * time.Minute
)

// seedSQL makes templates, a sensor for each processor, and the processors. A camera's processor is what most rows
// are: a template with a handful of variables, and a sensor with its address.
var seedSQL = []string{
	`INSERT INTO processor_templates (id, slug, name)
	 SELECT 'template-' || i, 'analytics-' || i, 'Analytics ' || i FROM generate_series(1, $1::int) i`,
	`INSERT INTO processor_template_versions (id, processor_template_id, image_uri, digest, version, is_active, runtime_config_template)
	 SELECT 'version-' || i, 'template-' || i, 'registry.example/analytics/module-' || i, 'sha256:' || repeat('0123456789abcdef', 4), '1.4.2', true,
	        '{"resources": {"cpu_request": "250m", "memory_request": "256Mi", "cpu_limit": "1", "memory_limit": "1Gi"},
	          "env_vars": {"MODEL": "yolo-v9-s", "FRAMES_PER_SECOND": 12, "LOG_LEVEL": "info", "OUTPUT": "kafka://broker:9092/events"},
	          "health_probes": {"initial_delay_sec": 10}}'
	   FROM generate_series(1, $1::int) i`,
}

const seedSensorsSQL = `INSERT INTO sensors (id, name, type, location, config)
 SELECT 'sensor-' || i, 'Camera ' || i, 'camera', 'Hall ' || i % 40,
        jsonb_build_object('url', 'rtsp://10.20.0.7:554/stream/' || i, 'width', 1920, 'height', 1080, 'zones', '[[0,0,10,10],[5,5,20,20]]'::jsonb)
   FROM generate_series(1, $1::int) i`

const seedProcessorsSQL = `INSERT INTO processors (id, processor_template_id, sensor_id, k8s_namespace, status)
 SELECT 'camera-' || i, 'template-' || 1 + i % $2::int, 'sensor-' || i, 'site-' || i % $3::int,
        CASE WHEN i % $4::int = 0 THEN 'suspended' ELSE 'active' END
   FROM generate_series(1, $1::int) i`

// suspendedEvery is how many processors there are for each suspended one.
const suspendedEvery = 10

// insertSQL adds one processor whose sensor is there, and updateSQL changes the spec of one to what it has never
// been: two changes that undo each other would rightly lead to no write.
const (
	insertSQL = `INSERT INTO processors (id, processor_template_id, sensor_id, k8s_namespace)
	 VALUES ($1, $2, $3, $4) RETURNING revision`
	updateSQL = `UPDATE processors SET node_selector = jsonb_build_object('change', $2::text) WHERE id = $1 RETURNING revision`
)

func rowID(i int) string { return fmt.Sprintf("camera-%d", i) }

// populate fills the table and waits until everything runs.
func (b *bench) populate(ctx context.Context) error {
	if err := b.makeNamespaces(ctx); err != nil {
		return err
	}
	pool := b.rig.Database.Pool()
	for _, sql := range seedSQL {
		if _, err := pool.Exec(ctx, sql, templates); err != nil {
			return fmt.Errorf("inserting templates: %w", err)
		}
	}
	// Sensors for the rows that come later, too: those are to be changes of one row.
	if _, err := pool.Exec(ctx, seedSensorsSQL, b.rows+b.changes()); err != nil {
		return fmt.Errorf("inserting sensors: %w", err)
	}
	if _, err := pool.Exec(ctx, "ANALYSE"); err != nil {
		return err
	}
	b.progress.Say("inserting %d rows", b.rows)
	began := b.clock.Now()
	if _, err := pool.Exec(ctx, seedProcessorsSQL, b.rows, templates, namespaces, suspendedEvery); err != nil {
		return fmt.Errorf("inserting processors: %w", err)
	}
	if err := b.waitRunning(ctx, b.rows-b.rows/suspendedEvery); err != nil {
		return err
	}
	b.figures["populate_s"] = b.clock.Since(began).Round(time.Second).Seconds()
	_, err := pool.Exec(ctx, "VACUUM ANALYSE")
	return err
}

// waitRunning waits until the rows themselves say that so many run.
func (b *bench) waitRunning(ctx context.Context, want int) error {
	last := b.clock.Now()
	running := 0
	err := wait.PollUntilContextTimeout(ctx, time.Second, populateTimeout, true, func(ctx context.Context) (bool, error) {
		err := b.rig.Database.Pool().QueryRow(ctx, "SELECT count(*) FROM processors WHERE phase = 'Running'").Scan(&running)
		if err != nil {
			return false, err
		}
		const between = 20 * time.Second
		if b.clock.Since(last) >= between {
			b.progress.Say("%d of %d run", running, want)
			last = b.clock.Now()
		}
		return running >= want, b.rig.Check()
	})
	if err != nil {
		return fmt.Errorf("waiting until all processors run (%d of %d do): %w", running, want, err)
	}
	b.progress.Say("all %d run", running)
	return nil
}
