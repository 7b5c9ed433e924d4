package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/dory-io/dory/test/bench/meter"
	"github.com/dory-io/dory/test/bench/profile"
	"github.com/dory-io/dory/test/bench/report"
	"github.com/dory-io/dory/test/bench/rig"
)

const (
	orderStatefulSetsFirst = "statefulset-first"
	orderDoryFirst         = "dory-first"
)

type bench struct {
	n, nodes              int
	order, root, operator string
	clock                 clock.Clock
	operatorFlags         []string
	profiler              profile.Profiler

	progress *report.Progress
	rig      *rig.Rig
	process  *rig.Operator
	server   *meter.APIServer
	database *meter.Database
	clients  *kubernetes.Clientset
	figures  report.Figures
}

// phase is one of the two things that are compared.
type phase interface {
	// name is the namespace too.
	name() string
	// create creates the i-th object.
	create(ctx context.Context, i int) error
	// settled counts the objects whose own status says that they run.
	settled(ctx context.Context) (int, error)
	// remove asks for the end of all objects.
	remove(ctx context.Context) error
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.order != orderStatefulSetsFirst && b.order != orderDoryFirst {
		return fmt.Errorf("-order=%s: use %s or %s", b.order, orderStatefulSetsFirst, orderDoryFirst)
	}
	b.progress = report.NewProgress(b.clock)
	busy, err := meter.Busy(ctx, b.clock, b.progress.Say)
	if err != nil {
		return err
	}
	b.figures = report.Figures{"n": b.n, "nodes": b.nodes, "order": b.order, "machine_busy_before_pct": busy}
	defer func() {
		if b.rig != nil {
			err = errors.Join(err, b.rig.Close())
		}
	}()
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.compare(ctx); err != nil {
		return errors.Join(err, b.rig.Check())
	}
	return b.figures.Print()
}

func (b *bench) start(ctx context.Context) error {
	var err error
	b.rig, err = rig.Start(ctx, rig.Options{Root: b.root, Operator: b.operator, Nodes: b.nodes, Controllers: []string{"*"}, Clock: b.clock, Progress: b.progress.Say})
	if err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(b.rig.Admin); err != nil {
		return err
	}
	if b.server, err = meter.NewAPIServer(b.rig.Admin); err != nil {
		return err
	}
	b.profiler.Clients = b.clients
	b.database = meter.NewDatabase(b.rig.Database.Pool())
	b.progress.Say("starting the operator")
	b.process, err = b.rig.StartOperator(ctx, b.operatorFlags...)
	return err
}

// compare runs both phases, one after the other, with nothing left of the first when the second begins.
func (b *bench) compare(ctx context.Context) error {
	sets, processors, err := b.phases(ctx)
	if err != nil {
		return err
	}
	measured := []func(context.Context) error{
		func(ctx context.Context) error { return b.measureStatefulSets(ctx, sets) },
		func(ctx context.Context) error { return b.measureDory(ctx, processors) },
	}
	phases := []phase{sets, processors}
	if b.order == orderDoryFirst {
		measured[0], measured[1] = measured[1], measured[0]
		phases[0], phases[1] = phases[1], phases[0]
	}
	if err := measured[0](ctx); err != nil {
		return err
	}
	if err := b.clear(ctx, phases[0]); err != nil {
		return err
	}
	if err := measured[1](ctx); err != nil {
		return err
	}
	statefulSets, ok := b.figures["statefulset_s"].(float64)
	dory, alsoOK := b.figures["dory_s"].(float64)
	if ok && alsoOK {
		b.figures["ratio"] = meter.Rounded(dory/statefulSets, 3)
	}
	return nil
}

func (b *bench) phases(ctx context.Context) (*statefulSets, *processors, error) {
	made, err := newProcessors(b.rig.Admin)
	if err != nil {
		return nil, nil, err
	}
	template, err := made.podTemplate()
	if err != nil {
		return nil, nil, err
	}
	sets := &statefulSets{clients: b.clients, template: template}
	for _, p := range []phase{sets, made} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.name()}}
		if _, err := b.clients.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
			return nil, nil, fmt.Errorf("creating namespace %s: %w", p.name(), err)
		}
	}
	return sets, made, nil
}

func (b *bench) measureStatefulSets(ctx context.Context, sets *statefulSets) error {
	profiled := b.profiler.Take(ctx, b.process, "scale-statefulset")
	took, err := b.measure(ctx, sets)
	if err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	b.figures["statefulset_s"] = seconds(took.pods)
	b.figures["statefulset_status_s"] = seconds(took.status)
	b.figures["statefulset_cpu_s"] = rounded(took.cpu)
	b.figures["all_api_writes_per_statefulset"] = meter.Rounded(took.serverWrites/float64(b.n), 2)
	return nil
}

func (b *bench) measureDory(ctx context.Context, made *processors) error {
	before, err := b.observeOperator(ctx)
	if err != nil {
		return err
	}
	profiled := b.profiler.Take(ctx, b.process, "scale-dory")
	took, err := b.measure(ctx, made)
	if err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	after, err := b.observeOperator(ctx)
	if err != nil {
		return err
	}
	each := func(total float64) float64 { return meter.Rounded(total/float64(b.n), 2) }
	b.figures["dory_s"] = seconds(took.pods)
	b.figures["dory_status_s"] = seconds(took.status)
	b.figures["dory_cpu_s"] = rounded(took.cpu)
	b.figures["all_api_writes_per_processor"] = each(took.serverWrites)
	b.figures["api_writes_per_processor"] = each(after.Writes() - before.Writes())
	b.figures["api_reads_per_processor"] = each(after.Reads() - before.Reads())
	b.figures["passes_per_processor"] = each(after.Passes() - before.Passes())
	b.figures["operator_cpu_ms_per_processor"] = each(float64((after.Process.CPU - before.Process.CPU).Milliseconds()))
	b.figures["operator_rss_mb"] = meter.Rounded(float64(after.Process.RSS)/(1<<20), 0)
	statements := meter.Difference(before.statements, after.statements)
	b.figures["sql_per_processor"] = each(meter.Total(statements))
	b.progress.Table("SQL statements of the operator", statements, b.n)
	b.progress.Table("requests of the operator to the API server", meter.Difference(before.requests(), after.requests()), b.n)
	return nil
}

func rounded(values map[string]float64) map[string]float64 {
	short := map[string]float64{}
	for name, value := range values {
		short[name] = meter.Rounded(value, 1)
	}
	return short
}

func seconds(d time.Duration) float64 { return meter.Rounded(d.Seconds(), 2) }
