package meter

import (
	"context"

	"github.com/dory-io/dory/test/bench/rig"
)

// Operator is what the operator says of itself at one moment, and the kernel of its process.
type Operator struct {
	// Families are its metrics.
	Families Families
	// Process is the kernel's word.
	Process Process
}

// ReadOperator reads both.
func ReadOperator(ctx context.Context, o *rig.Operator) (Operator, error) {
	families, err := Scrape(ctx, o.Metrics)
	if err != nil {
		return Operator{}, err
	}
	process, err := ReadProcess(o.PID)
	return Operator{families, process}, err
}

// Writes counts the requests that the operator sent to the API server in order to write.
func (o Operator) Writes() float64 {
	return o.Families.Sum("rest_client_requests_total", func(l Labels) bool { return writing(l["method"]) })
}

// Reads counts its requests that read, those that start a watch included.
func (o Operator) Reads() float64 {
	return o.Families.Sum("rest_client_requests_total", func(l Labels) bool { return l["method"] == "GET" })
}

// HeapBytes is the memory that live objects took at the last garbage collection, and the garbage since.
func (o Operator) HeapBytes() float64 { return o.Families.Sum("go_memstats_heap_alloc_bytes", nil) }

// Passes counts the reconciler's passes.
func (o Operator) Passes() float64 {
	return o.Families.Sum("controller_runtime_reconcile_total", func(l Labels) bool { return l["controller"] == "lifecycle" })
}

// Busy says how much waits in its queues, is at work, or waits to be written back.
func (o Operator) Busy() float64 {
	return o.Families.Sum("workqueue_depth", nil) + o.Families.Sum("controller_runtime_active_workers", nil) +
		o.Families.Sum("dory_sync_status_pending", nil)
}

// Compared says whether both tables were compared with Kubernetes since the operator started.
func (o Operator) Compared() bool {
	tables := o.Families.By("dory_sync_pass_duration_seconds", func(l Labels) string { return l["table"] })
	return tables["processors"] > 0 && tables["edge_nodes"] > 0
}
